"""A GGUF file taken apart and put together again, whatever it then says: for tests and fuzzers of those who read it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from quant import reader
from quant.reader import ARRAY, MAGIC, SCALARS, STRING
from quant.types import FOREIGN, STORAGES

NUMBERS = {character: number for number, character in SCALARS.items()} | {"s": STRING}
KINDS = {**STORAGES, **FOREIGN}


@dataclass
class Tensor:
    """A tensor with its bytes; where `offset` is None it lies behind the one before it."""

    shape: tuple[int, ...]
    number: int
    data: bytes
    offset: int | None = None

    @classmethod
    def filled(cls, shape: tuple[int, ...], number: int, data: bytes = b"\0") -> Tensor:
        """A tensor of a type, with as many bytes as that takes."""
        kind = KINDS.get(number)
        size = prod(shape) // kind.block * kind.block_bytes if kind else 32
        return cls(shape, number, (data * (size // len(data) + 1))[:size])


@dataclass
class Parts:
    """What a file is made of: keys as (type, value), types as the reader writes them, and tensors; in lists, so that names may be twice."""

    keys: list[tuple[str, tuple[str, Any]]] = field(default_factory=list)
    tensors: list[tuple[str, Tensor]] = field(default_factory=list)
    version: int = 3
    alignment: int = 32

    def __getitem__(self, key: str) -> Any:
        return dict(self.keys)[key][1]

    def type_of(self, key: str) -> str:
        return dict(self.keys)[key][0]

    def set(self, key: str, value: Any, kind: str | None = None) -> Parts:
        """Give a key another value, of the type that it had, or add it with its type."""
        found = dict(self.keys)
        found[key] = (kind or found[key][0], value)
        self.keys = list(found.items())
        return self

    def drop(self, name: str) -> Parts:
        """Leave a key or a tensor out."""
        self.keys = [one for one in self.keys if one[0] != name]
        self.tensors = [one for one in self.tensors if one[0] != name]
        return self

    def put(self, name: str, tensor: Tensor) -> Parts:
        """Put a tensor in the place of the one of that name, or at the end."""
        found = dict(self.tensors)
        found[name] = tensor
        self.tensors = list(found.items())
        return self

    def bytes(self) -> bytes:
        head = [MAGIC, struct.pack("<IQQ", self.version, len(self.tensors), len(self.keys))]
        head += [_text(key) + _value(kind, value) for key, (kind, value) in self.keys]
        data, at = [], 0
        for name, tensor in self.tensors:
            extents = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
            head.append(_text(name) + extents + struct.pack("<IQ", tensor.number, at if tensor.offset is None else tensor.offset))
            padding = -len(tensor.data) % self.alignment
            data.append(tensor.data + bytes(padding))
            at += len(tensor.data) + padding
        joined = b"".join(head)
        return joined + bytes(-len(joined) % self.alignment) + b"".join(data)

    def write(self, path: Path) -> Path:
        path.unlink(missing_ok=True)  # it may be a link to a whole file
        path.write_bytes(self.bytes())
        return path


def parts(path: Path) -> Parts:
    """Take a whole file apart."""
    file, data = reader.read(path), path.read_bytes()
    keys = [(key, (file.types[key], value)) for key, value in file.keys.items()]
    tensors = [
        (name, Tensor(tensor.shape, tensor.number, data[tensor.offset : tensor.offset + (tensor.n_bytes or 0)]))
        for name, tensor in file.tensors.items()
    ]
    return Parts(keys, tensors)


def _text(text: str | bytes) -> bytes:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _value(kind: str, value: Any) -> bytes:
    if not kind.startswith("["):
        return struct.pack("<I", NUMBERS[kind]) + (_text(value) if kind == "s" else struct.pack(f"<{kind}", value))
    items = b"".join(map(_text, value)) if kind == "[s" else struct.pack(f"<{len(value)}{kind[1]}", *value)
    return struct.pack("<IIQ", ARRAY, NUMBERS[kind[1]], len(value)) + items
