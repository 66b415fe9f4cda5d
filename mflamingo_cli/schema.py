"""The Analysis record, version `mflamingo/1`: what one input gave, as a dataclass, as JSON and as JSON Schema.

Times are float seconds from the start of the file. Every key is always present; what is not known is null, never NaN and never "".
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import math
import os
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, Union

VERSION: Literal["mflamingo/1"] = "mflamingo/1"
Command = Literal["analyze", "caption", "ask", "think"]
Origin = Literal["measured", "model"]


@dataclass(frozen=True)
class AudioInfo:
    """The file, the part of it that was asked for, and how much of that part the model heard."""

    duration: float
    sample_rate: int
    channels: int
    codec: str
    start: float
    end: float
    windows: int
    truncated: bool


@dataclass(frozen=True)
class TempoInfo:
    """Beats per minute; `claimed` is the model's answer, `agrees` whether it is within 4 %, `confidence` how probably the measured is."""

    bpm: float | None = None
    alternatives: tuple[float, ...] = ()
    source: Origin | None = None
    claimed: float | None = None
    agrees: bool | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class KeyInfo:
    """A major or minor key in the notations of musicians, DJs and tags; `confidence` is the probability that a measured one is right."""

    tonic: str | None = None
    mode: Literal["major", "minor"] | None = None
    name: str | None = None
    camelot: str | None = None
    openkey: str | None = None
    id3: str | None = None
    source: Origin | None = None
    claimed: str | None = None
    agrees: bool | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class MeterInfo:
    """A time signature such as 4/4; `confidence` is the probability that a measured one is right."""

    value: str | None = None
    source: Origin | None = None
    agrees: bool | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Segment:
    """A labelled part: a chord in Harte's notation or a section."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Loudness:
    """ITU-R BS.1770 integrated loudness, EBU Tech 3342 range, true peak."""

    integrated_lufs: float | None = None
    range_lu: float | None = None
    true_peak_dbtp: float | None = None


@dataclass(frozen=True)
class VocalsInfo:
    """Whether somebody sings, and how."""

    present: bool | None = None
    description: str | None = None


@dataclass(frozen=True)
class Result:
    """What is known of the song; a beat is its time and its place in the bar, 1 for the first, null where bars cannot be told."""

    tempo: TempoInfo = TempoInfo()
    key: KeyInfo = KeyInfo()
    meter: MeterInfo = MeterInfo()
    beats: tuple[tuple[float, int | None], ...] = ()
    chords: tuple[Segment, ...] = ()
    sections: tuple[Segment, ...] = ()
    loudness: Loudness = Loudness()
    instruments: tuple[str, ...] = ()
    genre: tuple[str, ...] = ()
    mood: tuple[str, ...] = ()
    vocals: VocalsInfo = VocalsInfo()
    caption: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """Which weights answered."""

    id: str
    revision: str | None
    backend: Literal["gguf", "torch"]
    quantization: str


@dataclass(frozen=True)
class UsageInfo:
    """Tokens of the language model, all questions together."""

    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class TimingInfo:
    """Seconds of wall time per step; null where a step was not needed."""

    decode_s: float | None = None
    measure_s: float | None = None
    encode_s: float | None = None
    generate_s: float | None = None


@dataclass(frozen=True)
class ErrorInfo:
    """Why an input has no result; `code` is stable, `message` is for people."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True)
