"""Streams: results alone on stdout, messages and progress on stderr, colours by option and environment.

Times are seconds.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from mflamingo_cli.commands.streams import messages_to
from mflamingo_cli.errors import StoppedError, UsageError
from mflamingo_cli.files import Draft
from mflamingo_cli.render.text import console, marked, safe
from mflamingo_cli.text import scrub
from mflamingo_cli.thinking import ThoughtStream

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.status import Status

    from mflamingo_cli.commands.options import SongOptions
    from mflamingo_cli.library.progress import Progress

PLAIN_EVERY_S = 30.0  # between two lines of plain progress: the log of a night stays readable
BAR_WIDTH = 20  # columns
STOPPING = (signal.SIGINT, signal.SIGTERM)


def wants_color(mode: str, stream: TextIO) -> bool:
    """`--color`, else NO_COLOR, else FORCE_COLOR or CLICOLOR_FORCE, else whether it is a terminal (no-color.org, bixense.com/clicolors)."""
    if mode != "auto":
        return mode == "always"
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR") or os.environ.get("CLICOLOR_FORCE")
    return bool(forced and forced != "0") or (stream.isatty() and os.environ.get("TERM") != "dumb")


@contextlib.contextmanager
def reserve_stdout() -> Iterator[TextIO]:
    """A stream to stdout, while descriptor 1 itself goes to stderr: what C libraries print cannot mix with results."""
    try:
        sys.stdout.flush()
        kept = os.dup(sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is closed or is not a file
        yield sys.stdout
        return
    os.dup2(2, 1)
    with (
        os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors="backslashreplace", buffering=1) as stream,
        contextlib.redirect_stdout(messages_to(1)),  # also what `input` prints
    ):
        try:
            yield stream
            stream.flush()
        except BrokenPipeError:  # the reader has gone: what is left in buffers must go somewhere quiet
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), kept)
            raise
        finally:
            os.dup2(kept, 1)


class Interrupt(KeyboardInterrupt):
    """The first Ctrl-C or SIGTERM; the exit code is the shell's for the signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Raise Interrupt at the first Ctrl-C or SIGTERM, to end in order; the second ends the process at once. What is ignored stays so."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_DFL)
        raise Interrupt(number)

    heeded = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler)


@contextlib.contextmanager
def to_file(path: str, commit_if: Callable[[], bool]) -> Iterator[TextIO]:
    """A stream to a file that gets its name only when all is written; what was written before a failure is kept as FILE.part.

    An existing file is replaced only when `commit_if()` at the end. A link is followed; a FIFO or a device is written directly.
    Raises StoppedError where another process writes the same file.
    """
    target, kept = _target(path)
    try:  # /dev/fd/1 may be a file with other words in it: nothing is cut off
        draft = Draft(target) if kept else None
        raw = draft.stream if draft else target.open("ab")
    except BlockingIOError as error:
        raise StoppedError(f"{target}: another run is writing this file; wait for it, or choose another --output") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    with io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace") as stream, draft or contextlib.nullcontext():
        try:
            yield stream
            stream.flush()
            if draft and (commit_if() or not (target.exists() or _is_empty(raw))):
                draft.finish()
                draft.publish()
        finally:
            if draft and kept:
                _keep(draft, kept, stream)


def _keep(draft: Draft, kept: Path, stream: TextIO) -> None:
    """Leave what a run that failed has written under a name that people see; when it is done, what an earlier one left is of no use."""
    with contextlib.suppress(OSError):  # the disk may be full
        stream.flush()
    with contextlib.suppress(OSError):
        if not draft.published:
            if not _is_empty(draft.stream):
                draft.keep_as(kept)
        elif kept.is_file():
            kept.unlink()


def _is_empty(stream: BinaryIO) -> bool:
    return os.fstat(stream.fileno()).st_size == 0


def _target(path: str) -> tuple[Path, Path | None]:
    """The file that a name leads to, and where what is unfinished is kept; None where there is nothing to replace, as in a device."""
    direct = Path(path).exists() and not Path(path).is_file()
    if direct or path.startswith(("/dev/", "/proc/")):
        return Path(path), None
    target = Path(os.path.realpath(path))
    return target, target.with_name(target.name + ".part")


