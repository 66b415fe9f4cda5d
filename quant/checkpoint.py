"""Weights of a checkpoint directory: which file holds what, and blocks of rows as float32, FP8 with its scales.

Only headers are kept; offsets and sizes are bytes. Format: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from reprlib import repr
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from quant import fp8
from quant.arrays import Bytes, Floats
from quant.errors import QuantError
from quant.geometry import LARGEST, Geometry
from quant.json_files import MAX_BYTES, file_size, get, items, json_object, read_json, section, weight_map
from quant.layout import IGNORED_SUFFIXES, INDEX, PARTS, SINGLE, Part, Tensor, canonical, some, tensors

IDENTITY_DIGITS = 32


# Stored types -> NumPy's names of what their bytes are; BF16 is the upper half of a float32
DTYPES: Mapping[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", fp8.DTYPE: "u1"}


def item_bytes(dtype: str) -> int:
    """Bytes of a weight of a stored type."""
    return int(DTYPES[dtype][-1])


def _floats(dtype: str, data: bytes) -> Floats:
    stored: npt.NDArray[Any] = np.frombuffer(data, DTYPES[dtype])
    if dtype == fp8.DTYPE:
        return fp8.from_f8(stored)
    values: Floats = (
        np.left_shift(stored, 16, dtype=np.uint32).view(np.float32) if dtype == "BF16" else stored.astype(np.float32, copy=False)
    )
    return values


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file; `offset` counts from the start of the file."""

    name: str  # as the tables of `layout` name it
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


