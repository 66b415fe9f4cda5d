"""CAF: chunks, of which the one with the sound may have no size (Apple Core Audio Format, Audio Data Chunk)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import IO

from mflamingo_cli.core.decode.base import Structure
from mflamingo_cli.core.decode.joined import MOST_CHUNKS, bytes_at, is_name, reader

HEADER_BYTES = 12  # of a chunk


def read(file: IO[bytes], begin: int) -> Structure:
    """CAF files; the size of the data of one may be -1: up to its end."""
    found = _read_joined(file, begin)
    whole = (0, os.fstat(file.fileno()).st_size)
    return replace(found, cut=_form(file, *(found.parts[-1].ranges or (whole,))[0])[1])


def _form(file: IO[bytes], begin: int, end: int) -> tuple[tuple[tuple[int, bytes], ...], bool]:
    """What of the size of the data must be read otherwise, and whether a part of the data is missing."""
    at = begin + 8
    for _ in range(MOST_CHUNKS):
        head = bytes_at(file, at, HEADER_BYTES)
        length = int.from_bytes(head[4:], "big", signed=True)
        if len(head) < HEADER_BYTES or (length < 0 and head[:4] != b"data"):
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


_read_joined = reader("caf", lambda file, begin, end: _form(file, begin, end)[0])
