"""What a decoder is, what a file is made of, and what is said where sound is missing.

Positions and lengths of sound are frames (one sample of every channel) at the stream's rate; those of files are bytes.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mflamingo_cli.text import clock

MOST_PARTS = 1000  # recordings joined in one file; no more than one beyond is looked for
BLOCK_FRAMES = 1 << 15  # 0.7 s at 44.1 kHz; fewer where there are many channels:
BLOCK_SAMPLES = 1 << 18  # of all channels, 1 MiB
TOLERATED_S = 0.05  # of sound that a header promises and a decoder does not give, before it is called missing


@dataclass(frozen=True)
class Recording:
    """A recording within a file: the ranges of bytes that a decoder is given as if they were a whole file, no ranges for all of it.

    `patches` are (place in the part, bytes that are read there instead of what the file says); `length_s` is its length where the structure
    tells it better than a header, in seconds, as the decoder of an Opus stream may have another rate; an `uncounted` MPEG stream states no
    length anywhere; data in front of what `follows_damage` are lost.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    patches: tuple[tuple[int, bytes], ...] = ()
    length_s: float | None = None
    uncounted: bool = False
    follows_damage: bool = False


@dataclass(frozen=True)
class Gap:
    """A place where sound is missing: seconds into the file, and how many are missing (None: nobody knows)."""

    at_s: float
    missing_s: float | None


@dataclass(frozen=True)
class Structure:
    """What the structure of a file tells before it is decoded: its recordings, gaps between intact data, whether its end is missing.

    `length_s` is what all should last, None where that is unknown; `notes` are sentences on sound that is not decoded by choice;
    `rest` are ranges of bytes that belong to no recording.
    """

    parts: tuple[Recording, ...] = (Recording(),)
    gaps: tuple[Gap, ...] = ()
    cut: bool = False
    length_s: float | None = None
    notes: tuple[str, ...] = ()
    rest: tuple[tuple[int, int], ...] = ()


class Damaged(Exception):
    """Sound is missing: the stream broke off, or went on behind `gaps`, or nobody knows `where`; the blocks that came are good."""

    def __init__(self, reason: str, gaps: tuple[Gap, ...] = (), *, where: bool = True) -> None:
        super().__init__(reason)
        self.gaps, self.where = gaps, where


class Decoder(Protocol):
    """An open audio stream."""

    rate_hz: int
    channels: int
    codec: str
    roles: tuple[str, ...]  # of the channels in their order, see layout.py
    frames: int | None  # as the header or the structure states; None where neither does
    guess_s: float  # length in seconds for want of anything better
    tags: Mapping[str, str]  # as the file names them
    notes: tuple[str, ...]  # sentences on sound that is not decoded by choice

    def blocks(self, start: int) -> Generator[NDArray[np.float32], None, None]:
        """Yield (n, channels) from frame `start` to the end; raises Damaged there if sound is missing. To be called once."""

    def close(self) -> None:
        """Let go of the file."""


def block_frames(channels: int) -> int:
    """How many frames are decoded at a time, so that the memory of a block is bounded whatever the channels."""
    return max(1, min(BLOCK_FRAMES, BLOCK_SAMPLES // channels))


def damage_report(damage: Damaged, decoded: int, decoder: Decoder) -> str:
    """One sentence on what is missing of a stream of which so many frames were decoded."""
    decoded_s = decoded / decoder.rate_hz
    if damage.gaps:
        known = [gap.missing_s for gap in damage.gaps if gap.missing_s is not None]
        many = f" and {len(damage.gaps) - 1} other places" if len(damage.gaps) > 2 else " and at one other place" if damage.gaps[1:] else ""
        lost = f"about {max(0.1, sum(known)):.1f} s of sound are missing" if known else "some sound is missing"
        return f"{lost} at {clock(damage.gaps[0].at_s)}{many}: the file is damaged there; the rest was decoded"
    stated_s = decoder.frames / decoder.rate_hz if decoder.frames is not None else None
    if stated_s is not None and stated_s - decoded_s > TOLERATED_S:
        first = "the first " if damage.where else ""
        return f"only {first}{decoded_s:.1f} s of {stated_s:.1f} s could be decoded ({damage}): the file is cut or damaged"
    return f"the file seems cut or damaged ({damage}); {decoded_s:.1f} s of it were decoded"
