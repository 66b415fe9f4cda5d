"""One training loop for every stage: steps of an objective, a log line each, checkpoints that continue bit for bit. Times are seconds."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mflamingo_cli.errors import MFlamingoError, UsageError
from mflamingo_cli.files import append_lines
from mflamingo_cli.train import checkpoints
from mflamingo_cli.train.objectives import Objective, Place
from mflamingo_cli.train.parallel import Processes

LOG = "log.jsonl"
WARMUP = 0.03  # of the steps of a fine-tuning
NO_DECAY = ("norm", "bias", "embed")  # parameters that weight decay would only shrink


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast; `bf16` is autocast, None: where it is faster (`computes_in_bf16`)."""

    steps: int
    lr: float
    warmup: int = 50
    final_lr: float = 0.05  # share of `lr` at the last step (cosine)
    weight_decay: float = 0.05
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    seed: int = 0
    bf16: bool | None = None
    save_every: int = 200
    log_every: int = 10


def fine_tuning(steps: int, lr: float, *, seed: int, bf16: bool | None, save_every: int, log_every: int = 1) -> LoopConfig:
    """Return the settings of a run that starts from a checkpoint: 3 % of the steps to warm up, a cosine to 0, no weight decay."""
    return LoopConfig(
        steps, lr, warmup=max(1, round(WARMUP * steps)), final_lr=0.0, weight_decay=0.0, betas=(0.9, 0.999), seed=seed, bf16=bf16,
        save_every=save_every, log_every=log_every,
    )  # fmt: skip


def computes_in_bf16(wanted: bool | None, device: str) -> bool:
    """Return whether autocast is on for a type of device.

    On a CPU with AVX512-BF16 products take a third of the time of fp32; on one without, thirty times it (AVX2, torch 2.13).
    """
    if wanted is not None:
        return wanted
    return bool(torch.cpu.get_capabilities().get("avx512_bf16")) if device == "cpu" else torch.amp.is_autocast_available(device)


def autocast(wanted: bool | None, device: str) -> torch.autocast:
    """Return the context that losses are computed in."""
    return torch.autocast(device, torch.bfloat16, enabled=computes_in_bf16(wanted, device))


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


def fit(
    objective: Objective, module: nn.Module, config: LoopConfig, folder: Path, processes: Processes = Processes(),  # noqa: B008  (frozen)
    held_out: Callable[[], float] | None = None, settings: Mapping[str, Any] | None = None, keeps: bool = True,
) -> Iterator[Report]:  # fmt: skip
    """Train `module` from the checkpoint in `folder`, or from the start, yielding every `log_every`-th step.

    Every process draws its own batches, gradients are averaged, and the first one logs. Of the checkpoints the last one is kept, and the
    one with the least `held_out` loss, which is measured when one is written; each says the `settings` of its run. Without `keeps` nothing
    is read or written.
    """
    optimizer = _optimizer(module, config)
    found = checkpoints.newest(folder) if keeps else None
    state = checkpoints.restore(found, module, optimizer, processes) if found else {"step": 0}
    if state["step"] > config.steps:
        raise UsageError(f"{folder}: {state['step']} steps are done already, more than {config.steps}; choose more, or another output")
    best = (float(state.get("best_loss", math.inf)), str(state.get("best", "")))
    began = time.monotonic()
    module.train()
    for step in range(int(state["step"]), config.steps):
        batches = objective.draw(Place(config.seed, step, processes.rank, processes.world))
        torch.manual_seed(config.seed * 1_000_003 + step + processes.rank * 1_000_000_007)
        loss, numbers = _update(objective, module, optimizer, batches, learning_rate(config, step), config, processes)
        if not math.isfinite(loss):
            raise MFlamingoError(f"loss is {loss} at step {step}; lower the learning rate")
        last = step + 1 == config.steps
        saves = keeps and ((step + 1) % config.save_every == 0 or last)
        if saves and held_out is not None:
            numbers["held_out"] = measured = held_out()
            module.train()
            best = min(best, (measured, f"step-{step + 1:06d}"))
        report = Report(step, loss, learning_rate(config, step), time.monotonic() - began, numbers)
        logs = processes.rank == 0 and (step % config.log_every == 0 or last or "held_out" in numbers)
        if logs and keeps:  # before the step is saved: a run that is killed between them takes and logs it once more
            append_lines(folder / LOG, [json.dumps(report.__dict__)])
        if saves:
            about = {"best_loss": best[0], "best": best[1], "settings": settings or {}}
            saved = checkpoints.save(folder, module, optimizer, step + 1, about, processes)
            if processes.rank == 0:
                checkpoints.keep(folder, {saved, saved.parent / best[1]})
        if logs:
            yield report


def _optimizer(module: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    decayed, plain = {"params": [], "weight_decay": config.weight_decay}, {"params": [], "weight_decay": 0.0}
    for name, p in module.named_parameters():
        if p.requires_grad:
            (plain if p.dim() < 2 or any(word in name for word in NO_DECAY) else decayed)["params"].append(p)
    return torch.optim.AdamW([group for group in (decayed, plain) if group["params"]], lr=config.lr, betas=config.betas, eps=1e-8)


def _update(
    objective: Objective, module: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Any], lr: float, config: LoopConfig,
    processes: Processes,
) -> tuple[float, dict[str, float]]:  # fmt: skip
    """One optimizer step; returns the loss over all processes and the mean numbers of their batches."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    device = next(module.parameters()).device.type
    optimizer.zero_grad(set_to_none=True)
    [weight], total, found = processes.sum(sum(objective.weight(batch) for batch in batches)), 0.0, []
    for batch in batches:
        with autocast(config.bf16, device):
            loss, numbers = objective.loss(batch)
        found.append(numbers)
        (loss * (processes.world / weight)).backward()  # gradients are averaged over the processes
        total += float(loss.detach())
    processes.average_gradients(module)
    nn.utils.clip_grad_norm_(module.parameters(), config.clip)
    optimizer.step()
    return processes.sum(total)[0] / weight, processes.mean(found)
