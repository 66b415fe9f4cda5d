"""`mflamingo ask`: a free question about a song."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from mflamingo_cli.commands.help import single
from mflamingo_cli.commands.options import WORDS, SongOptions, song_command
from mflamingo_cli.errors import UsageError


def ask(
    options: SongOptions,
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="What you want to know.", show_default=False)] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Go on asking about one song, heard once; /help there tells how.", rich_help_panel=WORDS)
    ] = False,
) -> None:
    """Answer a question about a song. The question comes first, then the files.

    With --chat the question may be left out: questions are then typed, or read from stdin line by line.
    """
    from mflamingo_cli.commands.songs import run_songs
    from mflamingo_cli.pipeline import ask_request

    if question is not None and (options.paths or options.files_from) and os.path.isfile(question):
        raise UsageError(f"{question!r} is a file; write the question first, then {'one file' if chat else 'the files'}")
    if chat:
        from mflamingo_cli.commands.chat import run_chat

        if question is not None and not (options.paths or options.files_from):  # the one argument is the song
            options, question = replace(options, paths=[question]), None
        run_chat(options, question)
    elif question is None:
        raise UsageError("ask what? Write the question first, then the files; or begin a conversation with --chat")
    else:
        run_songs(options, ask_request(question), "text")


app = single(song_command(ask))
