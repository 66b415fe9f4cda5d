"""What `train sft` and `train grpo` share: options, a TOML file of them, and how several processes are started."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import typer

from mflamingo_cli.errors import ModelError, UsageError

LEARNS, LENGTH, PLACE = "What learns", "How long", "Where"


def _from_toml(ctx: typer.Context, path: Path | None) -> Path | None:
    """Take the options of a file as defaults, so that those of the command line win."""
    if path is None:
        return None
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {path}: cannot be read as TOML ({error})") from error
    options = [param for param in ctx.command.params if param.param_type_name == "option"]
    names = {option.lstrip("-"): str(param.name) for param in options for option in param.opts}  # such as "save-every" of `save_every`
    named = {key.replace("_", "-"): value for key, value in found.items()}
    if wrong := sorted(named.keys() - names.keys() | named.keys() & {"config"}):
        raise UsageError(f"--config {path}: {wrong[0]} is no option of `train {ctx.info_name}`")
    ctx.default_map = {names[key]: value for key, value in named.items()}
    return path


Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME|DIR", help="Checkpoint to train.")]
Data = Annotated[
    list[Path],
    typer.Option("--data", metavar="ROWS", help="Rows of any known format, a file or a folder with metadata; repeatable.", exists=True),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="RUN", help="Folder for checkpoints, log and result of the run.", file_okay=False)
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE.toml", help="Read options from a TOML file; the command line wins.", callback=_from_toml, is_eager=True
    ),
]
Audio = Annotated[
    list[Path] | None,
    typer.Option("--audio", metavar="FOLDER", help="Folder to look for audio in, before that of the rows; repeatable."),
]
Tune = Annotated[
    Literal["full", "lora", "qlora"],
    typer.Option(
        "--tune",
        help="full: all weights; lora: low-rank matrices beside them; qlora: the same, beside a language model in 4 bits.",
        rich_help_panel=LEARNS,
    ),
]
Parts = Annotated[
    str, typer.Option("--parts", metavar="PART,…", help="What is trained: language, projector, encoder.", rich_help_panel=LEARNS)
]
Rank = Annotated[int, typer.Option("--rank", min=1, help="Rank of the low-rank matrices.", rich_help_panel=LEARNS)]
Alpha = Annotated[int, typer.Option("--alpha", min=1, help="Scale their product by alpha / rank.", rich_help_panel=LEARNS)]
Lr = Annotated[
    float | None,
    typer.Option(
        "--lr",
        min=0.0,
        help="Highest learning rate. [default: the paper's for --tune full, more for LoRA]",
        show_default=False,
        rich_help_panel=LENGTH,
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Sequences per step, over all processes.", rich_help_panel=LENGTH)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed.", rich_help_panel=LENGTH)]
SaveEvery = Annotated[int, typer.Option("--save-every", min=1, help="Steps between checkpoints.", rich_help_panel=LENGTH)]
Bf16 = Annotated[bool, typer.Option("--bf16/--no-bf16", help="Compute in bfloat16; what learns stays in float32.", rich_help_panel=PLACE)]
Parallel = Annotated[
    Literal["none", "ddp", "fsdp2"],
    typer.Option(
        "--parallel",
        help="none: one process; ddp: several, each with all weights; fsdp2: several, each with a share of every weight.",
        rich_help_panel=PLACE,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Device to train on.", rich_help_panel=PLACE)]
ReportTo = Annotated[
    Literal["none", "tensorboard", "trackio", "wandb"],
    typer.Option("--report-to", help="Send the numbers of the log there, too.", rich_help_panel=PLACE),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show three rows, what learns, memory and time; train one step and keep nothing.")]
Launcher = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- LAUNCHER-ARGS", show_default=False,
        help="Options of torchrun, which starts the processes of --parallel: -- --nproc-per-node 8",
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
        raise UsageError(f"{launcher[0]}: is an option of torchrun, for --parallel ddp or fsdp2; it goes to the end, behind --")
    program = ["-m", "torch.distributed.run", *launcher, "-m", "mflamingo_cli", *words[: words.index("--")]]
    os.execv(sys.executable, [sys.executable, *program])


def comma_separated(text: str) -> tuple[str, ...]:
    """Split a list of names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def checkpoint_of(model: str) -> Path:
    """Return the directory of a checkpoint. Raises ModelError for what cannot be trained."""
    from mflamingo_cli.backends import find_model

    files = find_model(model)
    if files.adapter:
        raise ModelError(f"{model}: is an adapter; make a checkpoint of it first: mflamingo train merge {model} -o DIR")
    if files.directory is None:
        raise ModelError(f"{model}: is GGUF only; train the checkpoint that it was made from")
    return files.directory
