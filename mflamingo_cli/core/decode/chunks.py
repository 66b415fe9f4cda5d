"""Containers made of sized chunks, whose sizes may be wrong because their writer died or did not know: WAV, AIFF, AU, CAF, MP4.

A size that cannot be true is read as what is there; a second file behind the end of the first is a recording of its own.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, Literal

from mflamingo_cli.core.decode.base import MOST_PARTS, Recording, Structure

UNKNOWN_32 = 0xFFFF_FFFF  # as good as no size
FARTHEST = 1 << 62
SEARCH_BYTES = 1 << 20
FORMS = {b"RIFF": b"WAVE", b"RF64": b"WAVE", b"FORM": b"AIF"}  # what begins a file, and what stands behind its size
WAVPACK_START, WAVPACK_BYTES = b"wvpk", 32  # in front of a block
WAVPACK_INITIAL = 8  # the bit of the second byte of its flags: the first block of these samples; others hold further channels
STARTS = {  # what begins a file of a demuxer, long enough not to be met by chance in 100 GB of noise
    "aiff": rb"FORM....AIF[FC](?:COMM|FVER|COMT|MARK|INST|APPL|ID3 |NAME|AUTH|ANNO|CHAN)",
    "ape": rb"MAC [\x80-\xa0]\x0f\0\0\x34\0\0\0",  # Monkey's Audio 3.98 and later: a descriptor of 52 bytes
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",  # the GUID of the header object
    "au": rb"\.snd\0[\0\x01]......\0\0\0[\x01-\x1b]\0[\0-\x0b]..\0\0\0[\x01-\x20]",  # place and size of the data, coding, rate, channels
    "caf": rb"caff\0\x01\0\0desc",
    "dsf": rb"DSD \x1c\0\0\0\0\0\0\0",
    "flac": rb"fLaC[\x00\x80]\x00\x00\x22",  # RFC 9639, sec. 8: the marker and the header of the streaminfo block, 34 bytes long
    "flv": rb"FLV\x01[\x01\x04\x05]\0\0\0\x09\0\0\0\0",
    "matroska": rb"\x1a\x45\xdf\xa3(?:[\x80-\xff]|\x01\0{6}.)\x42\x86\x81\x01",  # EBML header and version (RFC 8794, sec. 11.2)
    "mov": rb"\0\0\0[\x10-\x80]ftyp[ -~]{4}",
    "tta": rb"TTA1[\x01-\x03]\0[\x01-\x08]\0[\x08\x10\x18\x20]\0..[\0-\x0b]\0",
    "w64": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",
    "wav": rb"R(?:IFF|F64)....WAVE(?:fmt |ds64|JUNK|bext|LIST|fact|PEAK|iXML|cue )",
    "ogg": rb"OggS\0\x02\0{8}",  # RFC 3533, sec. 6: the first page of a stream
    "wv": rb"wvpk....[\x02-\x10]\x04",
}
LONGEST_START = 32  # bytes of what begins a file, at most
ENOUGH = 0.99  # of the sound that is there: a stated size below that is none
ID3V1_BYTES = 128
APE_ZEROS = 8  # at the end of its footer
TAIL_BYTES = 64  # zeros at the end of a stream of frames are looked for in steps of so many; no frame ends with as many
SOUND = {b"data": 0, b"SSND": 8}  # the chunk with the sound, and its size where there is none
Patch = tuple[int, bytes]
Order = Literal["little", "big"]


def read_joined(demuxer: str) -> Callable[[IO[bytes], int], Structure]:
    """A reader of files of a demuxer, each behind the one before."""

    def read(file: IO[bytes], begin: int) -> Structure:
        return _parts(file, [begin, *places(file, begin + 1, STARTS[demuxer])])

    return read


def read_frames(file: IO[bytes], begin: int) -> Structure:
    """A stream of frames up to what is no frame: an ID3v1 tag, or zeros."""
    return _parts(file, [begin], _end_of_frames(file))


def _end_of_frames(file: IO[bytes]) -> int:
    return _without_zeros(file, _without_tag(file, os.fstat(file.fileno()).st_size))


def read_forms(file: IO[bytes], begin: int) -> Structure:
    """WAV, RF64 and AIFF files, each behind the end of the one before."""
    size, parts = os.fstat(file.fileno()).st_size, list[Recording]()
    while begin < size and len(parts) <= MOST_PARTS:
        end, patches = _form(file, begin, size)
        kind = "aiff" if bytes_at(file, begin, 4) == b"FORM" else "wav"
        behind = next(places(file, end - 1, STARTS[kind]), size) if end < size else size
        parts.append(Recording(((begin, end if behind < size else size),), tuple(patches)))
        begin = behind
    if len(parts) == 1 and parts[0].ranges == ((0, size),) and not parts[0].patches:
        return Structure()
    return Structure(tuple(parts))


def _form(file: IO[bytes], begin: int, size: int) -> tuple[int, list[Patch]]:
    """The end of the file that begins there, and what of its sizes must be read otherwise."""
    kind = bytes_at(file, begin, 4)
    if kind not in FORMS:  # RIFX
        return size, []
    order: Order = "big" if kind == b"FORM" else "little"
    stated = int.from_bytes(bytes_at(file, begin + 4, 4), order)
    large = 0  # where RF64 keeps its sizes
    for name, at, length in _chunks(file, begin + 12, size, order):
        if name == b"ds64":
            large = at
            stated = int.from_bytes(bytes_at(file, at, 8), "little")
        if name in SOUND:
            if large:
                length = int.from_bytes(bytes_at(file, large + 8, 8), "little")
            if _is_false(file, at, length, SOUND[name], size, order):
                return size, _sizes(begin, at, large, size - at, order)
            break
    return min(begin + 8 + stated + stated % 2, size), []


def _is_false(file: IO[bytes], at: int, length: int, empty: int, size: int, order: Order) -> bool:
    """Whether the size of the sound is none that its writer meant: that of none, or less or far more than there is."""
    held = size - at
    if length > FARTHEST:
        return held > 0
    if length <= empty:
        return held > empty and not _is_chunk(file, at + length, size, order)
    if at + length >= size or _is_chunk(file, at + length + length % 2, size, order):
        return False
    behind = bytes_at(file, at + length, SEARCH_BYTES)
    return any(behind) and held - length >= length // 100  # else zeros or a tag behind it, no sound


def _sizes(begin: int, at: int, large: int, held: int, order: Order) -> list[Patch]:
    """The sizes of a file whose data begin at a byte and go on to its end."""
    whole = at - begin - 8 + held
    small = [(4, min(whole, UNKNOWN_32).to_bytes(4, order)), (at - begin - 4, min(held, UNKNOWN_32).to_bytes(4, order))]
    if not large:
        return small
    return [(large - begin, whole.to_bytes(8, order) + held.to_bytes(8, order)), (at - begin - 4, b"\xff" * 4)]


def _chunks(file: IO[bytes], at: int, size: int, order: Order) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and length of the content of each chunk."""
    while at + 8 <= size:
        head = bytes_at(file, at, 8)
        length = int.from_bytes(head[4:], order)
        yield head[:4], at + 8, length
        at += 8 + length + length % 2


