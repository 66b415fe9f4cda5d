"""`mflamingo schema`: the JSON Schema of the records."""

from __future__ import annotations

import json

from mflamingo_cli.commands.help import single


def schema() -> None:
    """Print the JSON Schema (2020-12) of the records that --json writes."""
    from mflamingo_cli.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


app = single(schema)
