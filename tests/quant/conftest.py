"""Small checkpoints, each written once per session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import checkpoints

# Rows of 256 so that K-quants are possible, eight layers so that some get more bits
K_QUANT_SIZE = checkpoints.Size(d_text=256, text_layers=8, text_heads=4, kv_heads=1)

Edit = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2601-type checkpoint."""
    return checkpoints.write(tmp_path_factory.mktemp("music") / "tiny", "musicflamingo")


@pytest.fixture(scope="session")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preview-type checkpoint."""
    return checkpoints.write(tmp_path_factory.mktemp("preview") / "tiny", "audioflamingo3")


@pytest.fixture(scope="session")
def k_quant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that K-quants fit."""
    return checkpoints.write(tmp_path_factory.mktemp("k_quant") / "wide", "audioflamingo3", K_QUANT_SIZE)


@pytest.fixture
def edited(music: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """Copy the 2601-type checkpoint with other weights: `edited(lambda weights: ...)` returns its directory."""

    def edit(change: Edit) -> Path:
        directory = tmp_path / "edited"
        shutil.copytree(music, directory)
        weights = change(load_file(directory / "model.safetensors"))
        save_file({name: weight.contiguous() for name, weight in weights.items()}, directory / "model.safetensors")
        return directory

    return edit
