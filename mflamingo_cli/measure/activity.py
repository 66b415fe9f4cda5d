"""Where a song sounds: the one mask behind all facts, so that nothing is measured in silence.

Silence is what lies 60 dB below the song, or below the dither of 16-bit files, for longer than music rests. Samples are mono at 16 kHz.
"""

from __future__ import annotations

import numpy as np

from mflamingo_cli.measure.spectra import RATE

FRAME = 160  # samples, 10 ms
DECAY_DB = 60.0  # below the song: as far as a reverberation falls until it is over (ISO 3382); pianissimo is 50 dB below fortissimo
DITHER = 10.0**-9  # mean square, -90 dBFS: dither of 16 bits has -93, with shaped noise a little more or less
REST_S = 3.0  # a bar of four beats at 80 BPM: shorter silence is a rest, which belongs to the music around it,
EDGE_S = 1.5  # and before the first sound or after the last one, what a recording leaves before it begins and while it dies away


def powers(samples: np.ndarray) -> np.ndarray:
    """Mean square of each frame of 10 ms without its mean, which is no sound: (n,) -> (ceil(n / 160),) float64."""
    whole = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    found = (np.einsum("ij,ij->i", whole, whole) / FRAME - np.square(whole.mean(axis=1))).astype(np.float64)
    rest = samples[whole.size :]
    return np.asarray(np.maximum(np.append(found, np.var(rest, dtype=np.float64)) if len(rest) else found, 0.0))


def threshold(power: np.ndarray) -> float:
    """Mean square above which a frame sounds, by the level at which the energy of the song lies; silence has none: (n,) -> float."""
    energy = float(power.sum())
    level = float(np.square(power).sum()) / energy if energy > 0 else 0.0
    return max(level * 10 ** (-DECAY_DB / 10), DITHER)


def sounding(samples: np.ndarray) -> list[tuple[int, int]]:
    """Where it sounds, rests included, in order: (n,) -> [first sample, sample after the last] of each stretch."""
    power = powers(samples)
    least = threshold(power)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], power > least, [False]]).astype(np.int8)))
    spans: list[tuple[int, int]] = []
    for first, last in edges.reshape(-1, 2).tolist():
        start, end = first * FRAME, min(last * FRAME, len(samples))
        if spans and start - spans[-1][1] < REST_S * RATE:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return [_to_samples(samples, span, least**0.5) for span in spans]


def cut(spans: list[tuple[int, int]], n_samples: int) -> list[tuple[int, int]]:
    """What is measured in one: `sounding` with a moment of silence before the first sound and after the last one."""
    if not spans:
        return []
    (first, *_), (*_, last) = spans[0], spans[-1]
    starts = [0 if first < EDGE_S * RATE else first, *(start for start, _ in spans[1:])]
    ends = [*(end for _, end in spans[:-1]), n_samples if n_samples - last < EDGE_S * RATE else last]
    return list(zip(starts, ends, strict=True))


def _to_samples(samples: np.ndarray, span: tuple[int, int], least: float) -> tuple[int, int]:
    """Move the ends of a span to the first and the last sample that is louder than `least`, from up to a frame outside to one inside."""
    start, end = span
    low, high = max(0, start - FRAME), min(len(samples), end + FRAME)
    head, tail = samples[low : start + FRAME], samples[end - FRAME : high]
    before = np.flatnonzero(np.abs(head - head[:1]) > least)  # an offset is no sound
    after = np.flatnonzero(np.abs(tail - tail[-1:]) > least)
    return (low + int(before[0]) if len(before) else start), (end - FRAME + int(after[-1]) + 1 if len(after) else end)
