"""Laws of a computer that has no room for temporary files: each command works, or says one sentence."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.errors import ExitCode
from tests.core.test_audio import needs_ffmpeg
from tests.docs import ROOT

pytestmark = pytest.mark.slow

TIMEOUT_S = 300
FACTS = ("analyze", "-q", "--no-cache", "-f", "tsv", "--fields", "status,duration")
HERE = "status\tduration\nok\t4.0\n"
NO_ROOM = "mflamingo: standard input: cannot be stored in the temporary folder: "


def run(
    *words: object, tmp: object = "/tmp", most_bytes: int | None = None, stdin: Path | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run the program with another TMPDIR, and where no file can be larger than so many bytes."""

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp)}
    with (stdin or Path(os.devnull)).open("rb") as stream:
        return subprocess.run(
            [sys.executable, "-m", "mflamingo_cli", *map(str, words)],
            stdin=stream, capture_output=True, text=True, timeout=TIMEOUT_S, env=env, cwd=cwd, preexec_fn=limit, check=False,
        )  # fmt: skip


@pytest.fixture
def coded(tmp_song: Path, tmp_path: Path) -> Path:
    """The song in a format that ffmpeg decodes."""
    command = ["ffmpeg", "-v", "error", "-i", tmp_song, "-c:a", "alac", tmp_path / "song.m4a"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return tmp_path / "song.m4a"


@pytest.mark.parametrize("place", ["/nonexistent", "/dev/full", "/proc/nothing"])
def test_a_temporary_folder_that_is_none_costs_nothing(tmp_song: Path, place: str) -> None:
    for words, stdin in (((*FACTS, tmp_song), None), ((*FACTS, "-"), tmp_song)):
        done = run(*words, tmp=place, stdin=stdin)
        assert (done.returncode, done.stdout, done.stderr) == (0, HERE, "")


@needs_ffmpeg
def test_files_need_no_temporary_one(tmp_song: Path, coded: Path) -> None:
    for song in (tmp_song, coded):
        done = run(*FACTS, song, most_bytes=0)
        assert (done.returncode, done.stdout, done.stderr) == (0, HERE, "")


@pytest.mark.parametrize(("most_bytes", "why"), [(0, "No usable temporary directory"), (1 << 16, "File too large")])
def test_a_stream_that_cannot_be_kept_is_one_sentence(tmp_song: Path, most_bytes: int, why: str) -> None:
    done = run(*FACTS, "-", most_bytes=most_bytes, stdin=tmp_song)
    assert (done.returncode, done.stdout) == (ExitCode.ALL_FAILED, "status\tduration\nerror\t\n")
    assert done.stderr.startswith(NO_ROOM + why)
    assert done.stderr.endswith("; set TMPDIR to a folder with enough space\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("models", "list"), 0),
        (("doctor",), 0),
        (("schema",), 0),
        (("models", "verify", embedded_directory()), 0),
        (("models", "convert", embedded_directory(), "-q", "-o", "out"), 1),
        (("analyze", "-q", "--no-cache", "-o", "out.json", "SONG"), 1),
        (("config", "trust"), ExitCode.CONFIG),
    ],
    ids=str,
)
def test_other_commands_work_or_say_one_sentence(tmp_song: Path, tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    (tmp_path / "mflamingo.toml").write_text('write-tags = "all"')
    shutil.copy(tmp_song, tmp_path / "SONG")
    done = run(*words, most_bytes=0, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (code != 0), done.stderr
    assert not [name for name in os.listdir(tmp_path) if name not in ("mflamingo.toml", "SONG", "out")]
