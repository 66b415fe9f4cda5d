"""Laws of a user whose home is missing, or is somebody else's: every command works, and what cannot be kept is said once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mflamingo_cli.errors import ExitCode

pytestmark = pytest.mark.slow

TIMEOUT_S = 300
STRANGER = 54321  # a number without an entry in passwd
IS_ROOT = os.getuid() == 0
NEEDS_SETPRIV = pytest.mark.skipif(IS_ROOT and shutil.which("setpriv") is None, reason="root cannot become less here")
PLACES = ("MFLAMINGO_CACHE", "MFLAMINGO_STATE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "HF_HOME", "HF_HUB_CACHE")
LIGHT = [words.split() for words in "models list,models info,doctor,config show,schema,--version".split(",")]
NOT_KEPT = "mflamingo: results are not kept for the next run: "


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A home with settings and a downloaded model, which nobody but its owner may enter."""
    home = tmp_path / "others"
    (home / ".config" / "mflamingo").mkdir(parents=True)
    (home / ".config" / "mflamingo" / "config.toml").write_text('format = "csv"')
    (home / ".cache" / "huggingface" / "hub" / "models--nvidia--music-flamingo-hf" / "snapshots" / "1").mkdir(parents=True)
    if IS_ROOT:
        os.chown(home, STRANGER, STRANGER)
    home.chmod(0o700 if IS_ROOT else 0)
    return home


def run(words: Sequence[object], home: str | None, *becoming: str) -> subprocess.CompletedProcess[str]:
    """Run the program with another home, or without one, and nothing set that would stand in for it."""
    env = {name: value for name, value in os.environ.items() if name not in (*PLACES, "HOME")}
    env |= {"PYTHONPATH": str(Path(__file__).parents[2])} | ({} if home is None else {"HOME": home})
    command = [*becoming, sys.executable, "-m", "mflamingo_cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=env, stdin=subprocess.DEVNULL)


def without_rights(words: Sequence[object], home: Path) -> subprocess.CompletedProcess[str]:
    """Run it where rights hold: root may read everything else."""
    less = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if IS_ROOT else ()
    return run(words, str(home), *less)


def as_nobody(words: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """Run it without HOME as a user of no name, as containers do; it may read this program wherever it is."""
    may_read = "+dac_read_search"
    return run(
        words, None, "setpriv", "--reuid", str(STRANGER), "--clear-groups", "--inh-caps", may_read, "--ambient-caps", may_read
    )  # fmt: skip


@NEEDS_SETPRIV
@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_light_commands_work_in_a_home_of_somebody_else(others: Path, words: list[str]) -> None:
    done = without_rights(words, others)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.skipif(not IS_ROOT or shutil.which("setpriv") is None, reason="only root can become another user")
@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_light_commands_work_without_any_home(words: list[str]) -> None:
    done = as_nobody(words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@NEEDS_SETPRIV
def test_a_run_in_a_home_of_somebody_else_says_once_what_is_not_kept(others: Path, tmp_song: Path) -> None:
    done = without_rights(["analyze", "--json", tmp_song, tmp_song], others)
    assert done.returncode == 0
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["ok", "ok"]
    settings, kept = done.stderr.splitlines()
    assert settings == f"mflamingo: {others}/.config/mflamingo/config.toml: cannot be read: Permission denied; its settings are not used"
    assert kept.startswith(
        f"{NOT_KEPT}{others}/.cache/mflamingo: Permission denied; {others}/.local/state/mflamingo/runs.db: Permission denied"
    )
    assert without_rights(["analyze", "--json", "-q", "--no-cache", tmp_song, tmp_song], others).stderr == ""


@pytest.mark.skipif(not IS_ROOT or shutil.which("setpriv") is None, reason="only root can become another user")
@pytest.mark.parametrize("words", [("analyze", "--json"), ("ask", "How fast?", "-f", "json"), ("ask", "--chat", "How fast?", "-f", "json")])
def test_a_run_without_any_home_says_once_what_is_not_kept(tmp_song: Path, words: tuple[str, ...]) -> None:
    song = Path("/tmp", f"mflamingo-{os.getpid()}.wav")
    shutil.copy(tmp_song, song)
    try:
        done = as_nobody([*words, song])
    finally:
        song.unlink()
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "ok"
    [said] = done.stderr.splitlines()
    assert said.startswith(f"{NOT_KEPT}there is no home folder; ")


@NEEDS_SETPRIV
def test_models_that_nobody_may_read_are_not_there(others: Path) -> None:
    done = without_rights(["models", "info", "nvidia/music-flamingo-hf"], others)
    assert (done.returncode, done.stdout) == (ExitCode.UNAVAILABLE, "")
    assert "download it with" in done.stderr
    assert "(cannot be read: Permission denied)" in " ".join(without_rights(["doctor"], others).stdout.split())


@NEEDS_SETPRIV
def test_trust_that_cannot_be_remembered_is_one_sentence(others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mflamingo.toml").write_text("jobs = 2")
    monkeypatch.chdir(tmp_path)
    done = without_rights(["config", "trust"], others)
    assert (done.returncode, done.stdout) == (ExitCode.CONFIG, "")
    assert done.stderr == f"mflamingo: {others}/.config/mflamingo/trusted.json: cannot be written: Permission denied\n"


@pytest.mark.parametrize("home", ["/dev/null", "/proc/nothing", ""])
def test_a_home_that_is_no_folder_costs_no_result(tmp_song: Path, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(["analyze", "--json", "--no-cache", tmp_song], home)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["status"] == "ok"
