"""A GGUF file read back: keys, and where each tensor lies. Offsets and sizes are bytes.

Not by gguf's reader: a file from anywhere is checked before it is used, what is wrong is one sentence, and 150,000 tokens take a fraction
of a second where that one takes ten.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from quant.errors import QuantError
from quant.types import STORAGES, Storage
from quant.writer import ALIGNMENT

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # the same layout for little-endian files
# Value types of the format -> struct characters
STRING, ARRAY = 8, 9
SCALARS: Mapping[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
FLOAT32 = 6
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a file; `storage` is None for types that we do not write."""

    name: str
    shape: tuple[int, ...]  # rows first
    number: int
    storage: Storage | None
    offset: int  # from the start of the file

    @property
    def type_name(self) -> str:
        """Name of the type, or its number in ggml."""
        return self.storage.name if self.storage else f"type {self.number}"

    @property
    def n_bytes(self) -> int | None:
        """Size in the file, where the type is known."""
        return self.storage.n_bytes(prod(self.shape)) if self.storage else None


@dataclass(frozen=True)
class GgufFile:
    """Head of a GGUF file."""

    path: Path
    keys: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    def blocks(self, name: str, n_rows: int) -> Iterator[tuple[int, bytes]]:
        """Read a tensor of known type in blocks of `n_rows` rows: (first row, encoded bytes)."""
        tensor = self.tensors[name]
        assert tensor.storage is not None
        row = tensor.storage.n_bytes(tensor.shape[-1])
        total = prod(tensor.shape[:-1])
        with self.path.open("rb") as file:
            for first in range(0, total, n_rows):
                file.seek(tensor.offset + first * row)
                yield first, file.read(min(n_rows, total - first) * row)


def read(path: Path) -> GgufFile:
    """Read the head of a GGUF file. Raises QuantError when it is none, or cut short."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise QuantError(f"{path}: not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                keys, tensors = _head(path, data)
            except (struct.error, UnicodeDecodeError, MemoryError) as error:
                raise QuantError(f"{path}: damaged or cut short; convert or download it again") from error
            size = len(data)
    for tensor in tensors:
        if tensor.offset + (tensor.n_bytes or 0) > size:
            raise QuantError(f"{path}: cut short, {tensor.name} ends beyond its {size} bytes; convert or download it again")
    return GgufFile(path, keys, {tensor.name: tensor for tensor in tensors})


def _head(path: Path, data: mmap.mmap) -> tuple[dict[str, Any], list[GgufTensor]]:
    cursor = _Cursor(data)
    version, n_tensors, n_keys = cursor.unpack("IQQ")
    if version not in VERSIONS:
        raise QuantError(f"{path}: GGUF version {version} is not supported")
    keys = {cursor.string(): cursor.value() for _ in range(n_keys)}
    infos = [cursor.info() for _ in range(n_tensors)]
    alignment = keys.get("general.alignment", ALIGNMENT)
    start = -(-cursor.at // alignment) * alignment
    return keys, [GgufTensor(name, shape, number, STORAGES.get(number), start + offset) for name, shape, number, offset in infos]


class _Cursor:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.at = len(MAGIC)

    def unpack(self, layout: str) -> tuple[Any, ...]:
        layout = "<" + layout
        values = struct.unpack_from(layout, self._data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self) -> str:
        (length,) = self.unpack("Q")
        end = self.at + length
        if end > len(self._data):
            raise struct.error("string beyond the end")
        text = self._data[self.at : end].decode("utf-8")
        self.at = end
        return text

    def value(self, kind: int | None = None) -> Any:
        if kind is None:
            (kind,) = self.unpack("I")
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, count = self.unpack("IQ")
            if count > len(self._data):
                raise struct.error("array beyond the end")
            return list(self.unpack(f"{count}{SCALARS[element]}")) if element in SCALARS else [self.value(element) for _ in range(count)]
        if kind not in SCALARS:
            raise struct.error(f"value type {kind}")
        (number,) = self.unpack(SCALARS[kind])
        return float(f"{number:.7g}") if kind == FLOAT32 else number  # the decimal that was written: 0.01, not 0.00999999978

    def info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape (rows first), type, offset from the start of the data."""
        name = self.string()
        (n_dims,) = self.unpack("I")
        if n_dims > MAX_DIMENSIONS:
            raise struct.error(f"{n_dims} dimensions")
        *sizes, number, offset = self.unpack(f"{n_dims}QIQ")
        return name, tuple(reversed(sizes)), number, offset
