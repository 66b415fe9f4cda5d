"""Text that may come from anywhere, made safe for a terminal; a console that draws it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from mflamingo_cli.text import safe as safe

if TYPE_CHECKING:
    from rich.console import Console

    from mflamingo_cli.schema import Analysis

LEAST_COLUMNS, USUAL_COLUMNS = 20, 80  # narrower, nothing of a table is left


def heading(record: Analysis) -> str | None:
    """Return `Artist - Title` from the file's tags, the title alone where no artist is named; None without a title."""
    tags = record.audio.tags if record.audio else None
    if tags is None or tags.title is None:
        return None
    return tags.title if tags.artist is None else f"{tags.artist} - {tags.title}"


def marked(text: str, wrong: Iterable[str]) -> list[tuple[str, bool]]:
    """Cut a text at words that contradict what was measured: (part, whether it does)."""
    words = sorted(set(wrong), key=len, reverse=True)
    if not words:
        return [(text, False)]
    parts = re.split(rf"(?<!\w)({'|'.join(map(re.escape, words))})(?!\w)", text)
    return [(part, index % 2 == 1) for index, part in enumerate(parts) if part]


def wrong_words(record: Analysis) -> list[str]:
    """Return the words of a record's text that contradict what was measured."""
    return [claim.text for claim in record.claims if claim.agrees is False]


def answer(record: Analysis) -> str | None:
    """Return the free text that a command was asked for."""
    return record.result.caption if record.result else record.text


def console(stream: TextIO, color: bool, animate: bool = False) -> Console:
    """Return a rich console that writes no escape sequence unless `color` or `animate`, and reads no markup."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # the error that is being handled; rich would end the program here

    made = Plain(
        file=stream,
        force_terminal=color or animate,
        color_system="auto" if color else None,
        no_color=not color,  # else rich asks NO_COLOR itself
        force_interactive=animate,
        highlight=False,
        markup=False,
        emoji=False,
    )
    if made.width < LEAST_COLUMNS:  # COLUMNS=0 is what some shells and containers say that do not know
        made.width = LEAST_COLUMNS if made.width else USUAL_COLUMNS
    return made
