"""Layers of neural networks in NumPy, fast enough for one core: LSTM cells, 3 x 3 convolutions with their norms, SELU and maxima.

Sequences are (frames, features) float32; images are (frames, frequency, channels) float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BLOCK_CELLS, FEWEST = 1344, 32  # frames x bins convolved at a time, and frames at least: a block stays in the caches
STEPS = 512  # of a recurrence whose input is multiplied at a time
EPSILON = 1e-5  # of the instance norms (torch's default)
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, arXiv 1706.02515
KNEE = math.log(SELU_ALPHA)
OFFSET = SELU_ALPHA + KNEE  # of what `Activation` gives


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


class Recurrence:
    """LSTM cells of several layers or directions, from the zero state; they step together, as the calls are most of a step's time."""

    def __init__(self, *lanes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """Weights of each lane: of the input (n_in, 4 n), of the state (n, 4 n), and the bias (4 n,), gates i, f, g, o."""
        n = len(lanes[0][1])
        self._inputs = [(_in_order(w_x), _in_order(bias)) for w_x, _, bias in lanes]
        self._states = [_in_order(w_h) for _, w_h, _ in lanes]
        self._cells = np.zeros((5, len(lanes), n), np.float32)  # gates i, f, o, g, and the cell
        self._hidden = np.zeros((len(lanes), n), np.float32)

    def restart(self, lane: int) -> None:
        """Put a lane back to the zero state."""
        self._cells[:, lane] = self._hidden[lane] = 0.0

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """Take as many steps as the longest input of a lane has: (steps, n_in) of each -> (steps, lanes, n)."""
        out = np.empty((max(map(len, inputs)), *self._hidden.shape), np.float32)
        for first in range(0, len(out), STEPS):
            self._run(out[first : first + STEPS], [x[first : first + STEPS] for x in inputs])
        return out

    def _run(self, out: np.ndarray, inputs: list[np.ndarray]) -> None:
        _, lanes, n = out.shape
        gates = np.zeros((len(out), 4, lanes, n), np.float32)
        for lane, (x, (weight, bias)) in enumerate(zip(inputs, self._inputs, strict=True)):
            gates[: len(x), :, lane] = (x @ weight + bias).reshape(len(x), 4, n)
        recurrent = np.empty((lanes, 4 * n), np.float32)
        by_gate = recurrent.reshape(lanes, 4, n).swapaxes(0, 1)
        products = list(enumerate(zip(self._states, recurrent, strict=True)))
        active, sigmoid, cell = self._cells[:4], self._cells[:3], self._cells[4]
        in_and_forget, out_gate, new_and_old = self._cells[:2], self._cells[2], self._cells[3:]
        half, kept = np.full_like(sigmoid, 0.5), np.empty_like(new_and_old)
        hidden = self._hidden
        for gate, after in zip(gates, out, strict=True):
            for lane, (weight, product) in products:
                np.dot(hidden[lane], weight, product)
            np.add(gate, by_gate, active)
            np.tanh(active, active)
            np.multiply(sigmoid, half, sigmoid)
            np.add(sigmoid, half, sigmoid)
            np.multiply(in_and_forget, new_and_old, kept)
            np.add(kept[0], kept[1], cell)
            hidden = np.multiply(out_gate, np.tanh(cell), after)
        self._hidden = hidden.copy()


def _in_order(weight: np.ndarray) -> np.ndarray:
    """Gates i, f, o, g of i, f, g, o. The sigmoids' are halved: sigmoid(a) = (1 + tanh(a / 2)) / 2, so one tanh serves all four."""
    i, f, g, o = np.split(weight, 4, axis=-1)
    return np.concatenate([np.concatenate([i, f, o], axis=-1) * np.float32(0.5), g], axis=-1)


@dataclass(frozen=True)
class InstanceNorm:
    """A norm of an image: x * scale + shift, both (c,) float32."""

    scale: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, total: np.ndarray, square: np.ndarray, count: int) -> InstanceNorm:
        """From the sums of each channel's values and of their squares: (c,), (c,)."""
        mean = total / count
        scale = 1.0 / np.sqrt(np.maximum(square / count - mean**2, 0.0) + EPSILON)
        return cls(scale.astype(np.float32), (-mean * scale).astype(np.float32))


class Activation:
    """SELU of a normalised image without its last constant factor, which the next norm would remove, and plus OFFSET, which it removes too.

    With y = x + KNEE that is exp(min(y, KNEE)) + max(y, KNEE). Constants are laid out for a frame: NumPy is twice as fast with arrays.
    """

    def __init__(self, norm: InstanceNorm, n_bins: int, n_frames: int) -> None:
        """For blocks of at most so many frames."""
        self._scale, self._shift = np.tile(norm.scale, n_bins), np.tile(norm.shift + np.float32(KNEE), n_bins)
        self._knee = np.full_like(self._scale, KNEE)
        self._low = np.empty((n_frames, len(self._scale)), np.float32)

    def write(self, x: np.ndarray, out: np.ndarray) -> None:
        """Activate a block: (t, f * c) -> the same."""
        low = self._low[: len(x)]
        np.multiply(x, self._scale, out=out)
        out += self._shift
        np.minimum(out, self._knee, out=low)
        np.exp(low, out=low)
        np.maximum(out, self._knee, out=out)
        out += low


