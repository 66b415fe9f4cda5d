"""Rows of weights encoded and decoded by libggml itself: `ggml_quantize_chunk` and its inverse.

Arrays are rows of float32; sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import c_bool, c_int, c_int64, c_size_t, c_void_p
from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from quant.arrays import Bytes, Floats
from quant.errors import QuantError
from quant.providers import libraries
from quant.types import F32, STORAGES, Storage


def encode(rows: Floats, storage: Storage, importance: Floats | None = None, name: str = "tensor") -> Bytes:
    """Encode rows: (n, row) float32 -> (bytes,) uint8, bit by bit what libggml makes of them.

    `importance` (row,) weighs the columns where the type is one of WEIGHED. Raises QuantError, with the `name` of the tensor, where the
    values do not fit the type.
    """
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    n_rows, row = rows.shape
    assert row % storage.block == 0, "choose the type with `fit`"
    out = np.empty(storage.n_bytes(rows.size), dtype=np.uint8)
    weights = None
    if importance is not None:
        importance = np.ascontiguousarray(importance, dtype=np.float32)
        assert importance.shape == (row,)
        weights = importance.ctypes.data_as(c_void_p)
    source, target = rows.ctypes.data_as(c_void_p), out.ctypes.data_as(c_void_p)
    library = ggml()
    written = library.ggml_quantize_chunk(storage.number, source, target, 0, n_rows, row, weights)
    assert written == out.nbytes
    # a sum is not finite when any of its terms is not: the quick question first
    if not np.isfinite(rows.sum()) and not np.isfinite(rows).all():
        raise QuantError(f"{name}: contains NaN or infinite weights")
    if not library.ggml_validate_row_data(storage.number, target, out.nbytes):
        raise QuantError(f"{name}: its weights do not fit {storage.name}; choose BF16 or F32")
    return out


def decode(data: Bytes, storage: Storage) -> Floats:
    """Decode stored blocks: (bytes,) uint8 -> (n,) float32."""
    data = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    n_weights = data.nbytes // storage.block_bytes * storage.block
    if storage is F32:
        return data.view(np.float32)
    out = np.empty(n_weights, dtype=np.float32)
    function = getattr(ggml(), DECODERS[storage.name])
    function(data.ctypes.data_as(c_void_p), out.ctypes.data_as(c_void_p), c_int64(n_weights))
    return out


# Where a block has floating-point numbers: their type, what all bits but the sign are at least in NaN and infinity, and their bytes in it.
# Of types with scales only those are looked at: all else in a block is integers (ggml-common.h).
INFINITY: Mapping[str, tuple[str, int, tuple[int, ...]]] = {
    "F32": ("<u4", 0x7F80_0000, (0,)),
    "BF16": ("<u2", 0x7F80, (0,)),
    **dict.fromkeys(("F16", "Q8_0", "Q4_0", "Q5_0"), ("<u2", 0x7C00, (0,))),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), ("<u2", 0x7C00, (0, 2))),
    "Q2_K": ("<u2", 0x7C00, (80, 82)),
    "Q3_K": ("<u2", 0x7C00, (108,)),
    "Q6_K": ("<u2", 0x7C00, (208,)),
}
BLOCKS_AT_ONCE = 1 << 18


def is_finite(data: Bytes, storage: Storage) -> bool:
    """Return whether no weight of stored blocks is NaN or infinite, without decoding them: (bytes,) uint8."""
    dtype, infinity, places = INFINITY[storage.name]
    numbers = np.dtype(dtype)
    for first in range(0, data.nbytes, BLOCKS_AT_ONCE * storage.block_bytes):
        part = data[first : first + BLOCKS_AT_ONCE * storage.block_bytes]
        for place in places:
            bits = np.ndarray((part.nbytes // storage.block_bytes,), numbers, part, place, (storage.block_bytes,))
            if (bits & ((1 << 8 * numbers.itemsize - 1) - 1)).max(initial=0) >= infinity:
                return False
    return True


DECODERS: Mapping[str, str] = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"} | {
    name: f"dequantize_row_{name[0].lower()}{name[1:]}" for name in (storage.name for storage in STORAGES.values()) if name[0] == "Q"
}


PROTOTYPES = {
    "ggml_quantize_chunk": (c_size_t, [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
    "ggml_validate_row_data": (c_bool, [c_int, c_void_p, c_size_t]),
} | {name: (None, [c_void_p, c_void_p, c_int64]) for name in DECODERS.values()}


@lru_cache(maxsize=1)
def ggml() -> SimpleNamespace:
    """Return the functions of libggml that encode and decode; no Python module of its package is needed."""
    return SimpleNamespace(**libraries().bind(PROTOTYPES))
