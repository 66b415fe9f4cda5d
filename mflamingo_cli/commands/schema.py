"""`mflamingo schema`: the JSON Schema of the records."""

from __future__ import annotations

from mflamingo_cli.commands.tables import show_json


def schema() -> None:
    """Print the JSON Schema (2020-12) of the records that --json writes."""
    from mflamingo_cli.schema import json_schema

    show_json(json_schema(), indent=2)
