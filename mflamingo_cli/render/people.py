"""What people read: panels and plain words, at most `MAX_WIDTH` columns wide.

Nothing that came from a file name or a model reaches the terminal unescaped. Times are shown as m:ss.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import pairwise
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mflamingo_cli.grounding import LIKELY, sure
from mflamingo_cli.parsers import short_chord
from mflamingo_cli.render import Layout, timeline
from mflamingo_cli.render.text import answer, console, heading, marked, safe, wrong_words
from mflamingo_cli.schema import (
    Analysis,
    AudioInfo,
    Dynamics,
    KeyInfo,
    KeySpan,
    Loudness,
    MeterInfo,
    Result,
    Segment,
    TempoInfo,
    VocalsInfo,
)
from mflamingo_cli.text import clock, number, octave

MAX_WIDTH = 100  # columns: longer lines are hard to read
WIDE = 56  # columns from which the table of facts has three
FRAME = 4  # columns of a panel's sides
ELLIPSIS = "\u2026"
BETWEEN = " \u00b7 "  # artist and title, and the path
NO_CHORD = "N"  # in Harte's notation
SHOWN_CHORDS = 4  # of the chords that sound longest
SHOWN_STRETCHES = 3  # of sound with silence between them; of more, their number
SILENT_S = 1.0  # at the beginning or the end of a song: more is worth a word
MOST_TEMPI = 4  # of a song that changes its tempo, on one line


# --- the lines of a table: name, value, where it comes from -----------------------------------------------------------

Line = tuple[str, str, str]


def _claim(source: str | None, claimed: bool, agrees: bool | None) -> str:
    """Return `measured = model` or `measured ≠ model` where there are both; a warning has the model's value."""
    return f"measured {'=' if agrees else '≠'} model" if source == "measured" and claimed else source or ""


def _hedge(confidence: float | None) -> str:
    """Return `, likely` or `, unsure` for a value below the confidence limit; nothing for a sure one."""
    return "" if confidence is None or sure(confidence) else ", likely" if sure(confidence, LIKELY) else ", unsure"


def _tempo(tempo: TempoInfo) -> Line:
    if tempo.bpm is None:
        return "tempo", "unknown", ""
    others = f" (or {', '.join(octave(bpm, tempo.bpm) for bpm in tempo.alternatives)})" if tempo.alternatives else ""
    value = f"{number(tempo.bpm)} BPM{_hedge(tempo.confidence)}{others}"
    if 1 < len(tempo.segments) <= MOST_TEMPI:
        value = f"{' → '.join(number(segment.bpm) for segment in tempo.segments)} BPM{_hedge(tempo.confidence)}"
    return "tempo", value, _claim(tempo.source, tempo.claimed is not None, tempo.agrees)


def _key(key: KeyInfo) -> Line:
    if key.name is None:
        return "key", "unknown", ""
    value = f"{key.name}{_hedge(key.confidence)} · Camelot {key.camelot} · Open Key {key.openkey}"
    return "key", value, _claim(key.source, key.claimed is not None, key.agrees)


def _keys(keys: tuple[KeySpan, ...]) -> Line | None:
    """Return every key where there are several, with where it begins."""
    parts = [f"{key.name}{_hedge(key.confidence)} {clock(key.start)}" for key in keys]
    return ("keys", " · ".join(parts), "measured") if len(parts) > 1 else None


def _scale(scale: str | None) -> Line | None:
    return ("scale", scale, "measured") if scale else None


def _meter(meter: MeterInfo) -> Line | None:
    if meter.value is None:
        return None
    return "meter", f"{meter.value}{_hedge(meter.confidence)}", _claim(meter.source, meter.agrees is not None, meter.agrees)


def _loudness(level: Loudness) -> Line | None:
    parts = [(level.integrated_lufs, "{} LUFS"), (level.range_lu, "LRA {} LU"), (level.true_peak_dbtp, "peak {} dBTP")]
    known = [words.format(number(value)) for value, words in parts if value is not None]
    return ("loudness", " · ".join([*known, *clipped(level)]), "measured") if known else None


def clipped(level: Loudness) -> list[str]:
    """How often and how long it is clipped, in words; nothing where it is not."""
    found = level.clipped
    return [f"clipped {found.runs} time{'s' * (found.runs > 1)}, {number(1000 * found.seconds)} ms"] if found and found.runs else []


def dynamics(found: Dynamics) -> list[str]:
    """The loudest and the quietest part, density and brightness, each in words; nothing where they are not known."""
    parts = [("loudest", found.loudest), ("quietest", found.quietest)]
    words = [f"{name} at {clock(part.start)}" for name, part in parts if part]
    words += [] if found.onsets_per_s is None else [f"{number(found.onsets_per_s)} onsets/s"]
    return words + ([] if found.brightness_hz is None else [f"brightness {number(found.brightness_hz / 1000)} kHz"])


def _dynamics(found: Dynamics) -> Line | None:
    words = dynamics(found)
    return ("dynamics", " · ".join(words), "measured") if words else None