class Checkpoint:
    """The weights of a directory; use as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = read_json(directory / "config.json", required=False)
        text = section(directory / "config.json", self.config, "text_config")
        self.scheme = fp8.read(directory, self.config.get("quantization_config") or text.get("quantization_config"))
        self.entries: dict[str, StoredTensor] = {}
        for entry in _entries(directory):
            if entry.name in self.entries:
                raise QuantError(f"{entry.file}: {entry.name} appears twice, under an old and a new name")
            self.entries[entry.name] = entry
        self._scales = self._take_scales()
        says_tied = self.config.get("tie_word_embeddings") or text.get("tie_word_embeddings")
        self.tied = bool(says_tied) and "language_model.lm_head.weight" not in self.entries  # the embedding is the output matrix too
        self._files: dict[Path, BinaryIO] = {}

    def _take_scales(self) -> dict[str, StoredTensor]:
        """Move the scales of FP8 weights out of `entries`: weight -> its scales. Raises QuantError where the two do not fit."""
        scales = {}
        for weight in [entry for entry in self.entries.values() if entry.dtype == fp8.DTYPE]:
            if self.scheme is None:
                raise QuantError(f"{self.directory}: {weight.name} is FP8, but config.json has no quantization_config")
            names = [weight.name + suffix for suffix in fp8.SCALES]
            name = next((name for name in names if name in self.entries), None)
            if name is None:
                raise QuantError(f"{weight.file}: {weight.name} is FP8, but {names[0]} or {names[1]} is missing; download it again")
            scales[weight.name] = self.entries.pop(name)
            self._check_scale(self.scheme, weight, scales[weight.name])
        if self.scheme is not None:
            self.entries = {name: entry for name, entry in self.entries.items() if not name.endswith(fp8.UNUSED_SCALES)}
        return scales

    def _check_scale(self, scheme: fp8.Scheme, weight: StoredTensor, scale: StoredTensor) -> None:
        if len(weight.shape) != 2:
            raise QuantError(f"{weight.file}: {weight.name} is FP8 but not a matrix; its shape is {list(weight.shape)}")
        grid = scheme.grid(weight.shape)
        if scale.shape != grid and (scale.shape != grid[:1] or grid[1] > 1):  # a column may be stored as a vector
            raise QuantError(
                f"{scale.file}: {scale.name} has shape {list(scale.shape)}, but config.json says {scheme}, "
                f"which makes {list(grid)} of {list(weight.shape)}"
            )

    def check(self, geometry: Geometry) -> dict[Part, list[Tensor]]:
        """The tensors of both parts; names and shapes must be those of the geometry. Raises QuantError that names what is not."""
        n_layers = geometry.encoder.n_layers + geometry.text.n_layers
        if n_layers > len(self.entries):
            raise QuantError(f"{self.directory}: config.json says {n_layers} layers, but there are only {len(self.entries)} tensors")
        wanted = {part: list(tensors(part, geometry, tied=self.tied)) for part in PARTS}
        shapes = {tensor.hf: tensor.shape for part in PARTS for tensor in wanted[part]}
        for names, verb in ((shapes.keys() - self.entries.keys(), "lacks"), (self.entries.keys() - shapes.keys(), "holds unexpected")):
            if names:
                raise QuantError(f"{self.directory}: the checkpoint {verb} {some(names)}")
        for name, shape in shapes.items():
            if self.entries[name].shape != shape:
                found = list(self.entries[name].shape)
                raise QuantError(f"{self.directory}: {name} has shape {found}, but config.json says {list(shape)}")
        return wanted

    def blocks(self, name: str, n_weights: int, together: int = 1) -> Iterator[Floats]:
        """Read a tensor in blocks of whole rows, about `n_weights` each: (rows, row) float32; the last dimension is the row.

        The rows of a block are a multiple of `together`, which divides those of the tensor.
        """
        entry = self.entries[name]
        row, total = entry.shape[-1], prod(entry.shape)
        step = max(1, n_weights // (together * row)) * together * row
        for first in range(0, total, step):
            yield self.weights(name, first, min(step, total - first)).reshape(-1, row)

    def weights(self, name: str, first: int, count: int) -> Floats:
        """Read weights by their place in the flattened tensor: (count,) float32."""
        values = self._read(self.entries[name], first, count)
        return self._scaled(name, first, values) if name in self._scales else values

    def _scaled(self, name: str, first: int, values: Floats) -> Floats:
        """Whole rows of an FP8 matrix with their scales, of which only those are read that are needed."""
        import numpy as np

        assert self.scheme is not None
        shape = self.entries[name].shape
        _, across = self.scheme.grid(shape)
        rows = np.arange(first // shape[1], (first + values.size) // shape[1]) // (self.scheme.rows or shape[0])
        assert first % shape[1] == values.size % shape[1] == 0
        scales = self._read(self._scales[name], int(rows[0]) * across, int(rows[-1] - rows[0] + 1) * across).reshape(-1, across)
        return fp8.scale(values.reshape(-1, shape[1]), scales[rows - rows[0]], self.scheme.columns).ravel()

    def identity(self) -> str:
        """A name of these weights, whatever files and types hold them: the hash of the first and the last row of every tensor."""
        found = hashlib.sha256()
        for name, entry in sorted(self.entries.items()):
            row = entry.shape[-1]
            found.update(f"{name} {entry.shape}".encode())
            for first in (0, prod(entry.shape) - row):
                found.update(self.weights(name, first, row).astype("<f4").tobytes())
        return found.hexdigest()[:IDENTITY_DIGITS]

    def stored_fp8(self, name: str) -> tuple[Bytes, Floats, int, int] | None:
        """Codes of an FP8 matrix and its scales, unmultiplied, with the rows and columns that share a scale; None for other tensors."""
        import numpy as np

        if name not in self._scales:
            return None
        assert self.scheme is not None
        entry, scales = self.entries[name], self._scales[name]
        file = self._open(entry.file)
        file.seek(entry.offset)
        codes = np.frombuffer(file.read(entry.n_bytes), np.uint8).reshape(entry.shape)
        grid = self.scheme.grid(entry.shape)
        values = self._read(scales, 0, grid[0] * grid[1]).reshape(grid)
        return codes, values, self.scheme.rows or entry.shape[0], self.scheme.columns or entry.shape[1]

    def _read(self, entry: StoredTensor, first: int, count: int) -> Floats:
        size = item_bytes(entry.dtype)
        file = self._open(entry.file)
        file.seek(entry.offset + first * size)
        data = file.read(count * size)
        if len(data) != count * size:
            raise QuantError(f"{entry.file}: changed while it was read")
        return _floats(entry.dtype, data)

    def _open(self, path: Path) -> BinaryIO:
        if path not in self._files:
            self._files[path] = path.open("rb")
        return self._files[path]

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exc: object) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()


def _entries(directory: Path) -> Iterator[StoredTensor]:
    """All tensors in the order of their files, so that reading is sequential."""
    if (directory / SINGLE).is_file():  # like transformers: the one file wins over shards, which are then a second copy
        yield from read_header(directory / SINGLE)
        return
    if not (directory / INDEX).is_file():
        raise QuantError(f"{directory}: no weights found; expected {SINGLE} or {INDEX}")
    index = weight_map(directory / INDEX)
    for shard in sorted(set(index.values())):
        path = directory / shard
        if not path.is_file():
            raise QuantError(f"{directory}: shard {shard} is missing; download the checkpoint again")
        found = read_header(path)
        names = {entry.name for entry in found}
        listed = {canonical(name) for name, home in index.items() if home == shard and not name.endswith(IGNORED_SUFFIXES)}
        if listed - names:
            raise QuantError(f"{path}: lacks {some(listed - names)}, which the index lists")
        if names - listed:
            raise QuantError(f"{path}: holds {some(names - listed)}, which the index does not list")
        yield from found


def read_header(path: Path) -> list[StoredTensor]:
    """All tensors of a file in the order of their bytes, under the names that the tables of `layout` know.

    This is the border to safetensors: what a header says is compared with its file before anything else reads it, here or in torch.
    Raises QuantError.
    """
    header, start, size = _read_header(path)
    metadata = section(path, header, "__metadata__")
    for name in metadata:
        get(path, metadata, name, str, "")
    found = sorted((_place(path, name, header) for name in header if name != "__metadata__"), key=lambda place: place[1:])
    end = 0
    for name, first, last in found:
        if first != end:
            raise QuantError(f"{path}: {name} begins at byte {first} of the data, but the tensor before it ends at {end}")
        end = last
        if start + end > size:
            raise QuantError(f"{path}: cut short, {name} ends at byte {start + end} of {size}; download it again")
    if start + end != size:
        raise QuantError(f"{path}: {size - start - end} unexpected bytes follow the last tensor; download it again")
    wanted = [place for place in found if not place[0].endswith(IGNORED_SUFFIXES)]
    return [_entry(path, name, header[name], start + first, last - first) for name, first, last in wanted]


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header of a file, where its data begins, and the size of the file."""
    try:
        size = file_size(path)
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little") if len(prefix) == 8 else MAX_BYTES
            if length > min(size - 8, MAX_BYTES):
                raise QuantError(f"{path}: not a safetensors file, or cut short; download it again")
            text = file.read(length).decode("utf-8")
    except UnicodeDecodeError as error:
        raise QuantError(f"{path}: not a safetensors file, its header is not UTF-8; download it again") from error
    except OSError as error:
        raise QuantError(f"{path}: {error.strerror}") from error
    return json_object(f"{path}: its header", text), 8 + length, size


def _place(path: Path, name: str, header: Mapping[str, Any]) -> tuple[str, int, int]:
    """Name of a tensor, and where its bytes begin and end in the data."""
    offsets = items(f"{path}: {name}", section(path, header, name), "data_offsets", int)
    if len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1]:
        raise QuantError(f"{path}: the data_offsets of {name} are {repr(offsets)}; download it again")
    return name, offsets[0], offsets[1]


def _entry(path: Path, name: str, fields: Mapping[str, Any], offset: int, n_bytes: int) -> StoredTensor:
    where = f"{path}: {name}"
    dtype, shape = get(where, fields, "dtype", str, "nothing"), tuple(items(where, fields, "shape", int))
    if dtype not in DTYPES:
        raise QuantError(f"{where} is stored as {dtype}; only {', '.join(DTYPES)} can be read")
    if not all(0 < extent < LARGEST for extent in shape) or prod(shape) * item_bytes(dtype) != n_bytes:
        raise QuantError(f"{where} has {n_bytes} bytes, which is not the size of {list(shape)} in {dtype}")
    return StoredTensor(canonical(name), path, dtype, shape or (1,), offset, n_bytes)