def _is_chunk(file: IO[bytes], at: int, size: int, order: Order) -> bool:
    """Whether a chunk begins there, or nothing does: four printable letters and a length that the file has."""
    head = bytes_at(file, at, 8)
    if len(head) < 8:
        return True
    return all(0x20 <= byte < 0x7F for byte in head[:4]) and (at + 8 + int.from_bytes(head[4:], order) <= size + 1 or head[:4] in FORMS)


def read_au(file: IO[bytes], begin: int) -> Structure:
    """AU files; their size may be unknown, and 0, or less than there is, is what a writer that died leaves."""
    found = _parts(file, [begin, *places(file, begin + 1, STARTS["au"])])
    parts = tuple(replace(part, patches=_au_patches(file, *part.ranges[0])) for part in found.parts if part.ranges)
    if not parts:
        patches = _au_patches(file, 0, os.fstat(file.fileno()).st_size)
        return Structure((Recording(patches=patches),)) if patches else found
    return Structure(parts)


def _au_patches(file: IO[bytes], begin: int, end: int) -> tuple[Patch, ...]:
    place, stated = (int.from_bytes(bytes_at(file, begin + at, 4), "big") for at in (4, 8))
    return ((8, b"\xff" * 4),) if stated < (end - begin - place) * ENOUGH else ()


def read_caf(file: IO[bytes], begin: int) -> Structure:
    """CAF files; the size of their data may be -1: up to the end (Apple Core Audio Format, Audio Data Chunk)."""
    found = _parts(file, [begin, *places(file, begin + 1, STARTS["caf"])])
    ranges = [part.ranges[0] if part.ranges else (0, os.fstat(file.fileno()).st_size) for part in found.parts]
    forms = [_caf_form(file, *one) for one in ranges]
    parts = tuple(replace(part, patches=patches) for part, (patches, _) in zip(found.parts, forms, strict=True))
    return Structure(parts, cut=forms[-1][1])


def _caf_form(file: IO[bytes], begin: int, end: int) -> tuple[tuple[Patch, ...], bool]:
    """What of the size of the data must be read otherwise, and whether a part of the data is missing."""
    at = begin + 8
    while at + 12 <= end:
        head = bytes_at(file, at, 12)
        length = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data":
            cut = at + 12 + length > end
            if cut or length == -1 or (length == 0 and not _is_caf_chunk(file, at + 12, end)):
                return ((at + 4 - begin, (end - at - 12).to_bytes(8, "big")),), cut
            break
        if length < 0:
            break
        at += 12 + length
    return (), False


