"""Which songs mix with another: keys beside each other on the Camelot wheel, a tempo within 8 % or an octave of that, a like energy.

Energy is how loud a song is as a whole, in LU from the other; there is no standard for it, and loudness is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mflamingo_cli.measure.facts import Key
from mflamingo_cli.parsers import parse_key
from mflamingo_cli.schema import Analysis

NEEDED = ("tempo", "key", "loudness")  # facts of a song
STRETCH = 0.08  # of the tempo: what the pitch fader of a turntable allows
OCTAVES = (1.0, 2.0, 0.5)  # beats of one song to those of the other
LOUD_LU = 6.0  # weighs as much as a neighbouring key, or all that the tempo allows


@dataclass(frozen=True)
class Match:
    """A song that mixes with another: how its key lies, by which share it must be played faster, how much louder it is in LU."""

    record: Analysis
    relation: str  # of `Key.neighbours`, or "same key"
    faster: float
    louder_lu: float | None

    @property
    def distance(self) -> float:
        """0 for a song that is alike; a neighbouring key, all the tempo allows and 6 LU are 1 each."""
        tempo = abs(math.log(1 + self.faster)) / math.log(1 + STRETCH)
        return (self.relation != "same key") + tempo + abs(self.louder_lu or 0.0) / LOUD_LU


def key_of(record: Analysis) -> Key | None:
    """The key of a song, None where it is not known."""
    return parse_key(record.key.name) if record.key.name else None


def lacks(record: Analysis) -> list[str]:
    """What is not known of a song and must be, to say what mixes with it."""
    return [name for name, known in (("tempo", record.tempo.bpm), ("key", record.key.name)) if not known]


def match(song: Analysis, other: Analysis) -> Match | None:
    """How another song mixes with a song, None where it does not, or where its tempo or key is not known."""
    if lacks(song) or lacks(other):
        return None
    key, own, bpm, its = key_of(song), key_of(other), song.tempo.bpm, other.tempo.bpm
    assert key and own and bpm and its, "lacks() says so"  # noqa: PT018
    near = {key.camelot: "same key"} | {neighbour.camelot: relation for relation, neighbour in key.neighbours.items()}
    faster = min((bpm / its * octave - 1 for octave in OCTAVES), key=abs)
    if own.camelot not in near or abs(faster) > STRETCH:
        return None
    levels = song.loudness.integrated_lufs, other.loudness.integrated_lufs
    louder = None if levels[0] is None or levels[1] is None else round(levels[1] - levels[0], 1)
    return Match(other, near[own.camelot], faster, louder)


def matches(song: Analysis, others: Iterable[Analysis]) -> list[Match]:
    """All songs that mix with a song, the nearest first; the song itself is none of them."""
    found = [match(song, other) for other in others if other.audio_id is None or other.audio_id != song.audio_id]
    return sorted((one for one in found if one is not None), key=lambda one: one.distance)
