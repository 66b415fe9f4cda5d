"""Records as pages to look at: one self-contained HTML file for a song, an index for many.

A page asks nothing of the network: style, script and record are inside, its content security policy forbids everything else but the
song itself, which is named relative to the page. Whatever a file or a model named is escaped. Times are seconds, places on the
timeline per cent of its width.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mflamingo_cli import __version__
from mflamingo_cli.core import audio as core_audio
from mflamingo_cli.errors import AudioError
from mflamingo_cli.measure import Key
from mflamingo_cli.parsers import parse_key
from mflamingo_cli.render import Layout, Writer
from mflamingo_cli.render.people import NAMED_LINES, about, chord_name, clipped, dynamics, made_by, named, voices
from mflamingo_cli.render.text import answer, heading, marked, safe, wrong_words
from mflamingo_cli.render.timeline import fifths
from mflamingo_cli.schema import Analysis, AudioInfo, FormPart, KeyInfo, Result, Segment, path_of
from mflamingo_cli.text import clock, number, octave

COLUMNS = 1200  # of a waveform: a screen's width; more only makes the file larger
ENVELOPE_SAMPLES = core_audio.SAMPLE_RATE // 10  # of a long song that are drawn as one
HEIGHT = 100  # units of a waveform above and below its middle
MINUS = "\u2212"
TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
MAX_TICKS = 9
LAST_TICK = 92  # per cent: what stands later would be cut on a phone
MAX_BEATS = 330  # ticks on a timeline: with more only bars are drawn, else the ticks run together
SHORTEST_CELL_S = 0.4  # of a chord in the chart: less is where a chord and a section begin almost together
RING = {"major": (104.0, 70.0), "minor": (70.0, 42.0)}  # outer and inner radius on the key wheel
SECTION_TINTS = 6
Envelope = tuple[np.ndarray, np.ndarray, np.ndarray]  # (n,) highest and lowest sample, mean square


def page_writer(stream: TextIO, layout: Layout) -> Writer:
    """Return the writer of `-f html`: an index of several songs, or the page of one."""
    return IndexPage(stream, layout.folder, layout.link) if layout.many else SongPage(stream, layout.folder)


class SongPage:
    """One record as a page that will lie in `folder`; the writer of `-f html` for one song."""

    def __init__(self, stream: TextIO, folder: str = ".") -> None:
        self._stream, self._folder = stream, folder

    def write(self, record: Analysis) -> None:
        """Write the page of a record."""
        self._stream.write(_template("song.html").render(page=_assets("song.js"), **_song(record, self._folder)) + "\n")
        self._stream.flush()


class IndexPage:
    """Many records as rows of one page, which is whole after every row: HTML lets the last end tags be left out.

    `link` gives the name of a song's own page, relative to this one; else the song itself is linked.
    """

    def __init__(self, stream: TextIO, folder: str = ".", link: Callable[[Analysis], str | None] | None = None) -> None:
        self._stream, self._folder, self._link = stream, folder, link
        self._row = _template("row.html")
        stream.write(_template("index.html").render(page=_assets("index.js"), version=__version__) + "\n")

    def write(self, record: Analysis) -> None:
        """Add the row of a record."""
        link = self._link and self._link(record)
        href = quote(os.fsencode(link)) if link else _source(record, self._folder)
        result = record.result or Result()
        row = self._row.render(
            record=record,
            title=_title(record),
            name=_name(record),
            href=href,
            result=result,
            tone=f"{_root(result.key.id3)} {result.key.mode}",
            strip=_chords(result, _Scale.of(record.audio)),
            chords=" ".join(dict.fromkeys(filter(None, map(chord_name, result.chords)))),
        )
        self._stream.write(row + "\n")
        self._stream.flush()


# --- templates --------------------------------------------------------------------------------------------------------------


@functools.cache
def _template(name: str) -> Any:
    environment = Environment(
        loader=PackageLoader(__package__, ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: value if hasattr(value, "__html__") or not isinstance(value, str) else safe(value),
    )  # fmt: skip
    environment.filters |= {"clock": clock, "number": number}
    return environment.get_template(name)


def _assets(name: str) -> dict[str, str]:
    """The style and one script of a page, and the policy that allows them and nothing else."""
    style, script = (Markup(Path(__file__).with_name(file).read_text(encoding="utf-8")) for file in ("page.css", name))  # our own files
    sources = f"style-src {_hash(style)}; script-src {_hash(script)}; media-src 'self' file:"
    return {"style": style, "script": script, "policy": f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"}


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


# --- the parts of a song's page ---------------------------------------------------------------------------------------------


def _song(record: Analysis, folder: str) -> dict[str, Any]:
    """Everything that the template of a song's page asks for."""
    result, scale = record.result or Result(), _Scale.of(record.audio)
    wave, silence = _waveform(record)
    return {
        "record": record,
        "result": result,
        "title": _title(record),
        "about": about(record.audio) if record.audio else "",
        "made": f"{made_by(record)} · mflamingo {__version__}".removeprefix(" · "),
        "source": _source(record, folder),
        "json": Markup(record.to_json().replace("<", "\\u003c")),  # ASCII, and nothing in it opens a tag
        "words": [marked(line, wrong_words(record)) for line in (answer(record) or "").expandtabs().split("\n") if line.strip()],
        "wave": wave,
        "silence": silence,
        "ticks": scale.ticks(),
        "beats": _beat_ticks(result, scale),
        "sections": _sections(result, scale),
        "chords": _chords(result, scale),
        "voices": [_block(span, scale, span.label, span.label) for span in result.vocals.spans],
        "facts": _facts(result) if record.command == "analyze" else [],
        "named": _named(result),
        "wheel": _wheel(result.key),
        "chart": _chart(result, record.audio),
    }


