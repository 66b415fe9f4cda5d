"""`mflamingo ask`: a free question about a song."""

from __future__ import annotations

from typing import Annotated

import typer

from mflamingo_cli.commands.help import single
from mflamingo_cli.commands.options import SongOptions, song_command


def ask(
    options: SongOptions,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know.", show_default=False)],
) -> None:
    """Answer a question about a song. The question comes first, then the files."""
    from mflamingo_cli.commands.songs import run_songs
    from mflamingo_cli.pipeline import ask_request

    run_songs(options, ask_request(question), "text")


app = single(song_command(ask))
