"""Beats placed on the onsets near their frames. Samples are mono at 16 kHz; frames are those of the beat network, 50 a second."""

from __future__ import annotations

import numpy as np

from mflamingo_cli.measure.spectra import BEAT_FPS, RATE

HOP = 16  # samples, 1 ms: of the envelope in which an onset is looked for
SMOOTH = 5  # hops: two periods of 400 Hz, so that a low tone does not ripple
RISE = 4  # hops over which the envelope rises: a plucked or struck attack
FLOOR = 0.01  # of the mean power, added: what is 20 dB below the song begins nothing
NEARLY = 0.9  # of the steepest rise near a frame: the first that is so steep is its onset
NEAR = 30  # hops from a frame in which its onset is: one frame and a half, the width of the network's peaks
LINE = 9  # beats through which a line is laid: two bars, in which a player keeps the tempo
ON_LINE_S = 0.012  # median distance of the onsets from their line, up to which it is believed; players are 10 ms off, chance is 15
ROUNDS = 4  # of the weighted least squares


def envelope(samples: np.ndarray) -> np.ndarray:
    """Log power of the differenced sound, which weighs attacks over held tones: (n,) -> (n // 16,), a value a millisecond."""
    slope = np.diff(samples, prepend=samples[:1])
    hops = slope[: len(slope) // HOP * HOP].reshape(-1, HOP)
    power = np.convolve(np.einsum("ij,ij->i", hops, hops) / HOP, np.full(SMOOTH, 1 / SMOOTH, np.float32), "same")
    return np.log10(power + max(FLOOR * float(power.mean()), 1e-12))


def nearest_onsets(samples: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The steepest rise near each frame: (n,), (k,) -> (k,) s; where nothing rises, the time of the frame."""
    level = envelope(samples)
    rise = np.zeros(len(level) + 2 * NEAR + 1)  # outside the sound nothing begins
    rise[NEAR + RISE : NEAR + len(level)] = level[RISE:] - level[:-RISE]
    centres = np.clip(np.rint(frames * (RATE / BEAT_FPS / HOP)).astype(int), 0, len(level))
    around = rise[centres[:, None] + np.arange(2 * NEAR + 1)]
    begins = (around >= NEARLY * around.max(axis=1, keepdims=True)).argmax(axis=1)
    found = (centres + begins - NEAR + (1 - RISE) / 2) * (HOP / RATE)
    return np.where(around.max(axis=1) > 0, found, frames / BEAT_FPS)


def place_beats(samples: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Times of beats that were found in frames of 20 ms, from the onsets near them: (n,), (k,) -> (k,) s.

    A beat lies on the line through the onsets of two bars around it, which leaves out those that are late, early or not there. Where the
    onsets of most of these beats are on no line, it stays in the middle of its frame.
    """
    times = frames / BEAT_FPS
    if len(times) < LINE:
        return times
    onsets = nearest_onsets(samples, frames)
    windows = np.lib.stride_tricks.sliding_window_view(onsets, LINE)
    first = np.clip(np.arange(len(times)) - LINE // 2, 0, len(windows) - 1)
    start, period, off = _lines(windows)
    placed = start[first] + period[first] * (np.arange(len(times)) - first)
    on_line = (off[first] <= ON_LINE_S) & (np.abs(placed - times) <= NEAR * HOP / RATE)
    return np.where(on_line, np.maximum(placed, 0.0), times)


def _lines(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A line through most of the times of each row: (n, LINE) -> time of the first, step, and median distance from the line, (n,) each."""
    index = np.arange(LINE)
    weight = np.ones(windows.shape)
    for _ in range(ROUNDS):
        total = weight.sum(axis=1)
        at, mean = (weight * index).sum(axis=1) / total, (weight * windows).sum(axis=1) / total
        middle = index - at[:, None]
        step = (weight * middle * windows).sum(axis=1) / (weight * middle**2).sum(axis=1)
        start = mean - step * at
        distance = np.abs(windows - start[:, None] - step[:, None] * index)
        off = np.median(distance, axis=1)
        weight = 1 / np.maximum(1.0, distance / (1.5 * off[:, None] + 1e-4))  # Huber's
    return start, step, off
