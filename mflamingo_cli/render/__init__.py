"""Analysis -> text for people and programs: the table of formats, the interface of writers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
    more: Mapping[str, str] = field(default_factory=dict)  # further files of each song: suffix, what writes it
    named: bool = False  # files are called song.json, as other programs look for them, not song.flac.mflamingo.json
    rows: bool = False  # one row per input, failures too; takes --fields
    facts: bool = False  # what `analyze` measures
    single: bool = False  # one song in one file
    paths: bool = False  # songs are named by their paths
    binary: bool = False  # bytes, which no terminal shows
    index: str | None = None  # name of a file beside those of several songs that links to them

    @property
    def parts(self) -> dict[str, Format]:
        """What each song has a file of, by suffix; none where the format is about several songs."""
        own = {} if self.suffix is None else {self.suffix: self}
        return own | {suffix: replace(self, writes=writes, suffix=suffix, more={}) for suffix, writes in self.more.items()}

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
    "labels": Format("times:label_writer", ".labels.txt", facts=True, single=True),
    "beats": Format("times:beat_writer", ".beats", facts=True, single=True),
    "lab": Format("times:chord_writer", ".lab", facts=True, single=True),
    "jams": Format("times:jams_writer", ".jams", facts=True, single=True),
    "midi": Format("midi:MidiWriter", ".mid", facts=True, single=True, binary=True),
    "lrc": Format("lyrics:LrcWriter", ".lrc", single=True, named=True),
    "acestep": Format(
        "acestep:AnnotationWriter",
        ".json",
        more={".caption.txt": "acestep:CaptionWriter", ".lyrics.txt": "acestep:LyricsWriter"},
        facts=True,
        single=True,
        named=True,
    ),
    "acousticbrainz": Format("acousticbrainz:AcousticBrainzWriter", ".acousticbrainz.json", facts=True),
    "m3u": Format("playlist:PlaylistWriter", None, paths=True),
    "rekordbox": Format("dj.rekordbox:RekordboxWriter", None, facts=True, paths=True),
    "traktor": Format("dj.traktor:TraktorWriter", None, facts=True, paths=True),
    "html": Format("html:page_writer", ".html", index="index.html"),
}
