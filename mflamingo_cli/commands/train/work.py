"""What the commands of `train` share: the folder they work in, what they need, how they stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from mflamingo_cli.errors import ModelError, UsageError

Work = Annotated[Path, typer.Option("--work", help="Folder for everything that recipes produce: data, base, runs.", file_okay=False)]
WORK = Path("mflamingo-train")
WORK_FOLDERS = ("data", "base", "runs")  # what training makes in its folder
CHECKPOINT_FILES = ("config.json", "model.safetensors", "model.safetensors.index.json")


def require_extra() -> None:
    """Raise ModelError where a package that training needs is not installed."""
    for name in ("mido", "mir_eval", "sklearn", "torch", "transformers"):
        if find_spec(name) is None:
            raise ModelError(f"training needs {name}; install it with: pip install 'mflamingo-cli[train]'")


def prepare(work: Path) -> None:
    """Check what every command needs: the extra, and a folder that is no checkpoint. Raises ModelError, UsageError."""
    require_extra()
    if any((work / name).exists() for name in CHECKPOINT_FILES) and not any((work / name).is_dir() for name in WORK_FOLDERS):
        raise UsageError(f"--work {work}: this is a checkpoint directory; choose a folder for data and runs")
    import torch

    torch.set_num_threads(1)  # one thread is faster than two on models this small


@contextmanager
def resumable(kept: str, where: object) -> Iterator[None]:
    """At Ctrl-C or SIGTERM, say what is kept where, and end with the shell's code for the signal; a second one ends at once."""
    from mflamingo_cli.commands.terminal import Interrupt, Reporter, handle_signals

    try:
        with handle_signals():
            yield
    except Interrupt as stop:
        Reporter().say(f"mflamingo: stopped; {kept} are kept in {where}; run the same command again to resume")
        raise typer.Exit(stop.exit_code) from None
