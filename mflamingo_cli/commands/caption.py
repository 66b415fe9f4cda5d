"""`mflamingo caption`: a song in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from mflamingo_cli.commands.help import single
from mflamingo_cli.commands.options import WORDS, SongOptions, song_command
from mflamingo_cli.tasks import CAPTION_STYLES

if TYPE_CHECKING:
    Style: TypeAlias = str
else:
    Style = Literal[tuple(CAPTION_STYLES)]


def caption(
    options: SongOptions,
    style: Annotated[Style, typer.Option("--style", "-s", help="What kind of text.", rich_help_panel=WORDS)] = "full",
) -> None:
    """Describe a song in words. On a terminal the text appears as it is written."""
    from mflamingo_cli.commands.songs import run_songs
    from mflamingo_cli.pipeline import caption_request

    run_songs(options, caption_request(style), "text")


app = single(song_command(caption))
