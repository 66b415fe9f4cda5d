"""Where the sound of a file begins behind what is none, and files of another format that are joined to one.

A reader says which bytes belong to no recording (`Structure.rest`); the one place that looks into them is `named_others`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import IO

from mflamingo_cli.core.decode import frames, id3, mpeg
from mflamingo_cli.core.decode.base import Structure
from mflamingo_cli.core.decode.containers import container
from mflamingo_cli.core.decode.joined import ID3V1_BYTES, MOST_ZEROS, STARTS, bytes_at

HEAD_BYTES = 1 << 16  # read to recognise the container
LEAST_BYTES = 512  # of a file of half a second
MOST_RESTS = 1000
SEARCH_BYTES = 1 << 20
OVERLAP = mpeg.ROW * mpeg.LONGEST  # of what is searched at once: what begins a file is no longer
OTHER_STARTS = (  # of what is not looked for behind a file of its own kind
    *(rb"RIFF....(?:AVI LIST|XWMAfmt |QLCMfmt )", rb"#!AMR(?:-WB)?\n", rb"MPCKSH", rb"FRM8.{8}DSD FVER"),
    *(rb"\0\0\x01\xba[\x44-\x7f].{9}\0\0\x01\xbb", rb"\0\0\x01\xba[\x21-\x2f].{7}\0\0\x01\xbb"),  # MPEG 2 and 1, with a system header
)
ANY_START = re.compile(b"|".join(b"(?:" + start + b")" for start in (*STARTS.values(), *OTHER_STARTS)), re.DOTALL)
MOST_TAGS = 100  # in front of the sound; each may be ten bytes long
OWN_ZEROS = range(1, 4)  # a container may begin with so many: the size of its first box, as in MP4
APE_TAG = b"APETAGEX"
APE_HEADER = 0x20  # in the highest byte of its flags: this is a header, not a footer
APE_BYTES = 32  # of its header or footer (wiki.hydrogenaud.io, APEv2 specification)


def begin_of_sound(file: IO[bytes], at: int = 0) -> int:
    """Where a file that lies there begins behind tags in front (ID3, more than one of them, APEv2) and zeros that wiped ones left."""
    first = at
    for _ in range(MOST_TAGS):
        head = bytes_at(file, at, APE_BYTES)
        if head.startswith(b"ID3") and len(head) >= id3.HEADER_BYTES:
            at += id3.HEADER_BYTES + id3.size_of(head)
        elif head.startswith(APE_TAG) and len(head) == APE_BYTES:
            at += APE_BYTES + (int.from_bytes(head[12:16], "little") if head[23] & APE_HEADER else 0)
        elif head.startswith(b"TAG") and first:
            at += ID3V1_BYTES
        elif head.startswith(bytes(8)) and at - first < MOST_ZEROS:
            at = _behind_zeros(file, at)
        else:
            break
    return at


def is_empty(block: bytes) -> bool:
    """Whether a block is all zeros: compared, which is much faster than searched."""
    return block == bytes(len(block))


def _behind_zeros(file: IO[bytes], at: int) -> int:
    """The place of the first byte that is not zero, or of the first of the zeros that a container begins with; or the end."""
    file.seek(at)
    first = at
    while at - first < MOST_ZEROS and (block := file.read(HEAD_BYTES)):
        if not is_empty(block):
            rest = block.lstrip(b"\0")
            behind = at + len(block) - len(rest)
            return next((behind - own for own in OWN_ZEROS if container(bytes(own) + rest)), behind)
        at += len(block)
    return at


def other_at(file: IO[bytes], at: int) -> str | None:
    """The demuxer of the file that begins at a byte, or behind a byte of padding there."""
    data = bytes_at(file, at, HEAD_BYTES)
    for pad in (0, 1):
        if found := container(data[pad:]):
            return found
        if mpeg.begins(data[pad:]):
            return "mp3"
    return None


def other_in(file: IO[bytes], begin: int, end: int) -> str | None:
    """The demuxer of the first file that begins in a range of bytes in which no recording lies."""
    if end - begin < LEAST_BYTES:
        return None
    at = begin_of_sound(file, begin)
    if at >= end:
        return None
    if found := other_at(file, at):
        return found
    place = first_start(file, at, min(end, at + MOST_ZEROS // 8))
    return None if place is None else other_at(file, place)


def first_start(file: IO[bytes], begin: int, end: int) -> int | None:
    """Where in a range of bytes anything begins that is not met by chance."""
    for at in range(begin, end, SEARCH_BYTES):
        data = bytes_at(file, at, min(SEARCH_BYTES + OVERLAP, end - at))
        if is_empty(data):
            continue
        known, frame = ANY_START.search(data), frames.row_in(data)
        places = [*([known.start()] if known else ()), *([frame[0]] if frame else ()), *mpeg.heads(data)[:1].tolist()]
        if places:
            return at + int(min(places))
    return None


def named_others(file: IO[bytes], structure: Structure, own: str) -> Structure:
    """Say of the structure of a file of a demuxer which other ones lie in what belongs to none of its recordings."""
    names = [name for begin, end in structure.rest[:MOST_RESTS] if (name := other_in(file, begin, end)) not in (None, own)]
    if not names:
        return structure
    if len(names) == 1:
        note = f"another file ({names[0]}) is joined to this one and not decoded; split the file to analyse both"
    else:
        kinds = ", ".join(dict.fromkeys(map(str, names)))
        note = f"other files ({kinds}) are joined to this one and not decoded; split the file to analyse all"
    return replace(structure, notes=(*structure.notes, note))