def _title(record: Analysis) -> str:
    """Artist and title where the file's tags name them, else the file's name."""
    return heading(record) or _name(record)


def _name(record: Analysis) -> str:
    return "standard input" if record.path == "-" else os.path.splitext(os.path.basename(record.path or ""))[0] or record.path or ""


def _source(record: Analysis, folder: str) -> str | None:
    """The address of the song relative to a page, None for stdin."""
    return None if record.path == "-" else quote(os.fsencode(os.path.relpath(path_of(record), folder)))


@dataclass(frozen=True)
class _Scale:
    """The part of the song that a timeline shows, as per cent of its width."""

    start: float
    end: float

    @classmethod
    def of(cls, audio: AudioInfo | None) -> _Scale:
        return cls(audio.start, max(audio.end, audio.start + 0.01)) if audio else cls(0.0, 1.0)

    def at(self, seconds: float) -> float:
        """0 … 100."""
        return round(100 * min(max((seconds - self.start) / (self.end - self.start), 0.0), 1.0), 3)

    def ticks(self) -> list[tuple[float, str]]:
        """Round times and their places."""
        length = self.end - self.start
        step = next((step for step in TICK_STEPS_S if length / step <= MAX_TICKS), TICK_STEPS_S[-1])
        times = range(math.ceil(self.start / step) * step, math.ceil(self.end), step)
        return [(self.at(time), clock(time)) for time in times if self.at(time) < LAST_TICK]


def _waveform(record: Analysis) -> tuple[dict[str, str] | None, str]:
    """Peak and mean level of the song over time as SVG paths, or None and a word why not: the song is decoded again."""
    if record.audio is None:
        return None, ""
    if record.path == "-":
        return None, "The audio came through a pipe and was not kept, so there is no waveform."
    try:
        start_s, end_s, parts = record.audio.start, record.audio.end, list[Envelope]()
        last = core_audio.load(path_of(record), start_s=start_s, end_s=end_s, on_part=lambda part, _: parts.append(_envelope(part))).samples
    except AudioError as error:
        return None, f"No waveform: {error}."
    whole = (last, last, np.square(last, dtype=np.float64))  # of each sample
    highest, lowest, power = map(np.concatenate, zip(*parts, _envelope(last), strict=True)) if parts else whole
    n = min(COLUMNS, len(power))
    edges = np.linspace(0, len(power), n, endpoint=False).astype(int)
    top, bottom = np.maximum.reduceat(highest, edges), np.minimum.reduceat(lowest, edges)
    level = np.sqrt(np.add.reduceat(power, edges) / np.diff(edges, append=len(power)))
    scale = HEIGHT / max(float(top.max()), -float(bottom.min()), 1e-6)
    return {"peak": _area(top * scale, bottom * scale), "level": _area(level * scale, -level * scale), "width": str(n)}, ""


