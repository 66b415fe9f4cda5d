"""What `train sft` and `train grpo` share: options, a TOML file of them, and how several processes are started."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import typer

from mflamingo_cli.errors import ModelError, UsageError

LEARNS, LENGTH, PLACE = "What is trained", "Schedule", "Hardware and logging"


def _from_toml(ctx: typer.Context, path: Path | None) -> Path | None:
    """Take the options of a file as defaults, so that those of the command line win."""
    if path is None:
        return None
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--config {path}: cannot be read as TOML ({error})") from error
    options = [param for param in ctx.command.params if param.param_type_name == "option"]
    names = {option.lstrip("-"): str(param.name) for param in options for option in param.opts}  # such as "save-every" of `save_every`
    named = {key.replace("_", "-"): value for key, value in found.items()}
    if wrong := sorted(named.keys() - names.keys() | named.keys() & {"config"}):
        raise UsageError(f"--config {path}: `train {ctx.info_name}` has no option {wrong[0]}")
    ctx.default_map = {names[key]: value for key, value in named.items()}
    return path


Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME|DIR", help="Checkpoint to train.")]
Data = Annotated[
    list[Path],
    typer.Option(
        "--data", metavar="ROWS", help="Training rows: a file in any supported format, or a folder with metadata; repeatable.", exists=True
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="RUN", help="Folder for the run's checkpoints, log and final weights.", file_okay=False)
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="Read options from a TOML file; options on the command line take precedence.",
        callback=_from_toml,
        is_eager=True,
    ),
]
Audio = Annotated[
    list[Path] | None,
    typer.Option("--audio", metavar="FOLDER", help="Folder to search for audio files before the folder of the rows; repeatable."),
]
Tune = Annotated[
    Literal["full", "lora", "qlora"],
    typer.Option(
        "--tune",
        help="full: train all weights; lora: train a LoRA adapter; qlora: LoRA with the base language model in 4 bits.",
        rich_help_panel=LEARNS,
    ),
]
Parts = Annotated[
    str,
    typer.Option("--parts", metavar="PART,…", help="Parts of the model to train: language, projector, encoder.", rich_help_panel=LEARNS),
]
Rank = Annotated[int, typer.Option("--rank", min=1, help="LoRA rank.", rich_help_panel=LEARNS)]
Alpha = Annotated[int, typer.Option("--alpha", min=1, help="LoRA alpha: the update is scaled by alpha / rank.", rich_help_panel=LEARNS)]
Lr = Annotated[
    float | None,
    typer.Option(
        "--lr",
        min=0.0,
        help="Peak learning rate. [default: the paper's for --tune full, higher for LoRA]",
        show_default=False,
        rich_help_panel=LENGTH,
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Sequences per step, over all processes.", rich_help_panel=LENGTH)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed.", rich_help_panel=LENGTH)]
SaveEvery = Annotated[int, typer.Option("--save-every", min=1, help="Steps between checkpoints.", rich_help_panel=LENGTH)]
Bf16 = Annotated[
    bool | None,
    typer.Option(
        "--bf16/--no-bf16",
        help="Compute in bfloat16; trained weights are kept in float32. [default: where the device is faster in it]",
        show_default=False,
        rich_help_panel=PLACE,
    ),
]
Parallel = Annotated[
    Literal["none", "ddp", "fsdp2"],
    typer.Option(
        "--parallel",
        help="none: one process; ddp: several processes, each with all weights; fsdp2: weights sharded over the processes.",
        rich_help_panel=PLACE,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Device to train on.", rich_help_panel=PLACE)]
ReportTo = Annotated[
    Literal["none", "tensorboard", "trackio", "wandb"],
    typer.Option("--report-to", help="Also log to this experiment tracker.", rich_help_panel=PLACE),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show three rows, the trained parts, memory and time; try one step and save nothing.")
]
Launcher = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- LAUNCHER-ARGS", show_default=False,
        help="Options for torchrun, which starts the processes for --parallel: -- --nproc-per-node 8",
    ),
]  # fmt: skip


def launch(launcher: list[str] | None, parallel: str) -> None:
    """Become torchrun, which starts this command in each process; return where it has been started, or is not needed. Raises UsageError."""
    from mflamingo_cli.train.parallel import launched

    if launched():
        return
    words = sys.argv[1:]
    if not launcher:
        if parallel != "none":
            raise UsageError(f"--parallel {parallel} needs the number of processes at the end of the command: -- --nproc-per-node 2")
        return
    if parallel == "none" or "--" not in words:
        raise UsageError(f"{launcher[0]}: options for torchrun need --parallel ddp or fsdp2, and go at the end, after --")
    program = ["-m", "torch.distributed.run", *launcher, "-m", "mflamingo_cli", *words[: words.index("--")]]
    os.execv(sys.executable, [sys.executable, *program])


def checkpoint_of(model: str) -> Path:
    """Return the directory of a checkpoint. Raises ModelError for what cannot be trained."""
    from mflamingo_cli.backends import find_model

    files = find_model(model)
    if files.adapter:
        raise ModelError(f"{model}: this is an adapter; merge it into a checkpoint first: mflamingo train merge {model} -o DIR")
    if files.directory is None:
        raise ModelError(f"{model}: GGUF files cannot be trained; name the checkpoint that they were converted from")
    return files.directory
