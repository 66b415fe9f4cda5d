"""Where nothing sounds nothing is measured, and what sounds is measured as if no silence were around it."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from mflamingo_cli.measure import FACTS, Facts, Measurement, SongPart, measure
from mflamingo_cli.measure.activity import EDGE_S, REST_S, cut, sounding

from .synth import RATE, audio, song

BARS = ["C:maj", "G:maj", "A:min", "F:maj"] * 4
BPM = 128.0
TEMPO = 0.005  # relative
FRAME_S = 0.02  # of the beat network; a beat on the first sample may be one frame early
BOUNDARY_S = 1.0  # a section begins this near to the sound
EXACT_S = 0.01  # a frame of the mask


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


def dither(seconds: float) -> np.ndarray:
    """Triangular, of 16 bits: -93 dBFS."""
    rng = np.random.default_rng(0)
    return ((rng.random(int(seconds * RATE)) - rng.random(int(seconds * RATE))) * 2.0**-15).astype(np.float32)


@cache
def music(bpm: float = BPM) -> np.ndarray:
    """Half a minute of a band that does not fade."""
    return song(BARS, bpm)[: int(len(BARS) * 240 / bpm * RATE)]


LENGTH_S = len(BARS) * 240 / BPM

PLACES: dict[str, tuple[list[np.ndarray], list[tuple[float, float]]]] = {
    "no silence": ([music()], [(0, 30)]),
    "before": ([silence(30), music()], [(30, 60)]),
    "long before": ([silence(90), music()], [(90, 120)]),
    "behind": ([music(), silence(20)], [(0, 30)]),
    "between two songs": ([music(), silence(20), music(100.0)], [(0, 30), (50, 88.4)]),
    "dither before": ([dither(30), music()], [(30, 60)]),
    "offset before": ([silence(30) + np.float32(0.01), music()], [(30, 60)]),
    "a rest": ([music(), silence(REST_S - 0.5), music()], [(0, 62.5)]),
    "very quiet music": ([music() * np.float32(0.003), silence(10)], [(0, 30)]),
    "pianissimo behind fortissimo": ([music(), music() * np.float32(10 ** (-50 / 20))], [(0, 60)]),
    "noise of a record before": ([0.002 * np.random.default_rng(0).standard_normal(20 * RATE), music()], [(0, 50)]),
}


@cache
def measured(name: str) -> tuple[Measurement, Facts]:
    measurement = Measurement(audio(np.concatenate(PLACES[name][0])))
    return measurement, measurement.facts()


@pytest.mark.parametrize("name", PLACES)
def test_where_it_sounds(name: str) -> None:
    samples, want = np.concatenate(PLACES[name][0]).astype(np.float32), PLACES[name][1]
    found = [(start / RATE, end / RATE) for start, end in sounding(samples)]
    assert len(found) == len(want)
    for (start, end), (starts, ends) in zip(found, want, strict=True):
        assert start == pytest.approx(starts, abs=EXACT_S)
        assert end == pytest.approx(ends, abs=0.2)  # the last chord dies away


def test_digital_silence_is_known_to_the_sample() -> None:
    sound = np.full(2 * RATE, 0.5, np.float32) * np.resize([1, -1], 2 * RATE)
    assert sounding(np.concatenate([silence(12.34567), sound, silence(7)])) == [(197_530, 197_530 + 2 * RATE)]


def test_a_moment_at_the_ends_belongs_to_the_music_and_silence_does_not() -> None:
    n = 100 * RATE
    moment = int(EDGE_S * RATE) - 1
    assert cut([(moment, n - moment)], n) == [(0, n)]
    assert cut([(moment + 2, 50 * RATE), (60 * RATE, n - moment - 2)], n) == [(moment + 2, 50 * RATE), (60 * RATE, n - moment - 2)]
    assert cut([], n) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["before", "long before", "behind", "dither before", "offset before"])
def test_facts_are_those_of_what_sounds(name: str) -> None:
    found, plain, (start, end) = measured(name)[1], measured("no silence")[1], PLACES[name][1][0]
    assert found.tempo.bpm == pytest.approx(BPM, rel=TEMPO)
    assert (found.tempo, found.key, found.meter) == (plain.tempo, plain.key, plain.meter)
    assert [place for _, place in found.beats] == [place for _, place in plain.beats]
    assert [round(time - start, 2) for time, _ in found.beats] == pytest.approx([round(time, 2) for time, _ in plain.beats], abs=FRAME_S)
    assert found.beats[0][0] == pytest.approx(start, abs=FRAME_S)  # the song begins on a beat
    assert found.beats[-1][0] <= end + FRAME_S
    assert found.sections[0].start == pytest.approx(start, abs=BOUNDARY_S)
    assert found.sections[-1].end == pytest.approx(end, abs=BOUNDARY_S)
    assert {chord.label for chord in found.chords if chord.end <= start or chord.start >= end} == {"N"}
    named = {chord.label for chord in found.chords} - {"N"}
    assert named == {chord.label for chord in plain.chords} - {"N"} != set()


@pytest.mark.parametrize("bpm", [85.0, 100.0, 120.0, 160.0])
@pytest.mark.parametrize("before_s", [0.0, 7.0])
def test_the_first_beat_of_what_is_cut_on_it_is_found(bpm: float, before_s: float) -> None:
    """It was missed: nothing lies in front of the first sample of a stretch from which it could rise."""
    loop = np.concatenate([silence(before_s), song(BARS[:8], bpm)])
    first, second, *_ = (time for time, _ in Measurement(audio(loop)).facts({"beats"}).beats)
    assert first == pytest.approx(before_s, abs=FRAME_S)
    assert 60 / (second - first) == pytest.approx(bpm, rel=0.03) or 120 / (second - first) == pytest.approx(bpm, rel=0.03)


FADE_S, FADE_DB = 25.0, 80.0  # to below the dither of 16 bits, in steps that are equal to the ear
BEATS_DB, CHORDS_DB = 48.0, 35.0  # below the song: as far as its beats and its chords are followed, at the least


def faded(samples: np.ndarray, decibels: np.ndarray) -> np.ndarray:
    """A song in 16 bits whose first or last seconds lie so far below it."""
    return (np.round(samples * 10 ** (-decibels / 20) * 2**15) / 2**15).astype(np.float32)


@pytest.mark.slow
def test_a_song_that_fades_out_is_music_as_long_as_it_is_heard() -> None:
    samples = np.concatenate([music(), music()])
    end = len(samples) / RATE
    away = np.maximum(0.0, np.arange(len(samples)) / RATE - (end - FADE_S)) * FADE_DB / FADE_S
    measurement = Measurement(audio(np.concatenate([faded(samples, away), silence(10)])))
    facts, [(_, sounds_until)] = measurement.facts({"beats", "chords", "tempo"}), measurement.sounding
    beats = [time for time, _ in facts.beats]
    chord = [chord for chord in facts.chords if chord.label != "N"][-1]
    assert facts.tempo.bpm == pytest.approx(BPM, rel=TEMPO)
    assert float(np.diff(beats).max()) < 1.5 * 60 / BPM
    assert end - FADE_S * (1 - BEATS_DB / FADE_DB) < beats[-1] <= sounds_until + FRAME_S
    assert end - FADE_S * (1 - CHORDS_DB / FADE_DB) < chord.end <= sounds_until + FRAME_S
    assert sounds_until < end


@pytest.mark.slow
def test_a_song_that_fades_in_is_music_as_soon_as_it_is_heard() -> None:
    samples = np.concatenate([music(), music()])
    away = np.maximum(0.0, FADE_S - np.arange(len(samples)) / RATE) * FADE_DB / FADE_S
    measurement = Measurement(audio(np.concatenate([silence(10), faded(samples, away)])))
    facts, [(sounds_from, _)] = measurement.facts({"beats", "chords", "tempo"}), measurement.sounding
    beats = [time for time, _ in facts.beats]
    chord = next(chord for chord in facts.chords if chord.label != "N")
    assert facts.tempo.bpm == pytest.approx(BPM, rel=TEMPO)
    assert float(np.diff(beats).max()) < 1.5 * 60 / BPM
    assert sounds_from - FRAME_S <= beats[0] < 10 + FADE_S * (1 - BEATS_DB / FADE_DB)
    assert sounds_from - FRAME_S <= chord.start < 10 + FADE_S * (1 - CHORDS_DB / FADE_DB)
    assert sounds_from > 10


@pytest.mark.slow
def test_between_two_songs_there_is_no_beat_no_chord_and_no_section() -> None:
    found = measured("between two songs")[1]
    assert not [time for time, _ in found.beats if 30.1 < time < 50 - FRAME_S]
    assert [chord.label for chord in found.chords if chord.start < 40 < chord.end] == ["N"]
    assert not [section for section in found.sections if section.start < 40 < section.end]
    assert any(section.start == pytest.approx(50, abs=BOUNDARY_S) for section in found.sections)
    for bpm, start, end in ((128.0, 0, 30), (100.0, 50, 88)):
        gaps = np.diff([time for time, _ in found.beats if start <= time <= end])
        assert float(np.median(gaps)) == pytest.approx(60 / bpm, abs=FRAME_S)
    assert min(abs(found.tempo.bpm / bpm - 1) for bpm in (128.0, 100.0)) < TEMPO


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no silence", "between two songs"])
def test_chords_cover_the_song_without_holes(name: str) -> None:
    chords = measured(name)[1].chords
    assert chords[0].start == 0
    assert all(a.end == b.start and a.label != b.label for a, b in pairwise(chords))
    assert chords[-1].end == pytest.approx(len(np.concatenate(PLACES[name][0])) / RATE, abs=1e-3)


@pytest.mark.slow
def test_pianissimo_behind_fortissimo_is_music() -> None:
    found = measured("pianissimo behind fortissimo")[1]
    assert [time for time, _ in found.beats if time > 31]
    assert {chord.label for chord in found.chords if chord.start > 31} - {"N"}


@pytest.mark.parametrize("samples", [silence(20), dither(20), silence(20) + np.float32(0.01), np.zeros(0), silence(0.003)])
def test_where_nothing_sounds_nothing_is_measured(samples: np.ndarray) -> None:
    measurement = Measurement(audio(samples))
    assert (measurement.sounding, measurement.stretches) == ((), ())
    assert measurement.facts() == Facts()


def test_a_part_of_a_file_has_the_times_of_the_file() -> None:
    [(start, end)] = Measurement(audio(np.concatenate([silence(10), music()[: 5 * RATE]]), start_s=100.0)).sounding
    assert (start, end) == (pytest.approx(110.0, abs=EXACT_S), pytest.approx(115.0, abs=EXACT_S))


@pytest.mark.slow
def test_parts_of_a_song_give_the_facts_of_the_whole() -> None:
    samples = np.concatenate([music(), music(), music()])
    whole = audio(samples)
    edges = [0, 25 * RATE, 55 * RATE, len(samples)]
    parts = [SongPart.of(samples[a:b], a / RATE) for a, b in pairwise(edges)]
    for part in parts[:-1]:
        part.settle(FACTS)
        assert not any("samples" in vars(stretch) or "spectrogram" in vars(stretch) for stretch in part.stretches)
    found, plain = measure(whole, parts=parts), measure(whole)
    assert (found.tempo.bpm, found.key, found.meter) == (pytest.approx(plain.tempo.bpm, rel=TEMPO), plain.key, plain.meter)
    assert abs(len(found.beats) - len(plain.beats)) <= len(parts)
    assert min(b - a for (a, _), (b, _) in pairwise(found.beats)) > 0.5 * 60 / BPM
    assert (found.chords[0].start, found.chords[-1].end) == (plain.chords[0].start, plain.chords[-1].end)
    assert all(a.end == b.start for a, b in pairwise(found.sections))
    assert found.sections[-1].end == plain.sections[-1].end
