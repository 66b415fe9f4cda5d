"""`mflamingo caption`: a song in words."""

from __future__ import annotations

from typing import Annotated

from mflamingo_cli.commands.options import SongOptions, option, song_command
from mflamingo_cli.styles import CAPTION_STYLES


@song_command
def caption(options: SongOptions, style: Annotated[str, CAPTION_STYLES, option("-s", help="Kind of description.")] = "full") -> None:
    """Describe songs in words. On a terminal the text appears as it is written."""
    from mflamingo_cli.commands.songs import run_songs
    from mflamingo_cli.requests import caption_request

    run_songs(options, caption_request(style), "text")
