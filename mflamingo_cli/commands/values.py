"""What a value on the command line becomes, and how a wrong one is reported: Typer's own way imports pydantic, half of a start.

Times are given as seconds or as [h:]m:ss.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from mflamingo_cli.errors import UsageError

WORDS_OF_TRUTH = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("", "0", "f", "false", "n", "no", "off"), False),
}
NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}


class Values:
    """Stands in for Typer's runtime parameter: converts by annotation and puts the option's name into every error."""

    @staticmethod
    def coerce(value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as the annotation has it. Raises typer.BadParameter."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        annotation, info = param.type_descriptor.annotation, param.type_descriptor.parameter_info
        try:
            if not several:
                return _convert(value, annotation, info)
            [one] = get_args(annotation)
            return [_convert(item, one, info) for item in (value if isinstance(value, list | tuple) else [value])]  # a file may name one
        except typer.BadParameter as error:
            error.ctx, error.param = ctx, param
            raise


def use_own_values(params: list[Any]) -> list[Any]:
    """Let these parameters of Typer's convert their values here."""
    for param in params:
        param._runtime_param = Values
    return params


def _convert(value: Any, annotation: Any, info: Any) -> Any:
    if isinstance(value, list | dict):  # in a file of options
        raise typer.BadParameter(f"{value!r} is not a single value")
    if info.parser is not None:
        return info.parser(value)
    if get_origin(annotation) is Literal:
        if value not in get_args(annotation):
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(get_args(annotation))}")
        return value
    if annotation in NUMBERS:
        return _number(value, annotation, info.min, info.max)
    if annotation is bool:
        return _truth(value)
    return _path(Path(str(value)), info) if annotation is Path else str(value)


def _number(value: Any, kind: type, least: float | None, most: float | None) -> Any:
    try:
        number = kind(value)
        whole = number == float(value) and not isinstance(value, bool)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise typer.BadParameter(f"{value!r} is not {NUMBERS[kind]}")
    if not (-float("inf") if least is None else least) <= number <= (float("inf") if most is None else most):
        limits = f"from {least:g} to {most:g}" if least is not None and most is not None else f"of {least:g} or more"
        raise typer.BadParameter(f"{value} is out of range; write {NUMBERS[kind]} {limits}")
    return number


def _truth(value: Any) -> bool:
    truth = value if isinstance(value, bool) else WORDS_OF_TRUTH.get(str(value).strip().lower())
    if truth is None:
        raise typer.BadParameter(f"{value!r} is neither true nor false")
    return truth


def _path(path: Path, info: Any) -> Path:
    if info.exists and not path.exists():
        raise typer.BadParameter(f"{str(path)!r} does not exist")
    if path.is_dir() and not info.dir_okay:
        raise typer.BadParameter(f"{str(path)!r} is a folder; name a file")
    if path.is_file() and not info.file_okay:
        raise typer.BadParameter(f"{str(path)!r} is a file; name a folder")
    if path.exists() and not os.access(path, os.R_OK):
        raise typer.BadParameter(f"{str(path)!r} cannot be read: permission denied")
    return path


def usage_sentence(error: Any) -> str:
    """Return what Typer found wrong with a command line as one sentence: the option, what is wrong, and what helps."""
    message, param = str(error.message).rstrip("."), getattr(error, "param", None)
    name = param and (max(param.opts, key=len) if param.param_type_name == "option" else param.metavar or param.name.upper())
    if "requires an argument" in message:
        message = f"{error.option_name} needs a value"
    elif param and not message:
        message = f"{name} is missing"
    elif param:
        message = f"{name}: {message}"
    else:
        message = message[:1].lower() + message[1:]
    if near := getattr(error, "possibilities", None):
        message += f"; did you mean {' or '.join(sorted(near))}?"
    ctx = getattr(error, "ctx", None)
    return message if ctx is None or ";" in message else f"{message}; see `{ctx.command_path} -h`"


# --- values of several options ---------------------------------------------------------------------------------------

# hours before minutes and seconds below 60, minutes before seconds below 60, seconds; nine digits are 30 years
TIME = r"(?:(\d{1,9}):(?=[0-5]?\d:))?(?:(\d{1,9}):(?=[0-5]?\d(?:\.|$)))?(\d{1,9}(?:\.\d*)?)"


def comma_separated(text: str) -> tuple[str, ...]:
    """Split a list of names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_time(text: str) -> float:
    """Return `83.5`, `1:23.5` or `1:02:03` in seconds. Raises typer.BadParameter."""
    match = re.fullmatch(TIME, text.strip(), re.ASCII)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time; write 83.5 or 1:23.5")
    hours, minutes, seconds = (float(part) if part else 0.0 for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


@dataclass(frozen=True)
class Range:
    """Numbers from one to another."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}-{self.high:g}"


def parse_range(text: object) -> Range:
    """Return `80-160`, two positive numbers. Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d{1,4}(?:\.\d+)?)\s*-\s*(\d{1,4}(?:\.\d+)?)", str(text).strip(), re.ASCII)
    if match is None or not 0 < float(match[1]) < float(match[2]):
        raise typer.BadParameter(f"{text!r} is not a range; write 80-160")
    return Range(float(match[1]), float(match[2]))


def checked_only(text: object) -> str:
    """Return a list of facts and answers as it is. Raises typer.BadParameter for names that are none, and for an empty list."""
    from mflamingo_cli.requests import analyze_request

    names = list(comma_separated(str(text)))
    if not names:
        raise typer.BadParameter("names no fact; write some, such as tempo,key")
    return _understood(text, lambda: analyze_request(names))


def checked_fields(text: object) -> str:
    """Return a list of fields as it is. Raises typer.BadParameter for names that are none."""
    from mflamingo_cli.render.query import fields

    return _understood(text, lambda: fields.parse(str(text)))


def checked_order(text: object) -> str:
    """Return an order of records as it is. Raises typer.BadParameter for fields that are none, or hold more than a value."""
    from mflamingo_cli.render.query import where

    return _understood(text, lambda: where.parse_order(str(text)))


def _understood(text: object, parse: Callable[[], object]) -> str:
    try:
        parse()
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error
    return str(text)


def parse_batch(text: object) -> int | None:
    """Return a number of songs from 1 on, None for `auto`. Raises typer.BadParameter."""
    match = re.fullmatch(r"auto|([1-9]\d{0,3})", str(text).strip(), re.ASCII)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a number of songs; write 4 or auto")
    return int(match[1]) if match[1] else None


@dataclass(frozen=True)
class Share:
    """So many songs, or so many percent of all."""

    number: float
    percent: bool

    def of(self, total: int) -> float:
        """Return the number of songs out of `total`."""
        return self.number * total / 100 if self.percent else self.number

    def __str__(self) -> str:
        return f"{self.number:g}{'%' if self.percent else ''}"


@dataclass(frozen=True)
class Shard:
    """The I-th of N parts of the inputs, I from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_share(text: object) -> Share:
    """Return what `20` or `5%` means. Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d{1,9})|(\d{1,3}(?:\.\d*)?)%", str(text).strip(), re.ASCII)
    if match is None or float(match[2] or 0) > 100:
        raise typer.BadParameter(f"{text!r} is neither a number nor a percentage; write 20 or 5%")
    return Share(float(match[1] or match[2]), match[2] is not None)


def parse_shard(text: str) -> Shard:
    """Return what `3/8`, the third of eight, means. Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip(), re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise typer.BadParameter(f"{text!r} is not a shard; write 3/8 for the third of eight")
    return Shard(int(match[1]), int(match[2]))
