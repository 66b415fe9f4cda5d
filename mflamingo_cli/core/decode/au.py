"""AU: a size may be unknown, and 0, or less than there is, is what a writer that died leaves."""

from __future__ import annotations

from typing import IO

from mflamingo_cli.core.decode.ends import reader
from mflamingo_cli.core.decode.joined import LONGEST_START, bytes_at
from mflamingo_cli.core.decode.others import first_start, other_in

ENOUGH = 0.99  # of the sound that is there: a stated size below that is none


def _end(file: IO[bytes], begin: int, end: int) -> int:
    """Where the stated size ends if another file lies there, else where anything else begins."""
    place, stated = (int.from_bytes(bytes_at(file, begin + at, 4), "big") for at in (4, 8))
    own = begin + place + stated
    if stated and (own == end or (own < end and other_in(file, own, end))):
        return own
    return first_start(file, begin + LONGEST_START, end) or end


def _patches(file: IO[bytes], begin: int, end: int) -> tuple[tuple[int, bytes], ...]:
    place, stated = (int.from_bytes(bytes_at(file, begin + at, 4), "big") for at in (4, 8))
    return ((8, b"\xff" * 4),) if stated < (end - begin - place) * ENOUGH else ()


read = reader("au", _patches, _end)
