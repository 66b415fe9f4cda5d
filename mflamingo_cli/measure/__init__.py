"""Tempo, key, meter, chords, sections, loudness, voices, tags: in NumPy alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mflamingo_cli.core.audio import Audio
from mflamingo_cli.measure.facts import Key, Tempo, Voices
from mflamingo_cli.measure.loudness import LoudnessMeter
from mflamingo_cli.measure.song import FACTS, Confidence, Facts, Measurement, SongPart, sounding_of
from mflamingo_cli.schema import Beat, Loudness, Segment

__all__ = [
    "FACTS", "Beat", "Confidence", "Facts", "Key", "Loudness", "Measurement", "Segment",
    "SongPart", "Tempo", "Voices", "measure", "sounding_of",
]  # fmt: skip


def measure(
    audio: Audio, meter: LoudnessMeter | None = None, only: Collection[str] | None = None, parts: Sequence[SongPart] | None = None
) -> Facts:
    """Measure a song: the facts of these names, or all. `meter` has metered its native stream; times count from the start of the file.

    `parts` are all parts of a song of which `audio` is the last one.
    """
    return Measurement(audio, meter, parts).facts(only)
