"""`mflamingo models convert`: a checkpoint written as a pair of GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from mflamingo_cli.backends import find_model
from mflamingo_cli.errors import ModelError, as_failed_work
from quant.types import TYPES

if TYPE_CHECKING:
    from mflamingo_cli.commands.terminal import Reporter
    from quant.convert import Conversion

    TypeName: TypeAlias = str
else:
    TypeName = Literal[tuple(TYPES)]


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A checkpoint directory, or a downloaded hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the two files.")],
    type_name: Annotated[
        TypeName, typer.Option("--type", "-t", metavar="TYPE", help=f"Number format of the weights: {', '.join(TYPES)}.")
    ] = "Q8_0",
    audio_type: Annotated[
        TypeName | None,
        typer.Option("--audio-type", metavar="TYPE", help="Number format of the audio part; default: as --type, but at least Q8_0."),
    ] = None,
    importance: Annotated[
        Path | None,
        typer.Option("--imatrix", metavar="FILE", help="Importance matrix from `models imatrix`: which weights need the most precision."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Convert a checkpoint into a pair of GGUF files: language model and audio part. Each file appears only when it is complete."""
    from mflamingo_cli.commands.terminal import Reporter
    from quant.convert import plan

    found = find_model(str(source))
    if found.directory is None:
        raise ModelError(f"{source}: contains only GGUF files; name the checkpoint that they were converted from")
    reporter = Reporter(progress="none" if quiet else "auto", quiet=quiet)
    with as_failed_work():
        made = plan(found.directory, output, type_name, audio_type, imatrix=importance, adapter=found.adapter)
    for path in run(made, reporter):
        print(path)


def run(made: Conversion, reporter: Reporter) -> tuple[Path, Path]:
    """Write the files of a conversion, with progress, and return their names."""
    try:
        with as_failed_work():
            for step in made.run():
                reporter.working(f"{100 * step.done / max(step.total, 1):.0f} %  {step.tensor}")
    finally:
        reporter.idle()
    return made.paths
