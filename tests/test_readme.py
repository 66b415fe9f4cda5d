"""The README's commands, run as written; what installs packages is run by `.ci/run`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from mflamingo_cli.backends import find_model
from mflamingo_cli.errors import ModelError
from tests.docs import ROOT
from tests.documents import DOCUMENTS, mismatch, playground, run_line, sessions, tree

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]
LIGHT = [line for line in SHELL if line.startswith("mflamingo") and not re.search("nvidia/|-m flamingo|--engine ray", line)]


def has_mini() -> bool:
    try:
        find_model("mini")
    except ModelError:
        return False
    return True


needs_mini = pytest.mark.skipif(not has_mini(), reason="the embedded model is not in this tree")


@pytest.fixture
def shell(tmp_path):
    """Runs a line of bash in a folder with a song, a music library and this tree's `mflamingo`."""
    env = playground(tmp_path)

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return run_line(line, tmp_path, env)

    return run


def test_there_are_two_commands_and_they_name_what_exists():
    commands = re.findall(r"<!-- command [12] -->\n```sh\n(.+)\n```", README)
    assert len(commands) == 2
    assert "[" not in commands[0]  # no extra: command 1 needs no torch
    for path in re.findall(r"(?:tests/data/\S+|constraints\.txt)", " ".join(commands)):
        assert (ROOT / path).exists(), path


@pytest.mark.slow
@needs_mini
def test_the_last_part_of_command_1_prints_an_analysis(shell):
    [line] = [line for line in SHELL if ".venv/bin/mflamingo" in line]
    done = shell(line.rpartition("&& ")[2].replace(".venv/bin/", ""))
    assert done.returncode == 0, done.stderr
    assert "BPM" in done.stdout


@pytest.mark.slow
@needs_mini
@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
@pytest.mark.parametrize("line", LIGHT)
def test_light_commands_run_as_written(shell, line):
    if "--write-tags" in line and not (shutil.which("ffmpeg") and find_spec("mutagen")):
        pytest.skip("no ffmpeg or no mutagen here")
    done = shell(line)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


WITH_SESSIONS = [path for path in DOCUMENTS if sessions(path)]


@pytest.mark.slow
@needs_mini
@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
@pytest.mark.parametrize("document", WITH_SESSIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_pasted_sessions_print_what_is_pasted(shell, document):
    wrong = []
    for session in sessions(document):
        if session.mark == "not run":
            continue
        done = shell(session.command)
        assert done.returncode == 0, (session.command, done.stderr)
        assert done.stdout.strip(), session.command
        if session.mark != "varies" and (found := mismatch(session.pasted, done.stdout, done.stderr)):
            wrong.append(f"$ {session.command}: {found}")
    assert wrong == []


def test_most_sessions_of_the_readme_are_compared():
    marks = [session.mark for session in sessions(ROOT / "README.md")]
    assert marks.count("") >= 6
    assert marks.count("") > len(marks) // 2


@pytest.mark.parametrize(
    ("pasted", "stdout", "stderr", "same"),
    [
        (("a", "b"), "a\nb\n", "", True),
        (("a",), "a\nb\n", "", False),
        (("a", "b"), "a\n", "", False),
        (("a", "c"), "a\nb\n", "", False),
        (("why", "a"), "a\n", "why\n", True),
        (("a", "…", "d"), "a\nb\nc\nd\n", "", True),
        (("a", "…"), "a\nb\n", "", True),
        (("…", "e"), "a\nb\n", "", False),
        ((), "a\n", "", False),
        (("╰── mini F16 · decode 0.7 s · measure 1 s ─╯",), "╰─ mini F16 · decode 10.1 s ─╯\n", "", True),
        (("╰── mini F16 · decode 0.7 s ─╯",), "╰─ mini Q8_0 · decode 0.7 s ─╯\n", "", False),
        (('{"bpm":1,"timing":{"decode_s":0.1}}',), '{"bpm":1,"timing":{"decode_s":null}}\n', "", True),
        (('{"bpm":1,"timing":{"decode_s":0.1}}',), '{"bpm":2,"timing":{"decode_s":0.1}}\n', "", False),
    ],
)
def test_a_pasted_text_is_compared(pasted, stdout, stderr, same):
    assert (mismatch(pasted, stdout, stderr) == "") is same


def test_a_session_is_a_command_its_output_and_its_mark(tmp_path, monkeypatch):
    page = ROOT / "tests" / "data" / "README.md"
    assert sessions(page) == []
    text = "```console\n$ a b\n1\n2\n$ c\n```\n\n<!-- varies: with the processor -->\n```console\n$ d\n3\n```\n"
    (tmp_path / "README.md").write_text(text)
    monkeypatch.setattr("tests.documents.ROOT", tmp_path)
    found = [(s.command, s.pasted, s.mark) for s in sessions(tmp_path / "README.md")]
    assert found == [("a b", ("1", "2"), ""), ("c", (), ""), ("d", ("3",), "varies")]


@needs_mini
def test_the_python_example_runs(shell):
    [code] = [block for language, block in BLOCKS if language == "python"]
    done = shell(f"PYTHONPATH={ROOT} {sys.executable} - <<'EOF'\n{code}\nEOF\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2


def test_the_tree_shows_what_is_there_by_the_line_that_it_opens_with():
    [shown] = [block for language, block in BLOCKS if language == "" and block.startswith("mflamingo_cli/")]
    assert shown == tree()
    folders = {f"  {path.name}/" for path in (ROOT / "mflamingo_cli").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {f"  {name}" for line in shown.splitlines() for name in line[:18].split()}


def test_the_readme_is_read_in_minutes():
    assert len(README.encode()) < 10_000
