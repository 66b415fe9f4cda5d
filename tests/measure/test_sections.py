"""Sections begin with a phrase of four bars that differs from the one before it."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from mflamingo_cli.measure.sections import LEAST_S, MOST, TURN, USUAL_S, Units, _nearest, measure_sections, turns
from mflamingo_cli.schema import Segment

BEAT_S = 0.5
BAR = 4
LOOPS = {"A": (0, 7, 9, 5), "B": (2, 4, 11, 3), "C": (6, 1, 8, 10), "D": (3, 8, 0, 6)}  # a root for each bar of a phrase


def found(form: str, start_s: float = 0.0, first_beat: int = 0) -> tuple[Units, np.ndarray]:
    """Beats of phrases of four bars, each letter a loop of its own; the downbeats."""
    roots = [root for letter in form for root in LOOPS[letter] for _ in range(BAR)][first_beat:]
    sums = np.full((len(roots), 84), 0.05)
    for beat, root in enumerate(roots):
        for interval in (0, 4, 7):
            sums[beat, 24 + (root + interval) % 12] += 1.0
    edges = start_s + BEAT_S * np.arange(len(roots) + 1)
    first = (-first_beat) % BAR
    return Units(start_s, float(edges[-1]), edges, sums), edges[:-1][first::BAR]


def form_of(sections: tuple[Segment, ...]) -> str:
    return "".join(section.label for section in sections)


@pytest.mark.parametrize(("form", "want"), [("AABB", "AB"), ("AABBAABB", "ABAB"), ("AABBCCAA", "ABCA"), ("AAABAA", "ABA"), ("AAAA", "A")])
def test_a_form_has_its_sections_and_neighbours_that_sound_alike_are_one(form: str, want: str) -> None:
    units, downbeats = found(form)
    sections = measure_sections([units], downbeats)
    assert form_of(sections) == want
    phrase_s = 4 * BAR * BEAT_S
    starts = [phrase_s * i for i, (a, b) in enumerate(pairwise(" " + form)) if a != b]
    assert [section.start for section in sections] == starts
    assert sections[-1].end == units.end_s


@pytest.mark.parametrize("first_beat", [4, 8, 12, 3])
def test_the_grid_of_phrases_is_the_one_that_shows_most(first_beat: int) -> None:
    units, downbeats = found("AABBAABB", first_beat=first_beat)
    sections = measure_sections([units], downbeats)
    assert form_of(sections) == "ABAB"
    assert [section.start for section in sections[1:]] == [BEAT_S * (32 * i - first_beat) for i in (1, 2, 3)]


def test_silence_ends_a_section_and_letters_go_on_behind_it() -> None:
    (first, bars), (second, more) = found("AABB"), found("BBAA", start_s=60.0)
    sections = measure_sections([first, second], np.concatenate([bars, more]))
    assert form_of(sections) == "ABBA"
    assert (sections[1].end, sections[2].start) == (first.end_s, 60.0)


def test_however_much_changes_a_song_has_no_more_sections_than_one_can_follow() -> None:
    rng = np.random.default_rng(1)
    for form in ("ABCD" * 4, "ABCD" * 30):
        units, downbeats = found(form)
        units.sums[:] = rng.random(units.sums.shape)
        length_s = units.end_s
        most = max(length_s / USUAL_S, min(MOST, length_s / LEAST_S))
        assert 2 <= len(measure_sections([units], downbeats)) <= round(most)


@pytest.mark.parametrize("form", ["A", "AB"])
def test_a_short_clip_has_no_form(form: str) -> None:
    assert measure_sections([found(form)[0]], found(form)[1]) == ()


MIX_BYTES = 100_000_000  # two hours of units have 8 MB


@pytest.mark.slow
def test_the_form_of_a_mix_takes_memory_for_its_length_not_for_its_square() -> None:
    """Every unit was held against every bar: 8 GB for ten hours."""
    units, downbeats = found("AABBCCDD" * 100)
    assert len(units.sums) > 12_000
    tracemalloc.start()
    sections = measure_sections([units], downbeats)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < MIX_BYTES
    assert sections[-1].end == units.end_s


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_nearest_of_some_times_is_that_of_all_distances(n: int) -> None:
    rng = np.random.default_rng(n)
    times, wanted = np.sort(rng.random(n)), rng.random(50) * 2 - 0.5
    assert (_nearest(times, wanted) == np.abs(times[:, None] - wanted).argmin(axis=0)).all()


def test_no_section_begins_in_the_last_bars_and_phrases_count_from_the_first_bar() -> None:
    """16 bars of one chord, 8 of another, and two that close: they are no phrase."""
    chords = np.eye(12, 40)
    features = np.concatenate([np.repeat(chords[:1], 64, axis=0), np.repeat(chords[1:2], 32, axis=0), np.repeat(chords[2:3], 8, axis=0)])
    begins, change = turns(features, np.arange(0, len(features), 4), 4)
    assert begins.tolist() == [0, 16, 32, 48, 64, 80]
    assert begins[change > TURN].tolist() == [64]
