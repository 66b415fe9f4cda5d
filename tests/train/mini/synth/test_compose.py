"""Plans: a function of their seed; harmony that can be read, written for MMA, and shifted in time without gaps."""

import dataclasses

import numpy as np
import pytest

from mflamingo_cli.train.mini.synth import compose, grooves, harmony, parts
from mflamingo_cli.train.mini.synth import render as synth

GROOVE = grooves.Groove("Rock", "stdlib/rock.mma", "A beat.", "4/4", "rock", 84, 176, ("RockPlus",), ("RockFill",))
WALTZ = dataclasses.replace(GROOVE, name="Waltz", file="stdlib/waltz.mma", meter="3/4", style="waltz", beats=3)
SLOW = dataclasses.replace(GROOVE, name="Blues68", file="stdlib/blues68.mma", meter="6/8", style="blues", slow=50, fast=90, beats=6, felt=3)
MARCH = dataclasses.replace(GROOVE, name="68March", file="stdlib/68march.mma", meter="6/8", style="march", beats=2, felt=1)
ALL = (GROOVE, WALTZ, SLOW, MARCH)
FELT = {"4/4": 4, "3/4": 3, "6/8": 2}  # felt beats in a bar


def plan(seed, groove=None):
    rng = np.random.default_rng(seed)
    return compose.plan_song(rng, groove or ALL[seed % 4], 30.0)


def test_a_plan_is_a_function_of_its_seed():
    assert [plan(i) for i in range(20)] == [plan(i) for i in range(20)]
    assert len({(p.tonic, p.mode) for p in map(plan, range(60))}) > 15


def test_a_plan_lasts_as_long_as_asked():
    assert all(plan(seed).duration_s >= 30 for seed in range(30))


@pytest.mark.parametrize("window", [synth.ClipWindow(0.0, 1.0, 30.0), synth.ClipWindow(3.3, 1.02, 28.0)])
def test_truth_covers_the_clip_without_gaps(window):
    for seed in range(24):
        song = plan(seed)
        row = synth.exact_facts(song, window)
        starts, ends = [c[0] for c in row["chords"]], [c[1] for c in row["chords"]]
        assert starts[0] == pytest.approx(0.0, abs=0.021)  # a rest of 20 ms is not worth a chord
        assert starts[1:] == pytest.approx(ends[:-1], abs=1e-3)
        assert ends[-1] == pytest.approx(min(window.duration, window.at(song.duration_s)), abs=0.021)
        assert row["bar_s"] == pytest.approx(row["beat_s"] * FELT[row["meter"]], rel=1e-4)
        assert row["tempo"] == pytest.approx(60 / row["beat_s"], rel=1e-3)
        assert 0 <= row["beat_at"] <= row["bar_at"] < row["bar_s"]
        assert len(row["chord_names"]) == len(row["chords"])


def test_chords_begin_on_beats_of_a_shifted_clip():
    row = synth.exact_facts(plan(0), synth.ClipWindow(2.7, 0.99, 25.0))
    for start, *_ in row["chords"][1:]:
        assert (start - row["beat_at"]) / row["beat_s"] == pytest.approx(round((start - row["beat_at"]) / row["beat_s"]), abs=0.01)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("I", (0, "maj")), ("bVII", (10, "maj")), ("ii7", (2, "min7")), ("V7", (7, "7")), ("viio", (11, "dim")), ("V7/V", (2, "7")),
     ("iih7", (2, "hdim7")), ("V7sus4", (7, "7sus4")), ("#ivo7", (6, "dim7")), ("I+", (0, "aug")), ("V7/vi", (4, "7")),
     ("Isus2", (0, "sus2"))],
)  # fmt: skip
def test_roman_numerals(text, expected):
    assert harmony.roman(text) == expected


def test_every_numeral_can_be_read():
    loops = [bar for flavour in harmony.FLAVOURS.values() for loop in flavour.loops for bar in loop.replace(",", " ").split()]
    followers = [name for steps in harmony.GRAMMAR.values() for names in steps.values() for name in names.split()]
    colours = [name for names in harmony.COLOURS.values() for name in names]
    for name in (*loops, *followers, *colours, *(c for names in harmony.CADENCES.values() for c in names)):
        assert harmony.roman(name)[1] in harmony.CHORDS


def test_a_walk_never_ends_in_a_chord_without_followers():
    for mode, steps in harmony.GRAMMAR.items():
        assert all(name in steps for names in steps.values() for name in names.split()), mode


def test_chord_types_have_a_class_of_the_heads():
    assert {kind.quality for kind in harmony.CHORDS.values()} == set(harmony.QUALITIES)


def test_the_vocabulary_is_used():
    names = {c.name for seed in range(150) for c in plan(seed).chords()}
    assert {"maj", "min", "7", "maj7", "min7", "sus4", "sus2", "dim", "9"} <= names


def test_mma_source_has_one_line_for_each_bar():
    song = plan(3, GROOVE)
    lines = compose.mma_text(song, 7).splitlines()
    assert sum(line[0].isdigit() for line in lines) == song.n_bars
    assert all(len(line.split()) - 1 == song.beats for line in lines if line[0].isdigit())
    assert any(line.startswith("Groove Rock") for line in lines)


def test_groove_files_never_stand_on_both_sides_of_the_split():
    assert dataclasses.replace(GROOVE, name="RockPlus").held_out == GROOVE.held_out


def test_comping_plays_chord_tones():
    for seed in range(8):
        song = plan(seed)
        chords = song.chords()
        for note in parts.comping(np.random.default_rng(seed), song, 60):
            sounding = [c for c in chords if c.start - 0.51 <= note.start < c.start + c.length]
            assert any(note.pitch % 12 in c.tones for c in sounding)


def test_a_returning_section_keeps_its_melody():
    song = next(p for p in map(plan, range(50)) if p.form.count(0) > 1)
    notes = parts.melody(np.random.default_rng(0), song, 60)
    starts = [start for section, start in song.occurrences() if section.name == "A"]
    length = len(song.sections[0].bars) * song.beats
    lines = [[(round(n.start - at, 6), n.pitch) for n in notes if at <= n.start < at + length] for at in starts]
    assert lines[0]
    assert all(line == lines[0] for line in lines)


@pytest.mark.parametrize("write", [parts.bass_line, parts.drum_part])
def test_parts_stay_within_their_song(write):
    for seed in range(12):
        song = plan(seed)
        notes = write(np.random.default_rng(seed), song)
        assert notes
        assert all(0 <= n.start < song.n_bars * song.beats and 0 < n.velocity < 128 and 0 <= n.pitch < 128 for n in notes)


def test_instruments_are_drawn_by_family():
    rng = np.random.default_rng(0)
    families = [parts.FAMILIES[parts.FAMILY_OF_PROGRAM[parts.draw_program(rng, parts.FAMILIES)]] for _ in range(2200)]
    assert all(140 < families.count(name) < 260 for name in parts.FAMILIES)  # 200 expected
