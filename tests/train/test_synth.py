"""The generator: a plan is a function of its seed, truth follows from the plan; rendering where its tools are installed."""

import dataclasses
import shutil
from pathlib import Path

import mido
import numpy as np
import pytest

from mflamingo_cli.train import compose, frames, grooves, synth

GROOVE = grooves.Groove("Rock", "stdlib/rock.mma", "A beat.", "4/4", "rock", 84, 176, ("RockPlus",))
WALTZ = dataclasses.replace(GROOVE, name="Waltz", file="stdlib/waltz.mma", meter="3/4", style="waltz")
SLOW = dataclasses.replace(GROOVE, name="Blues68", file="stdlib/blues68.mma", meter="6/8", style="blues")


def plan(seed, pool=(GROOVE, WALTZ, SLOW)):
    return compose.plan_song(np.random.default_rng(seed), list(pool), 20.0, 30.0)


def test_a_plan_is_a_function_of_its_seed():
    assert [plan(i) for i in range(20)] == [plan(i) for i in range(20)]
    assert len({(p.tonic, p.mode) for p in map(plan, range(60))}) > 15


def test_truth_covers_the_song_without_gaps():
    for seed in range(20):
        song = plan(seed)
        row = synth.truth(song, song.duration_s)
        ends = [chord[1] for chord in row["chords"]]
        starts = [chord[0] for chord in row["chords"]]
        assert starts[0] == 0.0
        assert starts[1:] == pytest.approx(ends[:-1])
        assert ends[-1] == pytest.approx(song.duration_s, abs=1e-3)
        assert row["bar_s"] == pytest.approx(row["beat_s"] * {"4/4": 4, "3/4": 3, "6/8": 2}[row["meter"]], rel=1e-4)


def test_added_parts_play_chord_tones():
    song = plan(4)
    spans = [(c.start, c.start + c.length, {(c.root + t) % 12 for t in compose.CHORD_TONES[c.quality]}) for c in song.chords()]
    for note in compose.comping(np.random.default_rng(0), song):
        allowed = set().union(*(tones for start, end, tones in spans if start - 0.5 <= note.start < end))
        assert note.pitch % 12 in allowed


@pytest.mark.parametrize(
    ("text", "expected"), [("I", (0, "maj")), ("bVII", (10, "maj")), ("ii7", (2, "min7")), ("V7", (7, "7")), ("viio", (11, "dim"))]
)
def test_roman_numerals(text, expected):
    assert compose.roman(text) == expected


def test_every_progression_can_be_read():
    for form in compose.MAJOR_FORMS + compose.MINOR_FORMS:
        for name in form.replace(",", " ").split():
            compose.roman(name)


def test_groove_files_never_stand_on_both_sides_of_the_split():
    assert dataclasses.replace(GROOVE, name="RockPlus").held_out == GROOVE.held_out


def test_dense_labels_follow_the_notes():
    midi = mido.MidiFile(ticks_per_beat=480)
    track = mido.MidiTrack([mido.Message("note_on", note=57, velocity=90, time=0), mido.Message("note_off", note=57, time=960)])
    midi.tracks.append(track)
    row = {"duration": 2.0, "chords": [[0.0, 2.0, 9, "min"]], "beat_s": 0.5, "bar_s": 2.0}
    labels = frames.dense_labels(row, midi)
    assert labels["chroma"].shape == (50, 12)
    assert labels["chroma"][:20, 9].all()
    assert (labels["root"][:20] == 9).all()
    assert (labels["root"][40:] == frames.NO_CHORD).all()  # nothing sounds: no chord is asked for
    assert labels["beat"][0] == 2


def test_rendering_is_deterministic_and_resumes(tmp_path):
    font = Path(synth.SOUNDFONTS["TimGM6mb"][0])
    if shutil.which("fluidsynth") is None or not font.exists():
        pytest.skip("fluidsynth or its soundfont TimGM6mb is not installed")
    midi = mido.MidiFile(ticks_per_beat=480)
    midi.tracks.append(mido.MidiTrack([mido.Message("note_on", note=60, velocity=90), mido.Message("note_off", note=60, time=960)]))
    sounds = [synth.render(midi, "TimGM6mb", np.random.default_rng(1)) for _ in range(2)]
    assert np.array_equal(*sounds)
    assert np.abs(sounds[0]).max() > 0.1


def test_a_cut_manifest_line_is_made_again(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"index": 0}\n{"index": 1, "dur')
    assert [row["index"] for row in synth.read_manifest(tmp_path)] == [0]
