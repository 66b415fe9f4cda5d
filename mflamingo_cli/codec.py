"""Frozen dataclasses to JSON, back, and to JSON Schema.

Their annotations say how. A number that is not finite becomes null, text that is not Unicode U+FFFD. Keys that a dataclass does not have
are ignored, those with a default may be missing, so that records of other minor versions can be read.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any, Literal, Union

FIRST = "first"  # in the metadata of a field that stands first in JSON, though it has a default


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    ordered = sorted(dataclasses.fields(cls), key=lambda field: not field.metadata.get(FIRST))
    return {field.name: hints[field.name] for field in ordered}


@functools.cache
def paths(root: type) -> dict[str, tuple[Any, ...]]:
    """Every value of a dataclass by its path ("result.tempo.bpm"), with the types it may have besides null."""
    found: dict[str, tuple[Any, ...]] = {}

    def visit(cls: type, before: str) -> None:
        for name, hint in _hints(cls).items():
            found[before + name] = types_ = tuple(option for option in _options(hint) if option is not type(None))
            if dataclasses.is_dataclass(types_[0]):
                visit(typing.cast(type, types_[0]), f"{before}{name}.")

    visit(root, "")
    return found


def to_plain(value: Any) -> Any:
    """Dataclasses to dicts and lists; a number that is not finite becomes null, text that is not Unicode becomes U+FFFD."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_plain(getattr(value, name)) for name in _hints(type(value))}
    if isinstance(value, dict):
        return {to_plain(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if hasattr(value, "item"):  # a scalar of NumPy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def from_plain(hint: Any, value: Any) -> Any:
    """Read a JSON value as the annotated type. Raises ValueError that names what does not fit."""
    for option in _options(hint):
        origin, args = typing.get_origin(option), typing.get_args(option)
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return _record(typing.cast(type, option), value)
        if origin is tuple and isinstance(value, list):
            if args[-1] is Ellipsis:
                return tuple(from_plain(args[0], item) for item in value)
            if len(args) == len(value):
                return tuple(from_plain(arg, item) for arg, item in zip(args, value, strict=True))
        if origin is dict and isinstance(value, dict):
            return {str(name): from_plain(args[1], item) for name, item in value.items()}
        if origin is Literal and value in args:
            return value
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin is None and isinstance(option, type) and type(value) is option:
            return value
    raise ValueError(f"{value!r:.60} is not {hint}")


def _record(cls: type, value: dict[str, Any]) -> Any:
    hints = _hints(cls)
    if missing := {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING} - value.keys():
        raise ValueError(f"{cls.__name__}: missing {', '.join(sorted(missing))}")
    # keys of later minor versions are ignored, those that an earlier one did not have are as if nothing were known
    return cls(**{name: from_plain(hint, value[name]) for name, hint in hints.items() if name in value})


# --- JSON Schema ----------------------------------------------------------------------------------------------------

_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}


def _schema_of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    options = _options(hint)
    if len(options) > 1:
        parts = [_schema_of(option, definitions) for option in options]
        if all(part.keys() == {"type"} for part in parts):
            return {"type": [part["type"] for part in parts]}
        return {"anyOf": parts}
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        definitions.setdefault(hint.__name__, None)  # type: ignore[union-attr]  # a class here, never an instance
        definitions[hint.__name__] = _schema_record(typing.cast(type, hint), definitions)  # type: ignore[union-attr]
        return {"$ref": f"#/$defs/{hint.__name__}"}  # type: ignore[union-attr]
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": "array", "items": _schema_of(args[0], definitions)}
    if origin is tuple:
        places = [_schema_of(arg, definitions) for arg in args]
        return {"type": "array", "prefixItems": places, "minItems": len(places), "maxItems": len(places)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(args[1], definitions)}
    if origin is Literal:
        return {"const": args[0]} if len(args) == 1 else {"enum": list(args)}
    return dict(_SCALARS[hint])


def _schema_record(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = _hints(cls)
    return {
        "type": "object",
        "description": cls.__doc__,
        "properties": {name: _schema_of(hint, definitions) for name, hint in hints.items()},
        "required": list(hints),
    }


def json_schema(root: type) -> dict[str, Any]:
    """A dataclass as JSON Schema 2020-12, other dataclasses under `$defs`. Unknown keys are allowed: a later minor version may add some."""
    definitions: dict[str, Any] = {}
    return {**_schema_record(root, definitions), "$defs": definitions}