def _envelope(samples: np.ndarray) -> Envelope:
    """Highest and lowest sample and mean square of each tenth of a second: (n,) -> three (ceil(n / 1600),)."""
    edges = np.arange(0, len(samples), ENVELOPE_SAMPLES)
    power = np.add.reduceat(np.square(samples), edges, dtype=np.float64) / np.diff(edges, append=len(samples))
    return np.maximum.reduceat(samples, edges), np.minimum.reduceat(samples, edges), power


def _area(top: np.ndarray, bottom: np.ndarray) -> str:
    """A closed SVG path along (n,) values above and back along (n,) values below, one unit per column; y grows downwards."""
    there = [f"{x} {-y}" for x, y in enumerate(np.rint(top).astype(int).tolist())]
    back = [f"{x} {-y}" for x, y in enumerate(np.rint(bottom).astype(int).tolist())]
    return "M" + "L".join(there + back[::-1]) + "Z"


def _beat_ticks(result: Result, scale: _Scale) -> dict[str, str]:
    """SVG paths of bars and of the other beats on a width of 10,000."""
    bars = [time for time, place in result.beats if place == 1]
    others = [time for time, place in result.beats if place != 1] if len(result.beats) <= MAX_BEATS else []
    return {
        "bars": "".join(f"M{100 * scale.at(time):.0f} 0v10" for time in bars),
        "others": "".join(f"M{100 * scale.at(time):.0f} 4v6" for time in others),
    }


def _sections(result: Result, scale: _Scale) -> list[dict[str, Any]]:
    """Sections with place, width, and a tint that the same label always has."""
    labels = list(dict.fromkeys(span.label for span in result.sections))
    tints = [f"s{labels.index(span.label) % SECTION_TINTS}" for span in result.sections]
    return [_block(span, scale, span.label, tint) | {"says": _of_section(span)} for span, tint in zip(result.sections, tints, strict=True)]


def _of_section(span: FormPart) -> str:
    """What a pointer on a section shows: its times, its loudness, and whether it is sung."""
    return " · ".join([f"{span.label}, {clock(span.start)} to {clock(span.end)}", *_details(span)])


def _details(span: FormPart) -> list[str]:
    words = (_known(span.lufs, "{} LUFS"), None if span.sung is None else "sung" if span.sung else "not sung")
    return [word for word in words if word]


def _heading(span: FormPart, sections: Sequence[FormPart]) -> str:
    """The line over the chords of a section: its times and what is known of it, and when the one that it repeats begins."""
    repeats = span.repeats is not None and 0 <= span.repeats < len(sections)
    again = [f"repeats {clock(sections[span.repeats or 0].start)}"] if repeats else []
    return " · ".join([f"{clock(span.start)} – {clock(span.end)}", *_details(span), *again])


def _chords(result: Result, scale: _Scale) -> list[dict[str, Any]]:
    return [_block(span, scale, chord_name(span), _tone(span)) for span in result.chords]


def _block(span: Segment, scale: _Scale, name: str, tone: str) -> dict[str, Any]:
    at, to = scale.at(span.start), scale.at(span.end)
    return {"at": at, "width": round(to - at, 3), "name": name, "tone": tone, "start": span.start, "end": span.end}


def _root(chord: str | None) -> str:
    """The class of a colour: the same for all chords and keys on one root, in the order of fifths."""
    place = fifths(chord or "")
    return "" if place is None else f"r{place}"


def _tone(span: Segment) -> str:
    minor = span.label.partition(":")[2].startswith(("min", "dim", "hdim"))
    return (_root(span.label) + (" minor" if minor else "")) or "none"


# --- facts beside claims ----------------------------------------------------------------------------------------------------


