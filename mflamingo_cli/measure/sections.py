"""Where a song changes and what comes back: phrases of four bars, each compared with the one before it.

Where there are too few bars, structure features (Serra et al., IEEE Trans. Multimedia 2014) on beats or a grid say where it changes.
Letters say which sections sound alike, in order of appearance; they do not claim a verse or a chorus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mflamingo_cli.measure.spectra import CQT_FPS
from mflamingo_cli.schema import Segment

MAX_UNITS = 1200  # beats (or groups of them) compared with each other
EMBED = 6  # units that are compared as one shape
NEIGHBOURS = 0.03  # of all units are similar to a unit
WINDOW = 6  # units before and after a boundary that must differ
SMOOTH_LAG = 1.0  # units, along the lag
CLOSEST = 12  # units between two boundaries
PEAK = 0.10  # of the highest novelty, above the neighbourhood
GRID_S = 0.5  # unit where there are no beats
PHRASE_BARS = 4  # bars of a phrase; sections begin with one
FROM_START = 1.25  # times the evidence of the grid of phrases that begins with the first bar: music seldom begins within a phrase
LAST_BARS = 3.5  # in which no section begins: a closing chord is shorter than a phrase
TURN = 0.3  # 1 - mean cosine of a phrase and the one before it, from which it begins a section
LEAST_S = 8.0  # of a section, on average,
MOST = 12  # until there are so many: a song of four minutes has no more,
USUAL_S = 20.0  # and a longer one as many as it has of these
EDGE_S = 4.0  # of a run of sound, in which no section ends
SHORTEST = 30.0  # seconds; below, a clip has no form
ALIKE = 0.72  # similarity of two sections with one letter
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Units:
    """Beats, or a grid, of one stretch of sound that begins and ends at these seconds of the file."""

    start_s: float
    end_s: float
    edges: np.ndarray  # (units + 1,) s of the file
    sums: np.ndarray  # (units, 84) magnitude of each semitone, summed

    def joined(self, n: int) -> Units:
        """The same with n units in one; what is left over at the end is left out."""
        n = min(n, len(self.sums))
        whole = len(self.sums) // n * n
        return Units(
            self.start_s, self.end_s, self.edges[: whole + 1 : n], self.sums[:whole].reshape(-1, n, self.sums.shape[1]).sum(axis=1)
        )


def units(spectrogram: np.ndarray, start_s: float, duration_s: float, beats: np.ndarray) -> Units:
    """The units of a stretch: constant-Q (frames, 252), beats (n,) s from its start -> Units."""
    beats = beats[(beats > 0) & (beats < duration_s)]
    edges = beats if len(beats) > 16 else np.arange(0.0, duration_s, GRID_S)
    frames = np.clip((edges * CQT_FPS).round().astype(int), 0, len(spectrogram) - 1)
    frames = np.maximum.accumulate(frames)
    sums = np.add.reduceat(spectrogram, frames[:-1], axis=0)[: len(edges) - 1]
    return Units(start_s, start_s + duration_s, edges + start_s, np.roll(sums, 1, axis=1).reshape(len(sums), -1, 3).sum(axis=2))


def describe(semitones: np.ndarray) -> np.ndarray:
    """Harmony and colour of each unit: sums (units, 84) -> (units, 40), harmony and colour of equal weight."""
    octaves = semitones.reshape(len(semitones), -1, 12)
    harmony = np.sqrt(octaves[:, 1:6].sum(axis=1))
    harmony -= harmony.mean(axis=1, keepdims=True)
    colour = np.log(semitones.reshape(len(semitones), -1, 3).sum(axis=2) + 1e-3 * semitones.mean() + 1e-9)  # 28 bands of three semitones
    colour -= colour.mean(axis=0)
    parts = [part / (np.sqrt((part**2).sum(axis=1).mean()) + 1e-9) for part in (harmony, colour)]
    return np.concatenate(parts, axis=1)


def novelty(features: np.ndarray) -> np.ndarray:
    """How much the pattern of repetitions changes at each unit: (units, d) -> (units,)."""
    n = len(features)
    index = np.clip(np.arange(n)[:, None] + np.arange(EMBED) - EMBED // 2, 0, n - 1)
    shapes = features[index].reshape(n, -1).astype(np.float32)
    square = (shapes**2).sum(axis=1)
    distance = square[:, None] + square - 2 * shapes @ shapes.T
    np.fill_diagonal(distance, np.inf)
    k = max(2, round(NEIGHBOURS * n))
    near = distance <= np.partition(distance, k - 1, axis=1)[:, k - 1 : k]
    alike = (near & near.T).astype(np.float32)
    at = np.arange(n)
    lag = np.take_along_axis(alike, (at[:, None] + at) % n, axis=1)  # (unit, lag)
    kernel = np.exp(-0.5 * ((at[:, None] - at) / SMOOTH_LAG) ** 2)
    structure = lag @ (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    total = np.concatenate([np.zeros((1, n)), np.cumsum(structure, axis=0, dtype=np.float64)])
    low, high = np.maximum(at - WINDOW, 0), np.minimum(at + WINDOW, n)
    after = (total[high] - total[at]) / (high - at)[:, None]
    before = (total[at] - total[low]) / np.maximum(at - low, 1)[:, None]
    change = np.sqrt(((after - before) ** 2).sum(axis=1))
    change[0] = 0.0
    return np.asarray(change)


def peaks(curve: np.ndarray) -> np.ndarray:
    """Units where the curve is highest around and stands out: (units,) -> (k,) int."""
    n = len(curve)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(curve, CLOSEST, mode="edge"), 2 * CLOSEST + 1)
    top = (curve >= around.max(axis=1)) & (curve - around.mean(axis=1) > PEAK * curve.max()) & (curve > 0)
    top[:CLOSEST] = top[max(0, n - CLOSEST) :] = False
    return np.flatnonzero(top)


def _similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Best mean cosine of two sequences of units laid over each other, the shorter one moved along: (n, d), (m, d) -> -1..1."""
    short, long = sorted((a, b), key=len)
    norms = [x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-9) for x in (short, long)]
    cosine = norms[0] @ norms[1].T
    return float(max(np.trace(cosine, offset=shift) for shift in range(len(long) - len(short) + 1)) / len(short))


