"""Laws of MIDI files: mido and pretty_midi read back the tempo map, the bars, the sections and the chords, at the times of the song."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import subprocess
import sys

import numpy as np
import pytest

from mflamingo_cli.measure.chords import QUALITIES
from mflamingo_cli.render import WRITERS, Layout
from mflamingo_cli.render.midi import INTERVALS
from mflamingo_cli.schema import KeyInfo, Segment
from tests.render.test_dj import BEATS, TAGGED
from tests.render.test_formats import FAILED

TICK_S = 0.001  # at 60 BPM and faster
START_S = 0.35  # of the first downbeat
MONTAGE = dataclasses.replace(
    TAGGED,
    result=dataclasses.replace(
        TAGGED.result,
        beats=tuple((round(0.1 + START_S + n * 0.5 - 0.6, 3), (n - 1) % 4 + 1) for n in range(1, 128)),
        chords=(Segment(0.35, 2.35, "C:maj"), Segment(2.35, 4.35, "N"), Segment(4.35, 8.35, "F#:min7")),
        sections=(Segment(0.0, 16.35, "A"), Segment(16.35, 64.4, "B")),
    ),
)


def midi(record) -> bytes:
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding="utf-8")
    WRITERS["midi"].writer(stream, Layout()).write(record)
    stream.flush()
    return content.getvalue()


def opened(record):
    mido = pytest.importorskip("mido")
    return mido.MidiFile(file=io.BytesIO(midi(record)))


def timed(record, track: int):
    """Messages of a track with their times in seconds, by mido's own clock."""
    mido = pytest.importorskip("mido")
    file = opened(record)
    tempi, at = [], 0
    for message in file.tracks[0]:
        at += message.time
        if message.type == "set_tempo":
            tempi.append((at, message.tempo))
    found, at = [], 0
    for message in file.tracks[track]:
        at += message.time
        seconds = 0.0
        for (tick, tempo), end in zip(tempi, [*(tick for tick, _ in tempi[1:]), 1 << 60], strict=True):
            seconds += mido.tick2second(max(0, min(at, end) - tick), file.ticks_per_beat, tempo)
        found.append((seconds, message))
    return found


def with_beats(*beats):
    return dataclasses.replace(MONTAGE, result=dataclasses.replace(MONTAGE.result, beats=tuple(beats)))


def test_sections_and_chords_are_where_they_are_in_the_song():
    markers = [(at, message.text) for at, message in timed(MONTAGE, 0) if message.type == "marker"]
    assert markers == [(pytest.approx(0.0, abs=TICK_S), "A"), (pytest.approx(16.35, abs=TICK_S), "B")]
    names = [(round(at, 2), message.text) for at, message in timed(MONTAGE, 1) if message.type == "text"]
    assert names == [(0.35, "C"), (4.35, "F#m7")]
    notes = [(round(at, 2), message.note) for at, message in timed(MONTAGE, 1) if message.type == "note_on"]
    assert notes == [(0.35, 48), (0.35, 52), (0.35, 55), (4.35, 54), (4.35, 57), (4.35, 61), (4.35, 64)]
    ends = [round(at, 2) for at, message in timed(MONTAGE, 1) if message.type == "note_off"]
    assert ends == [2.35] * 3 + [8.35] * 4


def test_bars_begin_on_downbeats():
    pretty_midi = pytest.importorskip("pretty_midi")
    read = pretty_midi.PrettyMIDI(io.BytesIO(midi(MONTAGE)))
    assert read.get_downbeats()[1:4] == pytest.approx([0.35, 2.35, 4.35], abs=TICK_S)
    assert read.key_signature_changes[0].key_number == 15  # E flat minor


@pytest.mark.parametrize(
    ("name", "signs", "mode"), [("C major", 0, 0), ("F# major", 6, 0), ("Db major", -5, 0), ("B minor", 2, 1), ("Eb minor", 6, 1)]
)
def test_a_key_is_written_by_its_signs(name, signs, mode):
    keyed = dataclasses.replace(MONTAGE, result=dataclasses.replace(MONTAGE.result, key=KeyInfo(name=name)))
    data = midi(keyed)
    at = data.index(b"\xff\x59\x02")
    assert (int.from_bytes(data[at + 3 : at + 4], "big", signed=True), data[at + 4]) == (signs, mode)


def test_a_change_of_tempo_is_in_the_map_and_later_beats_stay_in_place():
    later = [(round(BEATS[-1][0] + n * 60 / 140, 3), n % 4 + 1) for n in range(1, 97)]
    song = with_beats(*BEATS, *later)
    bpm = [60e6 / message.tempo for _, message in timed(song, 0) if message.type == "set_tempo"]
    assert bpm[1] == pytest.approx(120, abs=0.05)
    assert bpm[-1] == pytest.approx(140, abs=0.05)
    last = dataclasses.replace(song, result=dataclasses.replace(song.result, sections=(Segment(later[-1][0], 200.0, "end"),)))
    [(at, _)] = [(at, message) for at, message in timed(last, 0) if message.type == "marker"]
    assert at == pytest.approx(later[-1][0], abs=TICK_S)


def test_a_song_played_freely_has_its_bars_where_they_are():
    pretty_midi = pytest.importorskip("pretty_midi")
    gaps = 0.5 * (1 + 0.06 * np.random.default_rng(1).normal(size=160))
    beats = [(round(float(t), 3), n % 4 + 1) for n, t in enumerate(np.cumsum(gaps))]
    read = pretty_midi.PrettyMIDI(io.BytesIO(midi(with_beats(*beats))))
    bars = [at for at, place in beats if place == 1]
    assert read.get_downbeats()[1 : len(bars)] == pytest.approx(bars[: len(bars) - 1], abs=TICK_S)


def test_a_song_without_beats_keeps_its_times():
    markers = [at for at, message in timed(with_beats(), 0) if message.type == "marker"]
    assert markers == pytest.approx([0.0, 16.35], abs=TICK_S)
    assert not [message for _, message in timed(with_beats(), 0) if message.type == "time_signature"]


def test_every_chord_that_is_measured_has_its_notes():
    assert INTERVALS.keys() == QUALITIES.keys()
    assert midi(FAILED) == b""


@pytest.mark.slow
def test_a_terminal_is_refused_and_a_pipe_is_not():
    command = [sys.executable, "-m", "mflamingo_cli", "analyze", "-q", "-f", "midi", "tests/data/ocean.opus"]
    master, terminal = pty.openpty()
    done = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, check=False)
    os.close(terminal), os.close(master)
    assert done.returncode == 2
    assert b"--format midi is binary, and a terminal cannot show it" in done.stderr
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    assert piped.startswith(b"MThd\0\0\0\6\0\1\0\2")
