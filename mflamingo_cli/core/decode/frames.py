"""Streams of frames without a container: AAC (ADTS and LATM), AC-3, and MPEG transport packets; where they begin and end."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from mflamingo_cli.core.decode.joined import bytes_at

ROW = 4  # frames that must follow each other where a stream begins
HEADER_BYTES = 7
WALK_BYTES = 1 << 20
LONGEST = 1 << 13  # bytes of a frame
AC3_KBIT_S = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)  # ETSI TS 102 366, table 4.13
AC3_HZ = (48_000, 44_100, 32_000)


def _adts(head: bytes) -> int:
    """ISO 14496-3, 1.A.3.2."""
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] & 0x3C < 0x34 else 0


def _latm(head: bytes) -> int:
    """AudioSyncStream (ISO 14496-3, 1.7.2)."""
    return 3 + ((head[1] & 0x1F) << 8 | head[2]) if head[0] == 0x56 and head[1] & 0xE0 == 0xE0 else 0


def _ac3(head: bytes) -> int:
    """ETSI TS 102 366, 4.4.1 and, for E-AC-3, E.1.3.1."""
    if head[:2] != b"\x0b\x77":
        return 0
    if head[5] >> 3 > 10:
        return 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    rate, size = head[4] >> 6, head[4] & 0x3F
    if rate == 3 or size >= 2 * len(AC3_KBIT_S):
        return 0
    words = AC3_KBIT_S[size // 2] * 96_000 // AC3_HZ[rate]
    return 2 * (words + (size & 1 if rate == 1 else 0))


def _packet(head: bytes) -> int:
    """ISO 13818-1, 2.4.3.2."""
    return 188 if head[0] == 0x47 else 0


@dataclass(frozen=True)
class FrameFormat:
    """How a frame begins, and its length by its first HEADER_BYTES bytes, 0 where none begins."""

    sync: bytes
    length: Callable[[bytes], int]


FORMATS = {
    "aac": FrameFormat(rb"\xff[\xf0\xf1\xf8\xf9]", _adts),
    "loas": FrameFormat(rb"\x56[\xe0-\xff]", _latm),
    "ac3": FrameFormat(rb"\x0b\x77", _ac3),
    "eac3": FrameFormat(rb"\x0b\x77", _ac3),
    "mpegts": FrameFormat(rb"\x47(?=(...).{184}\x47(?!\1).{187}\x47.{187}\x47)", _packet),  # alike: samples at a constant level
}


def row_in(data: bytes) -> tuple[int, str] | None:
    """Where some bytes begin a stream, ROW frames that follow each other, and of which kind; the first such place."""
    found = ((_first_row(data, kind), name) for name, kind in FORMATS.items())
    return min(((at, name) for at, name in found if at is not None), default=None)


def next_row(file: IO[bytes], at: int, name: str) -> int | None:
    """Where a stream of a kind goes on from a byte on."""
    while data := bytes_at(file, at, WALK_BYTES + ROW * LONGEST):
        place = _first_row(data, FORMATS[name])
        if place is not None:
            return at + place
        at += WALK_BYTES
    return None


def _first_row(data: bytes, kind: FrameFormat) -> int | None:
    starts = (start.start() for start in re.finditer(kind.sync, data, re.DOTALL))
    return next((at for at in starts if _is_row(data, at, kind)), None)


def _is_row(data: bytes, at: int, kind: FrameFormat) -> bool:
    for _ in range(ROW):
        head = data[at : at + HEADER_BYTES]
        length = kind.length(head) if len(head) == HEADER_BYTES else 0
        if length <= HEADER_BYTES:
            return False
        at += length
    return True


def walk(file: IO[bytes], at: int, size: int, name: str) -> int:
    """The byte behind the last frame of those that follow each other from a byte on; one that is cut is the last."""
    length_of, data, first = FORMATS[name].length, b"", at
    while at < size:
        if at - first + HEADER_BYTES > len(data):
            first, data = at, bytes_at(file, at, WALK_BYTES)
        head = data[at - first : at - first + HEADER_BYTES]
        length = length_of(head) if len(head) == HEADER_BYTES else 0
        if length <= HEADER_BYTES:
            return at
        at += length
    return size
