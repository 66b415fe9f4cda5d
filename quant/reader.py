"""A GGUF file read back: keys, and where each tensor lies. Offsets and sizes are bytes.

Not by gguf's reader: a file from anywhere is checked before it is used, what is wrong is one sentence, and 150,000 tokens take a fraction
of a second where that one takes ten. What a head says of the file it stands in is compared with that file here; what it says of the model,
in `pair`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from reprlib import repr
from typing import Any

from quant.errors import QuantError
from quant.json_files import file_size
from quant.types import FOREIGN, STORAGES, Storage
from quant.writer import ALIGNMENT

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # the same layout for little-endian files
# Value types of the format -> struct characters
STRING, ARRAY = 8, 9
SCALARS: Mapping[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
FLOAT32 = 6
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
MAX_NAME = 64  # of a tensor: GGML_MAX_NAME, its last byte included
MAX_NAMES = 100_000  # of keys and tensors: a hundred times those of the largest models
MAX_ITEMS = 4_000_000  # of all arrays of a head: ten times those of Qwen2's vocabulary
MAX_ALIGNMENT = 1 << 16


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a file; `storage` is None for types that we do not write."""

    name: str
    shape: tuple[int, ...]  # rows first
    number: int
    storage: Storage | None
    offset: int  # from the start of the file

    @property
    def kind(self) -> Storage | None:
        """Its type, ours or another maker's; None for a number that ggml does not have."""
        return self.storage or FOREIGN.get(self.number)

    @property
    def type_name(self) -> str:
        """Name of the type, or its number in ggml."""
        return self.kind.name if self.kind else f"type {self.number}"

    @property
    def n_bytes(self) -> int | None:
        """Size in the file, where the type is known."""
        return self.kind.n_bytes(prod(self.shape)) if self.kind else None


@dataclass(frozen=True)
class GgufFile:
    """Head of a GGUF file; `types` are those of the keys' values: struct characters, "s" for a text, behind "[" for a list of such."""

    path: Path
    keys: Mapping[str, Any]
    types: Mapping[str, str]
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
    """Read the head of a GGUF file. Raises QuantError when it is none, cut short, or says of itself what is not so."""
    try:
        file_size(path)  # a pipe would keep whoever reads it waiting
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise QuantError(f"{path}: not a GGUF file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(path, data)
    except OSError as error:
        raise QuantError(f"{path}: {error.strerror or error}") from error


def _read(path: Path, data: mmap.mmap) -> GgufFile:
    cursor = _Cursor(data)
    try:
        version, n_tensors, n_keys = cursor.unpack("IQQ")
        if version not in VERSIONS:
            raise QuantError(f"{path}: GGUF version {version} is not supported")
        if n_keys + n_tensors > MAX_NAMES:
            raise struct.error("too many names")
        keys = _unique(path, (cursor.key() for _ in range(n_keys)))
        infos = _unique(path, (cursor.info() for _ in range(n_tensors)))
    except UnicodeDecodeError as error:
        raise QuantError(f"{path}: {cursor.name or 'a name'} is not UTF-8 text; convert or download it again") from error
    except (struct.error, MemoryError) as error:
        behind = f" behind {cursor.name}" if cursor.name else ""
        raise QuantError(f"{path}: damaged or cut short{behind}; convert or download it again") from error
    values, types = ({key: value[place] for key, value in keys.items()} for place in (1, 0))
    alignment = values.get("general.alignment", ALIGNMENT)
    if types.get("general.alignment", "I") != "I" or not ALIGNMENT <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise QuantError(f"{path}: general.alignment is {repr(alignment)}, not a power of two from {ALIGNMENT} to {MAX_ALIGNMENT}")
    start = -(-cursor.at // alignment) * alignment
    tensors = {name: GgufTensor(name, shape, number, STORAGES.get(number), start + at) for name, (shape, number, at) in infos.items()}
    _check_places(path, tensors, start, alignment, len(data))
    return GgufFile(path, values, types, tensors)


def _unique(path: Path, pairs: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found or "\0" in name:  # where C sees an end
            fault = "appears twice" if name in found else "is a name with a null byte"
            raise QuantError(f"{path}: {name} {fault}; convert or download it again")
        found[name] = value
    return found


def _check_places(path: Path, tensors: Mapping[str, GgufTensor], start: int, alignment: int, size: int) -> None:
    """Tensors follow each other in the order of their infos, each at the next aligned byte, as ggml's own reader demands."""
    for tensor in tensors.values():
        if tensor.kind is None:
            raise QuantError(f"{path}: {tensor.name} is stored as {tensor.type_name}, which is not a known type")
        if len(tensor.name.encode()) >= MAX_NAME:
            raise QuantError(f"{path}: {tensor.name}: the tensor's name has more than {MAX_NAME - 1} bytes")
        if min(tensor.shape) < 1 or tensor.shape[-1] % tensor.kind.block:
            raise QuantError(f"{path}: {tensor.name} of shape {list(tensor.shape)} cannot be stored as {tensor.type_name}")
        if tensor.offset != start:
            raise QuantError(
                f"{path}: {tensor.name} begins at byte {tensor.offset}, but should begin at {start}, after the tensor before it"
            )
        end = start + tensor.kind.n_bytes(prod(tensor.shape))
        if end > size:
            raise QuantError(f"{path}: cut short, {tensor.name} ends after the last of {size} bytes; convert or download it again")
        start = -(-end // alignment) * alignment


class _Cursor:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._items_left = MAX_ITEMS
        self.at = len(MAGIC)
        self.name = ""  # of the key or tensor that is being read

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

    def key(self) -> tuple[str, tuple[str, Any]]:
        """Name; type, value."""
        self.name = ""
        self.name = self.string()
        return self.name, self.value()

    def value(self) -> tuple[str, Any]:
        (kind,) = self.unpack("I")
        if kind != ARRAY:
            return _type_of(kind), self.scalar(kind)
        element, count = self.unpack("IQ")  # ggml has no arrays of arrays
        self._items_left -= count
        if self._items_left < 0:
            raise struct.error("too many items")
        items = [self.string() for _ in range(count)] if element == STRING else list(self.unpack(f"{count}{_type_of(element)}"))
        return "[" + _type_of(element), items

    def scalar(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        (number,) = self.unpack(SCALARS[kind])
        return float(f"{number:.7g}") if kind == FLOAT32 else number  # the decimal that was written: 0.01, not 0.00999999978

    def info(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        """Name of a tensor; shape (rows first), type, offset from the start of the data."""
        self.name = ""
        self.name = self.string()
        (n_dims,) = self.unpack("I")
        if n_dims > MAX_DIMENSIONS:
            raise struct.error(f"{n_dims} dimensions")
        *sizes, number, offset = self.unpack(f"{n_dims}QIQ")
        return self.name, (tuple(reversed(sizes)) or (1,), number, offset)


def _type_of(kind: int) -> str:
    if kind != STRING and kind not in SCALARS:
        raise struct.error(f"value type {kind}")
    return "s" if kind == STRING else SCALARS[kind]
