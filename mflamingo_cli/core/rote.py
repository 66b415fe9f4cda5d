"""Tables of the rotary time embedding (RoTE), which rotates the encoder's output by absolute time, before the projector.

Times are seconds, angles radians. The order of operations and the float32 roundings are those of transformers'
`MusicFlamingoRotaryEmbedding`: angles reach 3e4 rad, where one float32 rounding is 2e-3 rad, so another order is another embedding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quant.geometry import ENCODER_STRIDE, Rote

Table = npt.NDArray[np.float32]


def tables(rote: Rote, window_index: int, n_tokens: int, tokens_per_window: int) -> tuple[Table, Table]:
    """Return cosines and sines for the first `n_tokens` tokens of a window: two (n_tokens, n_rotated) float32 tables.

    The first half of the rotated channels is rotated by the window's index, the second by the token's;
    channel pairs (2k, 2k + 1) share an angle. `n_rotated` is 512 for the 8 B checkpoints.
    """
    step = rote.frame_step_s * ENCODER_STRIDE
    start = np.float32(window_index * tokens_per_window) * np.float32(step)
    seconds = start + np.arange(n_tokens, dtype=np.float32) * np.float32(step)
    exponents = np.arange(0, rote.dim, 2, dtype=np.float32) / np.float32(rote.dim)
    powers = np.power(rote.theta, exponents.astype(np.float64)).astype(np.float32)
    frequencies = np.repeat(np.float32(1.0) / powers, 2)  # theta ** (-2k / dim), every step rounded to float32
    window = np.float32(window_index) / np.float32(rote.n_positions) * frequencies
    positions = np.arange(n_tokens, dtype=np.float32) / np.float32(rote.n_positions) * np.float32(2 * np.pi)
    turns = np.concatenate([np.broadcast_to(window, (n_tokens, window.size)), positions[:, None] * frequencies], axis=1)
    angles = turns * (-seconds * np.float32(2) * np.float32(np.pi))[:, None]  # float32 throughout
    exact = angles.astype(np.float64)
    return np.cos(exact).astype(np.float32), np.sin(exact).astype(np.float32)
