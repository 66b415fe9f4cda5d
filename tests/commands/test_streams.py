"""Laws of the standard streams: what stderr cannot take costs messages only, and what stdout cannot take is never exit code 0."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mflamingo_cli.commands import streams
from mflamingo_cli.errors import ExitCode

TIMEOUT_S = 300
FULL = Path("/dev/full")
LIGHT = [words.split() for words in "--version,--help,schema,models list,models info,config show,analyze -h,doctor".split(",")]
ON_SONGS = [words.split() for words in "analyze SONG,analyze --json SONG SONG,ask --chat SONG".split(",")]
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "mflamingo_cli", *map(str, words)]


def shell(redirection: str, *words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program as a shell would, with a redirection."""
    script = f'exec "$@" {redirection}'
    return subprocess.run(["sh", "-c", script, "sh", *command(*words)], capture_output=True, text=True, timeout=TIMEOUT_S, input=stdin)


def statuses(stdout: str) -> list[str]:
    return [json.loads(line)["status"] for line in stdout.splitlines()]


# --- stderr ------------------------------------------------------------------------------------------------------------------

NO_STDERR = ("2>/dev/full", "2>&-")


@pytest.mark.slow
@pytest.mark.parametrize("redirection", NO_STDERR)
@pytest.mark.parametrize("jobs", [1, 2])
def test_every_record_comes_where_stderr_takes_nothing(tmp_song: Path, redirection: str, jobs: int) -> None:
    done = shell(redirection, "analyze", "--json", "-j", jobs, "--progress", "bar", "nosuch.wav", tmp_song, tmp_song)
    assert (done.returncode, statuses(done.stdout)) == (ExitCode.SOME_FAILED, ["error", "ok", "ok"])


@pytest.mark.slow
@pytest.mark.parametrize("redirection", NO_STDERR)
def test_a_file_of_results_is_whole_and_a_stopped_run_is_one_to_resume(tmp_song: Path, tmp_path: Path, redirection: str) -> None:
    done = shell(redirection, "analyze", "-v", "-o", tmp_path / "all.jsonl", "--format", "json", "nosuch.wav", tmp_song)
    assert done.returncode == ExitCode.SOME_FAILED
    assert statuses((tmp_path / "all.jsonl").read_text()) == ["error", "ok"]
    stopped = shell(redirection, "analyze", "--json", "-o", tmp_path / "two.jsonl", "--fail-fast", tmp_song, "nosuch.wav", tmp_song)
    assert stopped.returncode == ExitCode.RESUMABLE


@pytest.mark.slow
@pytest.mark.parametrize("redirection", NO_STDERR)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("think", "What key is this in?"), ExitCode.OK),
        (("ask", "--chat", "-f", "text"), ExitCode.OK),
        (("analyze", "-m", "nobody/nothing"), ExitCode.UNAVAILABLE),
        (("analyze", "--no-such-option"), ExitCode.USAGE),
        (("models", "pull", "--offline", "nobody/nothing"), ExitCode.UNAVAILABLE),
    ],
)
def test_exit_codes_and_answers_are_as_if_stderr_worked(tmp_song: Path, redirection: str, words: Sequence[str], code: int) -> None:
    words = words if words[0] == "models" else [*words, str(tmp_song)]
    usual, mute = (shell(where, *words, stdin="How fast is it?\n") for where in ("", redirection))
    assert (mute.returncode, mute.stdout) == (usual.returncode, usual.stdout)
    assert usual.returncode == code


@pytest.mark.slow
@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
@pytest.mark.parametrize("redirection", NO_STDERR)
def test_light_commands_need_no_stderr(words: Sequence[str], redirection: str) -> None:
    done = shell(redirection, *words)
    assert done.returncode == 0
    assert done.stdout


@pytest.mark.slow
def test_a_conversation_at_a_terminal_goes_on_without_stderr(tmp_song: Path) -> None:
    """The prompt too goes to stderr."""
    ours, theirs = pty.openpty()
    with (
        FULL.open("w") as full,
        subprocess.Popen(command("ask", "--chat", tmp_song), stdin=theirs, stdout=subprocess.PIPE, stderr=full) as process,
    ):
        os.close(theirs)
        os.write(ours, b"How fast is it?\n/quit\n")
        answer, _ = process.communicate(timeout=TIMEOUT_S)
        os.close(ours)
    assert process.returncode == 0
    assert re.match(rb"The tempo is (probably )?\d+(\.\d)? BPM", answer), answer


