"""ID3v2 tags (id3.org, 2.2.0 to 2.4.0), of which only those that a real file may have are given to anything that reads them.

Readers copy what is left behind each frame and compare each value with all before, so their time grows with the square of what a tag holds;
and compressed frames, which no program writes, grow to gigabytes. This is the border: `refusal` sees a tag before any reader does.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

HEADER_BYTES = 10  # of the tag; a frame's is as long, but in 2.2
MOST_BYTES = 1 << 27  # ten covers of 10 MB
MOST_FRAMES = 5_000  # a podcast of a hundred chapters has 500, those within the chapters counted; values of texts count as frames
MOST_COPIED = 1 << 33  # bytes: what is left behind each frame, summed, takes a second or two
UNSYNCHRONISED = 0x80  # flag of a tag
COMPRESSED = {3: 0x80, 4: 0x08}  # by version: the bit of a frame's second flag byte
NESTED = (b"CHAP", b"CTOC")  # frames that hold frames
FRAME_NAME = re.compile(rb"[A-Z][A-Z0-9]{3}")
USUAL = re.compile(rb"T(?:IT[123]|PE[1-4]|ALB|CON|DRC|RCK|POS|SSE|ENC|COM|CMP|PUB|XXX)|APIC|COMM|GEOB|PRIV|UFID|USLT|POPM|CHAP|CTOC")
LARGE = "larger than any real file has"
INFLATING = "compressed, which no common program can read"


def size_of(header: bytes) -> int:
    """Length of a tag without its header of 10 bytes (2.4.0, sec. 3.1)."""
    return _syncsafe(header[6:10]) if len(header) >= HEADER_BYTES else 0


def refusal(header: bytes, content: bytes) -> str | None:
    """Why the tag that these bytes make must not be read, None if it may: read as each reader might."""
    major = header[3]
    if len(content) > MOST_BYTES:
        return LARGE
    contents = (content, content.replace(b"\xff\0", b"\xff")) if header[5] & UNSYNCHRONISED else (content,)
    readings = (_judge(_frames(data, major, kind), COMPRESSED.get(major, 0)) for data in contents for kind in _sizes(data, major))
    return next(filter(None, readings), None)


def unread(why: str) -> str:
    """The sentence on tags that are not read."""
    return f"the file's tags are {why}, and were not read; remove them with a tag editor"


def _sizes(data: bytes, major: int) -> tuple[str, ...]:
    """How sizes of frames may be written: in 2.4 as iTunes did too, with eight bits a byte.

    Readers take them so where that finds no fewer frames that they know. In other tags it leads into the middle of frames, where anything
    may look like one.
    """
    if major != 4:
        return ("plain",)
    usual = sum(1 for name, _, content, _ in _frames(data, major, "syncsafe") if content and USUAL.fullmatch(name))
    plain = sum(1 for name, *_ in _frames(data, major, "plain") if FRAME_NAME.fullmatch(name))
    return ("syncsafe", "plain") if plain >= usual else ("syncsafe",)


def _judge(frames: Iterator[tuple[bytes, int, bytes, int]], compressed: int) -> str | None:
    """What is wrong with the frames of a tag, if anything."""
    n_frames = copied = 0
    for name, flags, content, left in frames:
        if flags & compressed and FRAME_NAME.fullmatch(name):
            return INFLATING
        n_inner = 0
        if name.startswith(b"T"):  # values end with a zero, or with two
            n_inner = content.count(b"\0\0" if content[:1] in (b"\1", b"\2") else b"\0")
        elif name in NESTED:
            n_inner = sum(1 for _ in itertools.islice(FRAME_NAME.finditer(content), MOST_FRAMES))
        n_frames, copied = n_frames + 1 + n_inner, copied + left + n_inner * len(content)
        if n_frames > MOST_FRAMES or copied > MOST_COPIED:
            return LARGE
    return None


def _frames(data: bytes, major: int, kind: str) -> Iterator[tuple[bytes, int, bytes, int]]:
    """Name, second flag byte, content, and how many bytes there are behind it, of each frame up to the padding."""
    n_name, n_head = (3, 6) if major == 2 else (4, 10)
    at = 0
    while at + n_head <= len(data):
        head = data[at : at + n_head]
        name, field = head[:n_name], head[n_name : 2 * n_name]
        if not head.strip(b"\0"):
            return
        size = _syncsafe(field) if kind == "syncsafe" else int.from_bytes(field, "big")
        at += n_head
        yield name, head[-1] if major > 2 else 0, data[at : at + size], max(0, len(data) - at - size)
        at += size


def _syncsafe(field: bytes) -> int:
    """A number of seven bits a byte."""
    number = 0
    for byte in field:
        number = number << 7 | byte & 0x7F
    return number
