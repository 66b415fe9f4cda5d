"""`mflamingo think`: a question, answered after reasoning."""

from __future__ import annotations

from typing import Annotated

import typer

from mflamingo_cli.commands.inputs import refuse_a_file
from mflamingo_cli.commands.options import NO_SONG_HELP, SongOptions, option, song_command


@song_command
def think(
    options: SongOptions,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Your question.")],
    hide_thinking: Annotated[bool, option(help="Omit the reasoning, in JSON too.")] = False,
    no_song: Annotated[bool, option(help=NO_SONG_HELP)] = False,
) -> None:
    """Answer a question about songs after reasoning. The reasoning goes to stderr, the answer to stdout."""
    from mflamingo_cli.commands.chat import run_without_song
    from mflamingo_cli.commands.songs import run_songs
    from mflamingo_cli.requests import think_request

    if no_song:
        run_without_song(options, think_request(question), hide_thinking)
    else:
        refuse_a_file(question)
        run_songs(options, think_request(question), "text", hide_thinking)
