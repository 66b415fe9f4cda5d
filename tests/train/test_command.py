"""The command: what is no folder for training, and no file of options, is refused before anything is made."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.cli import main
from mflamingo_cli.commands.train import work
from mflamingo_cli.errors import UsageError
from tests.docs import ROOT


def test_a_checkpoint_is_no_folder_for_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a checkpoint directory; choose a folder"):
        work.prepare(embedded_directory() / "hf")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="checkpoint directory"):
        work.prepare(tmp_path)
    (tmp_path / "runs").mkdir()  # somebody's own file in a folder of training
    work.prepare(tmp_path)
    work.prepare(tmp_path / "new")


STOPPED = """
import sys, time, typer
from mflamingo_cli.commands.train.work import resumable
from mflamingo_cli.train.mini.manifest import in_processes

def nap(number, seconds):
    time.sleep(seconds)
    return number

try:
    with resumable("clips", "work"):
        for number in in_processes(nap, range(100), 0.2, 2):
            print(number, flush=True)
except typer.Exit as stop:
    sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])
def test_a_stopped_command_says_what_is_kept(send: Callable[[int, int], None], number: int, code: int, tmp_path: Path) -> None:
    """Processes that it started do not say anything, whether or not the signal reaches them, as that of a terminal does."""
    if send is os.killpg and number == signal.SIGTERM:
        pytest.skip("no terminal sends it to a group")
    (tmp_path / "stopped.py").write_text(STOPPED)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, str(tmp_path / "stopped.py")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True, preexec_fn=heed
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        send(process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said == "mflamingo: stopped; clips are kept in work; run the same command again to resume\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"steps = ", "--config run.toml: cannot be read as TOML"),
        (b"\xff", "--config run.toml: cannot be read as TOML"),
        (b"a = " + b"[" * 5000, "--config run.toml: cannot be read as TOML"),
        (b"stepz = 3", "--config run.toml: `train sft` has no option stepz"),
        (b"[sft]\nsteps = 3", "--config run.toml: `train sft` has no option sft"),
        (b"config = 'x'", "--config run.toml: `train sft` has no option config"),
        (b"steps = 'many'", "--steps: 'many' is not a whole number"),
        (b"steps = 1.5", "--steps: 1.5 is not a whole number"),
        (b"steps = [3]", "--steps: [3] is not a single value"),
        (b"parts = ['language']", "--parts: ['language'] is not a single value"),
        (b"lr = 'fast'", "--lr: 'fast' is not a number"),
        (b"tune = 'half'", "--tune: 'half' is not one of full, lora, qlora"),
        (b"data = 7", "--data: '7' does not exist"),
        (b"data = 'rows.jsonl'", "--data: 'rows.jsonl' does not exist"),
        (b"data = [{a = 1}]", "--data: {'a': 1} is not a single value"),
    ],
)
def test_a_file_of_options_that_is_none_is_one_sentence(
    text: bytes, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_bytes(text)
    data = [] if b"data" in text else ["--data", "run.toml"]
    monkeypatch.setattr(sys, "argv", ["mflamingo", "train", "sft", "--config", "run.toml", "-m", "mini", "-o", "run", *data])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capfd.readouterr().err
    assert stop.value.code == 2
    assert said.startswith(f"mflamingo: {sentence}")
    assert said.count("\n") == 1
    assert not Path("run").exists()
