"""Checkpoints of a run: its parts with the optimizer and the step, written atomically, read without unpickling code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mflamingo_cli.core.model import Model
from mflamingo_cli.errors import UsageError
from mflamingo_cli.files import write_atomic

CHECKPOINT = "checkpoint.pt"


def save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer | None, step: int) -> None:
    """Write a checkpoint atomically."""
    state = {"step": step, "module": module.state_dict(), "optimizer": optimizer.state_dict() if optimizer else None}
    with write_atomic(path) as stream:
        torch.save(state, stream)


def resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Read a checkpoint back, if there is one; the step to go on with."""
    if not path.exists():
        return 0
    state = _read(path)  # to the CPU, where AdamW counts its steps; the rest goes where its parameters are
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def part_states(path: Path) -> dict[str, dict[str, Any]]:
    """What a run trained: state of each part by its name in the module ("language_model", …). Raises UsageError where there is none."""
    if not path.exists():
        raise UsageError(f"{path}: no such run; train its stage first")
    found: dict[str, dict[str, Any]] = {}
    for key, value in _read(path)["module"].items():
        part, _, name = key.partition(".")
        found.setdefault(part, {})[name] = value
    return found


def parts_of(model: Model) -> dict[str, nn.Module]:
    """The parts of a checkpoint that stages train, by the names that runs give them."""
    inner = model.model
    return {
        "audio_tower": inner.audio_tower,
        "multi_modal_projector": inner.multi_modal_projector,
        "language_model": inner.language_model,
        "lm_head": model.lm_head,
    }


def _read(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state
