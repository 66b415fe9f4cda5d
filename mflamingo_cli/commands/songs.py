"""The common body of analyze, caption, ask and think: inputs -> records -> stdout, and the exit code that says how it went."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

import typer

from mflamingo_cli.commands import inputs, results, terminal
from mflamingo_cli.errors import MFlamingoError, ModelError, StoppedError, UsageError
from mflamingo_cli.library import tags
from mflamingo_cli.models.hub import forbid_network
from mflamingo_cli.render import Writer, safe
from mflamingo_cli.schema import Analysis

if TYPE_CHECKING:
    from mflamingo_cli.backends.base import Backend
    from mflamingo_cli.commands.options import SongOptions
    from mflamingo_cli.commands.results import Results
    from mflamingo_cli.library.progress import Progress
    from mflamingo_cli.library.run import RunCache
    from mflamingo_cli.pipeline import Request
    from mflamingo_cli.store.cache import Cache
    from mflamingo_cli.store.runs import Store

OK, ALL_FAILED, SOME_FAILED, CLOSED_PIPE = 0, 1, 3, 141
MOST_JOBS = 8  # at once unless asked for: each takes 0.4 GB for a song of four minutes


@dataclass
class Tally:
    """How the inputs went, for the exit code and the last words."""

    total: int
    done: int = 0
    ok: int = 0
    missing: int = 0
    model: int = 0
    failed: int = 0
    broken: int = 0  # in this run: those of earlier runs stop no run
    resumable: bool = False

    @property
    def left(self) -> int:
        """Inputs that have no record yet."""
        return self.total - self.done

    @property
    def so_far(self) -> str:
        """`12 done, 38 left; run again to resume`."""
        return f"{self.done} done, {self.left} left{'; run again to resume' if self.resumable else ''}"

    def add(self, record: Analysis, error: MFlamingoError | None, *, remembered: bool = False) -> None:
        """Count one record."""
        self.done += 1
        self.ok += record.status == "ok"
        self.broken += record.status == "error" and not remembered
        if error is not None:
            self.failed += 1
            self.missing += error.code == "not_found"
            self.model += isinstance(error, ModelError) and error.code != "too_long"  # a question is, and another model may hold it

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
    voice = terminal.Reporter(options.color, options.progress, options.quiet, options.verbose)
    named = inputs.collect(options.paths or [], options.files_from, options.null)
    songs = _part(named, options)
    tally = Tally(len(songs))
    try:
        request = _with_options(request, options)
        if options.engine == "ray":
            from mflamingo_cli.commands.cluster import on_cluster

            raise typer.Exit(on_cluster(songs, options, request, voice, hide_thinking))
        wanted = results.of(options, default_format, request.command, named)
        output = results.file_of(named, options, wanted)
        if wanted.tags is not None:
            tags.require_tools()
        elif options.dry_run:
            list_songs(songs, options, request)
            return
        with (
            terminal.handle_signals(),
            results.stream_to(output, lambda: tally.ok > 0 or not tally.total) as stream,
            wanted.writer(stream, terminal.wants_color(options.color, stream) and not output) as writer,
        ):
            show = Show(voice, stream, writer, wanted, tally, hide_thinking)
            _each(songs, options, request, show, tally, lasting=bool(output or wanted.place))
        if output and tally.ok:
            voice.detail(f"saved {output}")
    except BrokenPipeError as error:
        raise typer.Exit(CLOSED_PIPE) from error
    except terminal.Interrupt as stop:
        if len(songs) > 1:
            voice.say(f"mflamingo: stopped, {tally.so_far}")
        raise typer.Exit(stop.exit_code) from stop
    except OSError as error:
        if not tally.resumable:
            raise
        raise StoppedError(f"cannot write: {error.strerror or error}; {tally.so_far}") from error
    finally:
        voice.idle()
    if tally.exit_code:
        raise typer.Exit(tally.exit_code)


def _part(songs: list[str], options: SongOptions) -> list[str]:
    """All songs, or those of this shard."""
    if options.shard is None:
        return songs
    from mflamingo_cli.store.keys import shard_of

    return [song for song in songs if shard_of(song, options.shard.count) == options.shard.index - 1]


def _with_options(request: Request, options: SongOptions) -> Request:
    if options.end is not None and options.end <= (options.start or 0.0):
        raise UsageError("--end must be later than --start")
    return replace(request, start_s=options.start or 0.0, end_s=options.end, options=options.generate, keep_raw=True)


def list_songs(songs: list[str], options: SongOptions, request: Request) -> None:
    """What --dry-run says. Raises ModelError where the model is not here."""
    from mflamingo_cli.backends import find_model

    find_model(options.model)
    for song in songs:
        print(safe(song))
    print(f"{len(songs)} to {request.command} with {safe(options.model)}", file=sys.stderr)


class Show:
    """Where events and records go: pieces of text to a terminal as they come, whole records to the writer."""

    def __init__(
        self, voice: terminal.Reporter, stream: TextIO, writer: Writer, wanted: Results, tally: Tally, hide_thinking: bool
    ) -> None:
        self.voice, self._writer, self._wanted, self._tally, self._hide = voice, writer, wanted, tally, hide_thinking
        self._stream, self._live = stream, stream if wanted.live and stream.isatty() else None
        self._reply: terminal.Reply | None = None
        self._pieces = 0
        self._doing: tuple[str, Progress, str] | None = None
        self._on_terminal = stream.isatty()
        self._seen = wanted.name == "table" and wanted.test is None and self._on_terminal  # a failure's panel is enough

    def event(self, song: str, progress: Progress, event: object) -> None:
        """A step that begins, or a piece of text."""
        from mflamingo_cli.pipeline import Piece

        if not isinstance(event, Piece):
            self._pieces, self._doing = 0, (song, progress, getattr(event, "name", ""))
            self._working(*self._doing)
            return
        self._pieces += 1
        if self._live is not None and event.task in ("caption", "ask", "think"):
            self._stream_piece(song, event.task, event.text)
        else:
            self._working(song, progress, f"writing, {self._pieces} pieces")

    def tell(self, how_far: str) -> None:
        """How far the step is that goes on."""
        if self._doing is not None and self._reply is None:
            song, progress, step = self._doing
            self._working(song, progress, f"{step}, {how_far}")

    def _working(self, song: str, progress: Progress, step: str) -> None:
        if progress.total > 1:
            self.voice.progress(progress, f"{song}: {step}")
        else:
            self.voice.working(f"{song}: {step}")

    def _stream_piece(self, song: str, task: str, text: str) -> None:
        assert self._live is not None
        if self._reply is None:
            self.voice.idle()
            headline = getattr(self._writer, "headline", None)
            if headline:
                headline(song)
            self._reply = terminal.Reply(self.voice, self._live, task == "think", self._hide)
        self._reply.feed(text)

    def interrupted(self) -> None:
        """Leave the terminal's cursor on a line of its own."""
        self.voice.idle()
        if self._reply is not None and self._live is not None:
            self._live.write("\n")

    def no_model(self, reason: str) -> bool:
        """No model for any input: said once; whether programs read along, which want every input."""
        self.voice.idle()
        self.voice.error(reason)
        self._seen = True
        return self._wanted.rows

    def record(self, record: Analysis) -> None:
        """One finished input."""
        if self._on_terminal:
            self.voice.idle()
        if self._hide:
            record = replace(record, thinking=None)
        if not self.voice.verbose:
            record = replace(record, raw=None)
        if self._reply is not None:
            self._reply.end()
            self._reply = None
            self._tagged(record)
        else:
            if self._wanted.name == "text" and record.thinking:
                self.voice.say_lines(record.thinking)
            self._write(self._tagged(record))
        if record.error is not None and not self._seen:
            self.voice.error(record.error.message)
        if self._wanted.name != "table" and not self._wanted.rows:
            for warning in record.warnings:
                self.voice.warn(warning)

    def _tagged(self, record: Analysis) -> Analysis:
        """Write a song's tags, or say what they would be; what cannot be written is a failure of the run and a warning of the record."""
        if self._wanted.tags is None or record.result is None or not self._wanted.chooses(record):
            return record
        try:
            changes = [str(change) for change in tags.write(record, self._wanted.tags, self._wanted.dry_run)]
        except tags.TagError as error:
            self._tally.failed += 1
            self.voice.error(str(error))
            return replace(record, warnings=(*record.warnings, str(error)))
        for change in changes or ["no change"]:
            if self._wanted.dry_run:
                self._stream.write(safe(f"{record.path}: {change}") + "\n")
            else:
                self.voice.detail(f"{record.path}: {change}")
        return record

    def _write(self, record: Analysis) -> None:
        """To the writer; a file that cannot be written is a failure of its song alone."""
        try:
            self._writer.write(record)
        except results.OutputError as error:
            self._tally.failed += 1
            self.voice.error(str(error))