def _chords(chords: tuple[Segment, ...]) -> Line | None:
    """The chords that sound longest with their share of the time, and how many changes there are."""
    lasting: Counter[str] = Counter()
    for span in chords:
        lasting[short_chord(span.label) or "none"] += round((span.end - span.start) * 1000)
    total = lasting.total()
    named = [(name, share) for name, share in lasting.most_common(SHOWN_CHORDS + 1) if name != "none"][:SHOWN_CHORDS]
    if not named or not total:
        return None
    value = " · ".join(f"{name} {100 * share / total:.0f} %" for name, share in named)
    heard = [name for span in chords if (name := short_chord(span.label))]  # a pause is no chord
    count = sum(old != new for old, new in pairwise(heard))
    return "chords", f"{value} · {count} change{'s' * (count != 1)}", "measured"


def _sections(sections: tuple[Segment, ...]) -> Line | None:
    return ("sections", " · ".join(f"{span.label} {clock(span.start)}" for span in sections), "measured") if sections else None


def voices(vocals: VocalsInfo) -> list[str]:
    """Whether somebody sings, and how long and from when on there is singing and speech, each in words; nothing where it is not known."""
    words = [] if vocals.present is None else [(vocals.description or "sung") if vocals.present else "none"]
    for name in ("singing", "speech"):
        phrases = [span for span in vocals.spans if span.label == name]
        if phrases:
            lasting = clock(round(sum(span.end - span.start for span in phrases)))
            words.append(f"{lasting} of {name}, from {clock(phrases[0].start)} on")
    return words


def _vocals(vocals: VocalsInfo) -> Line | None:
    words = voices(vocals)
    source = vocals.source or ("measured" if vocals.spans else None)
    return ("vocals", " · ".join(words), _claim(source, vocals.claimed is not None, vocals.agrees)) if words else None


def named(result: Result, kind: str) -> tuple[str, str]:
    """The names of a kind in one line, and where they come from; a record of an older version has them from the model."""
    sources = {tag.source for tag in result.tags if tag.kind == kind} or {"model"}
    agree = all(tag.agrees for tag in result.tags if tag.kind == kind)
    return ", ".join(getattr(result, kind)), " = ".join(sorted(map(str, sources))) if agree else " and ".join(sorted(map(str, sources)))


def _named_line(kind: str) -> Callable[[Result], Line | None]:
    return lambda result: (kind, *named(result, kind)) if getattr(result, kind) else None


FACT_LINES: dict[str, Callable[[Any], Line | None] | None] = {
    "tempo": _tempo,
    "key": _key,
    "keys": _keys,
    "scale": _scale,
    "meter": _meter,
    "beats": None,  # hundreds of times: `-f beats` writes them
    "chords": _chords,
    "sections": _sections,
    "loudness": _loudness,
    "dynamics": _dynamics,
    "vocals": _vocals,
    "tags": None,  # by the lists of their kinds
}
"""The line of each fact of `measure.FACTS`, of its value in the record; None: it has none."""
NAMED_LINES = {kind: _named_line(kind) for kind in ("instruments", "genre", "mood")}
"""The line of each list of names, of the whole result."""


def lines(result: Result, only: Collection[str] | None = None) -> list[Line]:
    """Return what is known of a song, in the order of the record; tempo and key also when they are not known, unless nobody asked."""
    found = [write(getattr(result, name)) for name, write in FACT_LINES.items() if write is not None and (only is None or name in only)]
    named = [write(result) for name, write in NAMED_LINES.items() if only is None or name in only]
    return [line for line in (*found, *named) if line is not None]


def about(audio: AudioInfo) -> str:
    """Length, part, codec, rate and channels of a song on one line."""
    part = "" if audio.start == 0 and audio.end >= audio.duration - 0.01 else f" · {clock(audio.start)} to {clock(audio.end)}"
    channels = {1: "mono", 2: "stereo"}.get(audio.channels, f"{audio.channels} channels")
    return (
        f"{clock(round(audio.duration))}{part} · {safe(audio.codec)} · {number(audio.sample_rate / 1000)} kHz {channels}{_sounding(audio)}"
    )


def _sounding(audio: AudioInfo) -> str:
    """Where it sounds, if there is silence to speak of before, between or after."""
    spans = audio.sounding
    if not spans or (len(spans) == 1 and spans[0][0] - audio.start < SILENT_S and audio.end - spans[0][1] < SILENT_S):
        return ""
    if len(spans) > SHOWN_STRETCHES:
        return f" · sound {clock(round(spans[0][0]))} to {clock(round(spans[-1][1]))}, with {len(spans) - 1} silences"
    return " · sound " + ", ".join(f"{clock(round(start))} to {clock(round(end))}" for start, end in spans)


def made_by(record: Analysis) -> str:
    """The model and the seconds of each step on one line."""
    steps = {} if record.timing is None else vars(record.timing)
    parts = [f"{name.removesuffix('_s')} {seconds:.1f} s" for name, seconds in steps.items() if seconds is not None]
    model = record.model
    named = [f"{model.id} {model.quantization}"] if model else []
    return safe(" · ".join(named + parts))


