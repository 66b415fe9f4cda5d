"""Ogg page by page: recordings joined to one file, streams side by side, and pages that are lost (RFC 3533).

A recording (RFC 3533, sec. 4: a link of a chain) begins with the first pages of its streams. Pages are counted and have a checksum, so what
is missing between two intact ones is known.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO

from mflamingo_cli.core.decode.base import Gap, Recording, Structure

PAGE = b"OggS"
HEADER_BYTES = 27  # RFC 3533, sec. 6
FIRST, LAST = 2, 4  # header type flags
SEARCH_BYTES = 1 << 16
MOST_BROKEN = 1000  # pages one after the other: behind so many there is no Ogg any more, and each of them costs a checksum
RECORDED_LATER_S = 10.0  # a first page that ends later belongs to a stream whose beginning was not recorded
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # turns Ogg's CRC-32, high bit first, into zlib's
OPUS_HZ = 48_000  # RFC 7845, sec. 4
OPUS_FRAMES = ((480, 960, 1920, 2880), (480, 960, 480, 960), (120, 240, 480, 960))  # RFC 6716, table 2: SILK, hybrid, CELT
LAST_GRANULE = (1 << 63) - 1
GRANULE_AT, CHECKSUM_AT = 6, 22  # in a page
CODECS: dict[bytes, tuple[str, Callable[[bytes], int]]] = {  # first packet of an audio stream: its codec, its rate in Hz
    b"\x01vorbis": ("vorbis", lambda packet: int.from_bytes(packet[12:16], "little")),  # Vorbis I, 4.2.2
    b"OpusHead": ("opus", lambda packet: OPUS_HZ),
    b"\x7fFLAC": ("flac", lambda packet: int.from_bytes(packet[27:30], "big") >> 4),  # RFC 9639, sec. 10.1 and 8.2
    b"Speex   ": ("speex", lambda packet: int.from_bytes(packet[36:40], "little")),
}


@dataclass
class Stream:
    """One audio stream of a recording, as its pages tell."""

    codec: str
    rate_hz: int
    skipped: int  # frames in front that are not to be played
    page: int = 0  # number of the newest page
    first: int | None = None  # granule positions: frames of sound that are complete at the end of a page
    last: int = 0
    ended: bool = False
    gaps: list[Gap] = field(default_factory=list)
    open: bytes = b""  # how a packet begins that goes on on the next page
    ahead: int = 0  # frames that packets hold beyond what granule positions say, where recordings were joined in one stream
    patches: list[tuple[int, bytes]] = field(default_factory=list)  # to the whole file: pages with the positions that their packets make

    @property
    def length_s(self) -> float | None:
        """What it should last; None where it is not counted from its beginning."""
        if self.first is None or self.first > RECORDED_LATER_S * self.rate_hz or self.last < 0:
            return None
        return max(0, self.last - self.skipped) / self.rate_hz

    def count_packets(self, page: Page) -> int:
        """Frames of sound of the Opus packets that are complete at the end of the next page."""
        frames, at, packet = 0, 0, self.open
        for size in page.table:
            packet += page.body[at : at + size][:2]
            at += size
            if size < 255:
                frames, packet = frames + _opus_frames(packet), b""
        self.open = packet
        return frames


@dataclass
class Link:
    """One recording: where it begins, and its audio streams by serial number."""

    begin: int
    streams: dict[int, Stream] = field(default_factory=dict)
    begun: bool = False  # a page that is not a first one has come


@dataclass(frozen=True)
class Page:
    """An intact page."""

    at: int
    flags: int
    granule: int
    serial: int
    number: int
    table: bytes
    body: bytes

    @property
    def end(self) -> int:
        """The byte behind it."""
        return self.at + HEADER_BYTES + len(self.table) + len(self.body)

    def header(self) -> bytes:
        """Its first bytes, with their checksum."""
        head = struct.pack("<4sBBqII", PAGE, 0, self.flags, self.granule, self.serial, self.number)
        behind = bytes([len(self.table)]) + self.table
        return head + struct.pack("<I", _checksum(head + bytes(4) + behind + self.body)) + behind


def read(file: IO[bytes], begin: int) -> Structure | None:
    """The structure of an Ogg file whose first page is at the byte `begin`; None where no page is intact."""
    links, last, rest = list[Link](), begin, list[tuple[int, int]]()
    for page in _pages(file, begin):
        if page.at > last:
            rest.append((last, page.at))
        last = page.end
        if page.flags & FIRST and (not links or links[-1].begun or page.serial in links[-1].streams):
            links.append(Link(page.at))
        if links:
            _enter(page, links[-1])
    if last == begin:
        return None
    links = [link for link in links if link.streams]
    links = [link for link in links if any(stream.first is not None for stream in link.streams.values())] or links[:1]
    if not links:
        return Structure((Recording(((begin, os.fstat(file.fileno()).st_size),)),) if begin else (Recording(),))
    chosen = [next(iter(link.streams.values())) for link in links]
    ends = [*(link.begin for link in links[1:]), os.fstat(file.fileno()).st_size]
    whole = len(links) == 1 and links[0].begin == 0
    parts = [
        Recording(() if whole else ((link.begin, end),), tuple((at - link.begin, patch) for at, patch in stream.patches), stream.length_s)
        for link, stream, end in zip(links, chosen, ends, strict=True)
    ]
    lengths = [stream.length_s for stream in chosen]
    gaps, before_s = [], 0.0
    for stream, length_s in zip(chosen, lengths, strict=True):
        gaps += [Gap(before_s + gap.at_s, gap.missing_s) for gap in stream.gaps]
        before_s += length_s or 0.0
    total = None if None in lengths else before_s
    rest.append((last, os.fstat(file.fileno()).st_size))
    return Structure(tuple(parts), tuple(gaps), not chosen[-1].ended, total, tuple(_others(links[0])), tuple(rest))


def _others(link: Link) -> Iterator[str]:
    """A sentence on streams beside the one that is decoded."""
    names = [stream.codec for stream in link.streams.values()]
    if len(names) > 1:
        yield f"the file has {len(names)} audio streams; only the first ({names[0]}) was analysed, not: {', '.join(names[1:])}"


def _enter(page: Page, link: Link) -> None:
    """Count a page in."""
    if page.flags & FIRST:
        for magic, (codec, rate) in CODECS.items():
            if page.body.startswith(magic) and 0 < rate(page.body) < 1 << 24:
                skipped = int.from_bytes(page.body[10:12], "little") if codec == "opus" else 0
                link.streams[page.serial] = Stream(codec, rate(page.body), skipped, page.number)
        return
    link.begun = True
    stream = link.streams.get(page.serial)
    if stream is None:
        return
    lost, begun = page.number - stream.page - 1, stream.last
    if stream.codec == "opus" and page.granule > 0:
        page = _as_counted(page, stream, lost)
    stream.page = page.number
    stream.ended |= bool(page.flags & LAST)
    if page.granule > 0:  # -1: no packet ends on it; 0: headers
        stream.first = page.granule if stream.first is None else stream.first
        stream.last = page.granule
    if lost > 0 and begun and page.granule > begun:
        missing = (page.granule - begun) * lost / (lost + 1) / stream.rate_hz  # as if the pages between were as long as this one
        stream.gaps.append(Gap(begun / stream.rate_hz, missing))


def _opus_frames(packet: bytes) -> int:
    """Frames of sound at 48 kHz that a packet holds, by its first two bytes (RFC 6716, 3.1 and 3.2)."""
    if not packet:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    size = OPUS_FRAMES[0 if config < 12 else 1 if config < 16 else 2][config & 3]
    return size * (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[code]


def _as_counted(page: Page, stream: Stream, lost: int) -> Page:
    """The page with the position that the packets of an Opus stream make, which is kept as a patch where it is another.

    Where recordings were joined in one stream, positions go on with less than packets hold: the last one before a joint was cut. That is
    allowed at the end of a stream only (RFC 7845, 4.4), so libsndfile refuses the page and all of its sound.
    """
    held = stream.count_packets(page)
    ahead = stream.last + held - (page.granule + stream.ahead)
    if ahead > 0 and not lost and not page.flags & LAST:
        stream.ahead += ahead
    if not stream.ahead or page.granule + stream.ahead > LAST_GRANULE:
        return page
    moved = replace(page, granule=page.granule + stream.ahead)
    stream.patches.append((page.at + GRANULE_AT, moved.header()[GRANULE_AT : CHECKSUM_AT + 4]))
    return moved


def _pages(file: IO[bytes], begin: int) -> Iterator[Page]:
    """Every intact page from there on."""
    at, broken = begin, 0
    file.seek(at)
    while broken < MOST_BROKEN:
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return
        if header.startswith(PAGE):
            table = file.read(header[26])
            body = file.read(sum(table))
            if _checksum(header[:22] + bytes(4) + header[26:] + table + body) == int.from_bytes(header[22:26], "little"):
                granule = int.from_bytes(header[6:14], "little", signed=True)
                serial, number = (int.from_bytes(header[place : place + 4], "little") for place in (14, 18))
                yield Page(at, header[5], granule, serial, number, table, body)
                at, broken = at + HEADER_BYTES + len(table) + len(body), 0
                continue
            broken += 1
        found = _next_page(file, at + 1)
        if found is None:
            return
        at = found
        file.seek(at)


def _next_page(file: IO[bytes], at: int) -> int | None:
    """Where the next page may begin."""
    file.seek(at)
    kept = b""
    while block := file.read(SEARCH_BYTES):
        data = kept + block
        found = data.find(PAGE)
        if found >= 0:
            return at + found
        kept = data[-3:]
        at += len(data) - len(kept)
    return None


def _checksum(page: bytes) -> int:
    """CRC-32 of a page: polynomial 0x04c11db7, begun with 0 and not inverted (RFC 3533, sec. 6)."""
    reversed_bits = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_bits:032b}"[::-1], 2)
