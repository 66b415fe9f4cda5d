"""`mflamingo next`: which songs of a library mix with one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from mflamingo_cli.backends.options import DEFAULT_MODEL
from mflamingo_cli.commands.inputs import NoInputError, songs_below
from mflamingo_cli.errors import MFlamingoError, UsageError
from mflamingo_cli.render import WRITERS, Layout

if TYPE_CHECKING:
    from mflamingo_cli.commands.terminal import Reporter
    from mflamingo_cli.library.mixing import Match
    from mflamingo_cli.library.plan import Finished
    from mflamingo_cli.schema import Analysis

FORMATS = ("table", *(name for name, row in WRITERS.items() if row.rows or name == "m3u"))
RECORDS = (".jsonl", ".mflamingo.json")  # what a folder of records is searched for
MINUS = "\u2212"

if TYPE_CHECKING:
    FormatName: TypeAlias = str
else:
    FormatName = Literal[FORMATS]


def next(
    song: Annotated[str, typer.Argument(metavar="SONG", help="Song to find matches for.")],
    library: Annotated[
        str, typer.Option("--from", metavar="FILE|FOLDER", help="Records of `analyze --json`, a folder of them, or a folder of songs.")
    ],
    form: Annotated[FormatName, typer.Option("--format", "-f", help="Output format.")] = "table",
    most: Annotated[int, typer.Option("--most", metavar="N", min=1, help="Maximum number of songs to list.")] = 20,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
) -> None:
    """Find the songs in a library that mix well with a song, the best match first.

    Matches have the same or a neighbouring key on the Camelot wheel, and a tempo within 8 % of the song's, or of half or double of it.
    The closest in key, tempo and loudness come first. Songs without a record are measured first, for these facts only.
    """
    from mflamingo_cli.commands.terminal import Reporter, handle_signals
    from mflamingo_cli.library.mixing import lacks, matches

    reporter = Reporter(quiet=quiet)
    found = _Library(library, reporter)
    with handle_signals():
        own, records = found.with_records(song)
    others = [record for record in records if not _same(record, own)]
    if unknown := sum(bool(lacks(record)) for record in others):
        reporter.note(f"{unknown} of {len(others)} songs were left out: their tempo or key is not known")
    chosen = matches(own, others)[:most]
    _write(form, chosen)
    if not chosen:
        reporter.note(f"no song in {library} mixes with {song}")


class UnknownFactError(MFlamingoError):
    """A song of which a fact that is needed is not known."""

    code = "unknown_fact"


def _require_known(song: str, record: Analysis) -> None:
    """Raise UnknownFactError where a fact that is needed is not known."""
    from mflamingo_cli.library.mixing import lacks

    if missing := lacks(record):
        raise UnknownFactError(f"{song}: its {' and '.join(missing)} could not be determined, so no matches can be found")


def _same(record: Analysis, song: Analysis) -> bool:
    from mflamingo_cli.schema import path_of

    return os.path.realpath(path_of(record)) == os.path.realpath(path_of(song)) or record.audio_id == song.audio_id


class _Library:
    """The records of a library and of the songs in it that have none, of which only what a match needs is measured."""

    def __init__(self, place: str, reporter: Reporter) -> None:
        self._reporter = reporter
        self._songs: list[str] = []
        self._records = {os.path.realpath(key): record for key, record in self._kept(place)}

    def with_records(self, song: str) -> tuple[Analysis, list[Analysis]]:
        """The record of a song, and those of every song of the library that could be analysed.

        Raises AudioError for the song itself, UnknownFactError as soon as it is clear that nothing can be found.
        """
        own = os.path.realpath(song)
        if own in self._records:
            _require_known(song, self._records[own])
        for finished in self._analysed([path for path in (song, *self._songs) if os.path.realpath(path) not in self._records]):
            if finished.failure is None:
                self._records[os.path.realpath(finished.song)] = finished.record
                if os.path.realpath(finished.song) == own:
                    _require_known(song, finished.record)
            elif os.path.realpath(finished.song) == own:
                raise finished.failure
            else:
                self._reporter.warn(str(finished.failure))
        return self._records[own], list(self._records.values())

    def _kept(self, place: str) -> Iterator[tuple[str, Analysis]]:
        """Records that are there already; songs of a folder are noted for later. Raises NoInputError and UsageError."""
        from mflamingo_cli.schema import path_of

        if not os.path.isdir(place):
            files = [place]
        else:
            files = sorted(str(path) for path in Path(place).rglob("*") if path.name.endswith(RECORDS) and path.is_file())
            self._songs = list(songs_below(place))
        if not files and not self._songs:
            raise NoInputError(f"{place}: contains neither records nor songs; make records with `mflamingo analyze --json FOLDER -o FILE`")
        for file in files:
            for record in _read(file):
                if record.result is not None and record.command == "analyze":
                    yield path_of(record), record

    def _analysed(self, songs: Sequence[str]) -> Iterator[Finished]:
        """Songs as `analyze --only` measures them, several at once."""
        from contextlib import closing

        from mflamingo_cli.backends.base import OpenOptions
        from mflamingo_cli.library.mixing import NEEDED
        from mflamingo_cli.library.plan import EngineListener, Finished, RunPlan
        from mflamingo_cli.library.run import LocalEngine
        from mflamingo_cli.requests import analyze_request

        songs = list({os.path.realpath(song): song for song in songs}.values())
        if not songs:
            return
        plan = RunPlan(tuple(songs), analyze_request(NEEDED), DEFAULT_MODEL, OpenOptions(), resumable=len(songs) > 1)
        self._reporter.working(f"analysing {len(songs)} song{'s' * (len(songs) > 1)}")
        listener = EngineListener(lambda text: None, lambda text: None, self._reporter.detail, self._reporter.warn)
        with closing(LocalEngine().run(plan, listener)) as events:
            for number, event in enumerate((event for event in events if isinstance(event, Finished)), start=1):
                self._reporter.idle()
                yield event
                if number < len(songs):
                    self._reporter.working(f"analysing, {number} of {len(songs)} songs are done")
        self._reporter.idle()


def _read(file: str) -> Iterator[Analysis]:
    """The records of a file of JSON Lines. Raises NoInputError where it cannot be read, UsageError for what is no record."""
    from mflamingo_cli.schema import Analysis

    number = 0
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                number += 1
                if line.strip():
                    yield Analysis.from_json(line)
    except OSError as error:
        raise NoInputError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: line {number} is not a record of `mflamingo analyze --json`") from error


def _write(form: str, chosen: Sequence[Match]) -> None:
    """Print what was found: a table with the reasons, or the records in another format."""
    import sys

    if form == "table":
        if chosen:
            _show(chosen)
        return
    writer = WRITERS[form].writer(sys.stdout, Layout(many=True))
    for match in chosen:
        writer.write(match.record)


def _show(chosen: Sequence[Match]) -> None:
    from rich.text import Text

    from mflamingo_cli.commands.tables import show, table
    from mflamingo_cli.render.text import heading, safe
    from mflamingo_cli.text import number

    rows = table("song", "key", "", "BPM", "tempo", "loudness")
    for match in chosen:
        key, bpm = match.record.key, match.record.tempo.bpm or 0.0
        louder = "" if match.louder_lu is None else f"{_signed(match.louder_lu)} LU"
        name = safe(heading(match.record) or match.record.path or "")
        cells = (name, f"{key.camelot} {key.id3}", match.relation, number(bpm), f"{_signed(100 * match.faster)} %", louder)
        rows.add_row(*(Text(cell) for cell in cells))
    show(rows)


def _signed(value: float) -> str:
    """A difference with its sign: what the other song must be changed by, or is louder by."""
    return f"{value:+z.1f}".replace("-", MINUS)
