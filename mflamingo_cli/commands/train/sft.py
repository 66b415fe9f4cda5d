"""`mflamingo train sft`: fine-tune a checkpoint on rows."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mflamingo_cli.commands.train.work import require_extra, resumable
from mflamingo_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from mflamingo_cli.train.data.rowset import Rows
    from mflamingo_cli.train.loop import Report
    from mflamingo_cli.train.sft import TrainingRun

LEARNS, LENGTH, PLACE = "What learns", "How long", "Where"


def _from_toml(ctx: typer.Context, path: Path | None) -> Path | None:
    """Take the options of a file as defaults, so that those of the command line win."""
    if path is None:
        return None
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {path}: cannot be read as TOML ({error})") from error
    known = {str(param.name) for param in ctx.command.params} - {"config"}
    named = {key.replace("-", "_"): value for key, value in found.items()}
    if wrong := sorted(set(named) - known):
        raise UsageError(f"--config {path}: {wrong[0]} is no option of `train sft`")
    ctx.default_map = named
    return path


Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME|DIR", help="The checkpoint to train.")]
Data = Annotated[list[Path], typer.Option("--data", metavar="ROWS", help="Rows to train on; repeatable.", exists=True)]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Folder of the run.", file_okay=False)]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE.toml", help="Options as TOML.", callback=_from_toml, is_eager=True)]
Audio = Annotated[list[Path] | None, typer.Option("--audio", metavar="FOLDER", help="Where audio files are; repeatable.")]
HeldOut = Annotated[list[Path] | None, typer.Option("--eval", metavar="ROWS", help="Rows whose loss is only measured.", exists=True)]
Tune = Annotated[Literal["full", "lora", "qlora"], typer.Option("--tune", help="All weights, or low-rank ones.", rich_help_panel=LEARNS)]
Parts = Annotated[str, typer.Option("--parts", metavar="PART,…", help="Of language, projector, encoder.", rich_help_panel=LEARNS)]
Rank = Annotated[int, typer.Option("--rank", min=1, help="Rank of the low-rank matrices.", rich_help_panel=LEARNS)]
Alpha = Annotated[int, typer.Option("--alpha", min=1, help="Their weight, times the rank.", rich_help_panel=LEARNS)]
Dropout = Annotated[float, typer.Option("--dropout", min=0.0, max=1.0, help="Of their inputs.", rich_help_panel=LEARNS)]
Dora = Annotated[bool, typer.Option("--dora", help="Learn the length of each row apart (DoRA).", rich_help_panel=LEARNS)]
Stage = Annotated[
    Literal["sft", "think"],
    typer.Option("--stage", help="Stage of the paper that sets the rate of --tune full.", rich_help_panel=LENGTH),
]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Number of steps. [default: --epochs]", show_default=False, rich_help_panel=LENGTH)
]
Epochs = Annotated[float, typer.Option("--epochs", min=0.0, help="Times that every row is seen.", rich_help_panel=LENGTH)]
Lr = Annotated[
    float | None,
    typer.Option(
        "--lr", min=0.0, help="Highest learning rate. [default: the paper's, LoRA 5e-5]", show_default=False, rich_help_panel=LENGTH
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Packed sequences a step.", rich_help_panel=LENGTH)]
Context = Annotated[int, typer.Option("--context", min=64, help="Tokens of a sequence.", rich_help_panel=LENGTH)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed.", rich_help_panel=LENGTH)]
SaveEvery = Annotated[int, typer.Option("--save-every", min=1, help="Steps between checkpoints.", rich_help_panel=LENGTH)]
Bf16 = Annotated[bool, typer.Option("--bf16/--no-bf16", help="Multiply in bfloat16.", rich_help_panel=PLACE)]
Parallel = Annotated[
    Literal["none", "ddp", "fsdp2"], typer.Option("--parallel", help="How torchrun's processes share the work.", rich_help_panel=PLACE)
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Device to train on.", rich_help_panel=PLACE)]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Threads that decode audio.", rich_help_panel=PLACE)]
ReportTo = Annotated[
    Literal["none", "tensorboard", "trackio", "wandb"],
    typer.Option("--report-to", help="Who gets the numbers too.", rich_help_panel=PLACE),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show rows, parts, memory and time of one step; keep nothing.")]


def sft(
    model: Model, data: Data, output: Output, config: Config = None, audio: Audio = None, held_out: HeldOut = None,
    tune: Tune = "lora", parts: Parts = "language,projector", rank: Rank = 16, alpha: Alpha = 32, dropout: Dropout = 0.05,
    dora: Dora = False,
    stage: Stage = "sft", steps: Steps = None, epochs: Epochs = 1.0, lr: Lr = None, batch: Batch = 8, context: Context = 24_576,
    seed: Seed = 0, save_every: SaveEvery = 100, bf16: Bf16 = True, parallel: Parallel = "none", device: Device = "auto",
    workers: Workers = 2, report_to: ReportTo = "none", dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Fine-tune a checkpoint on rows; resumes from its last checkpoint when run again.

    Writes RUN/adapter (PEFT's format) or RUN/checkpoint, which every command takes as --model. Rows that cannot be trained on are named
    first; none is dropped or cut. Several processes: torchrun --nproc-per-node N -m mflamingo_cli train sft … --parallel ddp.
    """
    require_extra()
    from mflamingo_cli.backends.pytorch_loading import choose_device
    from mflamingo_cli.train.adapters import TuneConfig
    from mflamingo_cli.train.data.rowset import Rows
    from mflamingo_cli.train.parallel import processes
    from mflamingo_cli.train.reporters import reporter
    from mflamingo_cli.train.sft import SftConfig, prepare

    names = tuple(name.strip() for name in parts.split(",") if name.strip())
    tuned = TuneConfig(tune, names, rank, alpha, dropout, dora)
    settings = SftConfig(tuned, stage, lr, steps, epochs, batch, context, seed, save_every, workers=workers, bf16=bf16)
    directory, rows, judged = checkpoint_of(model), Rows(data, audio or ()), Rows(held_out, audio or ()) if held_out else None
    with (
        processes(parallel, choose_device(device)[0]) as (group, where),
        resumable(f"from the last checkpoint in {output}"),
        reporter(report_to if group.rank == 0 and not dry_run else "none", output) as tell,
    ):
        run = prepare(directory, rows, output, settings, where, group, judged, keeps=not dry_run)
        if group.rank == 0:
            show_plan(run)
        if dry_run:
            _try(run, rows)
            return
        for report in run.train():
            show_step(run, report)
            tell(report)
        if group.rank == 0:
            print(run.result)


