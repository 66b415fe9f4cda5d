"""Files of one format, each behind the one before, whose own header or blocks say where they end; streams of frames too."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import IO

from mflamingo_cli.core.decode import frames
from mflamingo_cli.core.decode.base import MOST_PARTS, Recording, Structure
from mflamingo_cli.core.decode.joined import LONGEST_START, MOST_CHUNKS, STARTS, TAGS, bytes_at, parts, places
from mflamingo_cli.core.decode.others import LEAST_BYTES, begin_of_sound, first_start, other_in

Patches = Callable[[IO[bytes], int, int], tuple[tuple[int, bytes], ...]]  # of the file between two bytes
End = Callable[[IO[bytes], int, int], int | None]  # of the file that begins at a byte and goes on to another at most; None if unknown


def _asf(file: IO[bytes], at: int, end: int) -> int | None:
    """Objects: a GUID of 16 bytes and a size (Advanced Systems Format, 2.2)."""
    for _ in range(MOST_CHUNKS):
        head = bytes_at(file, at, 24)
        size = int.from_bytes(head[16:], "little")
        if len(head) < 24 or head[:4] not in ASF_OBJECTS or size < 24:
            return at
        at += size
    return None


ASF_OBJECTS = {bytes.fromhex(guid) for guid in ("3026b275", "3626b275", "90080033", "d329e2d6", "fe103f6a", "d03fb73c")}


def _matroska(file: IO[bytes], at: int, end: int) -> int | None:
    """The header of EBML and a segment, whose size may be unknown (RFC 8794, 6.2; RFC 9559)."""
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        head = bytes_at(file, at, 12)
        if not head.startswith(name) or len(head) < 12 or not head[4]:
            return None
        length = 9 - head[4].bit_length()
        field = int.from_bytes(head[4 : 4 + length], "big")
        size = field - (1 << 7 * length)
        if size == (1 << 7 * length) - 1:
            return None
        at += 4 + length + size
    return at


def _riff(file: IO[bytes], at: int, end: int) -> int | None:
    """Chunks of RIFF: AVI above 1 GB has several (OpenDML 1.02)."""
    for _ in range(MOST_CHUNKS):
        head = bytes_at(file, at, 12)
        if not head.startswith(b"RIFF") or head[8:] not in (b"AVI ", b"AVIX"):
            return at
        at += 8 + int.from_bytes(head[4:8], "little")
        at += at % 2
    return None


FLV_TAGS = b"\x08\x09\x12"  # sound, picture, script


def _flv(file: IO[bytes], at: int, end: int) -> int | None:
    """Tags of 11 bytes and their content, each behind the size of the one before."""
    at += 9
    for _ in range(50 * MOST_CHUNKS):
        head = bytes_at(file, at, 15)
        if len(head) < 15 or head[4] not in FLV_TAGS or any(head[12:]):
            return at + 4
        at += 15 + int.from_bytes(head[5:8], "big")
    return None


def _program(file: IO[bytes], at: int, end: int) -> int | None:
    """Packs, of MPEG 2 or 1, and packets with their sizes (ISO 13818-1, 2.5.3)."""
    for _ in range(50 * MOST_CHUNKS):
        head = bytes_at(file, at, 14)
        if head.startswith(b"\0\0\1\xba") and len(head) == 14:
            at += 14 + (head[13] & 7) if head[4] & 0xC0 == 0x40 else 12
        elif head.startswith(b"\0\0\1\xb9"):
            at += 4
        elif head.startswith(b"\0\0\1") and len(head) == 14 and head[3] > 0xB9:
            at += 6 + int.from_bytes(head[4:6], "big")
        else:
            return at
    return None


def _tta(file: IO[bytes], at: int, end: int) -> int | None:
    """A header of 22 bytes, a table of the frames' sizes, frames of 256/245 s."""
    rate, samples = struct.unpack("<II", bytes_at(file, at + 10, 8).ljust(8, b"\0"))
    n_frames = -(-samples * 245 // max(1, 256 * rate))
    if not 0 < n_frames < MOST_CHUNKS:
        return None
    table = bytes_at(file, at + 22, 4 * n_frames)
    return at + 26 + len(table) + sum(size for (size,) in struct.iter_unpack("<I", table)) if len(table) == 4 * n_frames else None


def _ape(file: IO[bytes], at: int, end: int) -> int | None:
    """A descriptor with the sizes of all that follows it (Monkey's Audio 3.98)."""
    head = bytes_at(file, at, 36)
    return at + sum(struct.unpack("<IIIIIII", head[8:36])) if len(head) == 36 else None


ENDS: dict[str, End] = {
    "asf": _asf,
    "matroska": _matroska,
    "avi": _riff,
    "flv": _flv,
    "mpeg": _program,
    "tta": _tta,
    "ape": _ape,
    "w64": lambda file, at, end: at + int.from_bytes(bytes_at(file, at + 16, 8), "little"),
    "dsf": lambda file, at, end: at + int.from_bytes(bytes_at(file, at + 12, 8), "little"),
}


def reader(
    demuxer: str, patches: Patches = lambda file, begin, end: (), end_of: End | None = None
) -> Callable[[IO[bytes], int], Structure]:
    """A reader of files of a demuxer, each behind the one before; `patches` tells what of one must be read otherwise.

    Where nothing says where one ends, it ends where another begins: samples and codes do not look like one.
    """
    end_of = end_of or ENDS.get(demuxer, lambda file, begin, end: first_start(file, begin + LONGEST_START, end) or end)

    def read(file: IO[bytes], begin: int) -> Structure:
        whole = (0, os.fstat(file.fileno()).st_size)
        found, rest = list[Recording](), list[tuple[int, int]]()
        structure = parts(file, [begin, *places(file, begin + 1, STARTS[demuxer])] if demuxer in STARTS else [begin])
        for part in structure.parts:
            at, end = (part.ranges or (whole,))[0]
            own = end_of(file, at, end)
            if own is not None and at < own < end and other_in(file, own, end):
                rest.append((own, end))
                part = replace(part, ranges=((at, own),))
                end = own
            found.append(replace(part, patches=patches(file, at, end)))
        return Structure(tuple(found), rest=tuple(rest))

    return read


def frame_reader(name: str) -> Callable[[IO[bytes], int], Structure]:
    """A reader of streams of frames: behind tags another one may go on, behind damage this one does; or another file begins."""

    def read(file: IO[bytes], begin: int) -> Structure:
        size, found, at, follows_damage = os.fstat(file.fileno()).st_size, list[Recording](), begin, False
        if frames.walk(file, begin, size, name) == begin:  # packets of 192 bytes
            return parts(file, [begin])
        while len(found) <= MOST_PARTS:
            end = frames.walk(file, at, size, name)
            found.append(Recording(((at, end),), follows_damage=follows_damage))
            behind = begin_of_sound(file, end)
            if behind >= size:
                break
            follows_damage = not bytes_at(file, end, 16).startswith(TAGS)
            at = behind
            if frames.walk(file, at, size, name) == at:
                is_other = other_in(file, end, size) not in (None, name)
                row = None if is_other else frames.next_row(file, at + 1, name)
                if row is None:
                    return Structure(tuple(found), cut=not is_other and size - end > LEAST_BYTES, rest=((end, size),))
                follows_damage, at = True, row
        if len(found) == 1 and found[0].ranges == ((0, size),):
            return Structure()
        return Structure(tuple(found))

    return read
