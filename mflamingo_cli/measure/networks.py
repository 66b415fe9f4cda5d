"""Small published networks in NumPy: recurrent and convolutional layers fast enough for one core.

Sequences are (frames, features) float32; images are (frames, frequency, channels) float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import numpy as np

BLOCK = 16  # frames convolved at a time, so that a block stays in the second-level cache
EPSILON = 1e-5  # of the instance norms (torch's default)
SELU_ALPHA = 1.6732632423543772  # Klambauer et al. 2017, arXiv 1706.02515

Weights = Mapping[str, np.ndarray]


def load_weights(name: str) -> dict[str, np.ndarray]:
    """The arrays of `weights/<name>.npz` as float32; the sources are named in `weights/NOTICE`."""
    with files("mflamingo_cli.measure").joinpath("weights", f"{name}.npz").open("rb") as file, np.load(file) as arrays:
        return {key: arrays[key].astype(np.float32) for key in arrays.files}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def lstm(x: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """LSTM (gates i, f, g, o) along a song from the zero state: (steps, n_in) -> (steps, n_hidden)."""
    n = len(w_h)
    half = np.full(4 * n, 0.5, np.float32)  # sigmoid(a) = (1 + tanh(a / 2)) / 2: one tanh serves all gates
    half[2 * n : 3 * n] = 1.0
    recurrent = w_h * half
    gates = x @ (w_x * half) + bias * half
    cell, hidden = np.zeros(n, np.float32), np.zeros(n, np.float32)
    out = np.empty((len(x), n), np.float32)
    for step, gate in enumerate(gates):
        gate += hidden @ recurrent
        np.tanh(gate, out=gate)
        sigmoid = gate * 0.5
        sigmoid += 0.5
        cell *= sigmoid[n : 2 * n]
        cell += sigmoid[:n] * gate[2 * n : 3 * n]
        hidden = np.multiply(sigmoid[3 * n :], np.tanh(cell), out=out[step])
    return out


def convolve(x: np.ndarray, weight: np.ndarray, pad: int = 1) -> np.ndarray:
    """3 x 3 convolution, zero padded by one frame and `pad` bins: (t, f, c) -> (t, f - 2 + 2 * pad, c_out).

    Three frames are laid side by side once; three neighbouring bins are then contiguous, so every third output
    is a row of one plain matrix product without a further copy.
    """
    n_frames, n_bins, c = x.shape
    n_out, c_out = n_bins - 2 + 2 * pad, weight.shape[1]
    groups = -(-(n_bins + 2 * pad) // 3)
    out = np.empty((n_frames, groups, 3, c_out), np.float32)
    stack = np.zeros(BLOCK * groups * 9 * c + 6 * c, np.float32)
    image = stack[: BLOCK * groups * 9 * c].reshape(BLOCK, 3 * groups, 3, c)
    for t in range(0, n_frames, BLOCK):
        size = min(BLOCK, n_frames - t)
        for tap in range(3):
            first = t + tap - 1
            low, high = max(0, first), min(n_frames, first + size)
            if high - low < size:
                image[:, pad : pad + n_bins, tap] = 0.0
            image[low - first : high - first, pad : pad + n_bins, tap] = x[low:high]
        block = out[t : t + size].reshape(-1, 3, c_out)
        for phase in range(3):
            rows = stack[phase * 3 * c :][: size * groups * 9 * c].reshape(-1, 9 * c)
            np.matmul(rows, weight, out=block[:, phase])
    return out.reshape(n_frames, -1, c_out)[:, :n_out]


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and reciprocal standard deviation of each channel of an image: (t, f, c) -> (c,), (c,)."""
    n_frames, n_bins, c = x.shape
    count = n_frames * n_bins
    total, square = np.zeros(c), np.zeros(c)
    ones = np.ones(BLOCK * n_bins, np.float32)
    flat = np.empty((BLOCK, n_bins, c), np.float32)
    for t in range(0, n_frames, BLOCK):
        block = flat[: min(BLOCK, n_frames - t)]
        np.copyto(block, x[t : t + BLOCK])
        rows = block.reshape(-1, c)
        total += ones[: len(rows)] @ rows
        np.multiply(block, block, out=block)
        square += ones[: len(rows)] @ rows
    mean = total / count
    return mean.astype(np.float32), (1.0 / np.sqrt(np.maximum(square / count - mean**2, 0.0) + EPSILON)).astype(np.float32)


def activate(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """SELU of the normalised image without its last constant factor, which the next norm would remove."""
    out = np.empty(x.shape, np.float32)
    shift = -mean * scale
    for t in range(0, len(x), BLOCK):
        block = out[t : t + BLOCK]
        np.multiply(x[t : t + BLOCK], scale, out=block)
        block += shift
        negative = np.minimum(block, 0.0)
        np.exp(negative, out=negative)
        negative *= SELU_ALPHA
        negative -= SELU_ALPHA
        np.maximum(block, 0.0, out=block)
        block += negative
    return out


def pool(x: np.ndarray, size: int) -> np.ndarray:
    """Maximum of each run of bins: (t, f, c) -> (t, f / size, c)."""
    n_frames, n_bins, c = x.shape
    return np.asarray(np.ascontiguousarray(x).reshape(n_frames, n_bins // size, size, c).max(axis=2))
