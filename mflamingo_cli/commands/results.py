"""What is written of the records, and where: one stream, or one file per song, beside it or in a folder that mirrors the songs' own."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TextIO

from mflamingo_cli import assemble
from mflamingo_cli.commands import inputs, terminal
from mflamingo_cli.commands.options import SongOptions
from mflamingo_cli.errors import InternalError, MFlamingoError, OutputError, UsageError, as_song_error
from mflamingo_cli.files import write_atomic
from mflamingo_cli.library.tag_fields import TagOptions
from mflamingo_cli.render import WRITERS, Ending, Format, Layout, Writer
from mflamingo_cli.render.query import fields, where
from mflamingo_cli.schema import Analysis, path_of

STDOUT = ("-", "/dev/stdout")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # for every song that would come
OURS = ".mflamingo"  # in the name of every song's own file: song.flac.mflamingo.json
STDIN_NAME = "stdin"  # of the file of a song that came from there
OutputPath = Callable[[str], Path]  # a song -> its own file, without suffix
Fail = Callable[[Analysis, MFlamingoError], None]  # takes a record that could not be written, and why


@dataclass(frozen=True)
class Results:
    """What the options ask for: format, places, selection, tags."""

    name: str
    layout: Layout
    output_path: OutputPath | None  # of the files of several songs; else there is one stream
    index: str | None  # a file that links to those, where the format has one
    test: where.Test | None
    order: where.Order | None
    tags: TagOptions | None  # to write into the songs' files
    dry_run: bool
    replaces: bool  # files that other programs may have written

    def chooses(self, record: Analysis) -> bool:
        """Return whether --where selects a record."""
        return self.test is None or bool(self.test(record))

    @property
    def rows(self) -> bool:
        """Whether every input has a row, failures too."""
        return WRITERS[self.name].rows

    @property
    def is_single(self) -> bool:
        """Whether the output is a file of one song, and no tags are written, which may fail alone."""
        return WRITERS[self.name].single and self.tags is None

    @property
    def live(self) -> bool:
        """Whether text may be shown before its record is finished."""
        return self.name == "text" and not (self.output_path or self.test or self.order or self.dry_run)

    @contextmanager
    def writer(self, stream: TextIO, color: bool, fail: Fail) -> Iterator[Writer]:
        """Open a writer to the stream or to the files of the songs; in a dry run, to nothing. What it cannot write is given to `fail`."""
        with ExitStack() as stack:
            made: Writer
            if self.dry_run:
                made = _Nothing()
            elif self.output_path:
                made = files = _Files(WRITERS[self.name], self.layout, self.output_path, self.replaces)
                if self.index is not None:
                    stack.enter_context(files.with_index(self.index))
            else:
                made = WRITERS[self.name].writer(stream, replace(self.layout, color=color))
                if isinstance(made, Ending):
                    stack.callback(made.end)
            yield stack.enter_context(where.chosen(_Bordered(made, fail), self.test, self.order))


def of(options: SongOptions, default: str, command: str, songs: list[str], warn: Callable[[str], None]) -> Results:
    """Return what the options ask for, and warn of a format that is set and does not suit. Raises UsageError before any song is decoded."""
    output = options.output
    if output.json and output.format not in (None, "json"):
        raise UsageError(f"--json contradicts --format {output.format}; leave one out")
    output_path = _output_path(options, songs)
    default = "json" if output.json or output_path else default
    name = default if output.json else output.format or default
    on_terminal = output_path is None and output.output in (None, *STDOUT) and sys.stdout.isatty()
    try:
        _refuse_format(name, command, songs, output_path, on_terminal)
    except UsageError as error:
        if name == default or "format" in options.typed:
            raise
        warn(f"{error} (the setting format is ignored)")
        name = default
    row = WRITERS[name]
    chosen = output.fields if row.rows or "fields" in options.typed else None  # what is set for rows leaves other formats alone
    if chosen is not None and not row.rows:
        raise UsageError(f"--fields works with {', '.join(sorted(known for known in WRITERS if WRITERS[known].rows))}, not with {name}")
    folder = "." if output_path or output.output in (None, *STDOUT) else os.path.dirname(os.path.abspath(output.output or ""))
    layout = Layout(many=len(songs) > 1, fields=fields.parse(chosen), folder=folder)
    test = where.parse(output.where) if output.where is not None else None
    order = where.parse_order(output.sort) if output.sort is not None else None
    index = None
    if output_path and row.index and output.output and layout.many and options.run.shard is None:  # of a shard it would be a part only
        index = os.path.join(output.output, row.index)
    return Results(name, layout, output_path, index, test, order, options.tag_options, output.dry_run, options.run.force)


def _refuse_format(name: str, command: str, songs: list[str], output_path: OutputPath | None, stream_is_terminal: bool) -> None:
    """Raise UsageError for a format that cannot hold what this command says of these songs."""
    row = WRITERS[name]
    if row.facts and command != "analyze":
        raise UsageError(f"--format {name} needs what `analyze` measures; `{command}` writes only text")
    if row.single and len(songs) > 1 and output_path is None:
        raise UsageError(f"--format {name} describes one song, but {len(songs)} were given; name one song, or a folder with -o FOLDER/")
    if row.more and output_path is None:
        raise UsageError(f"--format {name} writes several files for each song; add -o FOLDER/ or --sidecar")
    if row.binary and stream_is_terminal:
        raise UsageError(f"--format {name} is binary, and a terminal cannot show it; write it to a file with -o, or to a pipe")
    if output_path and row.suffix is None:
        raise UsageError(f"--format {name} lists all songs in one file; name that file with -o")
    if row.paths and inputs.STDIN in songs:
        raise UsageError(f"--format {name} lists paths, and a song on stdin has none; name a file")


def file_of(songs: list[str], options: SongOptions, results: Results) -> str | None:
    """Return the one file that results go to, None for stdout or several files. Raises UsageError before anything is lost."""
    path = options.output.output
    if results.output_path or results.dry_run or path is None or path in STDOUT:
        return None
    lists = [options.input.files_from] if options.input.files_from else []
    terminal.refuse_overwriting(path, [*songs, *(options.input.paths or []), *lists, options.model.name])
    if os.path.splitext(path)[1].lower() in inputs.AUDIO_SUFFIXES:
        raise UsageError(f"{path}: this is the name of an audio file; choose another --output")
    return path


# --- a file for each song ----------------------------------------------------------------------------------------------


def _output_path(options: SongOptions, songs: list[str]) -> OutputPath | None:
    """Where each song's own file is, if each has one: beside it, or under the folder of --output."""
    output = options.output.output
    if options.output.sidecar:
        if output is not None:
            raise UsageError("--sidecar writes beside each song; leave --output out")
        if inputs.STDIN in songs:
            raise UsageError("a song on stdin has no folder for a sidecar file; use --output")
        return Path
    if output is None or not (output.endswith("/") or os.path.isdir(output)):
        return None
    folder, root = Path(output), _root(options.input.paths or [], songs)
    return lambda song: folder / (STDIN_NAME if song == inputs.STDIN else os.path.relpath(os.path.abspath(song), root))


