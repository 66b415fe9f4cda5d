"""JSON and text files of a model, which come with a download and may hold anything: read whole and strictly, looked into by type.

This is the border to them. What is wrong is one sentence with the file's name: no file, too large, not UTF-8, not JSON, nested too deeply,
a name twice, a number that is none, and a value of another type than whoever asks for it can use.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path, PurePath
from reprlib import repr
from typing import Any, TypeVar

from quant.errors import QuantError

MAX_BYTES = 100_000_000  # ten times Qwen2's tokenizer.json, and the limit of the safetensors library for a header
KINDS: Mapping[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a JSON object"
}  # fmt: skip

T = TypeVar("T")


def read_text(path: Path) -> str:
    """Read a file of UTF-8. Raises QuantError for any other, FileNotFoundError where there is none."""
    try:
        size = file_size(path)
        if size > MAX_BYTES:
            raise QuantError(f"{path}: {size} bytes is too large for such a file")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise QuantError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); download it again") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise QuantError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def file_size(path: Path) -> int:
    """Return the size of a file. Raises QuantError for what is none: a pipe would keep whoever reads it waiting."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise QuantError(f"{path}: not a file")
    return state.st_size


def read_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    """Read one JSON object; a missing file is an error or, where not required, empty."""
    try:
        return json_object(path, read_text(path))
    except FileNotFoundError as error:
        if not required:
            return {}
        raise QuantError(f"{path.parent}: not a checkpoint directory, {path.name} is missing") from error


def weight_map(path: Path) -> dict[str, str]:
    """Tensor -> file, of an index; a file is one of its folder or of a folder in it."""
    index = {name: expect(path, name, shard, str) for name, shard in section(path, read_json(path), "weight_map").items()}
    if not index:
        raise QuantError(f"{path}: contains no weight_map")
    for name, shard in index.items():
        place = PurePath(shard)
        if place.is_absolute() or ".." in place.parts or place.suffix != ".safetensors":
            raise QuantError(f"{path}: {name} is listed in {repr(shard)}, which is not a safetensors file of this folder")
    return index


def json_object(where: object, text: str) -> dict[str, Any]:
    """Read one JSON object in a text that comes from `where`."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError as error:
        raise QuantError(f"{where}: nested too deeply") from error
    except ValueError as error:
        raise QuantError(f"{where}: not readable as JSON ({error})") from error
    return expect(where, "the whole", value, dict)


def get(where: object, data: Mapping[str, Any], name: str, kind: type[T], default: T) -> T:
    """Look up a value of a type; missing and null are the default. Raises QuantError where it is of another type."""
    value = data.get(name)
    return default if value is None else expect(where, name, value, kind)


def section(where: object, data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Look up an object in an object; missing and null are empty."""
    return get(where, data, name, dict, {})


def items(where: object, data: Mapping[str, Any], name: str, kind: type[T]) -> Sequence[T]:
    """Look up a list whose items have a type; missing and null are empty."""
    return [expect(where, f"an item of {name}", value, kind) for value in get(where, data, name, list, [])]


def expect(where: object, name: str, value: Any, kind: type[T]) -> T:
    """Return a value if it has a type; whole numbers are numbers, true and false are none. Raises QuantError where it has not."""
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise QuantError(f"{where}: {name} is {repr(value)}, not {KINDS[kind]}")
    return value  # type: ignore[return-value]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{repr(next(name for name in names if names.count(name) > 1))} appears twice in one object")
    return found


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _not_finite(text)
