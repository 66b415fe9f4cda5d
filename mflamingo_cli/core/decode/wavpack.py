"""WavPack: blocks that are numbered anew where another file begins (WavPack 4 & 5 Binary File / Block Format, 2.0)."""

from __future__ import annotations

from typing import IO

from mflamingo_cli.core.decode.base import Structure
from mflamingo_cli.core.decode.joined import MOST_CHUNKS, bytes_at, end_of_frames, parts, places

START, HEADER_BYTES = b"wvpk", 32  # of a block
INITIAL = 8  # the bit of the second byte of its flags: the first block of these samples; others hold further channels


def read(file: IO[bytes], begin: int) -> Structure:
    """WavPack files, each behind the end of the one before."""
    size, starts, position, at = end_of_frames(file), list[int](), 0, begin
    for _ in range(MOST_CHUNKS):
        if at >= size:
            break
        head = bytes_at(file, at, HEADER_BYTES)
        if not head.startswith(START) or len(head) < HEADER_BYTES:  # a tag
            at = next(places(file, at + 1, START), size)
            continue
        if head[25] & INITIAL:
            index = int.from_bytes(head[16:20], "little") | head[10] << 32
            if not starts or index < position:
                starts.append(begin if not starts else at)
            position = index + int.from_bytes(head[20:24], "little")
        at += 8 + int.from_bytes(head[4:8], "little")
    return parts(file, starts or [begin], size)