def letters(parts: list[np.ndarray]) -> list[str]:
    """One letter for each section, the same for sections that sound alike: features of each -> labels."""
    known: list[list[np.ndarray]] = []
    labels = []
    for part in parts:
        likeness = [max(_similarity(part, other) for other in group) for group in known]
        best = int(np.argmax(likeness)) if likeness else -1
        if best < 0 or likeness[best] < ALIKE:
            best = len(known)
            known.append([])
        known[best].append(part)
        labels.append(LETTERS[best] if best < len(LETTERS) else f"S{best + 1}")
    return labels


def turns(features: np.ndarray, bars: np.ndarray, bar: int) -> tuple[np.ndarray, np.ndarray]:
    """How much a phrase of four bars differs from the one before, beat by beat, on the grid of phrases that shows it best.

    Features of beats (n, d), the first beats of the bars (k,), beats in a bar -> first beats of phrases (j,), the difference (j,) 0..2.
    """
    unit = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-9)
    lag = PHRASE_BARS * bar
    change = np.zeros(len(bars))
    for index, at in enumerate(bars.tolist()):
        first, last = max(at, lag), min(at + lag, len(unit))
        if last - first >= lag // 2:
            change[index] = 1 - float((unit[first:last] * unit[first - lag : last - lag]).sum(axis=1).mean())
    shown = np.maximum(change - np.median(change), 0.0)
    evidence = np.array([shown[first::PHRASE_BARS].sum() for first in range(PHRASE_BARS)])
    evidence[0] *= FROM_START
    phase = int(evidence.argmax())
    begins = bars[phase::PHRASE_BARS]
    whole = begins + LAST_BARS * bar <= len(unit)
    return begins[whole], change[phase::PHRASE_BARS][whole]


