"""`mflamingo analyze`: everything that can be known of a song."""

from __future__ import annotations

from mflamingo_cli.commands.help import single
from mflamingo_cli.commands.options import AnalyzeOptions, song_command


def analyze(options: AnalyzeOptions) -> None:
    """Tell tempo, key, meter, chords, sections, loudness, instruments, genre, mood and vocals, and describe the song.

    Facts are measured from the sound; what the model claims stands beside them. What nobody can tell is left out, or null in JSON.
    """
    from mflamingo_cli.commands.songs import run_songs
    from mflamingo_cli.pipeline import analyze_request

    run_songs(options, analyze_request(), "table")


app = single(song_command(analyze))
