"""What can be written into a song's tags, and how: names shared by the command line, the writing and the containers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mflamingo_cli.errors import MFlamingoError, UsageError

FIELDS = ("bpm", "key", "genre", "mood", "comment")
REPLAYGAIN = "replaygain"  # stands for the tags of a track, with --album of its folder too
TRACK_GAIN, TRACK_PEAK = "replaygain_track_gain", "replaygain_track_peak"
ALBUM_GAIN, ALBUM_PEAK = "replaygain_album_gain", "replaygain_album_peak"
GAINS = (TRACK_GAIN, TRACK_PEAK, ALBUM_GAIN, ALBUM_PEAK)
REFERENCE_LUFS = -18.0  # ReplayGain 2.0: a gain is what brings a song there
R128_LUFS = -23.0  # RFC 7845, 5.2.1: the same for Opus
ALL = "all"  # that describes the song; replaygain changes how loud it is played
USUAL = ("bpm", "key", "genre", "mood")  # where --write-tags names none: the comment field is for people
KEY_NOTATIONS = ("id3", "camelot", "openkey")
BPM_FORMS: dict[str, Callable[[float], str]] = {"int": lambda bpm: str(int(bpm + 0.5)), "2dp": lambda bpm: f"{bpm:.2f}"}
MARK = "MFLAMINGO"  # the name of our own frame, which says what we wrote
JOIN = "; "  # between words where a file has room for one text only

Policy = Callable[[str, str | None], bool]  # (value in the file, value that we wrote, if we did) -> may it be replaced?
POLICIES: dict[str, Policy] = {"never": lambda old, ours: False, "ours": lambda old, ours: old == ours, "all": lambda old, ours: True}


class TagError(MFlamingoError):
    """Tags that cannot be written as they should be; the file is left untouched."""

    code = "tags_not_written"


@dataclass(frozen=True)
class TagOptions:
    """What is written, over what, and how."""

    fields: tuple[str, ...]  # of FIELDS, and REPLAYGAIN
    overwrite: str = "ours"
    key_notation: str = "id3"
    bpm_form: str = "int"
    least: float = 0.8  # confidence of a tempo or key that is written; grounding.SURE, as a test says
    force: bool = False  # write into damaged files too
    album: bool = False  # write the gain of the folder too


def parse_fields(text: str) -> tuple[str, ...]:
    """Return the fields of a comma-separated list; "true" is the usual ones. Raises UsageError."""
    if text.lower() == "true":
        return USUAL
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in (*FIELDS, REPLAYGAIN, ALL)]:
        raise UsageError(f"--write-tags={unknown[0]}: there is no such field; choose from {', '.join((*FIELDS, REPLAYGAIN, ALL))}")
    every = FIELDS if ALL in names else ()
    return tuple(dict.fromkeys((*every, *(name for name in names if name != ALL))))
