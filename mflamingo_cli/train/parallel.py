"""One process or several: who this one is, how parameters are shared out, how gradients and counts come together.

torchrun starts the processes; `ddp` keeps all weights in each of them, `fsdp2` a share of every weight (torch's `fully_shard`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal, get_args

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from mflamingo_cli.errors import UsageError

Strategy = Literal["none", "ddp", "fsdp2"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and which of them this one is."""

    strategy: Strategy = "none"
    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process holds weights that no earlier one holds."""
        return self.rank == 0 or self.strategy == "fsdp2"

    def shard(self, root: nn.Module, layers: Sequence[nn.Module], device: torch.device, ignored: set[nn.Parameter]) -> None:
        """Leave a share of every weight in each process, layer by layer, in the order they run in; what is `ignored` stays whole.

        Each layer fetches the one before it ahead of its turn in the backward pass. By itself torch takes the order of all passes since the
        last one, and those that only sample are not alike in all processes.
        """
        if self.strategy != "fsdp2":
            return
        mesh = init_device_mesh(device.type, (self.world,))
        settings: dict[str, Any] = {"mesh": mesh, "ignored_params": ignored, "reshard_after_forward": True}  # the root's too, for `save`
        for module in (*layers, root):
            fully_shard(module, **settings)
        for before, module in pairwise((root, *layers, root)):
            module.set_modules_to_backward_prefetch([before])

    @contextmanager
    def gathered(self, root: nn.Module) -> Iterator[None]:
        """Hold all weights of a module in every process meanwhile.

        Answers are sampled with them: a token at a time, layers would be gathered again for each, and all processes would have to sample as
        many tokens.
        """
        shared = [module for module in root.modules() if isinstance(module, FSDPModule)]
        for module in shared:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in shared:
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()

    def average_gradients(self, module: nn.Module) -> None:
        """Average over the processes, in one message; `fully_shard` does it by itself."""
        if self.strategy != "ddp" or self.world == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def sum(self, *values: float) -> list[float]:
        """Return the sums of numbers over all processes."""
        return self._reduce(values, distributed.ReduceOp.SUM)

    def mean(self, found: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Return the mean of every number over those that have it, of all processes."""
        every = [numbers for part in self.gather(list(found)) for numbers in part]
        return {name: fmean(numbers[name] for numbers in every if name in numbers) for name in dict.fromkeys(k for n in every for k in n)}

    def gather(self, own: Any) -> list[Any]:
        """Return what each process has, in all of them."""
        parts: list[Any] = [own] * self.world
        if self.world > 1:
            distributed.all_gather_object(parts, own)
        return parts

    def largest(self, count: int) -> int:
        """Return the largest count of the processes that share every layer; its own where none is shared."""
        return count if self.strategy != "fsdp2" else int(self._reduce((count,), distributed.ReduceOp.MAX)[0])

    def _reduce(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.world == 1:
            return list(values)
        device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else torch.device("cpu")
        numbers = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(numbers, operation)
        return numbers.tolist()

    def wait(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            distributed.barrier()


def launched() -> bool:
    """Return whether torchrun started this process."""
    return "WORLD_SIZE" in os.environ


@contextmanager
def processes(strategy: Strategy, device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started, and yield them with this one's device. Raises UsageError where the strategy needs them."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if strategy == "none" and world > 1:
        raise UsageError(f"torchrun started {world} processes; choose --parallel ddp or fsdp2")
    if strategy == "none" or not launched():
        if strategy == "fsdp2":
            raise UsageError("--parallel fsdp2 needs processes that torchrun started")
        yield Processes("none"), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(strategy, distributed.get_rank(), world), device
    finally:
        distributed.destroy_process_group()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return the share of a tensor that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor, in every process; to be called by all of them."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
