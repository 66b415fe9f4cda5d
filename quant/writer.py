"""A GGUF file (version 3, little endian) written in place: sizes first, tensors in any order, visible only when complete.

Offsets and sizes are bytes. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from quant.layout import Tensor
from quant.types import Storage

if TYPE_CHECKING:
    from quant.types import Bytes

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32  # the default; no `general.alignment` needed

# Numbers of the value types in files
U32, I32, FLOAT, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


@dataclass(frozen=True)
class Ints:
    """An array of int32, such as token types."""

    values: Sequence[int]


Value = str | bool | int | float | Sequence[str] | Ints


@dataclass(frozen=True)
class Slot:
    """Where a tensor goes: its type, and its offset from the start of the file."""

    tensor: Tensor
    storage: Storage
    offset: int
    n_bytes: int


class GgufWriter:
    """Context manager; `commit` makes the file visible under its name, leaving without it removes what was written."""

    def __init__(self, path: Path, keys: Mapping[str, Value], tensors: Sequence[tuple[Tensor, Storage]]) -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        self._head, self.slots, self.n_bytes = _arrange(keys, tensors)
        self._file: BinaryIO | None = None

    def __enter__(self) -> GgufWriter:
        self._file = self._part.open("wb")
        self._file.write(self._head)
        self._file.truncate(self.n_bytes)  # padding reads as zeros
        return self

    def write(self, offset: int, data: Bytes) -> None:
        """Put bytes of a tensor at an offset from the start of the file."""
        assert self._file is not None
        self._file.seek(offset)
        self._file.write(data.data)

    def close(self) -> None:
        """Close the file, still under its temporary name."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def commit(self) -> None:
        """Give the closed file its name."""
        self.close()
        self._part.replace(self.path)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        self._part.unlink(missing_ok=True)


def _arrange(keys: Mapping[str, Value], tensors: Sequence[tuple[Tensor, Storage]]) -> tuple[bytes, dict[str, Slot], int]:
    head = MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(keys))
    head += b"".join(_string(key) + _value(value) for key, value in keys.items())
    infos, sizes, offset = [], [], 0
    for tensor, storage in tensors:
        shape = tensor.gguf_shape
        n_bytes = storage.n_bytes(_product(shape))
        infos.append(_string(tensor.gguf) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), storage.number, offset))
        sizes.append((offset, n_bytes))
        offset = _aligned(offset + n_bytes)
    head += b"".join(infos)
    start = _aligned(len(head))
    slots = {tensor.hf: Slot(tensor, storage, start + at, n_bytes) for (tensor, storage), (at, n_bytes) in zip(tensors, sizes, strict=True)}
    return head, slots, start + offset


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, Ints):
        return struct.pack(f"<IIQ{len(value.values)}i", ARRAY, I32, len(value.values), *value.values)
    return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_string, value))


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def _product(shape: Sequence[int]) -> int:
    n = 1
    for size in shape:
        n *= size
    return n
