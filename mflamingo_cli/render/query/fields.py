"""Names of what a record holds: `tempo.bpm`, `audio.duration`, and short ones such as `bpm`.

A name is a path through the record; what lies in `result` may be named without it. Values are those of the record's JSON.
"""

from __future__ import annotations

import functools
import typing
from dataclasses import dataclass
from typing import Any, Literal

from mflamingo_cli import codec
from mflamingo_cli.errors import UsageError
from mflamingo_cli.schema import Analysis

Kind = Literal["number", "text", "truth", "words", "parts"]  # parts: a value that holds others
SHORT = {
    "bpm": "result.tempo.bpm",
    "key": "result.key.name",
    "camelot": "result.key.camelot",
    "openkey": "result.key.openkey",
    "meter": "result.meter.value",
    "lufs": "result.loudness.integrated_lufs",
    "integrated_lufs": "result.loudness.integrated_lufs",
    "true_peak_dbtp": "result.loudness.true_peak_dbtp",
    "clipped": "result.loudness.clipped.runs",
    "onsets": "result.dynamics.onsets_per_s",
    "brightness": "result.dynamics.brightness_hz",
    "vocals": "result.vocals.present",
    "title": "audio.tags.title",
    "artist": "audio.tags.artist",
    "album": "audio.tags.album",
    "duration": "audio.duration",
    "codec": "audio.codec",
    "error": "error.message",
}
WITHIN = "result."  # may be left out
KINDS: dict[tuple[Any, ...], Kind] = {(float,): "number", (int,): "number", (str,): "text", (bool,): "truth", (tuple[str, ...],): "words"}


@dataclass(frozen=True)
class Field:
    """A value of every record: the name it was asked by, its whole path, and what it is."""

    name: str
    path: str
    kind: Kind

    def of(self, record: Analysis) -> Any:
        """The value as in JSON, None where the record does not have it."""
        value: Any = record
        for step in self.path.split("."):
            value = None if value is None else getattr(value, step)
        return codec.to_plain(value)


def find(name: str) -> Field:
    """The field of a name. Raises UsageError with the nearest name."""
    path = names().get(name)
    if path is None:
        from difflib import get_close_matches

        near = get_close_matches(name, sorted(names()), 1, 0.5)
        cure = f"did you mean {near[0]}?" if near else f"common ones are {', '.join(SHORT)}; `mflamingo schema` lists all"
        raise UsageError(f"there is no field {name or 'with an empty name'}; {cure}")
    types = codec.paths(Analysis)[path]
    return Field(name, path, "text" if typing.get_origin(types[0]) is Literal else KINDS.get(types, "parts"))


def parse(text: str | None) -> tuple[Field, ...]:
    """Return the fields of a comma-separated list; None has none. Raises UsageError."""
    return () if text is None else tuple(find(name.strip()) for name in text.split(","))


@functools.cache
def names() -> dict[str, str]:
    """Every name with its path; short names come before parts of the same name."""
    paths = list(codec.paths(Analysis))
    return {path: path for path in paths} | {path.removeprefix(WITHIN): path for path in paths if path.startswith(WITHIN)} | SHORT
