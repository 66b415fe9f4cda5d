"""Analysis -> text for people and programs: the table of formats."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from mflamingo_cli.render.layout import Layout, Writer


@dataclass(frozen=True)
class Format:
    """What makes the writer of a format, and how a file that holds one song's record ends."""

    writes: str  # module:class or function
    suffix: str | None  # None: the format is about several songs
    rows: bool = False  # one row per input, failures too; takes --fields
    times: bool = False  # times in one song, which `analyze` measures
    index: str | None = None  # name of a file beside those of several songs that links to them

    def writer(self, stream: TextIO, layout: Layout) -> Writer:
        """Return a writer to a stream."""
        module, _, name = self.writes.partition(":")
        made: Writer = getattr(import_module(f"{__name__}.{module}"), name)(stream, layout)
        return made


WRITERS = {
    "table": Format("people:TableWriter", ".txt"),
    "text": Format("people:TextWriter", ".txt"),
    "json": Format("records:JsonWriter", ".json", rows=True),
    "csv": Format("records:csv_writer", ".csv", rows=True),
    "tsv": Format("records:tsv_writer", ".tsv", rows=True),
    "markdown": Format("records:markdown_writer", ".md", rows=True),
    "labels": Format("times:label_writer", ".labels.txt", times=True),
    "beats": Format("times:beat_writer", ".beats", times=True),
    "lab": Format("times:chord_writer", ".lab", times=True),
    "jams": Format("times:jams_writer", ".jams", times=True),
    "m3u": Format("playlist:PlaylistWriter", None),
    "html": Format("html:page_writer", ".html", index="index.html"),
}
