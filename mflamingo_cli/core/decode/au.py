"""AU: a size may be unknown, and 0, or less than there is, is what a writer that died leaves."""

from __future__ import annotations

from typing import IO

from mflamingo_cli.core.decode.joined import bytes_at, reader

ENOUGH = 0.99  # of the sound that is there: a stated size below that is none


def _patches(file: IO[bytes], begin: int, end: int) -> tuple[tuple[int, bytes], ...]:
    place, stated = (int.from_bytes(bytes_at(file, begin + at, 4), "big") for at in (4, 8))
    return ((8, b"\xff" * 4),) if stated < (end - begin - place) * ENOUGH else ()


read = reader("au", _patches)
