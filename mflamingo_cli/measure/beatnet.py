"""Beat and downbeat evidence per frame: the network of BeatNet (CC BY 4.0, Heydari et al., ISMIR 2021), model 1."""

from __future__ import annotations

import numpy as np

from mflamingo_cli.measure.networks import Weights, load_weights, lstm, softmax

BLOCK = 4096  # frames whose convolution is held at a time


def _front(bands: np.ndarray, weights: Weights) -> np.ndarray:
    """Convolution over the bands, maximum of neighbours, dense layer: (frames, 272) -> (frames, 150)."""
    taps = weights["conv"].shape[1]
    n_conv = bands.shape[1] - taps + 1
    matrix = np.zeros((bands.shape[1], 2, n_conv), np.float32)  # the convolution as one matrix product
    for tap in range(taps):
        matrix[np.arange(n_conv) + tap, :, np.arange(n_conv)] = weights["conv"][:, tap]
    even, odd = (bands @ matrix[:, :, phase : n_conv - 1 : 2].reshape(len(matrix), -1) for phase in (0, 1))
    pooled = np.maximum(even, odd).reshape(len(bands), 2, -1) + weights["conv_b"][:, None]
    return np.asarray(np.maximum(pooled, 0.0).reshape(len(bands), -1) @ weights["dense"] + weights["dense_b"])


def beat_evidence(bands: np.ndarray) -> np.ndarray:
    """Probabilities of beat, downbeat and neither from `beat_bands`: (frames, 272) -> (frames, 3) float32."""
    weights = load_weights("beatnet")
    hidden = np.concatenate([_front(bands[first : first + BLOCK], weights) for first in range(0, len(bands), BLOCK)])
    for layer in range(2):
        hidden = lstm(hidden, *(weights[f"lstm{layer}_{part}"] for part in "xhb"))
    return softmax(hidden @ weights["head"] + weights["head_b"])
