"""Analysis -> text for people and programs: `WRITERS`, one row per format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from mflamingo_cli.render.layout import Layout, Writer
from mflamingo_cli.render.people import TableWriter, TextWriter, answer, console, lines, number, safe
from mflamingo_cli.render.playlist import PlaylistWriter
from mflamingo_cli.render.records import CsvWriter, JsonWriter, MarkdownWriter, TsvWriter
from mflamingo_cli.render.times import BeatWriter, ChordWriter, JamsWriter, LabelWriter

__all__ = ["WRITERS", "Format", "Layout", "Writer", "answer", "console", "lines", "number", "safe"]


@dataclass(frozen=True)
class Format:
    """How records are written, and the end of the name of a file that holds one song's."""

    writer: Callable[[TextIO, Layout], Writer]
    suffix: str | None  # None: what it writes is about several songs
    rows: bool = False  # one row per input, failures too; takes --fields
    times: bool = False  # times in one song, which `analyze` measures
    index: str | None = None  # name of a file beside those of several songs that leads to them


def _html(stream: TextIO, layout: Layout) -> Writer:
    from mflamingo_cli.render import html as page  # templates load when they are asked for

    return page.IndexPage(stream, layout.folder, layout.link) if layout.many else page.SongPage(stream, layout.folder)


WRITERS = {
    "table": Format(TableWriter, ".txt"),
    "text": Format(TextWriter, ".txt"),
    "json": Format(JsonWriter, ".json", rows=True),
    "csv": Format(CsvWriter, ".csv", rows=True),
    "tsv": Format(TsvWriter, ".tsv", rows=True),
    "markdown": Format(MarkdownWriter, ".md", rows=True),
    "labels": Format(LabelWriter, ".labels.txt", times=True),
    "beats": Format(BeatWriter, ".beats", times=True),
    "lab": Format(ChordWriter, ".lab", times=True),
    "jams": Format(JamsWriter, ".jams", times=True),
    "m3u": Format(PlaylistWriter, None),
    "html": Format(_html, ".html", index="index.html"),
}
