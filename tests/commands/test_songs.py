"""Laws of a run at its border: a fault of this program costs one song, is told with its traceback, and is never kept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mflamingo_cli.errors import ExitCode

pytestmark = pytest.mark.slow

TIMEOUT_S = 300
RATE_HZ = 8000
FALLS = """
from mflamingo_cli import measure
whole = measure.measure
def fall(audio, *rest, **named):
    if audio.source.path.endswith("odd.wav"):
        return 1 / 0
    return whole(audio, *rest, **named)
measure.measure = fall
"""
FALLS_AT_WRITING = """
from mflamingo_cli.render import records
cell = records.cell
def fall(value):
    return [][0] if str(value).endswith("odd.wav") else cell(value)
records.cell = fall
write = records.JsonWriter.write
def fall_too(self, record):
    if record.path.endswith("odd.wav") and record.error is None:
        return [][0]
    write(self, record)
records.JsonWriter.write = fall_too
"""


@pytest.fixture
def songs(tmp_path: Path) -> list[str]:
    """Three songs; the second is the odd one."""
    t = np.arange(4 * RATE_HZ) / RATE_HZ
    for name, pitch_hz in (("a", 220.0), ("odd", 330.0), ("z", 440.0)):
        soundfile.write(tmp_path / f"{name}.wav", 0.2 * np.sin(2 * np.pi * pitch_hz * t) * np.exp(-6 * (t % 0.5)), RATE_HZ)
    return [str(tmp_path / f"{name}.wav") for name in ("a", "odd", "z")]


def run(tmp_path: Path, fault: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the program, and its workers, with a fault put into it."""
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(fault)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[2])])}
    command = [sys.executable, "-m", "mflamingo_cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=env, stdin=subprocess.DEVNULL)


def codes(stdout: str) -> list[str]:
    records = [json.loads(line) for line in stdout.splitlines()]
    return [record["error"]["code"] if record["error"] else record["status"] for record in records]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_fault_is_one_song_s_record_and_a_later_run_tries_it_again(tmp_path: Path, songs: list[str], jobs: int) -> None:
    done = run(tmp_path, FALLS, "analyze", "--json", "-j", jobs, *songs)
    assert (done.returncode, codes(done.stdout)) == (ExitCode.SOME_FAILED, ["ok", "internal", "ok"])
    log = Path(os.environ["MFLAMINGO_STATE"], "errors.log")
    assert done.stderr.splitlines() == [
        f"mflamingo: {songs[1]}: this is a bug in mflamingo, not in the file (ZeroDivisionError: division by zero); "
        "please report it with the traceback that -v shows",
        "1 of 3 songs failed: 1 internal error",
        f"tracebacks: {log}",
    ]
    assert "return 1 / 0" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    again = run(tmp_path, "", "analyze", "--json", "-j", jobs, *songs)
    assert (again.returncode, codes(again.stdout), again.stderr) == (0, ["ok"] * 3, "")


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_traceback_is_shown_with_verbose(tmp_path: Path, songs: list[str], jobs: int) -> None:
    done = run(tmp_path, FALLS, "analyze", "--json", "-v", "-j", jobs, *songs)
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "    return 1 / 0" in done.stderr


def test_where_every_song_falls_all_failed(tmp_path: Path, songs: list[str]) -> None:
    done = run(tmp_path, FALLS, "analyze", "--json", songs[1])
    assert (done.returncode, codes(done.stdout)) == (ExitCode.ALL_FAILED, ["internal"])


@pytest.mark.parametrize("jobs", [1, 2])
def test_fail_fast_lets_a_fault_be_loud(tmp_path: Path, songs: list[str], jobs: int) -> None:
    done = run(tmp_path, FALLS, "analyze", "--json", "--fail-fast", "-j", jobs, *songs)
    assert (done.returncode, codes(done.stdout)) == (1, ["ok", "internal"])
    assert "Traceback (most recent call last)" in done.stderr
    assert "return 1 / 0" in done.stderr
    assert re.search(r"^mflamingo_cli\.errors\.InternalError: .*odd\.wav", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    "words", [("--json",), ("--json", "-o", "all.jsonl"), ("-f", "json", "--sidecar"), ("--json", "-j", "2")], ids=" ".join
)
def test_a_writer_that_falls_costs_its_song_only(
    tmp_path: Path, songs: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(tmp_path, FALLS_AT_WRITING, "analyze", *words, *songs)
    assert done.returncode == ExitCode.SOME_FAILED
    assert "odd.wav: this is a bug in mflamingo, not in the file (IndexError: list index out of range)" in done.stderr
    assert "1 of 3 songs failed: 1 internal error" in done.stderr
    files = [Path("all.jsonl")] if "-o" in words else [Path(song + ".mflamingo.json") for song in songs] if "--sidecar" in words else []
    assert codes(done.stdout + "".join(path.read_text() for path in files)) == ["ok", "internal", "ok"]


def test_a_writer_that_cannot_even_write_the_failure_goes_on(tmp_path: Path, songs: list[str]) -> None:
    done = run(tmp_path, FALLS_AT_WRITING, "analyze", "-f", "csv", "--fields", "path,status", *songs)
    assert (done.returncode, done.stdout) == (ExitCode.SOME_FAILED, f"path,status\n{songs[0]},ok\n{songs[2]},ok\n")
    assert "1 of 3 songs failed: 1 internal error" in done.stderr


def test_a_sorted_output_goes_on_behind_the_song_that_cannot_be_written(tmp_path: Path, songs: list[str]) -> None:
    done = run(tmp_path, FALLS_AT_WRITING, "analyze", "--json", "--sort", "path", *songs)
    assert (done.returncode, codes(done.stdout)) == (ExitCode.SOME_FAILED, ["ok", "internal", "ok"])


def test_the_last_line_of_a_run_says_what_failed_by_kind(tmp_path: Path, songs: list[str]) -> None:
    (tmp_path / "text.wav").write_text("no music")
    soundfile.write(tmp_path / "short.wav", np.ones(10), RATE_HZ)
    words = ("analyze", "--json", songs[0], tmp_path / "nosuch.wav", tmp_path / "text.wav", tmp_path / "short.wav", tmp_path / "gone.wav")
    done = run(tmp_path, "", *words)
    assert done.stderr.splitlines()[-1] == "4 of 5 songs failed: 2 not found, 1 not audio, 1 too short"
    assert "songs failed" not in run(tmp_path, "", "analyze", "-q", *words[1:]).stderr
    assert "songs failed" not in run(tmp_path, "", "analyze", "--json", tmp_path / "nosuch.wav").stderr
