"""FLAC files, one or several joined, and the length that their frames tell where the header states less (RFC 9639).

Positions and lengths of sound are frames (one sample of every channel) at the stream's rate, as everywhere here; what the RFC calls a frame
is a block.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from mflamingo_cli.core.decode.base import MOST_PARTS, Recording, Structure
from mflamingo_cli.core.decode.joined import MOST_CHUNKS, STARTS, bytes_at, places
from mflamingo_cli.core.decode.others import first_start

STREAMINFO_BYTES = 42  # the marker, the header of the first metadata block, and the block
TOTAL_AT = 21  # where the length lies in a file: 36 bits, behind four of another number
END_BYTES = 1 << 20  # searched for the last blocks: eight of the largest that 8 channels of 24 bits make of 4096 samples
BLOCK_START = re.compile(rb"\xff[\xf8\xf9][^\x00-\x0f][\x00-\xaf]")  # sec. 9.1: sync code, a size, an assignment of channels
LONGEST_HEAD = 16  # bytes of the header of a block
NUMBER_AT = 4  # where the number of a block, or of its first sample, lies in its header
UTF8_BYTES = ((0x80, 1), (0xC0, 0), (0xE0, 2), (0xF0, 3), (0xF8, 4), (0xFC, 5), (0xFE, 6), (0xFF, 7))  # first byte below -> length
SIZES = {1: 192, **{code: 144 << code for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}  # by code, 9.1.1
SIZE_BYTES = {6: 1, 7: 2}  # of a size that is written out
RATE_BYTES = {12: 1, 13: 2, 14: 2}


@dataclass(frozen=True)
class Block:
    """Where the sound of a block begins and ends, and how long its header is."""

    begin: int
    end: int
    head_bytes: int
    at: int = 0  # in the bytes that were searched


def read(file: IO[bytes], begin: int) -> Structure:
    """The structure of a file whose first FLAC stream is at the byte `begin`; each other one is behind the end of the one before."""
    starts = [begin, *places(file, begin + 1, STARTS["flac"])]
    ends = [*starts[1:], os.fstat(file.fileno()).st_size]
    owns = [_end(file, start, end) for start, end in zip(starts, ends, strict=True)]
    found = (part for start, own in zip(starts, owns, strict=True) for part in _recordings(file, start, own))
    parts = tuple(itertools.islice(found, MOST_PARTS + 1))
    rest = tuple((own, end) for own, end in zip(owns, ends, strict=True) if own < end)
    return Structure(parts, rest=rest) if begin or len(parts) > 1 or parts[0].patches or rest else Structure()


def _end(file: IO[bytes], start: int, end: int) -> int:
    """Where a file of another format begins that is joined to a stream, else where that one ends: looked for behind the last of its blocks.

    Among the blocks too if none is near the end. Codes of sound do not look like the begin of any file.
    """
    fixed = int.from_bytes(bytes_at(file, start + 8, 2), "big")
    blocks_at = min(_behind_metadata(file, start, end), end)
    searched = max(blocks_at, end - END_BYTES)
    last = _last_block(bytes_at(file, searched, end - searched), fixed)
    return first_start(file, blocks_at if last is None else searched + last.at + LONGEST_HEAD, end) or end


def _recordings(file: IO[bytes], start: int, end: int) -> Iterator[Recording]:
    """A stream; where its header states less than its blocks hold, what they hold is read instead.

    Blocks that are numbered anew are another recording, which was joined to it without a header of its own: the first one's is as good.
    """
    head = bytes_at(file, start, STREAMINFO_BYTES)
    rate, stated = int.from_bytes(head[18:21], "big") >> 4, int.from_bytes(head[TOTAL_AT : TOTAL_AT + 5], "big") & (1 << 36) - 1
    fixed = int.from_bytes(head[8:10], "big")
    blocks_at = _behind_metadata(file, start, end)
    opening = bytes_at(file, blocks_at, LONGEST_HEAD)
    first = _block(opening, fixed)
    if not rate or first is None or first.begin != 0:  # a stream that was recorded later begins with another number
        yield Recording(((start, end),), length_s=stated / rate if stated and rate else None)
        return
    anew = re.escape(opening[: first.head_bytes])
    starts = [blocks_at, *itertools.takewhile(lambda place: place < end, places(file, blocks_at + 1, anew))]
    for begin, behind in itertools.pairwise([*starts, end]):
        searched = max(begin, behind - END_BYTES)
        last = _last_block(bytes_at(file, searched, behind - searched), fixed)
        held = last.end if last is not None and (last.end > stated or len(starts) > 1) else stated
        ranges = ((start, behind),) if begin == blocks_at else ((start, blocks_at), (begin, behind))
        found = bytes([head[TOTAL_AT] & 0xF0 | held >> 32]) + (held & 0xFFFF_FFFF).to_bytes(4, "big")
        yield Recording(ranges, ((TOTAL_AT, found),) if held != stated else (), length_s=held / rate if held else None)


def _behind_metadata(file: IO[bytes], start: int, end: int) -> int:
    """Where the first block of sound is."""
    at = start + 4
    for _ in range(MOST_CHUNKS):
        if at + 4 > end:
            break
        header = bytes_at(file, at, 4)
        at += 4 + int.from_bytes(header[1:], "big")
        if header[0] & 0x80:
            break
    return at


def _last_block(data: bytes, fixed: int) -> Block | None:
    """The last block of some bytes that is right behind another one: a block by chance has none in front of it."""
    last = before = None
    for block in _blocks(data, fixed):
        if before is not None and block.begin == before.end:
            last = block
        before = block
    return last


def _blocks(data: bytes, fixed: int) -> Iterator[Block]:
    for found in BLOCK_START.finditer(data):
        block = _block(data[found.start() : found.start() + LONGEST_HEAD], fixed)
        if block is not None:
            yield replace(block, at=found.start())


def _block(head: bytes, fixed: int) -> Block | None:
    """The block whose header begins some bytes; None where the checksum of a header is wrong. `fixed` is the size of all but the last."""
    if len(head) < LONGEST_HEAD or not BLOCK_START.match(head):
        return None
    n_number = next(length for below, length in UTF8_BYTES if head[NUMBER_AT] < below or below == 0xFF)
    size_code, rate_code = head[2] >> 4, head[2] & 15
    size_at = NUMBER_AT + n_number
    n_size = SIZE_BYTES.get(size_code, 0)
    crc_at = size_at + n_size + RATE_BYTES.get(rate_code, 0)
    if not n_number or crc_at >= len(head) or _crc8(head[:crc_at]) != head[crc_at]:
        return None
    number = head[NUMBER_AT] & (0x7F if n_number == 1 else 0x7F >> n_number)
    for byte in head[NUMBER_AT + 1 : size_at]:
        number = number << 6 | byte & 0x3F
    size = SIZES.get(size_code) or int.from_bytes(head[size_at : size_at + n_size], "big") + 1
    begin = number if head[1] & 1 else number * fixed
    return Block(begin, begin + size, crc_at + 1)


def _crc8(data: bytes) -> int:
    """The checksum of a header: polynomial 0x07, begun with 0 (RFC 9639, 9.1.8)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc
