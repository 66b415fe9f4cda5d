"""Laws of the grid: found on beats as a tracker finds them, in frames of 20 ms, with breaks in which it loses its way."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mflamingo_cli.measure.grid import ON_GRID_S, anchors, describe, first_downbeat, fit_grids

FRAME_S = 0.02  # of a beat tracker
JITTER_S = 0.008
BPM_OFF = 0.02  # of a tempo found from a hundred beats or more
S_OFF = 0.01  # of a line: half a frame


def beats(*tempi: tuple[float, int], start: float = 0.3, bar: int = 4, first_place: int = 1, seed: int = 0):
    """So many beats of each tempo, as a tracker tells them, each with its place in the bar."""
    gaps = np.concatenate([np.full(count, 60 / bpm) for bpm, count in tempi])
    times = start + np.concatenate([[0.0], np.cumsum(gaps)])
    told = np.round((times + np.random.default_rng(seed).normal(0, JITTER_S, len(times))) / FRAME_S) * FRAME_S
    return [(round(float(t), 3), (n + first_place - 1) % bar + 1) for n, t in enumerate(told)]


def grids(song):
    return fit_grids(np.array([at for at, _ in song]))


@pytest.mark.parametrize("bpm", [61.7, 100.0, 124.0, 174.3])
def test_a_steady_song_has_one_grid(bpm):
    [found] = grids(beats((bpm, 240)))
    assert found.bpm == pytest.approx(bpm, abs=BPM_OFF)
    assert found.start_s == pytest.approx(0.3, abs=S_OFF)
    assert found.fits
    assert found.largest_deviation_s < ON_GRID_S


def test_a_break_in_which_beats_are_lost_does_not_bend_the_grid():
    song = beats((124.0, 200))
    period = 60 / 124
    lost = [(song[80][0] + step * period * 8 / 7, 1) for step in range(1, 7)]  # seven beats told where eight are
    [found] = grids(song[:81] + lost + song[88:])
    assert found.bpm == pytest.approx(124, abs=BPM_OFF)
    assert found.largest_deviation_s > ON_GRID_S  # and is said


def test_a_change_of_tempo_is_named_with_both_tempi():
    first, second = grids(beats((100, 64), (140, 96)))
    assert (first.bpm, second.bpm) == (pytest.approx(100, abs=0.1), pytest.approx(140, abs=0.1))
    assert first.end_s == pytest.approx(0.3 + 64 * 0.6, abs=0.6 + S_OFF)  # the beat between belongs to both
    map_ = anchors(beats((100, 64), (140, 96)))
    assert map_[0].bpm == pytest.approx(100, abs=0.1)
    assert map_[-1].bpm == pytest.approx(140, abs=0.1)
    assert len(map_) <= 3


def test_a_song_played_freely_has_an_anchor_for_every_bar():
    gaps = 0.5 * (1 + 0.06 * np.random.default_rng(1).normal(size=300))
    song = [(round(float(t), 3), n % 4 + 1) for n, t in enumerate(np.cumsum(gaps))]
    found = anchors(song)
    assert len(found) == 75
    assert [round(anchor.time_s, 3) for anchor in found] == [at for at, place in song if place == 1]


def test_the_first_downbeat_is_what_most_bars_say():
    song = beats((120, 160), first_place=3)
    wrong = [(at, place % 4 + 1) if n > 120 else (at, place) for n, (at, place) in enumerate(song)]  # a beat too many at the end
    [found] = grids(wrong)
    assert first_downbeat(wrong, found) == pytest.approx(0.3 + 2 * 0.5, abs=S_OFF)
    assert first_downbeat([(at, None) for at, _ in song], found) is None
    [anchor] = anchors(wrong)
    assert anchor.place == 3


def test_a_few_beats_have_no_grid():
    assert grids(beats((120, 10))) == []
    assert anchors([]) == []


def test_a_long_song_without_a_steady_tempo_costs_no_time():
    wander = [0.5 * (1 + 0.03 * np.sin(n / 30)) for n in range(3000)]
    began = time.process_time()
    anchors([(round(float(t), 3), n % 4 + 1) for n, t in enumerate(np.cumsum(wander))])
    assert time.process_time() - began < 10


def test_a_record_names_the_grid_and_every_tempo():
    grid, segments = describe(beats((124.0, 240), first_place=4))
    assert (grid.bpm, grid.constant) == (pytest.approx(124, abs=BPM_OFF), True)
    assert grid.first_downbeat - grid.first_beat == pytest.approx(60 / 124, abs=0.001)
    assert grid.largest_deviation_ms < 1000 * ON_GRID_S
    assert [segment.bpm for segment in segments] == [pytest.approx(124, abs=BPM_OFF)]
    grid, segments = describe(beats((100, 64), (140, 96)))
    assert (grid.constant, grid.first_downbeat) == (False, None)
    assert [segment.bpm for segment in segments] == [pytest.approx(100, abs=0.1), pytest.approx(140, abs=0.1)]
    assert describe(()) == (None, ())


def test_the_first_beat_of_a_grid_is_in_the_song():
    grid, [segment] = describe([(max(0.0, at), place) for at, place in beats((124.0, 240), start=-0.004)])
    assert grid.first_beat == pytest.approx(60 / 124 - 0.004, abs=S_OFF)
    assert segment.start == 0
