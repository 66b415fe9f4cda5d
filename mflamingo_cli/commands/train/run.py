"""`mflamingo train run`: a model from nothing, step by step."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mflamingo_cli.commands.train.work import WORK, Work, prepare, resumable
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.recipes import built_in

BUILT_IN = built_in()
NEEDED = "Making data needs libfluidsynth, soundfonts and apt-get."


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help=f"A TOML file, or a built-in recipe: {', '.join(BUILT_IN)}.")],
    step: Annotated[list[str] | None, typer.Option("--step", metavar="NAME", help="Run only this step; repeatable.")] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Number of processes that render music.")] = 1,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Device to train on.")] = "auto",
    work: Work = WORK,
) -> None:
    """Run a recipe: make the data, train each stage and write a checkpoint. Run the same command again to resume."""
    prepare(work)
    from mflamingo_cli.backends.pytorch_loading import choose_device
    from mflamingo_cli.train.mini import recipe as recipes
    from mflamingo_cli.train.mini.kitchen import Kitchen
    from mflamingo_cli.train.parallel import launched, processes

    steps = recipes.read(recipe)
    names = [each.name for each in steps]
    if wrong := [name for name in step or () if name not in names]:
        raise UsageError(f"--step {wrong[0]}: the steps of {recipe} are {', '.join(names)}")
    with processes("ddp" if launched() else "none", choose_device(device)[0]) as (group, where), resumable("steps and clips", work):
        for each in (each for each in steps if not step or each.name in step):
            for line in recipes.cook(each, Kitchen(work, where, group, jobs)):
                if group.rank == 0:
                    print(line, file=sys.stderr)
    print(work)


app = typer.Typer()
app.command(help="\n\n".join([str(run.__doc__), *(f"{name}: {made}." for name, made in BUILT_IN.items()), NEEDED]))(run)