def _each(songs: list[str], options: SongOptions, request: Request, show: Show, tally: Tally, *, lasting: bool) -> None:
    """Hear song after song; one that fails becomes a record and a line on stderr, the others go on."""
    from mflamingo_cli.library.progress import Progress
    from mflamingo_cli.library.run import Done, Run

    with ExitStack() as stack:
        backend = _opened(songs, options, request, show, tally, stack)
        if backend is None:
            return
        cache = None if options.no_cache else _cache()
        store = _store(show.voice) if (lasting or len(songs) > 1) and not options.no_cache else None
        memory = _memory(store and stack.enter_context(store), options, request, backend)
        tally.resumable = store is not None
        progress = Progress(songs)
        run = Run(request, backend, memory, cache, _jobs(options, len(songs)), options.batch_size or backend.info.batch_size)
        try:
            for item in stack.enter_context(closing(run.over(songs))):
                if not isinstance(item, Done):
                    show.event(item.song.path, progress, item.event)
                    continue
                tally.add(item.record, item.failure, remembered=item.remembered)
                progress.add(item.song.path, item.record, remembered=item.remembered)
                show.record(item.record)
                _stop_at_failures(options, tally)
        except KeyboardInterrupt:
            show.interrupted()
            raise
        if lasting and len(songs) > 1:
            show.voice.finished(progress)
        if cache and cache.problem:
            show.voice.detail(f"nothing more is remembered for next time: {cache.problem}")
        if store and store.problem:
            show.voice.warn(f"not all of this run is remembered: {store.problem}")


def _jobs(options: SongOptions, n_songs: int) -> int:
    from mflamingo_cli.backends.threads import physical_cores

    return min(n_songs, options.jobs or min(physical_cores(), MOST_JOBS)) or 1


def _opened(songs: list[str], options: SongOptions, request: Request, show: Show, tally: Tally, stack: ExitStack) -> Backend | None:
    """The model; where there is none, every song failed."""
    from mflamingo_cli import pipeline
    from mflamingo_cli.backends import open_backend

    try:
        show.voice.working(f"opening {options.model}")
        backend = stack.enter_context(open_backend(options.model, options.open))
    except ModelError as error:
        wanted = show.no_model(str(error))
        for song in songs:
            record = pipeline.failed(song, request.command, error)
            tally.add(record, error)
            if wanted:
                show.record(record)
        return None
    backend.on_progress = show.tell
    info = backend.info
    show.voice.detail(f"{info.model}: {info.backend} on {info.device}, {info.dtype} ({info.reason})")
    return backend


def _cache() -> Cache | None:
    from mflamingo_cli.store.cache import Cache, default_folder

    folder = default_folder()
    return Cache(folder) if folder else None


def _store(voice: terminal.Reporter) -> Store | None:
    """The run store; None, and a warning, where there can be none: results are worth more than their memory."""
    from mflamingo_cli.store.runs import Store, StoreError, default_folder

    folder = default_folder()
    try:
        return Store(folder) if folder else None
    except StoreError as error:
        voice.warn(f"this run is not remembered and cannot be resumed: {error}")
        return None


def _memory(store: Store | None, options: SongOptions, request: Request, backend: Backend) -> RunCache:
    from mflamingo_cli.backends import find_model
    from mflamingo_cli.library.run import RunCache
    from mflamingo_cli.store.keys import JobKey

    work = JobKey.of(request, backend.info, find_model(options.model), options.kv_type)
    return RunCache(store, work, request, force=options.force, retry_failed=options.retry_failed)


def _stop_at_failures(options: SongOptions, tally: Tally) -> None:
    """Raise StoppedError where more songs failed in this run than --fail-fast or --max-failures allow, and others are left."""
    from mflamingo_cli.commands.options import Share

    limit = Share(0, percent=False) if options.fail_fast else options.max_failures
    if limit is not None and tally.left and tally.broken > limit.of(tally.total):
        raise StoppedError(f"stopped after {tally.broken} failed: {tally.so_far}")
