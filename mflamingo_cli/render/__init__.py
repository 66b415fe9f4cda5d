"""Analysis -> text for people and programs: the table of formats, the interface of writers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, TextIO, runtime_checkable

if TYPE_CHECKING:
    from mflamingo_cli.render.query.fields import Field
    from mflamingo_cli.schema import Analysis


class Writer(Protocol):
    """Writes records one by one, each as soon as it is finished."""

    def write(self, record: Analysis) -> None:
        """Write one record."""


@runtime_checkable
class Ending(Protocol):
    """A writer of a document that is whole only with its end."""

    def end(self) -> None:
        """Write what is left; no record follows."""


@dataclass(frozen=True)
class Layout:
    """What the user wants: colours, one song or many, the chosen fields (none: the usual ones), the folder of the file.

    `link` gives the path of a song's own file, relative to the index.
    """

    color: bool = False
    many: bool = False
    fields: tuple[Field, ...] = ()
    folder: str = "."
    link: Callable[[Analysis], str | None] | None = None


@dataclass(frozen=True)
class Format:
    """What makes the writer of a format, and how a file that holds one song's record ends."""

    writes: str  # module:class or function
    suffix: str | None  # None: the format is about several songs
    rows: bool = False  # one row per input, failures too; takes --fields
    times: bool = False  # times in one song, which `analyze` measures
    facts: bool = False  # what `analyze` measures, of one or many songs
    paths: bool = False  # songs are named by their paths
    binary: bool = False  # bytes, which no terminal shows
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
    "midi": Format("midi:MidiWriter", ".mid", times=True, binary=True),
    "m3u": Format("playlist:PlaylistWriter", None, paths=True),
    "rekordbox": Format("dj.rekordbox:RekordboxWriter", None, facts=True, paths=True),
    "traktor": Format("dj.traktor:TraktorWriter", None, facts=True, paths=True),
    "html": Format("html:page_writer", ".html", index="index.html"),
}
