"""Beat and downbeat evidence per frame: the network of BeatNet (CC BY 4.0, Heydari et al., ISMIR 2021), model 1."""

from __future__ import annotations

import numpy as np

from mflamingo_cli.measure.networks import load_weights, lstm, softmax


def beat_evidence(bands: np.ndarray) -> np.ndarray:
    """Probabilities of beat, downbeat and neither from `beat_bands`: (frames, 272) -> (frames, 3) float32."""
    weights = load_weights("beatnet")
    taps = weights["conv"].shape[1]
    n_conv = bands.shape[1] - taps + 1
    dense = np.zeros((bands.shape[1], 2, n_conv), np.float32)  # the convolution over bands as one matrix product
    for tap in range(taps):
        dense[np.arange(n_conv) + tap, :, np.arange(n_conv)] = weights["conv"][:, tap]
    even, odd = (bands @ dense[:, :, phase : n_conv - 1 : 2].reshape(len(dense), -1) for phase in (0, 1))
    pooled = np.maximum(even, odd).reshape(len(bands), 2, -1) + weights["conv_b"][:, None]
    hidden = np.maximum(pooled, 0.0).reshape(len(bands), -1) @ weights["dense"] + weights["dense_b"]
    for layer in range(2):
        hidden = lstm(hidden, *(weights[f"lstm{layer}_{part}"] for part in "xhb"))
    return softmax(hidden @ weights["head"] + weights["head_b"])
