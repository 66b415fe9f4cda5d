"""The grid of a song, for whoever cuts or mixes it: evenly spaced lines on which its beats lie, one grid for each tempo.

A beat tracker loses its way in a break and finds it again later, so beats are not counted: a grid is what most of them agree on, and the
others are off it. Where the tempo changes is decided for all beats at once, by segmented least squares (Bellman, 1961). Times are seconds.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mflamingo_cli.schema import Beat, GridInfo, TempoSegment

ON_GRID_S = 0.045  # half of the 70 ms within which evaluations of beat trackers count a beat as found, and their frames of 20 ms
FITS = 0.8  # of the beats must lie on a grid that fits
MIN_BEATS = 16  # of one tempo: four bars
SEEDS = 16  # runs of MIN_BEATS at most, spread over the song, of which each proposes a grid
ROUNDS = 6  # of least squares through the beats on a proposed grid, which then has others on it
PIECE = 0.1  # price of one more piece, in squared beats: four beats 80 ms off at 120 BPM are worth one
NEW_TEMPO = 0.03  # closer tempi are one, freely played
MOST_PIECES = 64  # a pulse in more of them is played freely: nobody maps so many tempi
LONGEST = 2048  # beats of a piece while cuts are searched: the work is their number times that of all beats
FREE_BEATS = 4  # between two anchors where no grid fits and the meter is not known


@dataclass(frozen=True)
class Grid:
    """The beats `first` to `last` of a song, and the lines `start_s + n * period_s` on which the share `on_grid` of them lies."""

    first: int
    last: int
    start_s: float  # of the line next to the first beat
    end_s: float  # and to the last one
    period_s: float
    on_grid: float
    largest_deviation_s: float  # of any beat

    @property
    def bpm(self) -> float:
        """Beats per minute."""
        return 60 / self.period_s

    @property
    def fits(self) -> bool:
        """Whether one constant grid is enough for these beats."""
        return self.on_grid >= FITS

    def number(self, times: np.ndarray) -> np.ndarray:
        """The number of the nearest line: (n,) s -> (n,) whole."""
        return np.rint((times - self.start_s) / self.period_s)


@dataclass(frozen=True)
class Anchor:
    """A beat from which on a tempo holds; `place` in the bar from 1, None where the meter is unknown."""

    time_s: float
    bpm: float
    place: int | None


def fit_grid(times: np.ndarray, first: int = 0) -> Grid:
    """The grid on which most of (n,) times lie, n >= MIN_BEATS; `first` is the number of the first beat in its song."""
    found = None
    runs = len(times) - MIN_BEATS + 1
    for at in np.unique(np.linspace(0, runs - 1, min(SEEDS, runs)).astype(int)):
        period, start = _line(np.arange(MIN_BEATS), times[at : at + MIN_BEATS])
        for _ in range(ROUNDS):
            number = np.rint((times - start) / period)
            on = np.abs(times - (start + period * number)) <= ON_GRID_S
            if on.sum() < MIN_BEATS // 2 or np.ptp(number[on]) == 0:
                break
            period, start = _line(number[on], times[on])
        off = np.abs(times - (start + period * np.rint((times - start) / period)))
        rank = (int((off <= ON_GRID_S).sum()), -float(np.median(off)))
        if found is None or rank > found[0]:
            found = rank, period, start, off
    assert found is not None, "there are MIN_BEATS"
    _, period, start, off = found
    lines = start + period * np.rint((times[[0, -1]] - start) / period)
    share = float((off <= ON_GRID_S).mean())
    return Grid(first, first + len(times) - 1, float(lines[0]), float(lines[1]), period, share, float(off.max()))


def _line(index: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """Least squares: (n,) numbers and times -> seconds per number, time of number 0."""
    middle = index - index.mean()
    period = float((middle * times).sum() / (middle**2).sum())
    return period, float(times.mean() - period * index.mean())


def fit_grids(times: np.ndarray) -> list[Grid]:
    """One grid where it fits, else one for each tempo that is held: (n,) times of beats -> in order, none for fewer than MIN_BEATS."""
    if len(times) < MIN_BEATS:
        return []
    whole = fit_grid(times)
    if whole.fits:
        return [whole]
    edges = _cuts(times)
    if len(edges) > MOST_PIECES:
        return [whole]
    grids = [fit_grid(times[a:b], a) for a, b in itertools.pairwise(edges)]
    at = 0
    while at < len(grids) - 1:
        one = _in_one(times, grids[at : at + 2]) or _in_one(times, grids[at : at + 3])
        if one is None:
            at += 1
        else:
            grids[at : at + 1 + sum(one.first <= grid.first <= one.last for grid in grids[at + 1 :])] = [one]
            at = max(0, at - 2)
    return grids


def _in_one(times: np.ndarray, grids: list[Grid]) -> Grid | None:
    """Two neighbours of nearly one tempo as one, freely played or not; three if the outer are alike and one grid fits all: a break."""
    first, last = grids[0], grids[-1]
    if len(grids) < 2 or abs(first.period_s / last.period_s - 1) >= NEW_TEMPO:
        return None
    one = fit_grid(times[first.first : last.last + 1], first.first)
    return one if len(grids) == 2 or one.fits else None


def _cuts(times: np.ndarray) -> list[int]:
    """The beats at which the cheapest pieces of straight lines begin, and the end: (n,) -> [0, ..., n]."""
    n, index = len(times), np.arange(len(times), dtype=np.float64)
    late = (times - times[0]) / np.median(np.diff(times)) - index  # in beats
    sums = np.stack([np.ones(n), index, index**2, late, index * late, late**2])
    total = np.concatenate([np.zeros((len(sums), 1)), np.cumsum(sums, axis=1)], axis=1)
    best, back = np.full(n + 1, np.inf), np.zeros(n + 1, int)
    best[0] = 0.0
    for end in range(MIN_BEATS, n + 1):
        first = max(0, end - LONGEST)
        count, x, xx, y, xy, yy = total[:, end, None] - total[:, first : end - MIN_BEATS + 1]
        squares = (yy - y * y / count) - (xy - x * y / count) ** 2 / (xx - x * x / count)
        cost = best[first : end - MIN_BEATS + 1] + np.maximum(squares, 0.0) + PIECE
        best[end], back[end] = cost.min(), first + int(cost.argmin())
    edges = [n]
    while edges[-1]:
        edges.append(int(back[edges[-1]]))
    return edges[::-1]


def beats_in_bar(beats: Sequence[Beat]) -> int | None:
    """Beats in a bar, None where the meter is unknown."""
    return max((place or 0 for _, place in beats), default=0) or None


def first_downbeat(beats: Sequence[Beat], grid: Grid) -> float | None:
    """The first line of a grid on which a bar begins, as most of its beats say; None where the meter is unknown."""
    bar = beats_in_bar(beats)
    own = [(time, place) for time, place in beats[grid.first : grid.last + 1] if place is not None]
    if bar is None or not own:
        return None
    number = grid.number(np.array([time for time, _ in own])).astype(int)
    votes = Counter((int(n) - place + 1) % bar for n, (_, place) in zip(number, own, strict=True))
    return grid.start_s + votes.most_common(1)[0][0] * grid.period_s


def anchors(beats: Sequence[Beat], shift_s: float = 0.0, from_downbeat: bool = False) -> list[Anchor]:
    """The tempo map of a song: one anchor where one grid fits, one for each tempo where it changes, else one for every bar.

    All are moved by `shift_s`, then by whole beats where they are before the start of the file, and with `from_downbeat` to the next bar.
    """
    return [_begun(replace(anchor, time_s=anchor.time_s + shift_s), beats_in_bar(beats), from_downbeat) for anchor in _anchors(beats)]


def _begun(anchor: Anchor, bar: int | None, from_downbeat: bool) -> Anchor:
    while anchor.time_s < 0 or (from_downbeat and anchor.place not in (None, 1)):
        place = None if anchor.place is None or bar is None else anchor.place % bar + 1
        anchor = Anchor(anchor.time_s + 60 / anchor.bpm, anchor.bpm, place)
    return anchor


def _anchors(beats: Sequence[Beat]) -> list[Anchor]:
    found: list[Anchor] = []
    grids = fit_grids(np.array([time for time, _ in beats]))
    for before, grid in zip([None, *grids], grids, strict=False):
        if before is not None and grid.start_s > before.end_s:  # from the last beat of the tempo before on
            steps = max(1, round((grid.start_s - before.end_s) / grid.period_s))
            found.append(Anchor(before.end_s, 60 * steps / (grid.start_s - before.end_s), None))
        found += [_anchor(beats, grid)] if grid.fits else _bars(beats, grid)
    return found


def _anchor(beats: Sequence[Beat], grid: Grid) -> Anchor:
    """The first line of a grid; its place in the bar is that of the first downbeat, counted back."""
    down = first_downbeat(beats, grid)
    if down is None:
        return Anchor(grid.start_s, grid.bpm, None)
    bar = beats_in_bar(beats) or 1
    return Anchor(grid.start_s, grid.bpm, -round((down - grid.start_s) / grid.period_s) % bar + 1)


def _bars(beats: Sequence[Beat], grid: Grid) -> list[Anchor]:
    """The beats at which bars begin, each with the tempo of its bar, and the first beat."""
    numbers = range(grid.first, grid.last + 1)
    starts = [number for number in numbers if beats[number][1] == 1] or list(numbers[::FREE_BEATS])
    starts = sorted({grid.first, *starts} - {grid.last})
    return [
        Anchor(beats[beat][0], 60 * (following - beat) / (beats[following][0] - beats[beat][0]), beats[beat][1])
        for beat, following in itertools.pairwise([*starts, grid.last])
    ]


def describe(beats: Sequence[Beat]) -> tuple[GridInfo | None, tuple[TempoSegment, ...]]:
    """The grid of all beats and the tempi one after the other, as they stand in the record; nothing for fewer than MIN_BEATS."""
    times = np.array([time for time, _ in beats])
    grids = fit_grids(times)
    if not grids:
        return None, ()
    whole = grids[0] if len(grids) == 1 else fit_grid(times)
    down = first_downbeat(beats, whole) if whole.fits else None
    info = GridInfo(
        bpm=round(whole.bpm, 3),
        first_beat=round(whole.start_s + (whole.period_s if whole.start_s < 0 else 0.0), 4),
        first_downbeat=None if down is None else round(down, 4),
        largest_deviation_ms=round(1000 * whole.largest_deviation_s, 1),
        on_grid=round(whole.on_grid, 3),
        constant=whole.fits,
    )
    return info, tuple(TempoSegment(round(max(0.0, grid.start_s), 3), round(grid.end_s, 3), round(grid.bpm, 2)) for grid in grids)
