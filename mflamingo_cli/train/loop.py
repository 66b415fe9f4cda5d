"""One training loop for every stage: steps of an objective, a log line each, checkpoints that continue bit for bit. Times are seconds."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from mflamingo_cli.errors import MFlamingoError, UsageError
from mflamingo_cli.files import write_atomic
from mflamingo_cli.train.objectives import Objective

LOG = "log.jsonl"
CHECKPOINT = "checkpoint.pt"
NO_DECAY = ("norm", "bias", "embed")  # parameters that weight decay would only shrink


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast; `bf16` is autocast (three times the matrix speed of fp32 on CPUs with AVX512-BF16)."""

    steps: int
    lr: float
    warmup: int = 50
    final_lr: float = 0.05  # share of `lr` at the last step (cosine)
    weight_decay: float = 0.05
    clip: float = 1.0
    seed: int = 0
    bf16: bool = True
    save_every: int = 200
    log_every: int = 10


@dataclass(frozen=True)
class Report:
    """One logged step."""

    step: int
    loss: float
    lr: float
    seconds: float
    numbers: dict[str, float]


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_lr`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def fit(objective: Objective, module: nn.Module, config: LoopConfig, folder: Path) -> Iterator[Report]:
    """Train `module` from the checkpoint in `folder`, or from the start, yielding every `log_every`-th step.

    In a process group (torchrun) every process draws its own batches, gradients are averaged, and the first one writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    decayed, plain = {"params": [], "weight_decay": config.weight_decay}, {"params": [], "weight_decay": 0.0}
    for name, p in module.named_parameters():
        if p.requires_grad:
            (plain if p.dim() < 2 or any(word in name for word in NO_DECAY) else decayed)["params"].append(p)
    optimizer = torch.optim.AdamW([decayed, plain], lr=config.lr, betas=(0.9, 0.98), eps=1e-8)
    first = resume(folder / CHECKPOINT, module, optimizer)
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    began = time.monotonic()
    module.train()
    for step in range(first, config.steps):
        batch = objective.draw(np.random.default_rng([config.seed, step, rank] if rank else [config.seed, step]))
        torch.manual_seed(config.seed * 1_000_003 + step)
        loss, numbers = _update(objective, module, optimizer, batch, learning_rate(config, step), config)
        if not math.isfinite(loss):
            raise MFlamingoError(f"loss is {loss} at step {step}; lower `lr` or `clip`")
        if rank == 0 and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
            save(folder / CHECKPOINT, module, optimizer, step + 1)
        if rank == 0 and (step % config.log_every == 0 or step + 1 == config.steps):
            report = Report(step, loss, learning_rate(config, step), time.monotonic() - began, numbers)
            with (folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(report.__dict__) + "\n")
            yield report


def _update(
    objective: Objective, module: nn.Module, optimizer: torch.optim.Optimizer, batch: Any, lr: float, config: LoopConfig
) -> tuple[float, dict[str, float]]:
    """One optimizer step; returns the loss and the objective's numbers."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    device = next(module.parameters()).device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=config.bf16):
        loss, numbers = objective.loss(batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    _average_gradients(module)
    nn.utils.clip_grad_norm_(module.parameters(), config.clip)
    optimizer.step()
    return float(loss.detach()), numbers


def _average_gradients(module: nn.Module) -> None:
    """Average over the process group, in one message; parameters that took no part have no gradient anywhere."""
    if not distributed.is_initialized():
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


# --- checkpoints: atomic, read without unpickling code ---------------------------------------------------------------------


def save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer | None, step: int) -> None:
    """Write a checkpoint atomically."""
    state = {"step": step, "module": module.state_dict(), "optimizer": optimizer.state_dict() if optimizer else None}
    with write_atomic(path) as stream:
        torch.save(state, stream)


def resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Read a checkpoint back, if there is one; the step to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")  # where AdamW counts its steps; the rest goes where its parameters are
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def part_states(path: Path) -> dict[str, dict[str, Any]]:
    """What a run trained: state of each part by its name in the module ("language_model", …). Raises UsageError where there is none."""
    if not path.exists():
        raise UsageError(f"{path}: there is no such run; train its stage first")
    found: dict[str, dict[str, Any]] = {}
    for key, value in torch.load(path, weights_only=True, map_location="cpu")["module"].items():
        part, _, name = key.partition(".")
        found.setdefault(part, {})[name] = value
    return found
