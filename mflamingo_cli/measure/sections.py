"""Where a song changes and what comes back: structure features (Serra et al., IEEE Trans. Multimedia 2014), on beats, cut at downbeats.

Letters say which sections sound alike, in order of appearance; they do not claim a verse or a chorus.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mflamingo_cli.measure.beats import BeatTrack
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
SHORTEST = 30.0  # seconds; below, a clip has no form
ALIKE = 0.72  # similarity of two sections with one letter
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def unit_edges(duration_s: float, track: BeatTrack) -> np.ndarray:
    """Edges of the units compared: beats, or a grid: -> (units + 1,) s."""
    beats = track.beats[(track.beats > 0) & (track.beats < duration_s)]
    edges = beats if len(beats) > 16 else np.arange(0.0, duration_s, GRID_S)
    return np.asarray(edges[:: -(-len(edges) // MAX_UNITS)])


def describe(spectrogram: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Harmony and colour of each unit: (frames, 252), (units + 1,) s -> (units, 40), harmony and colour of equal weight."""
    frames = np.clip((edges * CQT_FPS).round().astype(int), 0, len(spectrogram) - 1)
    frames = np.maximum.accumulate(frames)
    sums = np.add.reduceat(spectrogram, frames[:-1], axis=0)[: len(edges) - 1]
    semitones = np.roll(sums, 1, axis=1).reshape(len(sums), -1, 3).sum(axis=2)
    octaves = semitones.reshape(len(sums), -1, 12)
    harmony = np.sqrt(octaves[:, 1:6].sum(axis=1))
    harmony -= harmony.mean(axis=1, keepdims=True)
    colour = np.log(semitones.reshape(len(sums), -1, 3).sum(axis=2) + 1e-3 * semitones.mean() + 1e-9)  # 28 bands of three semitones
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


def measure_sections(spectrogram: np.ndarray, duration_s: float, track: BeatTrack) -> tuple[Segment, ...]:
    """Sections that cover the whole clip: constant-Q (frames, 252) -> segments; nothing for short clips."""
    edges = unit_edges(duration_s, track)
    if duration_s < SHORTEST or len(edges) < 4 * EMBED:
        return ()
    features = describe(spectrogram, edges)
    times = edges[peaks(novelty(features))]
    if len(track.downbeats):
        times = np.unique(track.downbeats[np.abs(track.downbeats[:, None] - times).argmin(axis=0)])
    bounds = [0.0, *(float(t) for t in times if GRID_S < t < duration_s - GRID_S), duration_s]
    cuts = np.searchsorted(edges[:-1], bounds[1:-1])
    labels = letters(np.split(features, cuts))
    return tuple(Segment(start, end, label) for (start, end), label in zip(pairwise(bounds), labels, strict=True))
