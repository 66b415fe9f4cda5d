"""The command: what is no folder for training, and no file of options, is refused before anything is made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.cli import main
from mflamingo_cli.commands.train import work
from mflamingo_cli.errors import UsageError


def test_a_checkpoint_is_no_folder_for_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a checkpoint directory; choose a folder"):
        work.prepare(embedded_directory() / "hf")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="checkpoint directory"):
        work.prepare(tmp_path)
    (tmp_path / "runs").mkdir()  # somebody's own file in a folder of training
    work.prepare(tmp_path)
    work.prepare(tmp_path / "new")


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