def _fact(name: str, value: str | None, notes: Sequence[str | None], source: str | None, claim: str | None, agrees: bool | None) -> Any:
    """A card: what was measured, and what the model claims of it; a claim alone stands as the model's."""
    says = {True: "the model agrees", False: "the model disagrees", None: ""}[agrees]
    if source == "model":
        says = "the model's claim, not measured"
    elif agrees is False and claim:
        says = f"the model says {claim}"
    verdict = {True: "agrees", False: "differs", None: "alone"}[agrees]
    known = {"value": value or "unknown", "notes": list(filter(None, notes))}
    return {"name": name, **known, "says": says, "verdict": verdict, "source": source}


def _sure(confidence: float | None) -> str | None:
    return None if confidence is None else f"{100 * confidence:.0f} % sure"


def _known(value: float | None, words: str) -> str | None:
    return None if value is None else words.format(number(value).replace("-", MINUS))


def _facts(result: Result) -> list[Any]:
    """The cards of tempo, key, meter, loudness, dynamics and voices."""
    tempo, key, meter, level = result.tempo, result.key, result.meter, result.loudness
    vocals = result.vocals
    claimed = None if vocals.claimed is None else "yes" if vocals.claimed else "none"
    sung = voices(vocals) if vocals.present is not None else [None, *voices(vocals)]
    bpm, lufs = _known(tempo.bpm, "{} BPM"), _known(level.integrated_lufs, "{} LUFS")
    others = f"or {', '.join(octave(bpm, tempo.bpm) for bpm in tempo.alternatives)}" if tempo.bpm and tempo.alternatives else None
    names = f"Camelot {key.camelot} · Open Key {key.openkey}" if key.name else None
    changes = " · ".join(f"{part.name} {clock(part.start)}" for part in result.keys) if len(result.keys) > 1 else None
    spread = [_known(level.range_lu, "range {} LU"), _known(level.true_peak_dbtp, "true peak {} dBTP"), *clipped(level)]
    moving = dynamics(result.dynamics)
    return [
        _fact("Tempo", bpm, [_sure(tempo.confidence), others], tempo.source, _known(tempo.claimed, "{} BPM"), tempo.agrees),
        _fact("Key", key.name, [names, _sure(key.confidence), result.scale, changes], key.source, key.claimed, key.agrees),
        _fact("Meter", meter.value, [_sure(meter.confidence)], meter.source, None, meter.agrees),
        _fact("Loudness", lufs, spread, "measured" if lufs else None, None, None),
        _fact("Dynamics", moving[0] if moving else None, moving[1:], "measured" if moving else None, None, None),
        _fact("Vocals", sung[0], [*sung[1:], _sure(vocals.confidence)], vocals.source, claimed, vocals.agrees),
    ]


def _named(result: Result) -> list[tuple[str, str, str]]:
    """Instruments, genre and mood, and where they come from."""
    return [(kind.capitalize(), *named(result, kind)) for kind in NAMED_LINES if getattr(result, kind)]


# --- the key wheel ----------------------------------------------------------------------------------------------------------


def _wheel(info: KeyInfo) -> dict[str, Any] | None:
    """The circle of fifths: majors outside, minors inside, the key and its harmonic neighbours marked. None without a key."""
    key = parse_key(info.name) if info.name else None
    if key is None:
        return None
    claimed = parse_key(info.claimed) if info.claimed else None
    near = {neighbour.camelot: neighbour for neighbour in key.neighbours.values()}
    fields = []
    for step in range(12):
        for mode, pitch in (("major", 7 * step), ("minor", 7 * step - 3)):
            other = Key.of(pitch, mode)  # type: ignore[arg-type]
            state = "here" if other.camelot == key.camelot else "near" if other.camelot in near else "far"
            state += " claimed" if claimed is not None and other.camelot == claimed.camelot != key.camelot else ""
            fields.append(_field(step, other, state))
    fields.sort(key=lambda field: ("far", "near", "here").index(field["state"].split()[0]))  # what is drawn later is on top
    spoken = ", ".join(f"{code} {neighbour.name}" for code, neighbour in near.items())
    return {"fields": fields, "key": key, "neighbours": near, "spoken": spoken, "claimed": claimed}


