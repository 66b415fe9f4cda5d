"""`mflamingo models rm`: a model removed from the Hugging Face cache. Sizes are bytes."""

from __future__ import annotations

from typing import Annotated

import typer

from mflamingo_cli.backends.options import EMBEDDED
from mflamingo_cli.commands.models.pull import Yes, confirm
from mflamingo_cli.errors import ModelError, UsageError
from mflamingo_cli.store import hub


def rm(
    name: Annotated[str, typer.Argument(metavar="ID[@REV]", help="Hub id of the model; add @REV to remove only that revision.")],
    yes: Yes = False,
) -> None:
    """Remove a model from the Hugging Face cache: all revisions, unfinished downloads and converted files."""
    from mflamingo_cli.commands.terminal import Reporter

    if name in EMBEDDED:
        raise UsageError(f"{name} is part of the program and cannot be removed")
    base, _, revision = name.partition("@")
    paths = hub.removal(base, revision)
    if not paths:
        raise ModelError(f"{name} is not in the Hugging Face cache, {hub.hub_cache()}")
    freed = hub.size(hub.disk_bytes(*paths))
    confirm(f"remove {freed}", yes, Reporter(), [f"{name}: {freed} in {hub.repository(base)}"])
    hub.remove(paths)
    print(f"freed {freed}")