def _is_caf_chunk(file: IO[bytes], at: int, size: int) -> bool:
    head = bytes_at(file, at, 12)
    return len(head) < 12 or (all(0x20 <= byte < 0x7F for byte in head[:4]) and at + 12 + int.from_bytes(head[4:], "big") <= size)


def _parts(file: IO[bytes], starts: list[int], end: int | None = None) -> Structure:
    """Recordings that begin at these places, each up to the next one or to an ID3v1 tag in front of it."""
    size = os.fstat(file.fileno()).st_size
    if starts == [0] and end in (None, size):
        return Structure()
    ends = [*(_without_tag(file, start) for start in starts[1:]), size if end is None else end]
    return Structure(tuple(Recording(((start, end),)) for start, end in zip(starts, ends, strict=True)))


def _without_tag(file: IO[bytes], end: int) -> int:
    return end - ID3V1_BYTES if bytes_at(file, end - ID3V1_BYTES, 3) == b"TAG" else end


def _without_zeros(file: IO[bytes], end: int) -> int:
    """Where many zeros begin that end there; no frame ends with as many, but an APE tag in front of them does with a few."""
    first = end
    while first > 0 and not any(bytes_at(file, first - TAIL_BYTES, TAIL_BYTES)):
        first -= TAIL_BYTES
    tail = bytes_at(file, first - TAIL_BYTES, TAIL_BYTES)
    return min(end, first - len(tail) + len(tail.rstrip(b"\0")) + APE_ZEROS) if first < end else end


def places(file: IO[bytes], at: int, words: bytes) -> Iterator[int]:
    """The places from there on where a pattern of at most LONGEST_START bytes is, as many as recordings may be joined."""
    return itertools.islice(_all_places(file, at, words), MOST_PARTS)


def _all_places(file: IO[bytes], at: int, words: bytes) -> Iterator[int]:
    pattern, kept = re.compile(words, re.DOTALL), b""
    while block := bytes_at(file, at + len(kept), SEARCH_BYTES):
        data = kept + block
        is_last = len(block) < SEARCH_BYTES
        until = len(data) if is_last else len(data) - LONGEST_START
        for found in pattern.finditer(data):
            if found.start() < until:
                yield at + found.start()
        kept = data[until:]
        at += until


def read_mp4(file: IO[bytes], begin: int) -> Structure:
    """MP4 files, each behind the end of the one before (ISO 14496-12, 4.2: boxes); a sentence where one has no beginning of its own."""
    size, at, starts, indexes = os.fstat(file.fileno()).st_size, begin, list[int](), list[int]()
    while at + 8 <= size:
        head = bytes_at(file, at, 16)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:16], "big") if length == 1 else size - at if length == 0 else length
        if length < 8 or at + length > size:  # no box, or one that is cut
            at = next(places(file, at + 1, STARTS["mov"]), size)
            continue
        if head[4:8] == b"ftyp":
            starts.append(at)
        if head[4:8] == b"moov":
            indexes.append(at)
        at += length
    if len(indexes) < 2:
        return _parts(file, [begin])
    ends = [*starts[1:], size]
    if [sum(start < index < end for index in indexes) for start, end in zip(starts, ends, strict=True)] == [1] * len(indexes):
        return _parts(file, starts)
    joined = "another file is" if len(indexes) == 2 else f"{len(indexes) - 1} other files are"
    return Structure(notes=(f"{joined} joined to the end of this one and not decoded; split the file to analyse all of them",))


def read_wavpack(file: IO[bytes], begin: int) -> Structure:
    """WavPack files, each behind the end of the one before (WavPack 4 & 5 Binary File / Block Format, 2.0)."""
    size, starts, position, at = _end_of_frames(file), list[int](), 0, begin
    while at < size:
        head = bytes_at(file, at, WAVPACK_BYTES)
        if not head.startswith(WAVPACK_START) or len(head) < WAVPACK_BYTES:  # a tag
            at = next(places(file, at + 1, WAVPACK_START), size)
            continue
        if head[25] & WAVPACK_INITIAL:
            index = int.from_bytes(head[16:20], "little") | head[10] << 32
            if not starts or index < position:
                starts.append(begin if not starts else at)
            position = index + int.from_bytes(head[20:24], "little")
        at += 8 + int.from_bytes(head[4:8], "little")
    return _parts(file, starts or [begin], size)


def bytes_at(file: IO[bytes], at: int, size: int) -> bytes:
    """Bytes of a file; none at a place that no file has."""
    if not 0 <= at < FARTHEST:
        return b""
    file.seek(at)
    return file.read(size)
