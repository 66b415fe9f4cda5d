"""Where each finished record goes: the tags of its file, the writer of its format, and the messages on the terminal.

Each sink takes records one by one, and returns a record as the next sink is to have it.
"""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from mflamingo_cli.commands import inputs, terminal
from mflamingo_cli.commands.results import Fail, Results
from mflamingo_cli.errors import InternalError, MFlamingoError, as_song_error
from mflamingo_cli.library.plan import Working
from mflamingo_cli.library.progress import Progress
from mflamingo_cli.library.tag_fields import TagOptions
from mflamingo_cli.render import Writer
from mflamingo_cli.render.text import safe
from mflamingo_cli.requests import Piece
from mflamingo_cli.schema import Analysis, Loudness, path_of
from mflamingo_cli.store import faults

SHOWN = 60  # characters of a value that was written: enough to know it by
LIVE = ("caption", "ask", "think")  # tasks whose text is shown as it is written


@dataclass(frozen=True)
class Tags:
    """Writes tags into the songs' files and says so, or prints what they would be; what cannot be written is a failure and a warning."""

    options: TagOptions
    wanted: Results
    stream: TextIO
    reporter: terminal.Reporter
    fail: Fail
    albums: dict[str, Loudness] = field(default_factory=dict)  # by folder

    def take(self, record: Analysis) -> Analysis:
        """Write the tags of a song that --where selects."""
        from mflamingo_cli.library import tags

        if record.result is None or not self.wanted.chooses(record):
            return record
        try:
            with as_song_error(record.path):
                changes = tags.write(record, self.options, self.wanted.dry_run, self._album(record))
        except MFlamingoError as error:
            self.fail(record, error)
            return replace(record, warnings=(*record.warnings, str(error)))
        if self.wanted.dry_run:
            self.stream.writelines(safe(f"{record.path}: {shown}") + "\n" for shown in map(str, changes or ("no change",)))
            return record
        if written := ", ".join(f"{change.field} {textwrap.shorten(change.new, SHOWN)!r}" for change in changes if change.written):
            self.reporter.note(f"{record.path}: wrote {written}")
        for change in changes:
            if not change.written:
                self.reporter.note(f"{record.path}: {change}")
        if not changes:
            self.reporter.detail(f"{record.path}: no change")
        return record

    def _album(self, record: Analysis) -> Loudness | None:
        """The loudness of all songs in the folder of one, measured when it is first asked for."""
        if not self.options.album or record.path == inputs.STDIN:
            return None
        folder = os.path.dirname(os.path.abspath(path_of(record)))
        if folder not in self.albums:
            from mflamingo_cli.library.album import measure_album

            self.reporter.working(f"{folder}: measuring the album")
            songs = [name for name in inputs.songs_below(folder) if os.path.dirname(name) == folder]
            self.albums[folder], left_out = measure_album(songs)
            for error in left_out:
                self.reporter.warn(f"{error}; the album was measured without it")
        return self.albums[folder]


@dataclass
class Written:
    """Writes records in their format; text for a terminal appears as it comes."""

    writer: Writer
    stream: TextIO
    reporter: terminal.Reporter
    wanted: Results
    hide_thinking: bool
    reply: terminal.Reply | None = None  # what is being shown
    shown: bool = False  # whether the record that comes was shown so

    def show(self, song: str, piece: Piece) -> bool:
        """Show a piece of text as it comes; False where this is not wanted."""
        if not (self.wanted.live and self.stream.isatty()) or piece.task not in LIVE:
            return False
        if self.reply is None:
            self.reporter.idle()
            headline = getattr(self.writer, "headline", None)
            if headline:
                headline(song)
            self.reply = terminal.Reply(self.reporter, self.stream, piece.task == "think", self.hide_thinking)
        self.reply.feed(piece.text, piece.wrong)
        return True

    def end_reply(self) -> None:
        """End the text that was shown as it came; its record needs no writing."""
        reply, self.reply = self.reply, None
        self.shown = reply is not None
        if reply is not None:
            reply.end()

    def take(self, record: Analysis) -> Analysis:
        """Write a record that was not shown as it came."""
        if self.shown:
            return record
        if self.wanted.name == "text" and record.thinking:
            self.reporter.say_lines(record.thinking)
        self.writer.write(record)
        return record

    def interrupt(self) -> None:
        """Leave the terminal's cursor on a line of its own."""
        if self.reply is not None:
            self.stream.write("\n")


class Messages:
    """What is said on stderr: steps and progress, the error of a record, its warnings."""

    def __init__(self, reporter: terminal.Reporter, progress: Progress, wanted: Results | None, on_terminal: bool) -> None:
        self.reporter, self.progress, self._on_terminal = reporter, progress, on_terminal
        panels = wanted is not None and wanted.name == "table"
        self._errors = not (panels and on_terminal and wanted is not None and wanted.test is None)  # a failure's panel is enough
        self._warnings = wanted is not None and not panels and not wanted.rows
        self.fault: InternalError | None = None  # the last one of this program
        self.log: Path | None = None  # where the tracebacks of this run are
        self._step: tuple[str, str] | None = None
        self._pieces = 0

    def show(self, event: Working) -> None:
        """Say which step of which song is being done."""
        if isinstance(event.event, Piece):
            self._pieces += 1
            self._say(event.song, f"writing, {self._pieces} pieces")
            return
        self._pieces, self._step = 0, (event.song, event.event.name)
        self._say(*self._step)

    def advance(self, how_far: str) -> None:
        """Say how far the present step is; not while text appears."""
        if self._step is not None:
            self._say(self._step[0], f"{self._step[1]}, {how_far}")

    def _say(self, song: str, step: str) -> None:
        if self.progress.tally.total > 1:
            self.reporter.progress(self.progress, f"{song}: {step}")
        else:
            self.reporter.working(f"{song}: {step}")

    def hush(self) -> None:
        """Take what is being done away: text appears in its place."""
        self._step = None

    def unavailable(self, reason: MFlamingoError) -> None:
        """Say once that there is no model for any song."""
        self.reporter.idle()
        self.reporter.error(str(reason))
        self._errors = False

    def fail(self, record: Analysis, error: MFlamingoError) -> None:
        """Count and say that a result could not be written."""
        self.progress.tally.fail(path_of(record), error)
        self.reporter.error(str(error))
        self.explain(error)

    def explain(self, failure: MFlamingoError | None) -> None:
        """Log the traceback of a fault of this program; show it with --verbose."""
        if isinstance(failure, InternalError):
            self.fault = failure
            self.log = faults.log(failure) or self.log
            self.reporter.detail_lines(failure.trace)

    def end(self) -> None:
        """Say at the end of a run over several songs how many failed and why, and where the tracebacks are."""
        tally = self.progress.tally
        self.reporter.idle()
        if tally.total > 1 and tally.failed > tally.model:  # that there is no model was said
            self.reporter.caution(tally.failures)
        if self.log is not None:
            self.reporter.note(f"tracebacks: {self.log}")

    def clear(self) -> None:
        """Make room for a result on the same terminal."""
        if self._on_terminal:
            self.reporter.idle()

    def take(self, record: Analysis) -> Analysis:
        """Say what is wrong with a record where its writer does not."""
        if record.error is not None and self._errors:
            self.reporter.error(record.error.message)
        for warning in record.warnings if self._warnings else ():
            self.reporter.warn(warning)
        return record
