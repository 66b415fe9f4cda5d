"""MP4 and its kin: boxes (ISO 14496-12, 4.2)."""

from __future__ import annotations

import os
from typing import IO

from mflamingo_cli.core.decode.base import Structure
from mflamingo_cli.core.decode.joined import MOST_CHUNKS, STARTS, bytes_at, is_name, parts, places
from mflamingo_cli.core.decode.others import other_at, other_in


def read(file: IO[bytes], begin: int) -> Structure:
    """MP4 files, each behind the end of the one before; a sentence where one has no beginning of its own."""
    size, at, starts, indexes = os.fstat(file.fileno()).st_size, begin, list[int](), list[int]()
    rest = list[tuple[int, int]]()
    for _ in range(MOST_CHUNKS):
        if at + 8 > size:
            break
        head = bytes_at(file, at, 16)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:16], "big") if length == 1 else size - at if length == 0 and is_name(head[4:8]) else length
        if length < 8 or at + length > size or not is_name(head[4:8]):  # no box, or one that is cut
            behind = next(places(file, at + 1, STARTS["mov"]), size)
            if not is_name(head[4:8]) or other_at(file, at) not in (None, "mov"):
                rest.append((at, behind))
            at = behind
            continue
        if head[4:8] == b"ftyp":
            starts.append(at)
        if head[4:8] == b"moov":
            indexes.append(at)
        at += length
    if len(indexes) < 2:
        return Structure(parts(file, [begin], _end(file, rest, size)).parts, rest=tuple(rest))
    ends = [*starts[1:], size]
    if [sum(start < index < end for index in indexes) for start, end in zip(starts, ends, strict=True)] == [1] * len(indexes):
        return Structure(parts(file, starts, _end(file, rest, size)).parts, rest=tuple(rest))
    joined = "another file is" if len(indexes) == 2 else f"{len(indexes) - 1} other files are"
    note = f"{joined} joined to this one and not decoded; split the file to analyse all"
    return Structure(notes=(note,), rest=tuple(rest))


def _end(file: IO[bytes], rest: list[tuple[int, int]], size: int) -> int:
    """Where the last file ends: in front of one of another format, else with all."""
    return rest[-1][0] if rest and rest[-1][1] == size and other_in(file, *rest[-1]) else size