def test_a_reader_of_messages_that_leaves_takes_nothing_with_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = streams.messages_to(writer)
    print("nobody reads this", file=stream)
    stream.buffer.write(b"nor this")
    stream.flush()
    assert not stream.closed
    os.close(writer)
    print("nor this, to a descriptor that is closed", file=stream, flush=True)


def test_a_full_pipe_that_does_not_wait_loses_messages_only() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stream = streams.messages_to(writer)
    for _ in range(100):
        print("x" * 10_000, file=stream)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert file.read(10_001) == b"x" * 10_000 + b"\n"


# --- stdout ------------------------------------------------------------------------------------------------------------------


def into_a_closed_pipe(*words: object) -> tuple[int, bytes]:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(command(*words), stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_a_reader_that_leaves_before_the_first_byte_is_a_closed_pipe(words: Sequence[str]) -> None:
    assert into_a_closed_pipe(*words) == (ExitCode.CLOSED_PIPE, b"")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("analyze",), ("analyze", "--json"), ("ask", "How fast?"), ("analyze", "-f", "csv", "--sort", "path")])
def test_a_reader_that_leaves_before_the_first_result_is_a_closed_pipe(tmp_song: Path, words: Sequence[str]) -> None:
    assert into_a_closed_pipe(*words, tmp_song) == (ExitCode.CLOSED_PIPE, b"")


@pytest.mark.slow
@pytest.mark.parametrize("words", [*LIGHT, *ON_SONGS], ids=" ".join)
@pytest.mark.parametrize(("redirection", "said"), [(">&-", "stdout is closed"), (">/dev/full", "No space left")])
def test_stdout_that_takes_nothing_is_one_sentence(tmp_song: Path, words: Sequence[str], redirection: str, said: str) -> None:
    done = shell(redirection, *(tmp_song if word == "SONG" else word for word in words), stdin="How fast is it?\n")
    assert done.returncode == (ExitCode.RESUMABLE if words[-2:] == ["SONG", "SONG"] and said.endswith("left") else ExitCode.ALL_FAILED)
    assert done.stderr.startswith(f"mflamingo: cannot write: {said}")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", [("-o", "FOLDER/song.json"), ("-o", "FOLDER/"), ("--sidecar",)], ids=" ".join)
def test_stdout_is_not_asked_for_where_results_go_to_files(tmp_song: Path, tmp_path: Path, words: Sequence[str]) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(tmp_song.read_bytes())
    done = shell(">&-", "analyze", "-f", "json", *(word.replace("FOLDER", str(tmp_path)) for word in words), song)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(path.read_text())["status"] for path in tmp_path.glob("*.json")] == ["ok"]


def test_a_closed_descriptor_is_taken_and_passed_on(tmp_path: Path) -> None:
    """Else the next file that is opened would be stdout, and what a library prints would be written into it."""
    program = (
        "import os, sys; from mflamingo_cli.commands import streams; streams.guard(); f = open(sys.argv[1], 'w'); print(f.fileno(), file=f)"
    )
    program += "; print([os.get_inheritable(n) for n in (0, 1, 2)], file=f)"
    words = [sys.executable, "-c", program, str(tmp_path / "file")]
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words], check=True, timeout=TIMEOUT_S)
    number, inheritable = (tmp_path / "file").read_text().splitlines()
    assert int(number) > 2
    assert inheritable == "[True, True, True]"


# --- what libraries warn of --------------------------------------------------------------------------------------------------


@pytest.fixture
def warns(tmp_path: Path) -> dict[str, str]:
    """An environment in which measuring a song makes NumPy and others warn, in whatever process it is done."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import warnings\n"
        "import numpy as np\n"
        "from mflamingo_cli.measure import loudness\n"
        "result = loudness.LoudnessMeter.result\n"
        "def warn(self):\n"
        "    warnings.warn('a library says so', DeprecationWarning, stacklevel=1)\n"
        "    np.log10(np.zeros(1)), np.zeros(1) / 0\n"
        "    return result(self)\n"
        "loudness.LoudnessMeter.result = warn\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(Path(__file__).parents[2])])}


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_what_libraries_warn_of_reaches_nobody(tmp_song: Path, warns: dict[str, str], jobs: int) -> None:
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    words = command("analyze", "--json", "--no-cache", "-j", jobs, tmp_song, tmp_song)
    done = run(words, capture_output=True, text=True, timeout=TIMEOUT_S, env=warns, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    loud = run([*words[:1], "-W", "always", *words[1:]], capture_output=True, text=True, timeout=TIMEOUT_S, env=warns)
    assert jobs > 1 or "divide by zero" in loud.stderr  # it does warn
