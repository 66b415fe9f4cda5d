"""`mflamingo models list`: the models that can be used, and which of them are here."""

from __future__ import annotations

from typing import Any

import typer

from mflamingo_cli.commands.reference import Json
from mflamingo_cli.commands.tables import show, show_json, table
from mflamingo_cli.models import registry
from mflamingo_cli.models.registry import NVIDIA, RESEARCH
from mflamingo_cli.store import hub

app = typer.Typer()


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models that can be used, and which of them are downloaded. Uses no network."""
    rows = registry.listed()
    if as_json:
        show_json(rows)
        return
    lines = table("model", "state", "about", "licence")
    for row in rows:
        lines.add_row(row["name"], _state(row), row["problem"] or row["about"], RESEARCH if row["licence"] == NVIDIA else row["licence"])
    show(lines)
    if any(row["state"] == "absent" for row in rows):
        show("Download one with `mflamingo models pull NAME`, then use it with --model NAME.")


def _state(row: dict[str, Any]) -> str:
    """In one column, because a table has 80."""
    if row["bytes"] is None:
        return str(row["state"])
    return "\n".join([row["state"], hub.size(row["bytes"]), *([f"at {row['revision'][: hub.SHORT]}"] if row["revision"] else [])])
