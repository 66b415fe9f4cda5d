"""The command: what is no folder for training is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from mflamingo_cli.backends import embedded_directory
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