def checkpoint_of(model: str) -> Path:
    """Return the directory of a checkpoint. Raises ModelError for what cannot be trained."""
    from mflamingo_cli.backends import find_model

    files = find_model(model)
    if files.adapter:
        raise ModelError(f"{model}: is an adapter; make a checkpoint of it first: mflamingo train merge {model} -o DIR")
    if files.directory is None:
        raise ModelError(f"{model}: is GGUF only; train the checkpoint that it was made from")
    return files.directory


def show_plan(run: TrainingRun) -> None:
    """Say what is trained, on what, and how long."""
    from mflamingo_cli.train.adapters import trained_by_part

    for part, (trained, every) in trained_by_part(run.network.model).items():
        print(f"{part}: {trained:,} of {every:,} numbers learn", file=sys.stderr)
    print(f"{run.note}; learning rate {run.loop.lr:g}", file=sys.stderr)


def show_step(run: TrainingRun, report: Report) -> None:
    """Print a logged step."""
    numbers = "  ".join(f"{name} {value:.3f}" for name, value in report.numbers.items())
    print(f"{report.step + 1}/{run.loop.steps}  loss {report.loss:.4f}  {report.seconds:.0f} s  {numbers}", file=sys.stderr)


def _try(run: TrainingRun, rows: Rows) -> None:
    """Show three rows as the model is given them, memory as estimated, and train one step, which is not kept."""
    from mflamingo_cli.commands.train.data.check import show_rows
    from mflamingo_cli.train.memory import estimate

    if run.processes.rank == 0:
        show_rows([rows[number] for number in range(min(3, len(rows)))], run.checker)
        needs = estimate(run)
        for name, n_bytes in needs.items():
            print(f"{name}: {n_bytes / 1e9:.2f} GB (estimated)")
        print(f"all: {sum(needs.values()) / 1e9:.2f} GB (estimated)")
    loss, seconds = run.try_step()
    if run.processes.rank == 0:
        print(f"one step: loss {loss:.4f}, {seconds:.1f} s; {run.loop.steps} steps take about {run.loop.steps * seconds / 60:.0f} min")
