"""`mflamingo train merge`: an adapter and its base as one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mflamingo_cli.commands.train.work import require_extra
from mflamingo_cli.errors import ModelError, UsageError


def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="A folder in PEFT's format, such as RUN/adapter.", file_okay=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the checkpoint goes.", file_okay=False)],
) -> None:
    """Merge an adapter into its base and write the result as a checkpoint in bfloat16, for transformers and to train on.

    `-m ADAPTER` and `models convert` take adapters without it.
    """
    require_extra()
    from mflamingo_cli.backends import find_model
    from mflamingo_cli.core.model import load
    from mflamingo_cli.train.sft import write_checkpoint

    files = find_model(str(adapter))
    if files.adapter is None or files.directory is None:
        raise ModelError(f"{adapter}: is no adapter; it has no adapter_config.json")
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output}: is not empty; choose another --output")
    write_checkpoint(load(files.directory, adapter=files.adapter), files.directory, output)
    print(output)
