"""`mflamingo train sft`: fine-tune a checkpoint on rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mflamingo_cli.commands.train import options
from mflamingo_cli.commands.train.options import LEARNS, LENGTH, PLACE, checkpoint_of, launch
from mflamingo_cli.commands.train.work import require_extra, resumable
from mflamingo_cli.commands.values import comma_separated

if TYPE_CHECKING:
    from mflamingo_cli.train.data.rowset import Rows
    from mflamingo_cli.train.loop import Report
    from mflamingo_cli.train.sft import TrainingRun

HeldOut = Annotated[
    list[Path] | None,
    typer.Option(
        "--eval",
        metavar="ROWS",
        help="Held-out rows: the loss on them is computed at each checkpoint, and the best checkpoint is kept.",
        exists=True,
    ),
]
Dropout = Annotated[float, typer.Option("--dropout", min=0.0, max=1.0, help="Dropout on the adapter's inputs.", rich_help_panel=LEARNS)]
Dora = Annotated[
    bool,
    typer.Option("--dora", help="Use DoRA: train the magnitude and the direction of each weight row separately.", rich_help_panel=LEARNS),
]
Stage = Annotated[
    Literal["sft", "think"],
    typer.Option("--stage", help="Training stage of the paper; it sets the default learning rate of --tune full.", rich_help_panel=LENGTH),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, help="Number of optimizer steps. [default: computed from --epochs]", show_default=False, rich_help_panel=LENGTH
    ),
]
Epochs = Annotated[float, typer.Option("--epochs", min=0.0, help="Number of passes over the rows.", rich_help_panel=LENGTH)]
Context = Annotated[
    int,
    typer.Option("--context", min=64, help="Sequence length in tokens; several rows are packed into one sequence.", rich_help_panel=LENGTH),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Threads that decode audio.", rich_help_panel=PLACE)]


def sft(
    model: options.Model, data: options.Data, output: options.Output, launcher: options.Launcher = None, config: options.Config = None,
    audio: options.Audio = None, held_out: HeldOut = None, tune: options.Tune = "lora", parts: options.Parts = "language,projector",
    rank: options.Rank = 16, alpha: options.Alpha = 32, dropout: Dropout = 0.05, dora: Dora = False, stage: Stage = "sft",
    steps: Steps = None, epochs: Epochs = 1.0, lr: options.Lr = None, batch: options.Batch = 8, context: Context = 24_576,
    seed: options.Seed = 0, save_every: options.SaveEvery = 100, bf16: options.Bf16 = None, parallel: options.Parallel = "none",
    device: options.Device = "auto", workers: Workers = 2, report_to: options.ReportTo = "none", dry_run: options.DryRun = False,
) -> None:  # fmt: skip
    """Fine-tune a checkpoint on rows. Run the same command again to resume.

    Writes RUN/adapter in PEFT's format, or RUN/checkpoint with --tune full; every command accepts either as --model. Rows that cannot be
    trained on are listed as FILE:LINE before training starts; no row is dropped or truncated.
    """
    require_extra()
    launch(launcher, parallel)
    from mflamingo_cli.backends.pytorch_loading import choose_device
    from mflamingo_cli.train import reporters
    from mflamingo_cli.train.adapters import TuneConfig
    from mflamingo_cli.train.data.rowset import Rows
    from mflamingo_cli.train.parallel import processes
    from mflamingo_cli.train.sft import SftConfig, prepare

    reporters.require(report_to)
    tuned = TuneConfig(tune, comma_separated(parts), rank, alpha, dropout, dora)
    settings = SftConfig(tuned, stage, lr, steps, epochs, batch, context, seed, save_every, workers=workers, bf16=bf16)
    directory, rows = checkpoint_of(model), Rows(data, audio or (), to_train=True)
    judged = Rows(held_out, audio or ()) if held_out else None
    with processes(parallel, choose_device(device)[0]) as (group, where):
        follow(prepare(directory, rows, output, settings, where, group, judged, keeps=not dry_run), rows, report_to, dry_run)


def follow(run: TrainingRun, rows: Rows, report_to: str, dry_run: bool) -> None:
    """Say what will be trained, then train and show each step; or try one step."""
    from mflamingo_cli.train.reporters import reporter

    first = run.processes.rank == 0
    if first:
        show_plan(run)
        if rows.held_out:
            print(f"{rows.held_out} rows are not used for training, because they belong to another split than train", file=sys.stderr)
    if dry_run:
        _try(run, rows)
        return
    with resumable("checkpoints", run.output), reporter(report_to if first else "none", run.output) as tell:
        for report in run.train():
            show_step(run, report)
            tell(report)
    if first:
        print(run.result)


def show_plan(run: TrainingRun) -> None:
    """Say what is trained, on what, and how long."""
    from mflamingo_cli.train.adapters import trained_by_part, why_trained

    for part, (trained, frozen) in trained_by_part(run.network.model).items():
        print(f"{part}: {trained:,} weights trained, {frozen:,} frozen ({why_trained(run.tune, part)})", file=sys.stderr)
    print(f"{run.note}; learning rate {run.loop.lr:g}", file=sys.stderr)


def show_step(run: TrainingRun, report: Report) -> None:
    """Print a logged step."""
    numbers = "  ".join(f"{name} {value:.3f}" for name, value in report.numbers.items())
    print(f"{report.step + 1}/{run.loop.steps}  loss {report.loss:.4f}  {report.seconds:.0f} s  {numbers}", file=sys.stderr)


def _try(run: TrainingRun, rows: Rows) -> None:
    """Show three rows as the model is given them, memory as estimated, and train one step, which is not kept."""
    from mflamingo_cli.commands.train.data.check import show_rows
    from mflamingo_cli.store.hub import size
    from mflamingo_cli.text import clock
    from mflamingo_cli.train.memory import estimate, sizes_of

    if run.processes.rank == 0:
        show_rows([rows[number] for number in range(min(3, len(rows)))], run.checker)
        moments = estimate(sizes_of(run))
        busiest = max(moments, key=lambda name: sum(moments[name].values()))
        print(f"memory: about {size(sum(moments[busiest].values()))} in each process, most of it in the {busiest} (estimated)")
        for part, n_bytes in moments[busiest].items():
            print(f"  {part}: {size(n_bytes)}")
    loss, seconds = run.try_step()
    if run.processes.rank == 0:
        print(f"one step: loss {loss:.4f}, {seconds:.1f} s; {run.loop.steps} steps take about {clock(run.loop.steps * seconds)}")
