"""`mflamingo ask`: a question in your own words."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from mflamingo_cli.commands.inputs import refuse_a_file
from mflamingo_cli.commands.options import NO_SONG_HELP, SongOptions, option, song_command
from mflamingo_cli.errors import UsageError


@song_command
def ask(
    options: SongOptions,
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="Your question.")] = None,
    chat: Annotated[bool, option(help="Hold a conversation about one song; /help lists its commands.")] = False,
    no_song: Annotated[bool, option(help=NO_SONG_HELP)] = False,
) -> None:
    """Answer a question about songs. The question comes first, then the files.

    With --chat the question may be omitted: questions are then typed, or read from stdin line by line.
    """
    from mflamingo_cli.commands.chat import run_chat, run_without_song
    from mflamingo_cli.commands.songs import run_songs
    from mflamingo_cli.requests import ask_request

    named = bool(options.input.paths or options.input.files_from)
    if chat and question is not None and not named and not no_song:  # the one argument is the song
        options, question = replace(options, input=replace(options.input, paths=[question])), None
    if question is not None and not no_song:
        refuse_a_file(question, "one file" if chat else "the files")
    if chat:
        run_chat(options, question, no_song=no_song)
    elif question is None:
        raise UsageError("the question is missing; write it first, then the files, or start a conversation with --chat")
    elif no_song:
        run_without_song(options, ask_request(question))
    else:
        run_songs(options, ask_request(question), "text")
