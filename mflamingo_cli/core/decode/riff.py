"""WAV, RF64, AIFF and 8SVX: chunks whose sizes may be wrong because their writer died or did not know them.

A size that cannot be true is read as what is there; a second file behind the end of the first is a recording of its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

from mflamingo_cli.core.decode.base import MOST_PARTS, Recording, Structure
from mflamingo_cli.core.decode.joined import (
    MOST_CHUNKS,
    SEARCH_BYTES,
    STARTS,
    TAGS,
    bytes_at,
    is_name,
    places,
)
from mflamingo_cli.core.decode.others import other_at

FARTHEST = 1 << 62  # no file has such a place
UNKNOWN_32 = 0xFFFF_FFFF  # as good as no size
FORMS = (b"RIFF", b"RF64", b"FORM")  # what begins a file
HEADER_BYTES = 8  # of a chunk
SOUND = {b"data": 0, b"SSND": 8, b"BODY": 0}  # the chunk with the sound, and its size where there is none
TEXT, TEXT_BYTES = bytes(range(0x20, 0x7F)) + b"\t\r\n", 256
Patch = tuple[int, bytes]
Order = Literal["little", "big"]


def read(file: IO[bytes], begin: int) -> Structure:
    """Files, each behind the end of the one before."""
    size, parts, rest = os.fstat(file.fileno()).st_size, list[Recording](), list[tuple[int, int]]()
    while begin < size and len(parts) <= MOST_PARTS:
        form = _form(file, begin, size)
        head = bytes_at(file, begin, 12)
        kind = "wav" if not head.startswith(b"FORM") else "aiff" if head[8:11] == b"AIF" else "iff"
        behind = next(places(file, form.end - 1, STARTS[kind]), size) if form.end < size else size
        cuts = [begin, *itertools.chain.from_iterable((hole, hole + 1) for hole in form.holes), form.end if behind < size else size]
        parts.append(Recording(tuple(zip(cuts[::2], cuts[1::2], strict=True)), form.patches))
        rest.append((form.end, behind))
        begin = behind
    if len(parts) == 1 and parts[0].ranges == ((0, size),) and not parts[0].patches:
        return Structure(rest=tuple(rest))
    return Structure(tuple(parts), rest=tuple(rest))


@dataclass(frozen=True)
class Form:
    """Where a file ends, bytes of it that must be passed over, and what of its sizes must be read otherwise."""

    end: int
    holes: tuple[int, ...] = ()
    patches: tuple[Patch, ...] = ()


def _form(file: IO[bytes], begin: int, size: int) -> Form:
    """What the file that begins there is.

    A chunk of odd size that has no byte of padding behind it is read without its last byte: decoders look for the next one behind padding.
    """
    kind = bytes_at(file, begin, 4)
    if kind not in FORMS:  # RIFX
        return Form(size)
    order: Order = "big" if kind == b"FORM" else "little"
    stated = int.from_bytes(bytes_at(file, begin + 4, 4), order)
    large, holes, patches = 0, list[int](), list[Patch]()  # where RF64 keeps its sizes
    least = begin + HEADER_BYTES  # where it ends at least, whatever size is stated
    for name, at, length in _chunks(file, begin + 12, size, order):
        place = at - len(holes) - begin  # in what is read
        if name == b"ds64":
            large = at
            stated = int.from_bytes(bytes_at(file, at, 8), "little")
        if name in SOUND:
            if large:
                length = int.from_bytes(bytes_at(file, large + 8, 8), "little")
            if _is_false(file, at, length, SOUND[name], size, order):
                return Form(size, tuple(holes), (*patches, *_sizes(place, large and large - begin, size - at, order)))
            least = at + length + length % 2
            break
        if length % 2 and not _is_padded(file, at + length, size, order):
            holes.append(at + length - 1)
            least = at + length
            patches.append((place - 4, (length - 1).to_bytes(4, order)))
    if holes and not large:
        patches.append((4, max(0, stated - len(holes)).to_bytes(4, order)))
    return Form(min(max(begin + 8 + stated + stated % 2, least), size), tuple(holes), tuple(patches))


def _is_false(file: IO[bytes], at: int, length: int, empty: int, size: int, order: Order) -> bool:
    """Whether the size of the sound is none that its writer meant: that of none, or less or far more than there is."""
    held = size - at
    if length > FARTHEST:
        return held > 0
    if length <= empty:
        return held > empty and not _is_chunk(file, at + length, size, order)
    if at + length >= size or any(_is_chunk(file, at + length + pad, size, order) for pad in (0, length % 2)):
        return False
    behind = bytes_at(file, at + length, SEARCH_BYTES)
    if other_at(file, at + length) or any(behind.startswith(TAGS, pad) for pad in (0, 1)) or not behind[:TEXT_BYTES].translate(None, TEXT):
        return False
    return any(behind) and held - length >= length // 100  # else zeros, or little that is no sound either


def _sizes(place: int, large: int, held: int, order: Order) -> list[Patch]:
    """The sizes of a file whose data begin at a byte and go on to its end."""
    whole = place - 8 + held
    small = [(4, min(whole, UNKNOWN_32).to_bytes(4, order)), (place - 4, min(held, UNKNOWN_32).to_bytes(4, order))]
    if not large:
        return small
    return [(large, whole.to_bytes(8, order) + held.to_bytes(8, order)), (place - 4, b"\xff" * 4)]


def _chunks(file: IO[bytes], at: int, size: int, order: Order) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and length of the content of each chunk."""
    for _ in range(MOST_CHUNKS):
        head = bytes_at(file, at, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return
        length = int.from_bytes(head[4:], order)
        yield head[:4], at + HEADER_BYTES, length
        at += HEADER_BYTES + length
        at += length % 2 and _is_padded(file, at, size, order)


def _is_padded(file: IO[bytes], end: int, size: int, order: Order) -> bool:
    """Whether a byte of padding lies behind a chunk of odd length, which not every program writes."""
    return _is_chunk(file, end + 1, size, order) or not _is_chunk(file, end, size, order)


def _is_chunk(file: IO[bytes], at: int, size: int, order: Order) -> bool:
    """Whether a chunk begins there, or nothing does: its name, and a length that the file has."""
    head = bytes_at(file, at, HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        return True
    return is_name(head) and (at + HEADER_BYTES + int.from_bytes(head[4:], order) <= size + 1 or head[:4] in FORMS)
