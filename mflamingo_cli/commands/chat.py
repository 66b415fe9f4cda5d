"""`mflamingo ask --chat`: a conversation about one song, or about none. Questions come from the keyboard or, line by line, from stdin.

Answers and records go to stdout, all else to stderr: also the prompt, so that answers can be kept in a file.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TextIO

import typer

from mflamingo_cli import assemble, requests
from mflamingo_cli.backends import open_backend
from mflamingo_cli.backends.base import Backend
from mflamingo_cli.commands import inputs, streams, terminal
from mflamingo_cli.commands.options import SongOptions
from mflamingo_cli.commands.results import STDOUT
from mflamingo_cli.conversation import Conversation
from mflamingo_cli.core.remote import forbid_network
from mflamingo_cli.errors import ExitCode, MFlamingoError, UsageError
from mflamingo_cli.library.progress import Tally
from mflamingo_cli.render.text import answer
from mflamingo_cli.requests import Piece, Request, Step
from mflamingo_cli.schema import Analysis
from mflamingo_cli.store.cache import Cache, not_kept, open_default
from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.text import clock

PROMPT = "> "
FORMATS = ("text", "json")
OF_SONGS = ("files_from", "null", "start", "end")  # options that a question about no song has no use for
OF_RUNS = (  # options that a conversation has no use for
    "batch_size", "dry_run", "engine", "fail_fast", "fields", "force", "jobs", "max_failures", "ray_address", "retry_failed", "shard",
    "sidecar", "sort", "where",
)  # fmt: skip


class Quit(Exception):
    """The user has asked for the end."""


@dataclass(frozen=True)
class Command:
    """A line that begins with a slash: what may follow its name, what it is for, and what it does, or the request that it makes."""

    takes: str
    summary: str
    do: Callable[[Chat, str], Request | None]


class Chat:
    """Lines in, answers out, about one song, or about none."""

    def __init__(self, song: str | None, settings: dict[str, Any], stream: TextIO, reporter: terminal.Reporter, json: bool) -> None:
        self.settings, self.tally = settings, Tally(1)
        self.reporter, self._song, self._stream, self._json = reporter, song, stream, json
        self._about = "" if song is None else f"{song}: "
        self._reply: terminal.Reply | None = None
        self._said: list[Analysis] = []
        self._warned: set[str] = set()  # what holds for the song is said once

    def begin(self, backend: Backend, cache: Cache | None, request: Request) -> Conversation | None:
        """Prepare the song for such a request; return None where that fails, which is reported."""
        self._usual = request.command
        backend.on_progress = lambda how_far: self.reporter.working(f"{self._about}{how_far}")
        begin = Conversation.begin(self._song, backend, replace(request, **self.settings), cache)
        try:
            self._conversation = requests.drain(begin, lambda step: self.reporter.working(f"{self._about}{step.name}"))
        except MFlamingoError as error:
            self._write(assemble.failed(self._song, self._usual, error), error)
            return None
        self.reporter.idle()
        return self._conversation

    def line(self, line: str) -> None:
        """Take a question or a command. What goes wrong is reported, and the conversation can go on. Raises Quit."""
        if line := line.strip():
            self.take(lambda: self._command(line) if line.startswith("/") else requests.ask_request(line, **self.settings))

    def take(self, make: Callable[[], Request | None], hide_thinking: bool = False) -> None:
        """Make a request and answer it; what goes wrong is reported."""
        try:
            request = make()
            if request is not None:
                self._turn(request, hide_thinking)
        except MFlamingoError as error:
            self._end_reply()
            self._write(assemble.failed(self._song, self._usual, error), error)

    def _command(self, line: str) -> Request | None:
        name, _, rest = line[1:].partition(" ")
        if name not in COMMANDS:
            raise UsageError(f"there is no command /{name}; choose from {', '.join('/' + known for known in COMMANDS)}")
        return COMMANDS[name].do(self, rest.strip())

    def _turn(self, request: Request, hide_thinking: bool) -> None:
        forgotten = self._conversation.forgotten
        with contextlib.closing(self._conversation.say(request)) as events:
            for event in events:
                if isinstance(event, Analysis):
                    self._write(replace(event, thinking=None) if hide_thinking else event, None)
                elif isinstance(event, Piece) and self._stream.isatty() and not self._json:
                    self.reporter.idle()
                    self._reply = self._reply or terminal.Reply(self.reporter, self._stream, request.command == "think", hide_thinking)
                    self._reply.feed(event.text, event.wrong)
                elif isinstance(event, Step):
                    self.reporter.working(f"{self._about}{event.name}")
        if self._conversation.forgotten > forgotten:
            self.reporter.warn("the conversation exceeds the model's context; its beginning was dropped")

    def _write(self, record: Analysis, error: MFlamingoError | None) -> None:
        self.reporter.idle()
        self._said.append(record)
        self.tally.add(record, error)
        if self._json:
            self._stream.write(record.to_json() + "\n")
        elif not self._end_reply() and error is None:
            if record.thinking:
                self.reporter.say_lines(record.thinking)
            self._stream.write((answer(record) or "") + "\n")
        if error is not None:
            self.reporter.error(str(error))
        for warning in record.warnings:
            if warning not in self._warned:
                self.reporter.warn(warning)
        self._warned.update(record.warnings)

    def _end_reply(self) -> bool:
        """End an answer that was shown as it came; whether there was one."""
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.end()
        return reply is not None

    def stop(self) -> None:
        """Drop the answer that is being written."""
        self.reporter.idle()
        self._end_reply()
        self.reporter.say("stopped")

    def json(self, which: str) -> None:
        """Write the last record, or all of them."""
        if which not in ("", "all"):
            raise UsageError("write /json for the last record, or /json all")
        self._stream.writelines(record.to_json() + "\n" for record in (self._said if which else self._said[-1:]))

    def help(self) -> None:
        """Show the list of commands."""
        rows = [(f"/{name} {command.takes}", command.summary) for name, command in COMMANDS.items()]
        for name, summary in [("QUESTION", "your question"), *rows]:
            self.reporter.say(f"{name:<16} {summary}")


def _caption(chat: Chat, style: str) -> Request:
    return requests.caption_request(style or "full", **chat.settings)


def _think(chat: Chat, question: str) -> Request:
    if not question:
        raise UsageError("write a question after /think")
    return requests.think_request(question, **chat.settings)


def _quit(chat: Chat, _: str) -> None:
    raise Quit


COMMANDS = {
    "caption": Command("[STYLE]", f"describe the song: {', '.join(CAPTION_STYLES)}", _caption),
    "think": Command("QUESTION", "answer after reasoning", _think),
    "json": Command("[all]", "print the last answer as a JSON record, or all of them", Chat.json),
    "help": Command("", "show this list", lambda chat, _: chat.help()),
    "quit": Command("", "end the conversation, like Ctrl-D", _quit),
}


def run_chat(options: SongOptions, question: str | None, *, no_song: bool) -> None:
    """Prepare a song, where there is one, and answer line after line. Raises typer.Exit with the exit code."""
    json = _check(options, "--chat", no_song)
    song = None if no_song else _one_song(options)
    _run(options, song, json, requests.ask_request("?"), lambda chat, *talk: _talk(chat, question, *talk))


def run_without_song(options: SongOptions, request: Request, hide_thinking: bool = False) -> None:
    """Answer one question that is about no song. Raises typer.Exit with the exit code."""
    json = _check(options, "--no-song", no_song=True)
    _run(options, None, json, request, lambda chat, *_: chat.take(lambda: replace(request, **chat.settings), hide_thinking))


def _run(options: SongOptions, song: str | None, json: bool, request: Request, talk: Callable[[Chat, Conversation, str], None]) -> None:
    """Open the model, prepare the song for such a request as the first, and talk."""
    model, part = options.model, options.input
    if model.offline:
        forbid_network()
    reporter = terminal.Reporter.of(options)
    settings = {"start_s": part.start or 0.0, "end_s": part.end, "options": options.words.generate, "keep_raw": options.output.verbose > 0}
    streams.require_stdout()
    try:
        with terminal.reserve_stdout() as stream:
            reporter.working(f"opening {model.name}")
            with open_backend(model.name, model.open) as backend:
                cache, trouble = (None, "") if model.no_cache else open_default()
                if trouble:
                    reporter.warn(not_kept(trouble))
                chat = Chat(song, settings, stream, reporter, json)
                conversation = chat.begin(backend, cache, request)
                if conversation is not None:
                    talk(chat, conversation, backend.info.model)
    except BrokenPipeError as error:
        raise typer.Exit(ExitCode.CLOSED_PIPE) from error
    finally:
        reporter.idle()
    if chat.tally.exit_code:
        raise typer.Exit(chat.tally.exit_code)


def _check(options: SongOptions, flag: str, no_song: bool) -> bool:
    """Whether records are wanted. Raises UsageError for options that do not go with the flag, and for a song where there is none."""
    if no_song and options.input.paths:
        raise UsageError("--no-song asks about no song, but files were given; leave out one or the other")
    for names, with_flag in ((OF_RUNS, flag), (OF_SONGS if no_song else (), "--no-song")):
        if useless := [name for name in names if name in options.typed]:
            raise UsageError(f"--{useless[0].replace('_', '-')} does not work with {with_flag}; leave it out")
    if options.output.output not in (None, *STDOUT):
        raise UsageError(f"{flag} writes to stdout; leave --output out")
    name = "json" if options.output.json else options.output.format or "text"
    if name not in FORMATS and "format" not in options.typed:  # it was set for runs
        name = "text"
    if name not in FORMATS:
        raise UsageError(f"{flag} writes {' or '.join(FORMATS)}, not {name}")
    return name == "json"


def _one_song(options: SongOptions) -> str:
    songs = inputs.collect(options.input.paths or [], options.input.files_from, options.input.null)
    if len(songs) > 1:
        raise UsageError(f"--chat takes one song, but {len(songs)} were given")
    if inputs.STDIN in (songs[0], options.input.files_from):
        raise UsageError("with --chat, stdin holds the questions; name a song file")
    return songs[0]


def _talk(chat: Chat, question: str | None, conversation: Conversation, model: str) -> None:
    """Say the first question and all lines. On a terminal Ctrl-C stops an answer, else everything."""
    keyboard = sys.stdin.isatty()
    if keyboard:
        if conversation.duration_s is not None:
            chat.reporter.detail(f"{clock(conversation.duration_s)} of music, encoded by {model}")
        about = "music" if conversation.duration_s is None else "the song"
        chat.reporter.note(f"ask about {about}; /help lists commands, Ctrl-D ends")
        if not conversation.follows:
            chat.reporter.note(f"{model} answers each question on its own, without the earlier ones")
    with contextlib.suppress(Quit):
        for line in _lines(question, keyboard):
            try:
                chat.line(line)
            except KeyboardInterrupt:
                if not keyboard:
                    raise
                chat.stop()


def _lines(first: str | None, keyboard: bool) -> Iterator[str]:
    if first is not None:
        yield first
    if not keyboard:
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() edits lines with it and remembers them)
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:  # the line is dropped
            print(file=sys.stderr)
