"""Rows of queries and keys in the two orders of rotary positions: half a head apart, as transformers turns them, and in pairs.

Of a head with d channels transformers turns channel i together with i + d/2, llama.cpp's `llama` channel 2i together with 2i + 1
(GGML_ROPE_TYPE_NORMAL): the same numbers, as long as the rows of both matrices stand in that order. Its `qwen2` turns as transformers does.
"""

from __future__ import annotations

from quant.arrays import Floats


def to_pairs(rows: Floats, d_head: int) -> Floats:
    """Order rows as llama.cpp's `llama` has them: (heads * d_head, columns), as a checkpoint has them -> the same shape."""
    paired: Floats = rows.reshape(-1, 2, d_head // 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)
    return paired


def to_halves(rows: Floats, d_head: int) -> Floats:
    """Order rows as a checkpoint has them: the inverse of `to_pairs`."""
    halved: Floats = rows.reshape(-1, d_head // 2, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)
    return halved
