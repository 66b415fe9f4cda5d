"""WavPack: blocks that are numbered anew where another file begins (WavPack 4 & 5 Binary File / Block Format, 2.0)."""

from __future__ import annotations

import os
from typing import IO

from mflamingo_cli.core.decode.base import Recording, Structure
from mflamingo_cli.core.decode.joined import MOST_CHUNKS, bytes_at, end_of_frames, places
from mflamingo_cli.core.decode.others import APE_BYTES, APE_TAG

START, HEADER_BYTES = b"wvpk", 32  # of a block
INITIAL = 8  # the bit of the second byte of its flags: the first block of these samples; others hold further channels


def read(file: IO[bytes], begin: int) -> Structure:
    """WavPack files, each behind the end of the one before: its last block, or one tag, which a decoder reads."""
    size, starts, ends, rest, position, at = end_of_frames(file), list[int](), list[int](), list[tuple[int, int]](), 0, begin
    end = begin  # of the last block
    for _ in range(MOST_CHUNKS):
        if at >= size:
            break
        head = bytes_at(file, at, HEADER_BYTES)
        if not head.startswith(START) or len(head) < HEADER_BYTES:  # a tag
            behind = next(places(file, at + 1, START), size)
            rest.append((at, behind))
            at = behind
            continue
        if head[25] & INITIAL:
            index = int.from_bytes(head[16:20], "little") | head[10] << 32
            if starts and index < position:
                ends.append(end)
            if not starts or index < position:
                starts.append(begin if not starts else at)
            position = index + int.from_bytes(head[20:24], "little")
        at += 8 + int.from_bytes(head[4:8], "little")
        end = at
    tag = bytes_at(file, end, APE_BYTES)
    is_tag = tag.startswith(APE_TAG) and end + APE_BYTES + int.from_bytes(tag[12:16], "little") == size
    ends.append(size if is_tag or end == begin else min(end, size))
    whole = os.fstat(file.fileno()).st_size
    if len(starts) < 2 and (begin, ends[-1]) == (0, whole):
        return Structure(rest=tuple(rest))
    return Structure(tuple(Recording((piece,)) for piece in zip(starts or [begin], ends, strict=True)), rest=tuple(rest))