def refuse_overwriting(path: str, inputs: Iterable[str]) -> None:
    """Raise UsageError when results would go where an input is; "-" is stdin."""
    taken = [file for file in _target(path) if file is not None and file.is_file()]
    for name in inputs if taken else ():
        with contextlib.suppress(OSError):  # what does not exist is not overwritten
            state = os.fstat(0) if name == "-" else os.stat(name)
            if any(os.path.samestat(state, file.stat()) for file in taken):
                raise UsageError(f"{path}: this is one of the inputs; choose another --output")


UNDERLINE, PLAIN = "\x0e", "\x0f"  # in a text from which such characters were taken: here begins and ends what is underlined


class Wrapped:
    """A stream of text broken between words at a terminal's width; a word is shown when it is whole, underlined only with `color`."""

    def __init__(self, write: Callable[[str], object], color: bool = False) -> None:
        self._write, self._width = write, shutil.get_terminal_size().columns
        self._styles = str.maketrans({UNDERLINE: "\x1b[4m" if color else "", PLAIN: "\x1b[24m" if color else ""})
        self._bare = str.maketrans({UNDERLINE: "", PLAIN: ""})
        self._column, self._space, self._word = 0, "", ""

    def feed(self, text: str) -> None:
        """Take the next piece."""
        for part in re.split(r"(\s)", text):
            if not part.isspace():
                self._word += part
                continue
            self.flush()
            if part == "\n":
                self._write("\n")
                self._column = 0
            else:
                self._space = " " if self._column else ""

    def flush(self) -> None:
        """Show the word that was held."""
        if self._word:
            from rich.cells import cell_len

            width = cell_len(self._word.translate(self._bare))
            if self._column and self._column + len(self._space) + width > self._width:
                self._write("\n")
                self._column, self._space = 0, ""
            self._write(self._space + self._word.translate(self._styles))
            self._column += len(self._space) + width
            self._word = ""
        self._space = ""


