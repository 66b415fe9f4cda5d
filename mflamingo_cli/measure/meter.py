"""Three or four beats in a bar, or nothing where neither the pulse nor the chords say so clearly.

Two kinds of evidence decide. Chords mostly change on the first beat of a bar, so the beats between changes are whole bars; where they agree
they decide, as they rarely err. The beat network's downbeats decide where the chords are silent, the clip is long and the margin wide.
The numbers were chosen on synthetic clips and the development songs of the benchmark, none of which got a wrong meter with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mflamingo_cli.measure.beats import Bars, BeatTrack
from mflamingo_cli.schema import Segment

MIN_BEATS = 20  # fewer beats have no meter
MIN_VOTES = 4  # spans between chord changes that are bars of one meter only, or changes on one beat before downbeats move there
SHARE_THREE = 0.75  # of all spans that are multiples of three,
SHARE_FOUR = 0.6  # of spans other than half bars that are multiples of four: four is what most music has
CLEARLY = 3  # times as many as the other meter has
OPPOSED = 3.0  # margin per beat against the chords that silences both
MARGIN = 1.0  # log-likelihood per beat by which the pulse alone must prefer its meter
MIN_BARS = 8  # for the pulse alone
MIN_SPANS = 6  # spans that can contradict the pulse when most of them fit no bar
PLAIN = 2.0  # changes on the best beat of the bar over those on the first before downbeats move
NEAR_S = 0.2  # changes outside the beats count up to here
BOTH = 12  # beats that are whole bars of either meter


def spans(track: BeatTrack, chords: Sequence[Segment]) -> np.ndarray:
    """Beats between successive chord changes, without those that fit either meter: -> (n,) int."""
    changes = np.array([chord.start for chord in chords[1:]])
    if len(track.beats) == 0 or len(changes) == 0:
        return np.zeros(0, int)
    changes = changes[(changes > track.beats[0] - NEAR_S) & (changes < track.beats[-1] + NEAR_S)]
    gaps = np.diff(np.unique(np.abs(track.beats[:, None] - changes).argmin(axis=0)))
    return np.asarray(gaps[gaps % BOTH != 0])


def _votes(gaps: np.ndarray) -> dict[int, int]:
    return {meter: int((gaps % meter == 0).sum()) for meter in (3, 4)}


def by_chords(gaps: np.ndarray) -> int | None:
    """The meter whose bars the chords keep: spans of `spans` -> 3, 4 or None."""
    votes = _votes(gaps)
    half_bars = int((gaps % 4 == 2).sum())
    if votes[3] >= max(MIN_VOTES, SHARE_THREE * len(gaps), CLEARLY * votes[4]):
        return 3
    if votes[4] >= max(MIN_VOTES, SHARE_FOUR * (len(gaps) - half_bars), CLEARLY * votes[3]):
        return 4
    return None


def _contradicted(meter: int, gaps: np.ndarray) -> bool:
    """Whether chords change where bars of this meter do not begin, nor half bars of four."""
    votes = _votes(gaps)
    other = votes[7 - meter]
    misfits = int((gaps % (2 if meter == 4 else 3) != 0).sum())
    return (other >= MIN_VOTES and other > votes[meter]) or (len(gaps) >= MIN_SPANS and misfits > len(gaps) / 2)


def choose_meter(bars: Bars, gaps: np.ndarray) -> int | None:
    """Beats in a bar from the decoded pulse and the spans between chord changes, or None where neither is clear."""
    n = len(bars.frames)
    if n < MIN_BEATS:
        return None
    margin = (bars.margins[4] - bars.margins[3]) / n  # > 0: four
    chordal = by_chords(gaps)
    if chordal is not None:
        return chordal if (margin if chordal == 4 else -margin) > -OPPOSED else None
    if abs(margin) < MARGIN or n < MIN_BARS * bars.meter or _contradicted(bars.meter, gaps):
        return None
    return bars.meter


def align_bars(track: BeatTrack, chords: Sequence[Segment], bar: int) -> BeatTrack:
    """Downbeats every `bar` beats, on the beat on which chords mostly change where that is plain."""
    if len(track.downbeats) < 2 or len(chords) < 2:
        return track
    first, second = np.searchsorted(track.beats, track.downbeats[:2])
    changes = np.array([chord.start for chord in chords[1:]])
    nearest = np.abs(track.beats[:, None] - changes).argmin(axis=0)
    votes = np.bincount((nearest - first) % bar, minlength=bar)
    best = int(votes.argmax())
    if bar == second - first and (votes[best] < MIN_VOTES or votes[best] < PLAIN * votes[0]):
        return track
    return replace(track, downbeats=track.beats[(first + best) % bar :: bar])


def settle_runs(runs: Sequence[tuple[BeatTrack, Bars, Sequence[Segment]]]) -> tuple[list[BeatTrack], str | None]:
    """The one meter of all runs of beats where it is clear, and each run's likeliest downbeats all the same: sections may be cut there."""
    if not runs:
        return [], None
    gaps = np.concatenate([spans(track, chords) for track, _, chords in runs])
    meter = choose_meter(_together([bars for _, bars, _ in runs]), gaps)
    return [align_bars(track, chords, meter or bars.meter) for track, bars, chords in runs], f"{meter}/4" if meter else None


def settle_bars(track: BeatTrack, bars: Bars | None, chords: Sequence[Segment]) -> tuple[BeatTrack, str | None]:
    """`settle_runs` of one run of beats, or of none."""
    tracks, meter = settle_runs([] if bars is None else [(track, bars, chords)])
    return (tracks or [track])[0], meter


def _together(bars: Sequence[Bars]) -> Bars:
    """The evidence of several runs as that of one; only the number of its beats and its margins count."""
    margins = {meter: sum(run.margins[meter] for run in bars) for meter in bars[0].margins}
    frames, places = (np.concatenate([getattr(run, name) for run in bars]) for name in ("frames", "places"))
    return Bars(frames, places, max(margins, key=lambda meter: margins[meter]), margins)
