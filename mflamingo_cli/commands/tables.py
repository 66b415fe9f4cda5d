"""Tables, lines and JSON on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def table(*headings: str | None) -> Table:
    """An empty table without lines; headings of None are left out."""
    from rich.table import Table

    made = Table(box=None, show_header=any(headings), padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        made.add_column(heading or "", overflow="fold", no_wrap=heading in ("model", "state"))
    return made


def show(item: Table | str) -> None:
    """Print a table or a line."""
    from mflamingo_cli.commands.terminal import wants_color
    from mflamingo_cli.render.text import console

    console(sys.stdout, wants_color("auto", sys.stdout)).print(item, soft_wrap=isinstance(item, str))


def show_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON; help does not wait for the module."""
    import json

    print(json.dumps(value, indent=indent))