class Reporter:
    """Everything said on stderr: messages, warnings, and progress as a spinner or as rare plain lines."""

    def __init__(self, color: str = "auto", progress: str = "auto", quiet: bool = False, verbose: int = 0) -> None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.color = color
        self._color, self._animate = wants_color(color, sys.stderr), terminal or progress == "bar"
        self._mode = ("bar" if terminal else "plain") if progress == "auto" else progress
        if quiet and progress == "auto":
            self._mode = "none"
        self.quiet, self.verbose = quiet, verbose
        self._status: Status | None = None
        self._bar: Bar | None = None
        self._last_line = time.monotonic()

    @functools.cached_property
    def _console(self) -> Console:
        """Made when there is something to say: a run in a pipe mostly says nothing, and rich takes as long to import as NumPy."""
        return console(sys.stderr, self._color, animate=self._animate)

    @classmethod
    def of(cls, options: SongOptions) -> Reporter:
        """Return the reporter that the options ask for, after it has said which settings are not used."""
        output = options.output
        made = cls(output.color, output.progress, output.quiet, output.verbose)
        for note in options.notes:
            made.warn(note)
        return made

    def say(self, text: str, style: str = "") -> None:
        """One message; hostile characters are shown, not obeyed."""
        self._console.print(safe(text), style=style, soft_wrap=not sys.stderr.isatty())

    def error(self, text: str) -> None:
        """A failure, also with --quiet."""
        self.say(f"mflamingo: {text}", "red")

    def warn(self, text: str) -> None:
        """Something that deserves care, not with --quiet."""
        if not self.quiet:
            self.say(f"mflamingo: {text}", "yellow")

    def caution(self, text: str) -> None:
        """The last word on what could not be done, not with --quiet."""
        if not self.quiet:
            self.say(text, "yellow")

    def note(self, text: str) -> None:
        """Something good to know, not with --quiet."""
        if not self.quiet:
            self.say(text, "dim")

    def detail(self, text: str) -> None:
        """Only with --verbose."""
        if self.verbose:
            self.say(text, "dim")

    def detail_lines(self, text: str) -> None:
        """A longer text, only with --verbose."""
        if self.verbose:
            self.say_lines(text)

    def say_lines(self, text: str) -> None:
        """A longer text, dim, line by line."""
        for line in text.split("\n"):
            self.say(line, "dim")

    def aside(self, text: str) -> None:
        """Part of a reasoning trace, dim, as it streams."""
        self._console.print(text, style="dim", end="", soft_wrap=True)

    def working(self, text: str) -> None:
        """What is being done now."""
        if self._mode == "bar":
            text = safe(text)
            if self._status is None:
                self.idle()
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif self._line_is_due():
            self._console.print(safe(text), soft_wrap=True)

    def progress(self, progress: Progress, doing: str = "") -> None:
        """How far a run over many songs is, and what is being done now."""
        if self._mode == "bar":
            if self._bar is None:
                self.idle()
                self._bar = _bar(self._console)
                self._bar.start()
            left = progress.left_audio_s
            total = None if left is None else progress.audio_s + left
            self._bar.update(self._bar.task_ids[0], completed=progress.audio_s, total=total, description=str(progress), doing=safe(doing))
        elif self._line_is_due():
            self._console.print(str(progress), soft_wrap=True)

    def finished(self, progress: Progress) -> None:
        """The last word on a run, where progress is shown."""
        self.idle()
        if self._mode != "none":
            self._console.print(str(progress), soft_wrap=True)

    def _line_is_due(self) -> bool:
        due = self._mode == "plain" and time.monotonic() - self._last_line >= PLAIN_EVERY_S
        if due:
            self._last_line = time.monotonic()
        return due

    def idle(self) -> None:
        """Take spinner and bar away before results are printed."""
        for shown in (self._status, self._bar):
            if shown is not None:
                shown.stop()
        self._status = self._bar = None


def _bar(console: Console) -> Bar:
    """A bar of seconds of audio with words beside it and, where there is room, what is being done."""
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    doing = TextColumn("{task.fields[doing]}", markup=False, style="dim", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    bar = Progress(
        BarColumn(BAR_WIDTH), words, doing, console=console, transient=True, redirect_stdout=False, redirect_stderr=False, expand=True
    )
    bar.add_task("", total=None, doing="")
    return bar


class Reply:
    """What a model writes, shown as it comes: the answer on a terminal's stream, its reasons on stderr, both broken between words."""

    def __init__(self, reporter: Reporter, stream: TextIO, thinks: bool, hide_thinking: bool = False) -> None:
        self._reporter, self._stream, self._hide = reporter, stream, hide_thinking
        self._thoughts = ThoughtStream() if thinks else None
        self._answer, self._aside = Wrapped(stream.write, wants_color(reporter.color, stream)), Wrapped(reporter.aside)
        self._was_thinking = self._began = False

    def feed(self, text: str, wrong: Iterable[str] = ()) -> None:
        """Take the next piece, and the words of it that contradict what was measured."""
        for is_answer, part in self._thoughts.feed(text) if self._thoughts else [(True, text)]:
            parts = marked(scrub(part), wrong)
            self._put(is_answer, "".join(f"{UNDERLINE}{words}{PLAIN}" if underlined else words for words, underlined in parts))

    def end(self) -> None:
        """Show what was held back, and end the line."""
        for is_answer, part in self._thoughts.end() if self._thoughts else []:
            self._put(is_answer, scrub(part))
        self._aside.flush()
        self._answer.flush()
        self._stream.write("\n")

    def _put(self, is_answer: bool, text: str) -> None:
        if not is_answer:
            if not self._hide:
                self._aside.feed(text)
                self._was_thinking = True
            return
        if not self._began:
            text = text.lstrip()
            if text and self._was_thinking:
                self._aside.flush()
                self._reporter.aside("\n\n")
        self._began = self._began or bool(text)
        self._answer.feed(text)
        self._stream.flush()