def _field(step: int, key: Key, state: str) -> dict[str, Any]:
    """A field of the wheel, 30 degrees wide, C on top: its outline as an SVG path, and where its name stands."""
    outer, inner = RING[key.mode]

    def point(radius: float, degrees: float) -> str:
        angle = math.radians(degrees - 90)
        return f"{radius * math.cos(angle):.1f} {radius * math.sin(angle):.1f}"

    left, right = 30.0 * step - 15, 30.0 * step + 15
    path = f"M{point(outer, left)}A{outer} {outer} 0 0 1 {point(outer, right)}"
    path += f"L{point(inner, right)}A{inner} {inner} 0 0 0 {point(inner, left)}Z"
    x, y = point((outer + inner) / 2, 30.0 * step).split()
    return {"path": path, "x": x, "y": y, "name": key.id3, "code": key.camelot, "tone": f"{_root(key.id3)} {key.mode}", "state": state}


# --- the chart: chords as musicians read them, bar by bar -------------------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    """A bar, or a chord where there are no bars: (name, colour, whether it only continues) of each chord in it, and its beats."""

    start: float
    end: float
    chords: tuple[tuple[str, str, bool], ...]
    beats: int

    @property
    def length(self) -> str:
        """Written where there are no beats to count."""
        return "" if self.beats else f"{self.end - self.start:.1f} s"

    @property
    def spoken(self) -> str:
        """The same for screen readers."""
        return clock(self.start) + " " + ", ".join(f"{name or 'no chord'}{' continued' if held else ''}" for name, _, held in self.chords)


def _chart(result: Result, audio: AudioInfo | None) -> list[dict[str, Any]]:
    """Sections, each with its cells; empty where no chord was measured."""
    if not result.chords or audio is None:
        return []
    sections = result.sections or (FormPart(audio.start, audio.end, ""),)
    spans = list(_bars(result))
    rows = []
    for index, section in enumerate(sections):
        if spans:
            last = index == len(sections) - 1
            own = [bar for bar in spans if section.start <= (bar[0] + bar[1]) / 2 < (math.inf if last else section.end)]
            cells = [_Cell(start, end, tuple(_sounding(result.chords, start, end, beats)), beats) for start, end, beats in own]
            cells = [cell for cell in cells if cell.chords]  # the last beat may begin with the last sound
        else:
            cells = list(_pieces(result.chords, section))
        rows.append({"label": section.label, "says": _heading(section, result.sections), "cells": cells})
    return [row for row in rows if row["cells"]]


def _bars(result: Result) -> Iterator[tuple[float, float, int]]:
    """(start, end, beats) of each bar, with the beats before the first; nothing where the meter is not known."""
    beats = result.beats
    if len(beats) < 2 or not any(place == 1 for _, place in beats):
        return
    starts = sorted({0} | {index for index, (_, place) in enumerate(beats) if place == 1})
    length = (beats[-1][0] - beats[0][0]) / (len(beats) - 1)
    for start, end in zip(starts, [*starts[1:], len(beats)], strict=True):
        yield beats[start][0], beats[end][0] if end < len(beats) else beats[-1][0] + length, end - start


def _sounding(chords: Sequence[Segment], start: float, end: float, beats: int) -> Iterator[tuple[str, str, bool]]:
    """The chord that a bar begins with, and those that begin later in it; half a beat is no difference."""
    near = (end - start) / beats / 2
    for chord in chords:
        if chord.start < end - near and chord.end > start + near:
            yield chord_name(chord), _tone(chord), chord.start < start - near


def _pieces(chords: Sequence[Segment], section: Segment) -> Iterator[_Cell]:
    """The chords of a section, cut at its ends."""
    for chord in chords:
        start, end = max(chord.start, section.start), min(chord.end, section.end)
        if end - start >= SHORTEST_CELL_S:
            yield _Cell(start, end, ((chord_name(chord), _tone(chord), chord.start < start - SHORTEST_CELL_S),), 0)
