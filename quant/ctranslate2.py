"""Weights of a CTranslate2 model.bin: where each variable lies in the file, and its values as float32.

Only headers are kept; offsets and sizes are bytes. Format, version 6: `ModelSpec.save` of python/ctranslate2/specs/model_spec.py,
https://github.com/OpenNMT/CTranslate2 (MIT). All numbers are little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from quant.arrays import Floats
from quant.errors import QuantError
from quant.geometry import LARGEST
from quant.json_files import file_size

VERSION = 6
MAX_VARIABLES = 100_000  # a hundred times those of the largest models
MAX_RANK = 8
# Numbers of types in the file -> NumPy's names; bfloat16 (5) is not among them, as no published conversion of Whisper has it
DTYPES: Mapping[int, str] = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
FLOATS, WHOLE = ("<f4", "<f2"), ("i1", "<i2", "<i4")


@dataclass(frozen=True)
class Variable:
    """A variable in a file; `offset` counts from the start of the file. An empty shape is a single number."""

    name: str
    dtype: str  # NumPy's name of it
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class CTranslate2File:
    """Head of a model.bin: its kind, such as WhisperSpec, and its variables by name; an alias is a second name of one."""

    path: Path
    kind: str
    variables: Mapping[str, Variable]

    def floats(self, name: str) -> Floats:
        """Return the values of a variable as float32, in its shape. Raises QuantError where there is none, or it has no finite floats."""
        found = self._find(name, FLOATS, "float32 or float16")
        values: Floats = np.frombuffer(self._bytes(found), found.dtype).astype(np.float32).reshape(found.shape)
        if not np.isfinite(values).all():
            raise QuantError(f"{self.path}: {name} contains NaN or infinite weights")
        return values

    def whole(self, name: str) -> int:
        """Return a single whole number. Raises QuantError where there is none."""
        found = self._find(name, WHOLE, "a whole number")
        if found.shape:
            raise QuantError(f"{self.path}: {name} has shape {list(found.shape)}, but should be one number")
        return int(np.frombuffer(self._bytes(found), found.dtype)[0])

    def _find(self, name: str, dtypes: tuple[str, ...], wanted: str) -> Variable:
        found = self.variables.get(name)
        if found is None:
            raise QuantError(f"{self.path}: lacks {name}")
        if found.dtype not in dtypes:
            raise QuantError(f"{self.path}: {name} is stored as {np.dtype(found.dtype).name}, not as {wanted}")
        return found

    def _bytes(self, found: Variable) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(found.offset)
                data = file.read(found.n_bytes)
        except OSError as error:
            raise QuantError(f"{self.path}: {error.strerror or error}") from error
        if len(data) != found.n_bytes:
            raise QuantError(f"{self.path}: changed while it was read")
        return data


def read(path: Path) -> CTranslate2File:
    """Read the head of a model.bin. Raises QuantError when it is none, cut short, or says of itself what is not so."""
    try:
        if file_size(path) == 0:  # which cannot be mapped
            raise QuantError(f"{path}: not a CTranslate2 model, or cut short; download it again")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, _Cursor(data))
    except OSError as error:
        raise QuantError(f"{path}: {error.strerror or error}") from error


def _read(path: Path, cursor: _Cursor) -> CTranslate2File:
    try:
        (version,) = cursor.unpack("I")
        if version != VERSION:
            raise QuantError(f"{path}: not a CTranslate2 model of format {VERSION}, but {version}")
        kind = cursor.string()
        _revision, count = cursor.unpack("II")
        found: dict[str, Variable] = {}
        for variable in _variables(path, cursor, count):
            if variable.name in found:
                raise QuantError(f"{path}: {variable.name} appears twice; download it again")
            found[variable.name] = variable
        (count,) = cursor.unpack("I")
        for alias, name in ((cursor.string(), cursor.string()) for _ in range(_bounded(count))):
            if alias in found or name not in found:
                raise QuantError(f"{path}: {alias} cannot stand for {name}; download it again")
            found[alias] = found[name]
    except (struct.error, UnicodeDecodeError) as error:
        raise QuantError(f"{path}: not a CTranslate2 model, or cut short at byte {cursor.at}; download it again") from error
    if not cursor.at_end:
        raise QuantError(f"{path}: unexpected bytes follow the last name; download it again")
    return CTranslate2File(path, kind, found)


def _variables(path: Path, cursor: _Cursor, count: int) -> Iterator[Variable]:
    for _ in range(_bounded(count)):
        name = cursor.string()
        (rank,) = cursor.unpack("B")
        if rank > MAX_RANK:
            raise QuantError(f"{path}: {name} has {rank} dimensions")
        shape = cursor.unpack(f"{rank}I")
        number, n_bytes = cursor.unpack("BI")
        if number not in DTYPES:
            raise QuantError(f"{path}: {name} is stored as type {number}, which is not known")
        if not all(0 < extent < LARGEST for extent in shape) or prod(shape) * np.dtype(DTYPES[number]).itemsize != n_bytes:
            raise QuantError(f"{path}: {name} has {n_bytes} bytes, which is not the size of {list(shape)} in {DTYPES[number]}")
        yield Variable(name, DTYPES[number], shape, cursor.skip(n_bytes), n_bytes)


def _bounded(count: int) -> int:
    if count > MAX_VARIABLES:
        raise struct.error(f"{count} names")
    return count


class _Cursor:
    """Reads values one after the other; struct.error where the file ends before them."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.at = 0

    @property
    def at_end(self) -> bool:
        return self.at == len(self._data)

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def skip(self, n_bytes: int) -> int:
        """Pass over bytes and return where they begin."""
        begin, end = self.at, self.at + n_bytes
        if end > len(self._data):
            raise struct.error("data beyond the end")
        self.at = end
        return begin

    def string(self) -> str:
        """A text with its length in front, in which the null byte at its end is counted."""
        (length,) = self.unpack("H")
        begin = self.skip(length)
        data = self._data[begin : self.at]
        if not data.endswith(b"\0") or b"\0" in data[:-1]:
            raise struct.error("not a text")
        return data[:-1].decode("utf-8")
