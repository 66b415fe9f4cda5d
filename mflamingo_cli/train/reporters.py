"""Who is told the numbers of a run besides its log: TensorBoard, Trackio or Weights & Biases, where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from mflamingo_cli.errors import ModelError, UsageError
from mflamingo_cli.train.loop import Report

Tell = Callable[[Report], None]


def _tensorboard(folder: Path) -> tuple[Tell, Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def tell(report: Report) -> None:
        for name, value in _numbers(report).items():
            writer.add_scalar(name, value, report.step + 1)

    return tell, writer.close


def _trackio(folder: Path) -> tuple[Tell, Callable[[], None]]:
    import trackio

    trackio.init(project="mflamingo", name=folder.name)
    return lambda report: trackio.log(_numbers(report)), trackio.finish


def _wandb(folder: Path) -> tuple[Tell, Callable[[], None]]:
    import wandb

    run = wandb.init(project="mflamingo", name=folder.name, dir=str(folder))
    return lambda report: run.log(_numbers(report), step=report.step + 1), run.finish


REPORTERS = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}


def _numbers(report: Report) -> dict[str, float]:
    return {"loss": report.loss, "lr": report.lr, **report.numbers}


def require(name: str) -> None:
    """Raise UsageError for an unknown name, ModelError where its package is missing."""
    if name not in ("none", *REPORTERS):
        raise UsageError(f"--report-to {name}: choose one of none, {', '.join(REPORTERS)}")
    if name in REPORTERS and find_spec(name) is None:
        raise ModelError(f"--report-to {name} needs its package; install it with: pip install {name}")


@contextmanager
def reporter(name: str, folder: Path) -> Iterator[Tell]:
    """Yield what takes each logged step, by a name that `require` has let pass."""
    if name == "none":
        yield lambda report: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    tell, close = REPORTERS[name](folder)
    try:
        yield tell
    finally:
        close()