class Analysis:
    """One input and one command. `path_b64` is set only when the path is not UTF-8; `raw` only with -v."""

    command: Command
    status: Literal["ok", "skipped", "error"]
    path: str
    path_b64: str | None = None
    audio_id: str | None = None
    audio: AudioInfo | None = None
    result: Result | None = None
    thinking: str | None = None
    text: str | None = None
    raw: dict[str, str] | None = None
    model: ModelInfo | None = None
    usage: UsageInfo | None = None
    timing: TimingInfo | None = None
    warnings: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    schema: Literal["mflamingo/1"] = field(default=VERSION, kw_only=True)

    # What is known of the song, without asking first whether there is a result: empty where there is none.

    @property
    def tempo(self) -> TempoInfo:
        """Beats per minute; `bpm` is None where nobody can tell."""
        return self._known.tempo

    @property
    def key(self) -> KeyInfo:
        """The key in all notations; each is None where nobody can tell."""
        return self._known.key

    @property
    def meter(self) -> MeterInfo:
        """The time signature; `value` is None where nobody can tell."""
        return self._known.meter

    @property
    def beats(self) -> tuple[tuple[float, int | None], ...]:
        """Measured beats: time, and place in the bar."""
        return self._known.beats

    @property
    def chords(self) -> tuple[Segment, ...]:
        """Measured chords in their order."""
        return self._known.chords

    @property
    def sections(self) -> tuple[Segment, ...]:
        """Measured sections in their order."""
        return self._known.sections

    @property
    def loudness(self) -> Loudness:
        """Measured loudness."""
        return self._known.loudness

    @property
    def instruments(self) -> tuple[str, ...]:
        """Instruments that the model hears."""
        return self._known.instruments

    @property
    def genre(self) -> tuple[str, ...]:
        """Genres that the model hears."""
        return self._known.genre

    @property
    def mood(self) -> tuple[str, ...]:
        """Moods that the model hears."""
        return self._known.mood

    @property
    def vocals(self) -> VocalsInfo:
        """What the model hears of voices."""
        return self._known.vocals

    @property
    def caption(self) -> str | None:
        """The description of `analyze` and `caption`."""
        return self._known.caption

    @property
    def _known(self) -> Result:
        return self.result or Result()

    def to_json(self) -> str:
        """One line of JSON, ASCII only, so that no path and no locale can break it."""
        return json.dumps(to_plain(self), allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Analysis:
        """Read what `to_json` wrote. Raises ValueError on anything else."""
        record = _build(cls, json.loads(text))
        assert isinstance(record, cls)
        return record


def path_fields(path: str | os.PathLike[str]) -> tuple[str, str | None]:
    """A path as (readable UTF-8, base64 of its bytes or None where the first says it all)."""
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), base64.b64encode(raw).decode("ascii")


def path_of(record: Analysis) -> str:
    """The path that `path_fields` took apart, as the functions of `os` take it."""
    return os.fsdecode(base64.b64decode(record.path_b64)) if record.path_b64 else record.path


# --- dataclass to JSON and back, driven by the annotations ---------------------------------------------------------


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    if "schema" in names:  # first in the record, though last among the fields because it has a default
        names.insert(0, names.pop(names.index("schema")))
    return {name: hints[name] for name in names}


@functools.cache
def paths() -> dict[str, tuple[Any, ...]]:
    """Every value of the record by its path ("result.tempo.bpm"), with the types it may have besides null."""
    found: dict[str, tuple[Any, ...]] = {}

    def visit(cls: type, before: str) -> None:
        for name, hint in _hints(cls).items():
            found[before + name] = types_ = tuple(option for option in _options(hint) if option is not type(None))
            if dataclasses.is_dataclass(types_[0]):
                visit(typing.cast(type, types_[0]), f"{before}{name}.")

    visit(Analysis, "")
    return found


def to_plain(value: Any) -> Any:
    """Dataclasses to dicts and lists; a number that is not finite becomes null, text that is not Unicode becomes U+FFFD."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_plain(getattr(value, name)) for name in _hints(type(value))}
    if isinstance(value, dict):
        return {to_plain(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _build(hint: Any, value: Any) -> Any:
    """Read a JSON value as the annotated type. Raises ValueError that names what does not fit."""
    for option in _options(hint):
        origin, args = typing.get_origin(option), typing.get_args(option)
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return _build_record(typing.cast(type, option), value)
        if origin is tuple and isinstance(value, list):
            if args[-1] is Ellipsis:
                return tuple(_build(args[0], item) for item in value)
            if len(args) == len(value):
                return tuple(_build(arg, item) for arg, item in zip(args, value, strict=True))
        if origin is dict and isinstance(value, dict):
            return {str(name): _build(args[1], item) for name, item in value.items()}
        if origin is Literal and value in args:
            return value
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin is None and isinstance(option, type) and type(value) is option:
            return value
    raise ValueError(f"{value!r:.60} is not {hint}")


def _build_record(cls: type, value: dict[str, Any]) -> Any:
    hints = _hints(cls)
    if missing := {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING} - value.keys():
        raise ValueError(f"{cls.__name__}: missing {', '.join(sorted(missing))}")
    # keys of later minor versions are ignored, those that an earlier one did not have are as if nothing were known
    return cls(**{name: _build(hint, value[name]) for name, hint in hints.items() if name in value})


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


def json_schema() -> dict[str, Any]:
    """The record as JSON Schema 2020-12. Unknown keys are allowed: a later minor version may add some."""
    definitions: dict[str, Any] = {}
    root = _schema_record(Analysis, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{VERSION.replace('/', ':')}",
        "title": f"mflamingo analysis record, {VERSION}",
        **root,
        "$defs": definitions,
    }
