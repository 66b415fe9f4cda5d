"""The common body of analyze, caption, ask and think: inputs -> records -> stdout, and the exit code that says how it went."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, TextIO

import typer

from mflamingo_cli.commands import inputs, terminal
from mflamingo_cli.errors import MFlamingoError, ModelError, UsageError
from mflamingo_cli.hub import forbid_network
from mflamingo_cli.render import WRITERS, Writer, safe
from mflamingo_cli.schema import Analysis

if TYPE_CHECKING:
    from mflamingo_cli.backends.base import Backend
    from mflamingo_cli.cache import Cache
    from mflamingo_cli.commands.options import SongOptions
    from mflamingo_cli.pipeline import Heard, Request

STDOUT = ("-", "/dev/stdout")
OK, ALL_FAILED, SOME_FAILED, CLOSED_PIPE = 0, 1, 3, 141


@dataclass
class Tally:
    """How the inputs went, for the exit code and the last words."""

    total: int
    ok: int = 0
    missing: int = 0
    model: int = 0
    failed: int = 0

    def add(self, record: Analysis, error: MFlamingoError | None) -> None:
        """Count one record."""
        self.ok += record.status == "ok"
        if error is not None:
            self.failed += 1
            self.missing += error.code == "not_found"
            self.model += isinstance(error, ModelError)

    @property
    def exit_code(self) -> int:
        """0 all ok, 3 some failed, 66 none of them exists, 69 the model cannot do it, 1 all failed."""
        if not self.failed:
            return OK
        if self.ok:
            return SOME_FAILED
        if self.missing == self.failed:
            return inputs.NoInputError.exit_code
        return ModelError.exit_code if self.model == self.failed else ALL_FAILED


def run_songs(options: SongOptions, request: Request, default_format: str, hide_thinking: bool = False) -> None:
    """Hear all songs and write their records. Raises typer.Exit with the exit code."""
    if options.offline:
        forbid_network()
    voice = terminal.Voice(options.color, options.progress, options.quiet, options.verbose)
    name = _format(options, default_format)
    try:
        songs = inputs.collect(options.paths or [], options.files_from, options.null)
        if name == "labels" and len(songs) > 1:
            raise UsageError(f"a label file is of one song, not of {len(songs)}; name one song, or choose another --format")
        request = _with_options(request, options)
        output = _output(songs, options)
        if options.dry_run:
            _list(songs, options, request)
            return
        tally = Tally(len(songs))
        with _results(output, tally) as stream:
            writer = WRITERS[name](stream, terminal.wants_color(options.color, stream) and not output, len(songs) > 1)
            _each(songs, options, request, Show(voice, stream, writer, name, hide_thinking), tally)
        if output and tally.ok:
            voice.detail(f"saved {output}")
    except BrokenPipeError as error:
        raise typer.Exit(CLOSED_PIPE) from error
    finally:
        voice.idle()
    if tally.exit_code:
        raise typer.Exit(tally.exit_code)


def _format(options: SongOptions, default: str) -> str:
    if options.json and options.format not in (None, "json"):
        raise UsageError(f"--json and --format {options.format} cannot both be; leave one out")
    return "json" if options.json else options.format or default


def _with_options(request: Request, options: SongOptions) -> Request:
    if options.end is not None and options.end <= (options.start or 0.0):
        raise UsageError("--end must be later than --start")
    return replace(request, start_s=options.start or 0.0, end_s=options.end, options=options.generate, keep_raw=options.verbose > 0)


def _output(songs: list[str], options: SongOptions) -> str | None:
    """The file that results go to, None for stdout. Raises UsageError before anything is lost."""
    if options.output in (None, *STDOUT):
        return None
    assert options.output is not None
    if os.path.isdir(options.output):
        raise UsageError(f"{options.output}: is a folder; name a file")
    lists = [options.files_from] if options.files_from else []
    terminal.refuse_overwriting(options.output, [*songs, *(options.paths or []), *lists, options.model])
    return options.output


def _results(output: str | None, tally: Tally) -> AbstractContextManager[TextIO]:
    return terminal.to_file(output, lambda: tally.ok > 0) if output else terminal.only_results()


def _list(songs: list[str], options: SongOptions, request: Request) -> None:
    from mflamingo_cli.backends import find_model

    find_model(options.model)
    for song in songs:
        print(safe(song))
    print(f"{len(songs)} to {request.command} with {safe(options.model)}", file=sys.stderr)


class Show:
    """Where events and records go: pieces of text to a terminal as they come, whole records to the writer."""

    def __init__(self, voice: terminal.Voice, stream: TextIO, writer: Writer, format_name: str, hide_thinking: bool) -> None:
        self.voice, self._writer, self._hide = voice, writer, hide_thinking
        self._live = stream if format_name == "text" and stream.isatty() else None
        self._split: Callable[[str], list[tuple[bool, str]]] | None = None
        self._pieces = 0
        self._format = format_name
        self._seen = format_name == "table" and stream.isatty()  # a failure's panel is enough

    def event(self, song: str, count: str, event: object) -> None:
        """A step that begins, or a piece of text."""
        from mflamingo_cli.pipeline import Piece

        if isinstance(event, Piece):
            self._pieces += 1
            if self._live is not None and event.task in ("caption", "ask", "think"):
                self._stream_piece(song, event.task, event.text)
            else:
                self.voice.working(f"{count}{song}: writing, {self._pieces} pieces")
        else:
            self._pieces = 0
            self.voice.working(f"{count}{song}: {getattr(event, 'name', '')}")

    def _stream_piece(self, song: str, task: str, text: str) -> None:
        from mflamingo_cli.tasks import ThoughtStream, scrub

        assert self._live is not None
        if self._split is None:
            self.voice.idle()
            self._thoughts = ThoughtStream()
            self._split = self._thoughts.feed if task == "think" else lambda text: [(True, text)]
            headline = getattr(self._writer, "headline", None)
            if headline:
                headline(song)
            self._answer, self._aside = terminal.Wrapped(self._live.write), terminal.Wrapped(self.voice.aside)
            self._was_thinking, self._began = False, False
        for is_answer, part in self._split(text):
            self._put(is_answer, scrub(part))

    def _put(self, is_answer: bool, text: str) -> None:
        assert self._live is not None
        if not is_answer:
            if not self._hide:
                self._aside.feed(text)
                self._was_thinking = True
            return
        if not self._began:
            text = text.lstrip()
            if text and self._was_thinking:
                self._aside.flush()
                self.voice.aside("\n\n")
        self._began = self._began or bool(text)
        self._answer.feed(text)
        self._live.flush()

    def interrupted(self) -> None:
        """Leave the terminal's cursor on a line of its own."""
        self.voice.idle()
        if self._split is not None and self._live is not None:
            self._live.write("\n")

    def no_model(self, records: list[Analysis], reason: str) -> None:
        """No model for any input: said once, and written for programs, which want every input."""
        self.voice.idle()
        self.voice.error(reason)
        for record in records if self._format in ("json", "csv") else ():
            self._writer.write(record)

    def record(self, record: Analysis) -> None:
        """One finished input."""
        from mflamingo_cli.tasks import scrub

        self.voice.idle()
        if self._hide:
            record = replace(record, thinking=None)
        if self._split is not None and self._live is not None:
            for is_answer, part in self._thoughts.end():
                self._put(is_answer, scrub(part))
            self._aside.flush()
            self._answer.flush()
            self._live.write("\n")
            self._split = None
        else:
            if self._format == "text" and record.thinking:
                self.voice.say_lines(record.thinking)
            self._writer.write(record)
        if record.error is not None and not self._seen:
            self.voice.error(record.error.message)
        if self._format in ("text", "labels"):
            for warning in record.warnings:
                self.voice.warn(warning)