# --- writers ---------------------------------------------------------------------------------------------------------------


class TableWriter:
    """A panel per song, at most `MAX_WIDTH` columns wide; colours only where the console has them."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._console = console(stream, layout.color)

    def write(self, record: Analysis) -> None:
        """Print one record."""
        width = min(self._console.width, MAX_WIDTH)
        body, took, style = Group(*_body(record, width - FRAME)), Text(made_by(record), style="dim"), "cyan"
        if record.error is not None:
            body, took, style = Group(Text(safe(record.error.message))), Text(""), "yellow" if record.status == "skipped" else "red"
        panel = Panel(body, border_style=style, width=width, title_align="left", subtitle_align="right")
        panel.title, panel.subtitle = Text(_title(record, width - 6), style="bold"), took if took.plain else None
        self._console.print(panel)


def _glued(text: str) -> str:
    """A number and its unit, and a time and its name, stay on one line."""
    return re.sub(r"(?<=[0-9]) (?=[%A-Za-z])|(?<=\b[A-Z]) (?=[0-9])| (?=[=≠] )|(?<=[=≠]) ", "\u00a0", text)


def _title(record: Analysis, room: int) -> str:
    """Artist and title, then the path; each keeps what the other leaves of the line, the path at least half of it."""
    path, song = safe(record.path or ""), safe(heading(record) or "")
    if not song:
        return _tail(path, room)
    left = room - len(BETWEEN) - min(cell_len(path), room // 2)
    song = song if cell_len(song) <= left else set_cell_size(song, left - 1).rstrip() + ELLIPSIS
    return f"{song}{BETWEEN}{_tail(path, room - cell_len(song) - len(BETWEEN))}"


def _tail(path: str, room: int) -> str:
    """The end of a path that is too long for a line: there is the name."""
    if cell_len(path) <= room:
        return path
    while path and cell_len(path) >= room:
        path = path[1:]
    return ELLIPSIS + path


def _timeline(record: Analysis, width: int) -> list[Text]:
    result, audio = record.result, record.audio
    if result is None or audio is None:
        return []
    chords = [replace(span, label=safe(chord_name(span))) for span in result.chords]
    sections = [replace(span, label=safe(span.label)) for span in result.sections]
    return timeline.draw(chords, sections, audio.start, audio.end, width)


def chord_name(span: Segment) -> str:
    """As musicians write it; nothing where no chord sounds."""
    return "" if span.label == NO_CHORD else short_chord(span.label) or span.label


def _facts(result: Result, only: Collection[str] | None, width: int, drawn: bool) -> Table:
    """Name, value and source of what is known; the source goes behind the value where there is no room for a column of its own."""
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(ratio=1)
    if wide := width >= WIDE:
        grid.add_column(style="dim", justify="right")
    for name, value, source in lines(result, only):
        if name == "sections" and drawn:  # the timeline has their times
            value = " ".join(span.label for span in result.sections)
        shown, origin = Text(_glued(safe(value))), Text(_glued(source), style="dim")
        grid.add_row(Text(name), *((shown, origin) if wide else (shown + Text(" · ", "dim") + origin if source else shown,)))
    return grid


def _body(record: Analysis, width: int) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if record.audio:
        parts.append(Text(about(record.audio), style="dim"))
    if record.result and record.command == "analyze":
        drawn = _timeline(record, width)
        parts += [Text(""), _facts(record.result, record.only, width, bool(drawn)), *([Text(""), *drawn] if drawn else [])]
    for text, style in ((record.thinking, "dim"), (record.result and record.result.caption, ""), (record.text, "")):
        if text:
            parts += [Text(""), _words(text, style, wrong_words(record))]
    if record.warnings:
        parts += [Text(""), *(Text("! " + safe(warning), style="yellow") for warning in record.warnings)]
    return parts


def _words(text: str, style: str, wrong: list[str]) -> Text:
    """Free text; what contradicts the facts is underlined."""
    shown = Text(style=style)
    for part, underlined in marked(text.expandtabs(), wrong):
        shown.append("\n".join(map(safe, part.split("\n"))), "underline" if underlined else None)
    return shown


class TextWriter:
    """Plain words: the answer alone, or `name: value` lines for analyze; several songs get a headline each."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._stream = stream
        self._many = layout.many
        self._count = 0

    def headline(self, path: str) -> None:
        """`==> path <==` as head and tail write it, before each of several songs."""
        if self._many:
            self._stream.write(f"{chr(10) if self._count else ''}==> {safe(path)} <==\n")
        self._count += 1

    def write(self, record: Analysis) -> None:
        """Print one record; an input that failed has no text, its error is on stderr."""
        if record.error is not None:
            return
        self.headline(record.path or "")
        if record.command == "analyze" and record.result:
            for name, value, _ in lines(record.result, record.only):
                self._stream.write(f"{name}: {safe(value)}\n")
            if record.result.caption:
                self._stream.write(f"caption: {safe(' '.join(record.result.caption.split()))}\n")
        else:
            self._stream.write((answer(record) or "") + "\n")
