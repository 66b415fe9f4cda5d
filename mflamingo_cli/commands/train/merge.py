"""`mflamingo train merge`: an adapter and its base as one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mflamingo_cli.commands.train.work import require_extra
from mflamingo_cli.errors import ModelError, UsageError


def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="A folder in PEFT's format, such as RUN/adapter.", file_okay=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write the checkpoint to.", file_okay=False)],
) -> None:
    """Merge an adapter into its base model and write a bfloat16 checkpoint, for transformers or for further training.

    `-m ADAPTER` and `models convert` accept adapters as they are, without merging.
    """
    require_extra()
    from mflamingo_cli.backends import find_model
    from mflamingo_cli.core.model import load
    from mflamingo_cli.train.sft import write_checkpoint

    files = find_model(str(adapter))
    if files.adapter is None or files.directory is None:
        raise ModelError(f"{adapter}: not an adapter, because adapter_config.json is missing")
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output}: the folder is not empty; choose another --output")
    write_checkpoint(load(files.directory, adapter=files.adapter), files.directory, output)
    print(output)