def measure_sections(found: Sequence[Units], downbeats: np.ndarray) -> tuple[Segment, ...]:
    """Sections that cover what sounds; silence ends one. Units of each stretch, downbeats (n,) s -> segments; nothing for short clips."""
    if sum(part.end_s - part.start_s for part in found) < SHORTEST or sum(len(part.sums) for part in found) < 4 * EMBED - 1:
        return ()
    runs = _without_silence(found)
    firsts = np.cumsum([0, *(sum(len(part.sums) for part in run) for run in runs)]).tolist()
    starts = np.concatenate([part.edges[:-1] for run in runs for part in run])
    features = describe(np.concatenate([part.sums for run in runs for part in run]))
    cuts = _on_phrases(features, starts, downbeats, list(pairwise(firsts)))
    if cuts is None:
        cuts = _anywhere(runs, starts, downbeats)
    spans: list[tuple[float, float]] = []
    parts: list[np.ndarray] = []
    for run, (first, last) in zip(runs, pairwise(firsts), strict=True):
        inside = cuts[(starts[cuts] > run[0].start_s + EDGE_S) & (starts[cuts] < run[-1].end_s - EDGE_S)]
        spans += pairwise([run[0].start_s, *starts[inside].tolist(), run[-1].end_s])
        parts += np.split(features[first:last], inside - first)
    return _joined([Segment(start, end, label) for (start, end), label in zip(spans, letters(parts), strict=True)])


def _on_phrases(features: np.ndarray, starts: np.ndarray, downbeats: np.ndarray, runs: list[tuple[int, int]]) -> np.ndarray | None:
    """Units where phrases differ that follow each other, for all runs of units; None where one of them has too few bars."""
    found: list[tuple[float, int]] = []
    for first, last in runs:
        inside = downbeats[(downbeats >= starts[first] - GRID_S) & (downbeats <= starts[last - 1] + GRID_S)]
        bars = np.unique(_nearest(starts[first:last], inside))
        if len(bars) < 3 * PHRASE_BARS:
            return None
        phrases, change = turns(features[first:last], bars, round(float(np.median(np.diff(bars)))))
        found += [(value, first + at) for at, value in zip(phrases.tolist(), change.tolist(), strict=True) if value > TURN]
    length_s = float(starts[-1] - starts[0])
    most = round(max(length_s / USUAL_S, min(MOST, length_s / LEAST_S))) - 1
    return np.array(sorted(at for _, at in sorted(found, reverse=True)[:most]), int)


def _anywhere(runs: list[list[Units]], starts: np.ndarray, downbeats: np.ndarray) -> np.ndarray:
    """Units where the pattern of repetitions changes, at the nearest downbeats where there are any."""
    n = -(-(len(starts) + 1) // MAX_UNITS)
    joined = [[part.joined(n) for part in run] for run in runs]
    curve = novelty(describe(np.concatenate([part.sums for run in joined for part in run])))
    for first in np.cumsum([sum(len(part.sums) for part in run) for run in joined])[:-1]:  # silence is a boundary already
        curve[max(0, first - CLOSEST) : first + CLOSEST] = 0.0
    times = np.concatenate([part.edges[:-1] for run in joined for part in run])[peaks(curve)]
    if len(downbeats) and len(times):
        times = downbeats[_nearest(downbeats, times)]
    cuts = np.unique(np.searchsorted(starts, times))
    return cuts[(cuts > 0) & (cuts < len(starts))]


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of some times in their order is the nearest to each wanted one: (n,) s, n >= 1, (k,) s -> (k,) int.

    In memory of both, not of their product: a mix of ten hours has 45,000 units and 11,000 bars.
    """
    right = np.searchsorted(times, wanted).clip(1, max(1, len(times) - 1))
    left = right - 1
    right = right.clip(max=len(times) - 1)
    return np.where(wanted - times[left] <= times[right] - wanted, left, right)


def _joined(sections: list[Segment]) -> tuple[Segment, ...]:
    """Neighbours that sound alike as one."""
    out: list[Segment] = []
    for section in sections:
        if out and out[-1].label == section.label and out[-1].end == section.start:
            out[-1] = Segment(out[-1].start, section.end, section.label)
        else:
            out.append(section)
    return tuple(out)


def _without_silence(found: Sequence[Units]) -> list[list[Units]]:
    """Stretches that follow each other at once, together."""
    runs: list[list[Units]] = []
    for part in found:
        if runs and part.start_s - runs[-1][-1].end_s < GRID_S:
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs
