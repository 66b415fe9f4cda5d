"""Importance matrices: how strongly each column of a matrix is driven, so that quantising spends its precision there.

Values are mean squares of a matrix's inputs over tokens, one float32 per column. The files are llama.cpp's: GGUF
(tools/imatrix: sums and counts under the matrix's name) and the older binary one, which is only read.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from quant import reader
from quant.arrays import Floats
from quant.errors import QuantError
from quant.layout import Tensor, some
from quant.reader import MAGIC, GgufFile
from quant.types import F32
from quant.writer import GgufWriter, Value

SUMS, COUNTS = ".in_sum2", ".counts"  # behind the name of a matrix
KEY_DATASETS, KEY_CHUNKS, KEY_CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
CHUNK_TOKENS = 512  # llama-imatrix's own unit; here it only counts
MAX_NAME = 1 << 10  # of a matrix in the older format: longer is no name

# The output matrix is stored in Q6_K or better whatever the mix, and llama.cpp advises against weighing it (tools/imatrix/README.md)
WEIGHED_ROLES = frozenset({"matrix", "attn_v", "attn_output", "ffn_down"})


@dataclass(frozen=True)
class Imatrix:
    """Mean squared inputs by the GGUF name of the matrix: (row,) float32 each."""

    path: Path
    means: Mapping[str, Floats]
    datasets: tuple[str, ...]
    n_chunks: int

    def keys(self) -> dict[str, Value]:
        """What llama-quantize notes in a file that it makes with an importance matrix."""
        keys: dict[str, Value] = {"quantize.imatrix.file": self.path.name}
        if self.datasets:
            keys["quantize.imatrix.dataset"] = self.datasets[0]
        keys["quantize.imatrix.entries_count"] = len(self.means)
        return keys | ({"quantize.imatrix.chunks_count": self.n_chunks} if self.n_chunks > 0 else {})

    def check(self, tensors: Collection[Tensor]) -> None:
        """Compare names and widths with a model's tensors. Raises QuantError when this was collected on another one."""
        rows = {tensor.gguf: tensor.gguf_shape[-1] for tensor in tensors}
        strange = self.means.keys() - rows.keys()
        if strange:
            raise QuantError(f"{self.path}: computed for another model; this one has no {some(strange)}")
        for name, mean in self.means.items():
            if mean.size != rows[name]:
                raise QuantError(f"{self.path}: computed for another model; {name} has {rows[name]} columns here and {mean.size} there")
        lacking = {tensor.gguf for tensor in tensors if tensor.role in WEIGHED_ROLES} - self.means.keys()
        if lacking:
            raise QuantError(f"{self.path}: lacks {some(lacking)}; compute it again for the whole model with `mflamingo models imatrix`")


@dataclass(frozen=True)
class Sums:
    """What was seen of one matrix: sums of squared inputs, (row,), over `count` tokens."""

    squares: npt.NDArray[np.floating]
    count: int


def read(path: Path) -> Imatrix:
    """Read an importance matrix in either format. Raises QuantError when the file is none, cut short, or holds no mean squares."""
    try:
        with path.open("rb") as file:
            is_gguf = file.read(len(MAGIC)) == MAGIC
            found = None if is_gguf else _read_old(path, file)
    except OSError as error:
        raise QuantError(f"{path}: {error.strerror}") from error
    return _checked(found or _read_gguf(path, reader.read(path)))


def write(path: Path, entries: Mapping[str, Sums], datasets: Sequence[str]) -> None:
    """Write sums in the GGUF format, as llama-imatrix does; the file gets its name when it is complete. Raises QuantError."""
    n_tokens = max(entry.count for entry in entries.values())
    keys: dict[str, Value] = {
        "general.type": "imatrix",
        KEY_DATASETS: list(datasets),
        KEY_CHUNKS: -(-n_tokens // CHUNK_TOKENS),
        KEY_CHUNK_SIZE: CHUNK_TOKENS,
    }
    arrays = {}
    for name, entry in sorted(entries.items()):
        arrays[name + SUMS] = np.asarray(entry.squares, np.float32)
        arrays[name + COUNTS] = np.array([entry.count], np.float32)
    tensors = [(Tensor("text", name, name, array.shape, array.shape, "vector", None), F32) for name, array in arrays.items()]
    try:
        with GgufWriter(path, keys, tensors) as writer:
            for name, array in arrays.items():
                writer.write(writer.slots[name].offset, array.view(np.uint8))
            writer.commit()
    except OSError as error:
        raise QuantError(f"{error.filename or path}: {error.strerror}") from error


def _checked(found: Imatrix) -> Imatrix:
    if not found.means:
        raise QuantError(f"{found.path}: contains no importance matrix")
    for name, mean in found.means.items():
        if not np.isfinite(mean).all() or (mean < 0).any():
            raise QuantError(f"{found.path}: {name} contains values that cannot be sums of squares; compute it again")
        if not mean.any():
            raise QuantError(f"{found.path}: no inputs reached {name}, so its weights would be stored as zeros; compute it again")
    return found


def _read_gguf(path: Path, file: GgufFile) -> Imatrix:
    names = {name.removesuffix(SUMS) for name in file.tensors if name.endswith(SUMS)}
    counted = {name.removesuffix(COUNTS) for name in file.tensors if name.endswith(COUNTS)}
    if not names or KEY_CHUNKS not in file.keys:
        raise QuantError(f"{path}: not an importance matrix; `mflamingo models imatrix` and llama-imatrix make them")
    if names != counted:
        raise QuantError(f"{path}: {some(names ^ counted)} has sums without a count, or a count without sums; compute it again")
    means = {name: _mean(_floats(file, name + SUMS), _floats(file, name + COUNTS)) for name in sorted(names)}
    return Imatrix(path, means, tuple(map(str, file.keys.get(KEY_DATASETS, ()))), int(file.keys[KEY_CHUNKS]))


def _floats(file: GgufFile, name: str) -> Floats:
    if file.tensors[name].storage is not F32:
        raise QuantError(f"{file.path}: {name} is stored as {file.tensors[name].type_name}, not as F32")
    return np.frombuffer(b"".join(data for _, data in file.blocks(name, 1 << 20)), "<f4")


def _mean(sums: Floats, counts: Floats) -> Floats:
    """Mean squares; a part that no token reached counts every column the same, like in llama.cpp."""
    parts = sums.reshape(counts.size, -1)
    seen = counts[:, None] > 0
    mean: Floats = np.where(seen, parts / np.where(seen, counts[:, None], np.float32(1)), np.float32(1)).reshape(-1)
    return mean


def _read_old(path: Path, file: BinaryIO) -> Imatrix:
    """The format before GGUF: int32 counts and lengths, float32 means times a number of calls."""
    size = path.stat().st_size
    file.seek(0)

    def number(limit: int) -> int:
        data = file.read(4)
        value = struct.unpack("<i", data)[0] if len(data) == 4 else -1
        if not 0 <= value <= limit:
            raise QuantError(f"{path}: not an importance matrix, or cut short; `mflamingo models imatrix` and llama-imatrix make them")
        return int(value)

    means: dict[str, Floats] = {}
    for _ in range(number(size // 12)):
        name = file.read(number(MAX_NAME)).decode("utf-8", "replace")
        n_calls, n_values = number(2**31 - 1), number((size - file.tell()) // 4 - 1)
        values = np.frombuffer(file.read(4 * n_values), "<f4")
        means[name] = np.divide(values, max(n_calls, 1), dtype=np.float32)
    if file.tell() == size:  # what follows may be left out
        return Imatrix(path, means, (), 0)
    n_chunks = number(2**31 - 1)
    dataset = file.read(number(size)).decode("utf-8", "replace") if file.tell() < size else ""
    return Imatrix(path, means, (dataset,) if dataset else (), n_chunks)
