"""Laws of a conversation: the song is encoded once, turns are remembered by models that can use them, and one bad line ends nothing."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mflamingo_cli import pipeline, requests
from mflamingo_cli.backends.base import Chunk, GenerateOptions, Prompt, SongPrompts, Usage
from mflamingo_cli.conversation import ROOM_TO_ANSWER, Conversation
from mflamingo_cli.errors import ModelError, UsageError
from mflamingo_cli.requests import ask_request, caption_request, think_request
from tests.test_cli import SHORT, TIMEOUT_S, one_sentence, records, run
from tests.test_pipeline import Parrot

TURN = 10  # tokens of a question, and of an answer


class Counting(Parrot):
    """Answers with a number that counts up, and holds so many tokens."""

    def __init__(self, holds: int = 10_000, abilities: frozenset[str] | None = None):
        super().__init__({}, abilities=abilities)
        self.info = replace(self.info, context_length=holds)
        self.prompts: list[Prompt] = []

    def generate(self, talks: Sequence[SongPrompts], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        [[prompt]] = [talk.prompts for talk in talks]
        tokens_in = TURN * (1 + 2 * len(prompt.history))
        if tokens_in + TURN > self.info.context_length:
            raise ModelError("too long", code="too_long")
        self.prompts.append(prompt)
        yield 0, 0, Chunk(f"answer {len(self.prompts)}")
        yield 0, 0, Chunk("", "stop", Usage(tokens_in, TURN))


@pytest.fixture
def talk(tmp_song):
    def begin(backend: Counting) -> Conversation:
        return requests.drain(Conversation.begin(tmp_song, backend, ask_request("?")))

    return begin


def say(conversation: Conversation, request: requests.Request) -> pipeline.Analysis:
    *_, record = conversation.say(request)
    assert isinstance(record, pipeline.Analysis)
    return record


def test_a_song_is_encoded_once_and_turns_are_remembered(talk):
    backend = Counting()
    conversation = talk(backend)
    first, second = say(conversation, ask_request("Why?")), say(conversation, caption_request("short"))
    say(conversation, ask_request("And?"))
    assert len(backend.heard) == 1
    assert backend.prompts[-1].history == (("Why?", "answer 1"), (caption_request("short").tasks[0].prompt, "answer 2"))
    assert (first.text, second.result.caption) == ("answer 1", "answer 2")
    assert first.timing.decode_s is not None
    assert second.timing.decode_s is None


def test_a_model_that_was_not_taught_to_follow_takes_each_question_by_itself(talk):
    backend = Counting(abilities=frozenset({"ask", "caption"}))
    conversation = talk(backend)
    for _ in range(3):
        say(conversation, ask_request("What?"))
    assert [prompt.history for prompt in backend.prompts] == [(), (), ()]


def test_a_question_that_leaves_something_out_is_completed_for_a_model_that_cannot_follow(talk):
    backend = Counting(abilities=frozenset({"key"}))
    backend.info = replace(backend.info, grounded=True)
    conversation = talk(backend)
    whole = say(conversation, ask_request("How long is it?"))
    unread = say(conversation, ask_request("Why?"))  # what is not answered is not asked about again
    follows = say(conversation, ask_request("Longer than a minute?"))
    assert whole.answerable
    assert not unread.answerable
    assert (follows.question, follows.answerable) == ("Is it Longer than a minute?", True)
    assert follows.text.startswith("No: it lasts")
    assert say(conversation, think_request("Than ten seconds?")).question == "Is it longer than ten seconds?"


def test_the_oldest_turns_are_forgotten_when_the_model_holds_no_more(talk):
    backend = Counting(holds=5 * TURN)
    conversation = talk(backend)
    options = GenerateOptions(max_new_tokens=1)  # no room is kept: the back end itself refuses
    for number in range(6):
        assert say(conversation, ask_request(str(number), options=options)).text == f"answer {number + 1}"
    assert [len(prompt.history) for prompt in backend.prompts] == [0, 1, 1, 1, 1, 1]
    assert backend.prompts[-1].history[0][0] == "4"
    assert conversation.forgotten == 4


def test_room_is_kept_for_an_answer(talk):
    backend = Counting(holds=600)
    conversation = talk(backend)
    for number in range(20):
        say(conversation, ask_request(f"Question {number}?"))
    assert conversation.forgotten > 0
    assert all(TURN * (1 + 2 * len(prompt.history)) + ROOM_TO_ANSWER <= 600 for prompt in backend.prompts[1:])


def test_a_question_that_alone_is_too_long_is_an_error(talk):
    conversation = talk(Counting(holds=TURN))
    with pytest.raises(ModelError, match="too long"):
        say(conversation, ask_request("?"))


def test_an_answer_that_is_not_waited_for_leaves_no_trace(talk):
    backend = Counting()
    conversation = talk(backend)
    turn = conversation.say(ask_request("Why?"))
    assert isinstance(next(turn), requests.Step)
    assert isinstance(next(turn), requests.Piece)
    turn.close()
    say(conversation, ask_request("And?"))
    assert backend.prompts[-1].history == ()


def test_a_refused_question_leaves_the_conversation_as_it_was(talk):
    backend = Counting(abilities=frozenset({"ask", "chat"}))
    conversation = talk(backend)
    refused = say(conversation, ask_request("Is there a guitar?"))
    assert (refused.answerable, backend.prompts) == (False, [])
    with pytest.raises(UsageError, match=r"UTF-8|Unicode|question"):
        ask_request("\udce9")
    assert say(conversation, ask_request("How fast?")).text == "answer 1"
    assert backend.prompts[-1].history == ()


# --- as a user ------------------------------------------------------------------------------------------------------------


def chat(*arguments: object, lines: str = "") -> subprocess.CompletedProcess[bytes]:
    return run("ask", "--chat", *arguments, *SHORT, input=lines.encode())


@pytest.mark.slow
def test_lines_of_a_script_are_answered_one_by_one(tiny_model, tmp_song):
    lines = "What?\n\n/caption short\n/think Why?\n/nonsense\n/quit\nnever read\n"
    done = chat("How?", "--json", "-q", "-m", tiny_model, tmp_song, lines=lines)
    assert done.returncode == 3  # /nonsense failed, the others did not
    assert [(r["command"], r["status"]) for r in records(done)] == [
        ("ask", "ok"), ("ask", "ok"), ("caption", "ok"), ("think", "ok"), ("ask", "error"),
    ]  # fmt: skip
    assert "there is no command /nonsense; choose from /caption, /think" in one_sentence(done.stderr)
    alone = records(run("ask", "How?", "--json", "-m", tiny_model, *SHORT, tmp_song))
    assert records(done)[0]["text"] == alone[0]["text"]


def test_text_is_the_answers_alone_and_json_has_their_records(tiny_model, tmp_song):
    done = chat("-q", "-m", tiny_model, tmp_song, lines="How?\nWhy?\n/json all\n/help\n")
    rows = done.stdout.decode().splitlines()
    written = [json.loads(row) for row in rows if row.startswith('{"schema"')]
    assert done.returncode == 0
    assert len(written) == 2
    assert rows[: -len(written)] == [line for record in written for line in (record["text"] or "").split("\n")]
    assert "/think QUESTION" in done.stderr.decode()


def test_a_format_that_was_set_for_runs_stops_no_conversation(tiny_model, tmp_song, monkeypatch):
    monkeypatch.setenv("MFLAMINGO_FORMAT", "csv")
    monkeypatch.setenv("MFLAMINGO_JOBS", "3")
    done = chat(tmp_song, "-m", tiny_model, *SHORT, lines="What is the key?\n")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--chat", "-"], 2, "stdin holds the questions"),
        (["--chat", "Key?", "{song}", "{song}"], 2, "one song, but 2 were given"),
        (["{song}", "{song}"], 2, "write the question first"),
        (["{song}"], 2, "write the question first"),
        (["--chat", "{song}", "missing.wav"], 2, "then one file"),
        (["", "{song}"], 2, "the question is empty"),
        (["--chat", "missing.wav"], 66, "there is no such file"),
        (["--chat", "-f", "csv", "{song}"], 2, "text or json"),
        (["--chat", "-o", "out.txt", "{song}"], 2, "leave --output out"),
        (["--chat", "--where", "bpm > 1", "{song}"], 2, "--where does not work with --chat"),
        (["--chat", "-n", "{song}"], 2, "--dry-run does not work with --chat"),
        (["--chat"], 2, "name a file"),
        ([], 2, "write it first"),
    ],
)
def test_a_wrong_command_is_one_sentence(tiny_model, tmp_song, arguments, code, words):
    done = run("ask", *(argument.format(song=tmp_song) for argument in arguments), "-m", tiny_model, *SHORT)
    assert done.returncode == code
    assert words in one_sentence(done.stderr)


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "mflamingo_cli", *map(str, arguments)]
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            os.environ |= {"TERM": "xterm", "COLUMNS": "80"}
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell lets its background jobs ignore, the tests among them
            os.execvp(command[0], command)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def until(self, words: str) -> None:
        """Wait until words are shown after those that were waited for before."""
        self._read_until(lambda: words in self.shown)
        self.shown = self.shown.partition(words)[2]

    def until_more(self) -> None:
        """Wait until a line is begun after the words that were waited for before."""
        self._read_until(lambda: bool(self.shown.strip()))

    def _read_until(self, met: Callable[[], bool]) -> None:
        ends = time.monotonic() + TIMEOUT_S
        while not met():
            assert time.monotonic() < ends, self.shown
            if select.select([self._screen], [], [], 1.0)[0]:
                self.shown += os.read(self._screen, 1 << 16).decode("utf-8", "replace")

    def end(self) -> int:
        """The exit code."""
        while True:
            try:
                if not os.read(self._screen, 1 << 16):
                    break
            except OSError:
                break
        os.close(self._screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def endless_model(tmp_path) -> Path:
    """A GGUF pair of random weights whose answers do not end: the tokens that end one are never among the likelier half."""
    from safetensors.torch import load_file, save_file

    from quant.convert import convert
    from tests import checkpoints

    source = checkpoints.write(tmp_path / "endless", "musicflamingo", "mini")
    weights = load_file(source / "model.safetensors")
    tokens = json.loads((source / "tokenizer.json").read_bytes())["added_tokens"]
    [head] = [name for name in weights if name.endswith("lm_head.weight")]
    weights[head][[token["id"] for token in tokens]] = 0.0
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    convert(source, tmp_path / "gguf", "F16")
    return tmp_path / "gguf"


@pytest.mark.slow
def test_at_the_keyboard_ctrl_c_stops_an_answer_and_ctrl_d_ends(endless_model, tmp_song):
    endless = ("--max-tokens", "30000", "--temperature", "1", "--top-p", "0.5", "--claims", "raw")
    terminal = Terminal("ask", "--chat", "-m", endless_model, *endless, "--color", "never", "--progress", "none", tmp_song)
    terminal.until("Ctrl-D ends")
    terminal.until("> ")
    terminal.type("How?\n")
    terminal.until("How?\r\n")
    terminal.until_more()  # the answer has begun
    os.kill(terminal.pid, signal.SIGINT)
    terminal.until("stopped")
    terminal.until("> ")
    terminal.type("/help\n")
    terminal.until("/caption [STYLE]")
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.end() == 0


# --- without a song ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ask", "think"])
def test_a_question_about_no_song_is_answered_and_its_record_has_no_audio(tiny_model, command):
    arguments = (command, "--no-song", "What is a tritone substitution?", "-m", tiny_model, *SHORT)
    [record] = records(run(*arguments, "--json"))
    assert (record["command"], record["status"], record["path"], record["audio"]) == (command, "ok", None, None)
    assert record["usage"]["tokens_out"] == int(SHORT[1])
    done = run(*arguments)
    assert (done.returncode, done.stdout.decode().strip()) == (0, record["text"] or "")


@pytest.mark.slow
def test_a_conversation_may_be_about_no_song(tiny_model):
    done = run("ask", "--chat", "--no-song", "--json", "-m", tiny_model, *SHORT, input=b"What is a key?\nAnd a mode?\n")
    first, second = records(done)
    assert (first["path"], second["path"]) == (None, None)
    assert second["usage"]["tokens_in"] > first["usage"]["tokens_in"]  # the first turn is part of its prompt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ask", "--no-song", "What is a mode?"), 69, "mini answers questions about songs, not about music in general; name a song"),
        (
            ("ask", "--no-song", "What is a mode?", "song.mp3"),
            2,
            "--no-song asks about no song, but files were given",
        ),
        (("ask", "--no-song", "What is a mode?", "--start", "3"), 2, "--start does not work with --no-song; leave it out"),
        (("think", "--no-song", "What is a mode?", "--jobs", "3"), 2, "--jobs does not work with --no-song; leave it out"),
        (("think", "--no-song", "What is a mode?", "-f", "html"), 2, "--no-song writes text or json, not html"),
        (("ask", "--no-song"), 2, "the question is missing"),
        (
            ("think", "--no-song", "What is a mode?", "--thinking-budget", "2000"),
            2,
            "a thinking budget of 2000 uses up all 1024 tokens of the answer",
        ),
    ],
)
def test_what_a_question_about_no_song_cannot_be_is_one_sentence(arguments, code, words):
    done = run(*arguments)
    assert words in one_sentence(done.stderr)
    assert (done.returncode, done.stdout) == (code, b"")


@pytest.mark.parametrize("songs", [["{song}"], ["{song}", "Is it fast?"]])
def test_think_wants_the_question_first(tiny_model, tmp_song, songs):
    done = run("think", *(argument.format(song=tmp_song) for argument in songs), "-m", tiny_model, *SHORT)
    assert done.returncode == 2
    assert "is a file; write the question first" in one_sentence(done.stderr)
