"""CAF: chunks, of which the one with the sound may have no size (Apple Core Audio Format, Audio Data Chunk)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import IO

from mflamingo_cli.core.decode.base import Structure
from mflamingo_cli.core.decode.joined import MOST_CHUNKS, STARTS, bytes_at, is_name, parts, places

HEADER_BYTES = 12  # of a chunk


def read(file: IO[bytes], begin: int) -> Structure:
    """CAF files; the size of the data of one may be -1: up to its end."""
    found = parts(file, [begin, *places(file, begin + 1, STARTS["caf"])]).parts
    whole = (0, os.fstat(file.fileno()).st_size)
    forms = [_form(file, *(part.ranges or (whole,))[0]) for part in found]
    return Structure(tuple(replace(part, patches=form[0]) for part, form in zip(found, forms, strict=True)), cut=forms[-1][1])


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
