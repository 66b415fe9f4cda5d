"""CAF: chunks, of which the one with the sound may have no size (Apple Core Audio Format, Audio Data Chunk)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import IO

from mflamingo_cli.core.decode.base import Recording, Structure
from mflamingo_cli.core.decode.joined import MOST_CHUNKS, STARTS, bytes_at, is_name, parts, places
from mflamingo_cli.core.decode.others import first_start, other_in

HEADER_BYTES = 12  # of a chunk


def read(file: IO[bytes], begin: int) -> Structure:
    """CAF files; the size of the data of one may be -1: up to its end."""
    size, found, rest, cut = os.fstat(file.fileno()).st_size, list[Recording](), list[tuple[int, int]](), False
    for part in parts(file, [begin, *places(file, begin + 1, STARTS["caf"])]).parts:
        at, end = (part.ranges or ((0, size),))[0]
        own = _end(file, at, end)
        if own < end and other_in(file, own, end):
            rest.append((own, end))
            part, end = replace(part, ranges=((at, own),)), own
        patches, cut = _form(file, at, end)
        found.append(replace(part, patches=patches))
    return Structure(tuple(found), cut=cut, rest=tuple(rest))


def _end(file: IO[bytes], begin: int, end: int) -> int:
    """Where its chunks end; where one has no size that can be true, in front of what else begins in it."""
    at = begin + 8
    for _ in range(MOST_CHUNKS):
        head = bytes_at(file, at, HEADER_BYTES)
        length = int.from_bytes(head[4:], "big", signed=True)
        if len(head) < HEADER_BYTES or at >= end or not is_name(head):
            return min(at, end)
        is_false = length < 0 or at + HEADER_BYTES + length > end
        if head[:4] == b"data" and (is_false or length == 0):
            return first_start(file, at + HEADER_BYTES, end) or end
        if is_false:
            return at
        at += HEADER_BYTES + length
    return end


def _form(file: IO[bytes], begin: int, end: int) -> tuple[tuple[tuple[int, bytes], ...], bool]:
    """What of the size of the data must be read otherwise, and whether a part of the data is missing."""
    at = begin + 8
    for _ in range(MOST_CHUNKS):
        head = bytes_at(file, at, HEADER_BYTES)
        length = int.from_bytes(head[4:], "big", signed=True)
        if at + HEADER_BYTES > end or len(head) < HEADER_BYTES or (length < 0 and head[:4] != b"data"):
            break
        at += HEADER_BYTES
        if head[:4] == b"data":
            cut = at + length > end
            if cut or length == -1 or (length == 0 and not _is_chunk(file, at, end)):
                return ((at - 8 - begin, (end - at).to_bytes(8, "big")),), cut
            break
        at += length
    return (), False


def _is_chunk(file: IO[bytes], at: int, size: int) -> bool:
    head = bytes_at(file, at, HEADER_BYTES)
    return len(head) < HEADER_BYTES or (is_name(head) and at + HEADER_BYTES + int.from_bytes(head[4:], "big") <= size)
