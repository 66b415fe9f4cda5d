"""The common body of analyze, caption, ask and think: a plan, the engine that does it, and sinks for every finished record."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import typer

from mflamingo_cli.commands import inputs, results, streams, terminal
from mflamingo_cli.commands.options import SongOptions
from mflamingo_cli.commands.results import Results
from mflamingo_cli.commands.sinks import Messages, Tags, Written
from mflamingo_cli.commands.values import Share
from mflamingo_cli.core.remote import forbid_network
from mflamingo_cli.errors import ExitCode, StoppedError, UsageError
from mflamingo_cli.library.engines import ENGINES, Row
from mflamingo_cli.library.plan import Engine, EngineListener, Finished, Opened, RunPlan, Unavailable
from mflamingo_cli.library.progress import Progress, Tally
from mflamingo_cli.render.text import safe
from mflamingo_cli.requests import Piece, Request
from mflamingo_cli.schema import Analysis


def run_songs(options: SongOptions, request: Request, default_format: str, hide_thinking: bool = False) -> None:
    """Analyse all songs and write their records. Raises typer.Exit with the exit code."""
    if options.model.offline:
        forbid_network()
    reporter = terminal.Reporter.of(options)
    row = ENGINES[options.run.engine]
    named = inputs.collect(options.input.paths or [], options.input.files_from, options.input.null)
    songs = list(dict.fromkeys(named)) if row.writes_folder else named
    if shard := options.run.shard:
        from mflamingo_cli.store.keys import shard_of

        songs = [song for song in songs if shard_of(song, shard.count) == shard.index - 1]
    tally = Tally(len(songs))
    try:
        _refuse_others(row, options, reporter)
        plan = _plan(songs, options, request, hide_thinking)
        engine = row.engine()
        engine.check(plan)
        wanted = None if row.writes_folder else results.of(options, default_format, request.command, named, reporter.warn)
        if options.output.dry_run and (wanted is None or wanted.tags is None):
            list_songs(plan)
        else:
            _deliver(engine, plan, options, wanted, named, reporter, tally)
    except BrokenPipeError as error:
        raise typer.Exit(ExitCode.CLOSED_PIPE) from error
    except terminal.Interrupt as stop:
        if tally.total > 1:
            reporter.say(f"mflamingo: stopped, {tally}")
        raise typer.Exit(stop.exit_code) from stop
    except OSError as error:
        if not tally.resumable:
            raise
        raise StoppedError(f"{streams.sentence(error)}; {tally}") from error
    finally:
        reporter.idle()
    if tally.exit_code:
        raise typer.Exit(tally.exit_code)


def _refuse_others(row: Row, options: SongOptions, reporter: terminal.Reporter) -> None:
    """Raise UsageError for an option that was typed and this engine does not take; one that was set is a warning."""
    for name, value, default in options.values() if row.takes is not None else ():
        if name in (row.takes or ()) or value == default or (name, value) == ("format", "json"):
            continue
        option = name.replace("_", "-")
        if name in options.typed:
            raise UsageError(f"--{option} does not work with --engine {options.run.engine}; leave it out")
        reporter.warn(f"the setting {option} is ignored with --engine {options.run.engine}")


def _plan(songs: list[str], options: SongOptions, request: Request, hide_thinking: bool) -> RunPlan:
    start_s, end_s, model, run, output = options.input.start or 0.0, options.input.end, options.model, options.run, options.output
    if end_s is not None and end_s <= start_s:
        raise UsageError("--end must be later than --start")
    return RunPlan(
        songs=tuple(songs),
        request=replace(request, start_s=start_s, end_s=end_s, options=options.words.generate, keep_raw=True, claims=options.words.claims),
        model=model.name,
        opening=model.open,
        offline=model.offline,
        jobs=run.jobs,
        batch_size=model.batch_size,
        cached=not model.no_cache,
        force=run.force,
        retry_failed=run.retry_failed,
        output=None if output.output in results.STDOUT else output.output,
        ray_address=run.ray_address,
        keep_raw=output.verbose > 0,
        hide_thinking=hide_thinking,
    )


def list_songs(plan: RunPlan) -> None:
    """Print what --dry-run says. Raises ModelError where the model is not here."""
    from mflamingo_cli.backends import find_model

    if plan.request.tasks:
        find_model(plan.model)
    for song in plan.songs:
        print(safe(song))
    how = f"with {safe(plan.model)}" if plan.request.tasks else "without a model"
    print(f"{len(plan.songs)} song{'s' * (len(plan.songs) != 1)} to {plan.request.command} {how}", file=sys.stderr)


def _deliver(
    engine: Engine, plan: RunPlan, options: SongOptions, wanted: Results | None, named: list[str], reporter: terminal.Reporter, tally: Tally
) -> None:
    """Open what the results go to, and run. An engine that writes a folder leaves only messages to be shown here."""
    if wanted and wanted.tags:
        from mflamingo_cli.library.tags import require_tools

        require_tools()
    output = results.file_of(named, options, wanted) if wanted else None
    only = wanted is not None and wanted.is_single  # there is nothing to keep where that song cannot be written
    lasting = wanted is None or bool(output or wanted.output_path)
    if wanted and not lasting and not wanted.dry_run:
        streams.require_stdout()
    plan = replace(plan, resumable=plan.cached and (len(plan.songs) > 1 or lasting))
    with (
        terminal.handle_signals(),
        terminal.to_file(output, lambda: tally.ok > (tally.failed if only else 0) or not tally.total)
        if output
        else terminal.reserve_stdout() as stream,
        ExitStack() as at_the_end,
    ):
        messages = Messages(reporter, Progress(plan.songs, tally), wanted, stream.isatty())
        at_the_end.callback(messages.end)
        written = tags = None
        if wanted:
            color = terminal.wants_color(options.output.color, stream) and not output
            writer = at_the_end.enter_context(wanted.writer(stream, color, messages.fail))
            written = Written(writer, stream, reporter, wanted, plan.hide_thinking)
            tags = Tags(wanted.tags, wanted, stream, reporter, messages.fail) if wanted.tags else None
        there_is_a_model = Delivery(plan, options, wanted, messages, written, tags).take(engine)
        if there_is_a_model and lasting and tally.total > 1:
            reporter.finished(messages.progress)
    if output and tally.ok:
        reporter.detail(f"saved {output}")


@dataclass(frozen=True)
class Delivery:
    """The loop of a run: every event of an engine is shown, every finished record is counted once and passed through the sinks."""

    plan: RunPlan
    options: SongOptions
    wanted: Results | None
    messages: Messages
    written: Written | None
    tags: Tags | None

    def take(self, engine: Engine) -> bool:
        """Take all events; return whether there was a model. Raises what `_finish` does."""
        unavailable = False
        reporter = self.messages.reporter
        listener = EngineListener(reporter.working, self.messages.advance, reporter.detail, reporter.warn)
        with closing(engine.run(self.plan, listener)) as events:
            try:
                for event in events:
                    if isinstance(event, Opened):
                        self.messages.progress.tally.resumable = event.resumable
                    elif isinstance(event, Unavailable):
                        self.messages.unavailable(event.reason)
                        unavailable = True
                    elif isinstance(event, Finished):
                        self._finish(event, unavailable)
                    elif self.written and isinstance(event.event, Piece) and self.written.show(event.song, event.event):
                        self.messages.hush()
                    else:
                        self.messages.show(event)
            except KeyboardInterrupt:
                reporter.idle()
                if self.written:
                    self.written.interrupt()
                raise
        return not unavailable

    def _finish(self, event: Finished, unavailable: bool) -> None:
        """Count a record and pass it on.

        Raises StoppedError where more songs of this run failed than may, and others are left; InternalError with --fail-fast.
        """
        self.messages.progress.add(event.song, event.record, event.failure, remembered=event.remembered)
        in_folder = self.wanted is None and event.remembered
        if not in_folder and not (unavailable and not (self.wanted and self.wanted.rows)):  # without a model, only rows of every input
            self._pass(event.record)
        self.messages.explain(event.failure)
        run, tally = self.options.run, self.messages.progress.tally
        if run.fail_fast and self.messages.fault:
            raise self.messages.fault
        limit = Share(0, percent=False) if run.fail_fast else run.max_failures
        if limit is not None and not unavailable and tally.left and tally.new_errors > limit.of(tally.total):
            raise StoppedError(f"stopped, {tally.new_errors} failed: {tally}")

    def _pass(self, record: Analysis) -> None:
        record = record if self.plan.keep_raw else replace(record, raw=None)
        record = replace(record, thinking=None) if self.plan.hide_thinking else record
        self.messages.clear()
        if self.written:
            self.written.end_reply()
        sinks: tuple[Tags | Written | Messages | None, ...] = (self.tags, self.written, self.messages)
        for sink in sinks:
            record = sink.take(record) if sink else record