def _root(paths: list[str], songs: list[str]) -> str:
    """The folder that all named folders and songs have in common: it depends on the command line only, not on what the folders hold."""
    folders = [os.path.abspath(path) for path in paths if path != inputs.STDIN and os.path.isdir(path)]
    files = [os.path.abspath(song) for song in songs if song != inputs.STDIN]
    alone = [os.path.dirname(file) for file in files if not any(file.startswith(folder.rstrip("/") + "/") for folder in folders)]
    return os.path.commonpath([*folders, *alone] or ["/"])


class _Bordered:
    """Writes records one by one; what cannot be written is a failure of its song alone, and where there is room for it, its record."""

    def __init__(self, writer: Writer, fail: Fail) -> None:
        self._writer, self._fail = writer, fail

    def write(self, record: Analysis) -> None:
        """Write a record. Raises OSError: that is one of the stream, which is every song's."""
        try:
            self._write(record)
        except InternalError as error:
            self._fail(record, error)
            with suppress(InternalError):  # it was said already
                self._write(assemble.failed(path_of(record), record.command, error))
        except OutputError as error:
            self._fail(record, error)

    def _write(self, record: Analysis) -> None:
        with as_song_error(record.path, OSError):
            self._writer.write(record)


class _Nothing:
    """Writes nothing."""

    def write(self, record: Analysis) -> None:
        """Leave a record out."""


class _Files:
    """Writes each record to files of its own, whole or not at all."""

    def __init__(self, row: Format, layout: Layout, output_path: OutputPath, replaces: bool) -> None:
        self._row, self._layout, self._output_path, self._replaces = row, replace(layout, many=False), output_path, replaces
        self._index: Writer | None = None
        self._songs: dict[Path, str] = {}  # whose file it is

    @contextmanager
    def with_index(self, path: str) -> Iterator[None]:
        """Write an index file too, which links to all of them and also has the records that cannot be written."""
        folder = os.path.dirname(path)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror or error}") from error

        def link(record: Analysis) -> str | None:
            own = self._path(record, self._row)
            return os.path.relpath(own, folder) if own.exists() else None

        with terminal.to_file(path, lambda: True) as stream:
            self._index = self._row.writer(stream, replace(self._layout, many=True, folder=folder, link=link))
            yield

    def _path(self, record: Analysis, part: Format) -> Path:
        song = self._output_path(path_of(record))
        return song.with_name(f"{song.stem}{part.suffix}" if part.named else f"{song.name}{OURS}{part.suffix}")

    def write(self, record: Analysis) -> None:
        """Write the files of a song; of a failed one only where there is none yet. Raises OutputError, before any is written."""
        try:
            parts = {self._path(record, part): part for part in self._row.parts.values()}
            contents = {path: self._content(record, part, path.parent) for path, part in parts.items()}
            wanted = [path for path, content in contents.items() if self._is_wanted(record, path, content)]
            for path in wanted:
                _write(path, contents[path])
        finally:
            if self._index is not None:
                self._index.write(record)

    def _content(self, record: Analysis, part: Format, folder: Path) -> bytes:
        content = BytesIO()
        stream = TextIOWrapper(content, encoding="utf-8", errors="backslashreplace", newline="\n")
        part.writer(stream, replace(self._layout, folder=str(folder))).write(record)
        stream.flush()
        return content.getvalue()

    def _is_wanted(self, record: Analysis, path: Path, content: bytes) -> bool:
        """Whether a file is to be written. Raises OutputError where its name is another's."""
        if record.error is not None and (path.exists() or not content):
            return False
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise OutputError(f"{path}: not a regular file, left untouched")
        if not self._row.named:
            return True
        name = record.path or ""
        if self._songs.setdefault(path, name) != name:
            raise OutputError(f"{path}: {self._songs[path]} already writes to this file; give the songs different names")
        if not content or not path.exists():
            return bool(content)
        known = path.read_bytes().replace(b"\r\n", b"\n")  # the lines count, not how they end
        if known != content and not self._replaces:
            raise OutputError(f"{path}: exists with other content and was left untouched; --force replaces it")
        return known != content


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomic(path) as file:
            file.write(content)
    except BlockingIOError as error:
        raise OutputError(f"{path}: another run is writing this file") from error
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
