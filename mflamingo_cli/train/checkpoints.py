"""Checkpoints of a run: safetensors and JSON, a folder for each step that appears whole, nothing that is unpickled.

A folder holds one file for each process that has weights of its own: what is trained ("module.NAME") and the optimizer's moments.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from mflamingo_cli.errors import MFlamingoError, UsageError
from mflamingo_cli.files import write_atomic
from mflamingo_cli.train.parallel import Processes, local
from mflamingo_cli.train.settings import require_same

FOLDER = "checkpoints"
STATE = "state.json"
MODULE = "module."
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW


def save(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, numbers: dict[str, Any], processes: Processes
) -> Path:
    """Write the checkpoint that has seen `step` steps, and return its folder."""
    done = folder / FOLDER / f"step-{step:06d}"
    part = done.with_name(f"{done.name}.part")
    if processes.rank == 0:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    processes.wait()
    if processes.writes:
        with write_atomic(part / _file(processes)) as stream:
            stream.write(to_bytes(dict(_tensors(module, optimizer))))
    processes.wait()
    if processes.rank == 0:
        state = {"step": step, "world": processes.world if processes.strategy == "fsdp2" else 1, **numbers}
        with write_atomic(part / STATE) as stream:
            stream.write(json.dumps(state).encode())
        shutil.rmtree(done, ignore_errors=True)
        os.replace(part, done)
    processes.wait()
    return done


def newest(folder: Path) -> Path | None:
    """Return the folder of the latest whole checkpoint of a run, or None."""
    return max((path for path in (folder / FOLDER).glob("step-??????") if (path / STATE).is_file()), default=None)


def keep(folder: Path, kept: set[Path]) -> None:
    """Remove the checkpoints of a run that are not kept, and what killed runs left."""
    for path in (folder / FOLDER).iterdir():
        if path not in kept:
            shutil.rmtree(path)


def state_of(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself. Raises MFlamingoError for one that cannot be read."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MFlamingoError(
            f"{checkpoint / STATE}: cannot be read ({error}); remove this folder to resume from an earlier checkpoint"
        ) from error
    return dict(state)


def require_settings(folder: Path, settings: Mapping[str, Any], option: str = "--{}") -> None:
    """Raise UsageError where the checkpoints of a run are of other settings; a run without any may have all."""
    if (found := newest(folder)) is not None:
        require_same(folder, state_of(found).get("settings", {}), settings, option)


def restore(checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes) -> dict[str, Any]:
    """Read a checkpoint back into what it was made from, and return what it says of itself."""
    state, world = state_of(checkpoint), processes.world if processes.strategy == "fsdp2" else 1
    if state["world"] != world:
        raise UsageError(f"{checkpoint}: was written by {state['world']} processes, but {world} are running; resume with {state['world']}")
    tensors = _read(checkpoint / _file(processes))
    names = {id(p): name for name, p in module.named_parameters()}
    with torch.no_grad():
        for group in optimizer.param_groups:
            for p in group["params"]:
                name = names[id(p)]
                own = local(p)
                own.copy_(_taken(tensors, checkpoint, MODULE + name, own))
                moments = {key: tensors.get(f"{key}.{name}") for key in MOMENTS}
                if moments["step"] is not None:  # else it had no gradient yet
                    optimizer.state[p] = {key: _like(p, value) if value.dim() else value for key, value in moments.items()}
    return state


def part_states(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """What a run trained: tensors of each part by its name in the module ("language_model", …). Raises UsageError where there is none."""
    found = newest(folder)
    if found is None:
        raise UsageError(f"{folder}: no checkpoint of this stage; train it first")
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in _read(found / _file(Processes())).items():
        if key.startswith(MODULE):
            part, _, name = key.removeprefix(MODULE).partition(".")
            parts.setdefault(part, {})[name] = value
    return parts


def load_part(module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Load what was trained of a module. Raises MFlamingoError where something that is trained is missing, or not its own."""
    missing, unexpected = module.load_state_dict(tensors, strict=False)
    wanted = {name for name, p in module.named_parameters() if p.requires_grad}
    if unexpected or wanted & set(missing):
        raise MFlamingoError(
            f"the run trained other parts of the model: {', '.join([*unexpected, *(wanted & set(missing))][:3])} do not match"
        )


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    for name, p in module.named_parameters():
        if p.requires_grad:
            yield MODULE + name, local(p.detach()).contiguous()
            for key in MOMENTS if p in optimizer.state else ():
                yield f"{key}.{name}", local(optimizer.state[p][key]).contiguous()


def _file(processes: Processes) -> str:
    return f"rank-{processes.rank if processes.strategy == 'fsdp2' else 0:03d}.safetensors"


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError) as error:
        raise MFlamingoError(f"{path}: cannot be read ({error}); remove its folder to resume from an earlier checkpoint") from error


def _taken(tensors: dict[str, torch.Tensor], checkpoint: Path, name: str, own: torch.Tensor) -> torch.Tensor:
    found = tensors.get(name)
    if found is None or found.shape != own.shape:
        raise UsageError(
            f"{checkpoint}: comes from a run with other --parts, {name.removeprefix(MODULE)} does not match; choose another --output"
        )
    return found


def _like(p: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return an optimizer's moment, shared out as its parameter is."""
    found = torch.zeros_like(p, dtype=value.dtype)
    local(found).copy_(value)
    return found
