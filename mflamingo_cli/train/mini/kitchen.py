"""What every step of a recipe is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mflamingo_cli.train.parallel import Processes


@dataclass(frozen=True)
class Kitchen:
    """The folder of everything, where to compute, and how many processes render."""

    work: Path
    device: torch.device
    processes: Processes
    jobs: int = 1
