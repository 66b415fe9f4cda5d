"""The Analysis record, version `mflamingo/1`.

Times are float seconds from the start of the file. Every key is always present; what is not known is null, never NaN and never "".
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from mflamingo_cli import codec

T = TypeVar("T")
VERSION: Literal["mflamingo/1"] = "mflamingo/1"
Command = Literal["analyze", "caption", "ask", "think"]
Origin = Literal["measured", "model"]
FactValue = bool | float | str
ClaimValue = FactValue | tuple[float | None, float | None]  # a range whose ends may be open
Beat = tuple[float, int | None]  # time, and place in the bar from 1; None where the meter is unknown


@dataclass(frozen=True)
class SongTags:
    """What the file's own tags say, as text; nothing that is measured or answered depends on it."""

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    date: str | None = None
    track: str | None = None
    genre: str | None = None


@dataclass(frozen=True)
class AudioInfo:
    """The file, the requested part of it, and how much of that part the model was given; of a `damaged` file some sound is missing.

    `sounding` are the [start, end] between which it sounds, silence of less than three seconds included.
    """

    duration: float
    sample_rate: int
    channels: int
    codec: str
    start: float
    end: float
    windows: int
    truncated: bool
    damaged: bool = False
    tags: SongTags | None = None
    sounding: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class GridInfo:
    """Evenly spaced lines on which beats lie: the one at the first beat, and the first on which a bar begins; null without a meter.

    `on_grid` is the share of the beats within 45 ms of a line, `constant` whether that is enough to cut the song by this grid.
    """

    bpm: float
    first_beat: float
    first_downbeat: float | None
    largest_deviation_ms: float
    on_grid: float
    constant: bool


@dataclass(frozen=True)
class TempoSegment:
    """A part of the song in one tempo, from its first beat to its last."""

    start: float
    end: float
    bpm: float