def _each(songs: list[str], options: SongOptions, request: Request, show: Show, tally: Tally) -> None:
    """Hear song after song; one that fails becomes a record and a line on stderr, the others go on."""
    from mflamingo_cli import pipeline

    with ExitStack() as stack:
        try:
            show.voice.working(f"opening {options.model}")
            backend = stack.enter_context(_open(options))
            show.voice.detail(
                f"{backend.info.model}: {backend.info.backend} on {backend.info.device}, {backend.info.dtype} ({backend.info.reason})"
            )
        except ModelError as error:
            lost = [pipeline.failed(song, request.command, error) for song in songs]
            for record in lost:
                tally.add(record, error)
            show.no_model(lost, str(error))
            return
        cache = None if options.no_cache else _cache()
        try:
            for number, (song, heard) in enumerate(_ahead(songs, request, backend, options.jobs, cache, stack), start=1):
                count = f"{number}/{len(songs)} " if len(songs) > 1 else ""
                record, failure = _one(song, heard, backend, request, cache, lambda event, s=song, c=count: show.event(s, c, event))  # type: ignore[misc]
                tally.add(record, failure)
                show.record(record)
            if cache and cache.problem:
                show.voice.detail(f"nothing more is remembered for next time: {cache.problem}")
        except KeyboardInterrupt:
            show.interrupted()
            done = tally.ok + tally.failed
            if len(songs) > 1:
                show.voice.say(f"mflamingo: stopped, {done} done, {len(songs) - done} left")
            raise


def _open(options: SongOptions) -> Backend:
    from mflamingo_cli.backends import open_backend

    return open_backend(options.model, options.open)


def _cache() -> Cache | None:
    from mflamingo_cli.cache import Cache, default_folder

    folder = default_folder()
    return Cache(folder) if folder else None


def _ahead(
    songs: list[str], request: Request, backend: Backend, jobs: int, cache: Cache | None, stack: ExitStack
) -> Iterator[tuple[str, Callable[[], Heard] | None]]:
    """Each song, with --jobs beside what was decoded and measured ahead of time by that many threads."""
    from mflamingo_cli import pipeline

    if jobs == 1 or len(songs) == 1:
        yield from ((song, None) for song in songs)
        return
    pool = stack.enter_context(ThreadPoolExecutor(jobs))
    stack.callback(pool.shutdown, wait=False, cancel_futures=True)
    pending: deque[tuple[str, Future[Heard]]] = deque()
    waiting = iter(songs)
    for song in waiting:
        pending.append((song, pool.submit(pipeline.hear, _source(song), request, backend.info, cache)))
        if len(pending) > jobs:
            ready, future = pending.popleft()
            yield ready, future.result
    yield from ((ready, future.result) for ready, future in pending)


def _source(song: str) -> str | BinaryIO:
    return sys.stdin.buffer if song == inputs.STDIN else song


def _one(
    song: str,
    heard: Callable[[], Heard] | None,
    backend: Backend,
    request: Request,
    cache: Cache | None,
    event: Callable[[object], None],
) -> tuple[Analysis, MFlamingoError | None]:
    from mflamingo_cli import pipeline

    try:
        for item in pipeline.run(_source(song), backend, request, heard, cache):
            if isinstance(item, Analysis):
                return item, None
            event(item)
    except MFlamingoError as error:
        return pipeline.failed(song, request.command, error), error
    except MemoryError:
        full = MFlamingoError(f"{song}: not enough memory; choose a part of it with --start and --end", code="oom")
        return pipeline.failed(song, request.command, full), full
    raise AssertionError("pipeline.run() ends with an Analysis")
