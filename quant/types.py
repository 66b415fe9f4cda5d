"""Storage types: which tensor gets which, and the encoding itself through libggml's `ggml_quantize_chunk`.

Sizes are bytes; arrays are rows of float32. The library is the one that llama-cpp-python installs.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from quant.layout import Part, QuantError, Role, Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Storage:
    """A ggml type: its number in files, and `block` weights in `block_bytes` bytes."""

    name: str
    number: int
    block: int
    block_bytes: int

    def n_bytes(self, n_weights: int) -> int:
        """Size of whole rows that hold `n_weights` together."""
        assert n_weights % self.block == 0
        return n_weights // self.block * self.block_bytes


# Sizes as the sums of what a block holds (ggml-common.h): scales, minima, high bits, low bits
F32 = Storage("F32", 0, 1, 4)
F16 = Storage("F16", 1, 1, 2)
BF16 = Storage("BF16", 30, 1, 2)
Q8_0 = Storage("Q8_0", 8, 32, 2 + 32)
Q5_0 = Storage("Q5_0", 6, 32, 2 + 4 + 16)
Q5_1 = Storage("Q5_1", 7, 32, 2 + 2 + 4 + 16)
Q4_K = Storage("Q4_K", 12, 256, 2 + 2 + 12 + 128)
Q5_K = Storage("Q5_K", 13, 256, 2 + 2 + 12 + 32 + 128)
Q6_K = Storage("Q6_K", 14, 256, 128 + 64 + 16 + 2)
STORAGES: Mapping[int, Storage] = {storage.number: storage for storage in (F32, F16, BF16, Q8_0, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K)}

# Rows that are not whole blocks of 256 take the type of about the same size with blocks of 32, like llama-quantize; else F16
FALLBACKS: Mapping[Storage, Storage] = {Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0}


@dataclass(frozen=True)
class Mix:
    """What `--type NAME` means: `base` for every matrix, more bits where errors cost most.

    `output` is the matrix in front of the softmax: its errors reach the choice of every token unfiltered.
    `sensitive` goes to half of the attn_v and ffn_down matrices: with grouped attention a V matrix is small and feeds several
    heads, ffn_down reads the widest, spikiest activations. `uses_more_bits` says which layers.
    """

    name: str
    file_type: int  # `general.file_type`: enum llama_ftype of llama.cpp
    base: Storage
    output: Storage
    sensitive: Storage | None = None
    sensitive_roles: frozenset[Role] = field(default=frozenset({"attn_v", "ffn_down"}))

    def storage(self, role: Role, layer: int | None, n_layers: int, *, tied: bool) -> Storage:
        """Type for a matrix, before its row length is looked at."""
        if role == "output" or (role == "embedding" and tied):
            return self.output
        if self.sensitive and role in self.sensitive_roles and layer is not None and uses_more_bits(layer, n_layers):
            return self.sensitive
        return self.base


# The mixes of llama-quantize: the same type for every tensor of the text part
TYPES: Mapping[str, Mix] = {
    mix.name: mix
    for mix in (
        Mix("F32", 0, F32, F32),
        Mix("F16", 1, F16, F16),
        Mix("BF16", 32, BF16, BF16),
        Mix("Q8_0", 7, Q8_0, Q8_0),
        Mix("Q6_K", 18, Q6_K, Q6_K),
        Mix("Q5_K_M", 17, Q5_K, Q6_K, Q6_K),
        Mix("Q4_K_M", 15, Q4_K, Q6_K, Q6_K),
    )
}


def uses_more_bits(layer: int, n_layers: int) -> bool:
    """Say whether a layer is among those that get more bits: the first and last eighth and every third between."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def storage_for(tensor: Tensor, mix: Mix, n_layers: int, *, tied: bool = False) -> Storage:
    """Type in which a tensor is stored: vectors, positions and convolution kernels in F32, matrices by the mix."""
    if tensor.role in ("vector", "positions", "kernel"):
        return F32
    return fit(mix.storage(tensor.role, tensor.layer, n_layers, tied=tied), tensor, tied=tied)


def fit(storage: Storage, tensor: Tensor, *, tied: bool = False) -> Storage:
    """Replace a type whose blocks do not divide the tensor's rows."""
    row = tensor.gguf_shape[-1]
    if row % storage.block == 0:
        return storage
    head = tensor.role == "output" or (tensor.role == "embedding" and tied)
    fallback = Q8_0 if head else FALLBACKS.get(storage, storage)
    return fallback if row % fallback.block == 0 else F16


def mix(name: str, part: Part = "text") -> Mix:
    """Look a type up by its name, in any case. Raises QuantError that lists the names."""
    found = TYPES.get(name.upper())
    if found is None:
        raise QuantError(f"unknown type {name!r} of the {part} part; choose one of {', '.join(TYPES)}")
    return found


def encode(rows: Floats, storage: Storage, importance: Floats | None = None) -> Bytes:
    """Encode rows: (n, row) float32 -> (bytes,) uint8, bit by bit what libggml makes of them.

    `importance` (row,) weighs the columns of K-quants. Raises QuantError where the values do not fit the type.
    """
    import numpy as np

    rows = np.ascontiguousarray(rows, dtype=np.float32)
    n_rows, row = rows.shape
    assert row % storage.block == 0, "choose the type with `fit`"
    out = np.empty(storage.n_bytes(rows.size), dtype=np.uint8)
    weights = None
    if importance is not None:
        importance = np.ascontiguousarray(importance, dtype=np.float32)
        assert importance.shape == (row,)
        weights = importance.ctypes.data_as(ctypes.c_void_p)
    source, target = rows.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p)
    library = ggml()
    written = library.ggml_quantize_chunk(storage.number, source, target, 0, n_rows, row, weights)
    assert written == out.nbytes
    # a sum is not finite when any of its terms is not: the quick question first
    if not np.isfinite(rows.sum()) and not np.isfinite(rows).all():
        raise QuantError("it holds NaN or infinite weights")
    if not library.ggml_validate_row_data(storage.number, target, out.nbytes):
        raise QuantError(f"its weights do not fit {storage.name}; choose BF16 or F32")
    return out


def decode(data: Bytes, storage: Storage) -> Floats:
    """Decode stored blocks: (bytes,) uint8 -> (n,) float32."""
    import numpy as np

    data = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    n_weights = data.nbytes // storage.block_bytes * storage.block
    if storage is F32:
        return data.view(np.float32)
    out = np.empty(n_weights, dtype=np.float32)
    function = getattr(ggml(), DECODERS[storage.name])
    function(data.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(n_weights))
    return out


DECODERS: Mapping[str, str] = {
    "F16": "ggml_fp16_to_fp32_row",
    "BF16": "ggml_bf16_to_fp32_row",
    "Q8_0": "dequantize_row_q8_0",
    "Q5_0": "dequantize_row_q5_0",
    "Q5_1": "dequantize_row_q5_1",
    "Q4_K": "dequantize_row_q4_K",
    "Q5_K": "dequantize_row_q5_K",
    "Q6_K": "dequantize_row_q6_K",
}


@lru_cache(maxsize=1)
def ggml() -> ctypes.CDLL:
    """Load libggml-base of the installed llama-cpp-python; its Python modules are not needed."""
    names = {"darwin": "libggml-base.dylib", "win32": "ggml-base.dll"}
    package = find_spec("llama_cpp")
    if package is None or package.origin is None:
        raise QuantError("llama-cpp-python is not installed; run `pip install llama-cpp-python`")
    path = Path(package.origin).parent / "lib" / names.get(sys.platform, "libggml-base.so")
    try:
        library = ctypes.CDLL(str(path))
        library.ggml_quantize_chunk.restype = ctypes.c_size_t
        library.ggml_validate_row_data.restype = ctypes.c_bool
    except (OSError, AttributeError) as error:
        raise QuantError(f"{path}: not usable ({error}); reinstall llama-cpp-python") from error
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    library.ggml_validate_row_data.argtypes = [ctypes.c_int, pointer, ctypes.c_size_t]
    return library