class Convolution:
    """3 x 3 convolution, padded by one frame and `pad` bins, then the maximum of each `pool` bins.

    Along time it is Winograd's F(2, 3) (Lavin and Gray, CVPR 2016, arXiv 1509.09308): four products of mixed frames make two frames, where
    the plain sum takes six. Along frequency three neighbouring bins are contiguous, so every third bin is a row of one matrix product.
    """

    def __init__(self, weight: np.ndarray, n_bins: int, pad: int, pool: int = 1) -> None:
        """For images (t, n_bins, c): weight (9 c, c_out) in the order bin, frame, channel."""
        c, c_out = len(weight) // 9, weight.shape[1]
        self._pool, self._n_out, self._c_out = pool, n_bins - 2 + 2 * pad, c_out
        groups = -(-(n_bins + 2 * pad) // 3)
        first, second, third = weight.reshape(3, 3, c, c_out).swapaxes(0, 1).reshape(3, 3 * c, c_out)
        self._weights = (first, (first + second + third) / 2, (first - second + third) / 2, third)
        self._block = block = max(FEWEST, 2 * (BLOCK_CELLS // n_bins))
        self._padded = np.empty((block + 2, 3 * groups * c), np.float32)  # a frame more at both ends
        self._inside = self._padded[:, pad * c : (pad + n_bins) * c]
        size = block // 2 * groups
        self._mixed = np.zeros(size * 3 * c + 2 * c, np.float32)
        self._rows = [self._mixed[phase * c :][: size * 3 * c].reshape(size, 3 * c) for phase in range(3)]  # bins 0, 3, …; 1, 4, …; 2, 5, …
        apart = pool == 3  # bins that are pooled are in the three parts
        results = np.empty((4, 3, size, c_out) if apart else (4, size, 3, c_out), np.float32)
        self._results = [[result[phase] if apart else result[:, phase] for phase in range(3)] for result in results]
        shape = (4, 3, block // 2, groups * c_out) if apart else (4, block // 2, 3 * groups * c_out)
        self._sums = results.reshape(shape)[..., : self._n_out * c_out // (3 if apart else 1)]
        self._wide = np.empty((*self._sums.shape[1:-2], block, self._sums.shape[-1]), np.float32)

    def shape(self, n_frames: int) -> tuple[int, int, int]:
        """Of the result for so many frames."""
        return n_frames, self._n_out // self._pool, self._c_out

    def over(self, x: np.ndarray, out: np.ndarray, norm: InstanceNorm | None = None) -> InstanceNorm:
        """Convolve an image, normalised and activated first if it has a norm, and return the norm of the result: (t, f, c) -> `shape`."""
        n_frames, n_bins, _ = x.shape
        x, block, inside = x.reshape(n_frames, -1), self._block, self._inside
        nothing = OFFSET if norm else 0.0
        write = Activation(norm, n_bins, block).write if norm else lambda frames, to: np.copyto(to, frames)
        self._padded.fill(nothing)
        write(x[:1], inside[1:2])
        sums = np.zeros((2, self._sums.shape[-1]))
        for t in range(0, n_frames, block):
            following = x[t + 1 : t + 1 + block]
            write(following, inside[2 : 2 + len(following)])
            inside[2 + len(following) :] = nothing
            sums += self._convolve(out[t : t + block])
            inside[:2] = inside[block:]
        total, square = sums.reshape(2, -1, self._c_out).sum(axis=1)
        return InstanceNorm.of(total, square, n_frames * self._n_out)

    def _convolve(self, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convolve as many frames; the sums over time of what is there before pooling, and of its squares, twice (f_out * c_out,)."""
        count = len(out)
        pairs = (count + 1) // 2
        self._multiply(pairs)
        wide = self._wide[..., :count, :] if self._pool > 1 else out.reshape(count, -1)
        m0, m1, m2, m3 = self._sums[..., :pairs, :]
        m0 += m1
        np.add(m0, m2, out=wide[..., 0::2, :])
        m1 -= m2
        np.subtract(m1[..., : count // 2, :], m3[..., : count // 2, :], out=wide[..., 1::2, :])
        if self._pool == 3:
            wide.max(axis=0, out=out.reshape(count, -1))
        elif self._pool > 1:
            wide.reshape(count, -1, self._pool, self._c_out).max(axis=2, out=out)
        rows = wide.reshape(-1, wide.shape[-1])
        return np.ones(len(rows), np.float32) @ rows, np.einsum("ij,ij->j", rows, rows)

    def _multiply(self, pairs: int) -> None:
        """The four products of each pair of frames: frames before it, both, and after it -> `_results`."""
        even, odd = self._padded[0::2], self._padded[1::2]
        d0, d1, d2, d3 = even[:pairs], odd[:pairs], even[1 : pairs + 1], odd[1 : pairs + 1]
        mixed = self._mixed[: -2 * (len(self._weights[0]) // 3)].reshape(-1, self._padded.shape[1])[:pairs]
        n_rows = pairs * self._padded.shape[1] // len(self._weights[0])
        mixes = ((np.subtract, d0, d2), (np.add, d1, d2), (np.subtract, d2, d1), (np.subtract, d1, d3))
        for (mix, a, b), weight, result in zip(mixes, self._weights, self._results, strict=True):
            mix(a, b, out=mixed)
            for rows, to in zip(self._rows, result, strict=True):
                np.matmul(rows[:n_rows], weight, out=to[:n_rows])