@dataclass(frozen=True)
class TempoInfo:
    """Beats per minute; `claimed` is the model's answer, `agrees` whether it is within 4 %, `confidence` how likely `bpm` is right.

    `grid` is that of all beats, `segments` are the tempi one after the other: several where the tempo changes.
    """

    bpm: float | None = None
    alternatives: tuple[float, ...] = ()
    source: Origin | None = None
    claimed: float | None = None
    agrees: bool | None = None
    confidence: float | None = None
    grid: GridInfo | None = field(default=None, compare=False)  # follows from the beats
    segments: tuple[TempoSegment, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class KeyInfo:
    """A major or minor key in the notations of musicians, DJs and tags; `confidence` is the probability that a measured key is right."""

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
class KeySpan:
    """A part of the song in one key; `confidence` is the probability that it is right."""

    start: float
    end: float
    name: str
    confidence: float | None = None


@dataclass(frozen=True)
class MeterInfo:
    """A time signature such as 4/4; `confidence` is the probability that a measured meter is right."""

    value: str | None = None
    source: Origin | None = None
    agrees: bool | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Segment:
    """A labelled part of the song: a chord in Harte's notation, or a stretch of singing or speech."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class FormPart(Segment):
    """A part of the form: whether somebody sings in most of it, its integrated loudness, and which section it repeats, counted from 0:
    the first one with its letter, null for that one itself.
    """

    sung: bool | None = None
    lufs: float | None = None
    repeats: int | None = None


@dataclass(frozen=True)
class LoudPart:
    """A part of the song and its loudness in LUFS."""

    start: float
    end: float
    lufs: float


@dataclass(frozen=True)
class Clipped:
    """Runs of three and more samples at full scale, of any channel, and the seconds that they take together."""

    runs: int
    seconds: float


@dataclass(frozen=True)
class Loudness:
    """ITU-R BS.1770 integrated loudness, EBU Tech 3342 range, true peak, and what is clipped."""

    integrated_lufs: float | None = None
    range_lu: float | None = None
    true_peak_dbtp: float | None = None
    clipped: Clipped | None = None


@dataclass(frozen=True)
class Dynamics:
    """The loudest and the quietest part, sounds that begin in a second, and the spectral centroid of the mean spectrum."""

    loudest: LoudPart | None = None
    quietest: LoudPart | None = None
    onsets_per_s: float | None = None
    brightness_hz: float | None = None


TagKind = Literal["genre", "instruments", "mood"]


@dataclass(frozen=True)
class Tag:
    """A genre, an instrument or a mood that was measured or that the model names; `agrees` is true where both do.

    `confidence` is the lower 95 % bound of how often a measured one is right. What is not named may be there all the same.
    """

    kind: TagKind
    name: str
    confidence: float | None = None
    source: Origin | None = None
    agrees: bool | None = None


@dataclass(frozen=True)
class VocalsInfo:
    """Whether somebody sings, what the model says it is like, and the measured parts called `singing` and `speech`.

    `claimed` is the model's answer, `confidence` the probability that a measured `present` is right.
    """

    present: bool | None = None
    description: str | None = None
    source: Origin | None = None
    claimed: bool | None = None
    agrees: bool | None = None
    confidence: float | None = None
    spans: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class Result:
    """What is known about the song; a beat is its time and its position in the bar (1 is the first), null if the meter is unknown.

    `key` is the one of `keys` that sounds longest; `scale` is a church mode such as "D dorian", null for major and minor scales.
    `caption_source` is "measured" where the program wrote the caption from what was measured, "model" where the model did.
    """

    tempo: TempoInfo = TempoInfo()
    key: KeyInfo = KeyInfo()
    keys: tuple[KeySpan, ...] = ()
    scale: str | None = None
    meter: MeterInfo = MeterInfo()
    beats: tuple[Beat, ...] = ()
    chords: tuple[Segment, ...] = ()
    sections: tuple[FormPart, ...] = ()
    loudness: Loudness = Loudness()
    dynamics: Dynamics = Dynamics()
    instruments: tuple[str, ...] = ()
    genre: tuple[str, ...] = ()
    mood: tuple[str, ...] = ()
    vocals: VocalsInfo = VocalsInfo()
    tags: tuple[Tag, ...] = ()
    caption: str | None = None
    caption_source: Origin | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The model that answered, and its back end."""

    id: str
    revision: str | None
    backend: Literal["gguf", "torch"]
    quantization: str


@dataclass(frozen=True)
class UsageInfo:
    """Tokens of the language model, summed over all questions."""

    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class TimingInfo:
    """Seconds of wall time per step; null if a step was not needed."""

    decode_s: float | None = None
    measure_s: float | None = None
    encode_s: float | None = None
    generate_s: float | None = None


@dataclass(frozen=True)
class Claim:
    """What a model's text says of the song, word for word, and the measured fact; `agrees` is null where the fact is not known or not
    sure, or where the claim is not about the whole song. `denied`: the text says that it is not so.
    """

    text: str
    kind: str
    value: ClaimValue
    denied: bool = False
    fact: FactValue | None = None
    agrees: bool | None = None


@dataclass(frozen=True)
class ErrorInfo:
    """Why an input has no result; `code` is stable, `message` is for people."""

    code: str
    message: str
    retryable: bool


def _of_result(read: Callable[[Result], T], meaning: str) -> T:
    """Return a property of a record that its result has; to a type checker it is the value."""
    return cast(T, property(lambda record: read(record.result or Result()), doc=meaning))


@dataclass(frozen=True)
class Analysis:
    """One input and one command. `path_b64` is set only when the path is not UTF-8; `raw` only with -v.

    Without a song `path` and `audio` are null. `question` is that of ask and think, and `answerable` whether `text` answers it: false
    where it says that this cannot be told.
    Without a song `path` and `audio` are null. `only` names the facts and answers that were asked for, null for all: others are empty.
    """

    command: Command
    status: Literal["ok", "skipped", "error"]
    path: str | None
    path_b64: str | None = None
    audio_id: str | None = None
    audio: AudioInfo | None = None
    result: Result | None = None
    thinking: str | None = None
    text: str | None = None
    question: str | None = None
    answerable: bool | None = None
    raw: dict[str, str] | None = None
    claims: tuple[Claim, ...] = ()
    model: ModelInfo | None = None
    usage: UsageInfo | None = None
    timing: TimingInfo | None = None
    warnings: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    only: tuple[str, ...] | None = None
    schema: Literal["mflamingo/1"] = field(default=VERSION, kw_only=True, metadata={codec.FIRST: True})

    # The values of `result`, also of a record that has none: then they are empty.
    tempo = _of_result(lambda result: result.tempo, "Beats per minute; `bpm` is None where it is unknown.")
    key = _of_result(lambda result: result.key, "The key in all notations; each is None where it is unknown.")
    keys = _of_result(lambda result: result.keys, "Measured keys in their order.")
    scale = _of_result(lambda result: result.scale, "A church mode where the scale is neither major nor minor, else None.")
    meter = _of_result(lambda result: result.meter, "The time signature; `value` is None where it is unknown.")
    beats = _of_result(lambda result: result.beats, "Measured beats: time, and place in the bar.")
    chords = _of_result(lambda result: result.chords, "Measured chords in their order.")
    sections = _of_result(lambda result: result.sections, "Measured sections in their order.")
    loudness = _of_result(lambda result: result.loudness, "Measured loudness.")
    dynamics = _of_result(lambda result: result.dynamics, "The loudest and the quietest part, onsets, brightness.")
    instruments = _of_result(lambda result: result.instruments, "Instruments that were measured or that the model names, see `tags`.")
    genre = _of_result(lambda result: result.genre, "Genres, likewise.")
    mood = _of_result(lambda result: result.mood, "Moods, likewise.")
    vocals = _of_result(lambda result: result.vocals, "Whether somebody sings, and where.")
    tags = _of_result(lambda result: result.tags, "Genres, instruments and moods, each with its source.")
    caption = _of_result(lambda result: result.caption, "The description of `analyze` and `caption`.")
    caption_source = _of_result(lambda result: result.caption_source, "Who wrote it: `measured` is the program, from facts.")

    def to_json(self) -> str:
        """One line of JSON, ASCII only, so that no path and no locale can break it."""
        return json.dumps(codec.to_plain(self), allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Analysis:
        """Read what `to_json` wrote. Raises ValueError on anything else."""
        record = codec.from_plain(cls, json.loads(text))
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
    """The path that `path_fields` took apart, as the functions of `os` take it; "" without a song."""
    return os.fsdecode(base64.b64decode(record.path_b64)) if record.path_b64 else record.path or ""


def json_schema() -> dict[str, Any]:
    """The record as JSON Schema 2020-12. Unknown keys are allowed: a later minor version may add some."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{VERSION.replace('/', ':')}",
        "title": f"mflamingo analysis record, {VERSION}",
        **codec.json_schema(Analysis),
    }
