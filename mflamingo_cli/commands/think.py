"""`mflamingo think`: a free question, answered after reasoning."""

from __future__ import annotations

from typing import Annotated

import typer

from mflamingo_cli.commands.help import single
from mflamingo_cli.commands.options import WORDS, SongOptions, song_command


def think(
    options: SongOptions,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know.", show_default=False)],
    hide_thinking: Annotated[bool, typer.Option("--hide-thinking", help="Only the answer, also in JSON.", rich_help_panel=WORDS)] = False,
) -> None:
    """Reason about a song, then answer. The reasoning goes to stderr, the answer to stdout."""
    from mflamingo_cli.commands.songs import run_songs
    from mflamingo_cli.pipeline import think_request

    run_songs(options, think_request(question), "text", hide_thinking)


app = single(song_command(think))
