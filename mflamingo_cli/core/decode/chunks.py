"""Containers made of sized chunks, whose sizes may be wrong because their writer died or did not know: WAV, AIFF, AU, CAF, FLAC, MP4.

A size that cannot be true is read as what is there; a second file behind the end of the first is a recording of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from mflamingo_cli.core.decode.base import Recording, Structure

UNKNOWN_32 = 0xFFFF_FFFF  # as good as no size
FARTHEST = 1 << 62
SEARCH_BYTES = 1 << 20
FLAC_START = b"fLaC\x00\x00\x00\x22"  # RFC 9639, sec. 8: the marker and the header of the streaminfo block, 34 bytes long
FORMS = {b"RIFF": b"WAVE", b"RF64": b"WAVE", b"FORM": b"AIF"}  # what begins a file, and what stands behind its size
WAVPACK_START, WAVPACK_BYTES = b"wvpk", 32  # in front of a block
Patch = tuple[int, bytes]


def read_forms(file: IO[bytes], begin: int) -> Structure:
    """WAV, RF64 and AIFF files, each behind the end of the one before."""
    size, parts = os.fstat(file.fileno()).st_size, []
    while True:
        end, patches = _form(file, begin, size)
        parts.append(Recording(((begin, end),), tuple(patches)))
        if end >= size:
            break
        begin = end
    if len(parts) == 1 and parts[0].ranges == ((0, size),) and not parts[0].patches:
        return Structure()
    return Structure(tuple(parts))


def _form(file: IO[bytes], begin: int, size: int) -> tuple[int, list[Patch]]:
    """The end of the file that begins there, and what of its sizes must be read otherwise."""
    kind = _bytes(file, begin, 4)
    if kind not in FORMS:  # RIFX, W64
        return size, []
    order = "big" if kind == b"FORM" else "little"
    stated = int.from_bytes(_bytes(file, begin + 4, 4), order)  # type: ignore[arg-type]
    patches: list[Patch] = []
    large = 0  # where RF64 keeps its sizes
    for name, at, length in _chunks(file, begin + 12, size, order):
        if name == b"ds64":
            large = at
            stated = int.from_bytes(_bytes(file, at, 8), "little")
        if name == b"data" and kind != b"FORM":
            if large:
                length = int.from_bytes(_bytes(file, large + 8, 8), "little")
            held = size - at
            if length == 0 or (at + length < size and not _is_chunk(file, at + length + length % 2, size)):
                if length and held - length < length // 100:
                    break  # a tag behind it, not sound
                if held and not (length == 0 and _is_chunk(file, at, size)):
                    patches = _sizes(begin, at, large, held)
                    return size, patches
            break
    end = begin + 8 + stated + stated % 2
    return (end if _is_form(file, end) and end < size else size), patches


def _sizes(begin: int, at: int, large: int, held: int) -> list[Patch]:
    """The sizes of a file whose data begin at a byte and go on to its end."""
    whole = at - begin - 8 + held
    small = [(4, min(whole, UNKNOWN_32).to_bytes(4, "little")), (at - begin - 4, min(held, UNKNOWN_32).to_bytes(4, "little"))]
    if not large:
        return small
    return [(large - begin, whole.to_bytes(8, "little") + held.to_bytes(8, "little")), (at - begin - 4, b"\xff" * 4)]


def _chunks(file: IO[bytes], at: int, size: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and length of the content of each chunk."""
    while at + 8 <= size:
        head = _bytes(file, at, 8)
        length = int.from_bytes(head[4:], order)  # type: ignore[arg-type]
        yield head[:4], at + 8, length
        at += 8 + length + length % 2


def _is_chunk(file: IO[bytes], at: int, size: int) -> bool:
    """Whether a chunk begins there, or nothing does: four printable letters and a length that the file has."""
    head = _bytes(file, at, 8)
    if len(head) < 8:
        return True
    return all(0x20 <= byte < 0x7F for byte in head[:4]) and (at + 8 + int.from_bytes(head[4:], "little") <= size + 1 or head[:4] in FORMS)


def _is_form(file: IO[bytes], at: int) -> bool:
    head = _bytes(file, at, 12)
    return head[:4] in FORMS and head[8:].startswith(FORMS[head[:4]])


def read_au(file: IO[bytes], begin: int) -> Structure:
    """An AU file; its size may be unknown, 0 is what a writer that died leaves."""
    died = _bytes(file, begin + 8, 4) == bytes(4)
    part = Recording(((begin, os.fstat(file.fileno()).st_size),), ((8, b"\xff" * 4),) if died else ())
    return Structure((part,)) if died or begin else Structure()


def read_caf(file: IO[bytes], begin: int) -> Structure:
    """A CAF file; the size of its data, the last chunk, may be -1: up to the end (Apple Core Audio Format, Audio Data Chunk)."""
    size, at = os.fstat(file.fileno()).st_size, begin + 8
    patches: list[Patch] = []
    while at + 12 <= size:
        head = _bytes(file, at, 12)
        length = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data" and (length == -1 or (length == 0 and not _is_caf_chunk(file, at + 12, size))):
            patches.append((at + 4 - begin, (size - at - 12).to_bytes(8, "big")))
        if length < 0:
            break
        at += 12 + length
    return Structure((Recording(((begin, size),), tuple(patches)),)) if patches or begin else Structure()


def _is_caf_chunk(file: IO[bytes], at: int, size: int) -> bool:
    head = _bytes(file, at, 12)
    return len(head) < 12 or (all(0x20 <= byte < 0x7F for byte in head[:4]) and at + 12 + int.from_bytes(head[4:], "big") <= size)


def read_flac(file: IO[bytes], begin: int) -> Structure:
    """FLAC files, each behind the end of the one before."""
    size, starts = os.fstat(file.fileno()).st_size, [begin, *_places(file, begin + 4, FLAC_START)]
    if starts == [0]:
        return Structure()
    return Structure(
        tuple(Recording(((start, end),), frames=_flac_frames(file, start)) for start, end in zip(starts, [*starts[1:], size], strict=True))
    )


def _places(file: IO[bytes], at: int, words: bytes) -> Iterator[int]:
    """Every place from there on where the words are."""
    kept = b""
    while block := _bytes(file, at + len(kept), SEARCH_BYTES):
        data = kept + block
        found = data.find(words)
        while found >= 0:
            yield at + found
            found = data.find(words, found + 1)
        kept = data[1 - len(words) :]
        at += len(data) - len(kept)


def _flac_frames(file: IO[bytes], start: int) -> int | None:
    """Length of a FLAC file: 36 bits of its streaminfo block; 0 is unknown."""
    return int.from_bytes(_bytes(file, start + 21, 5), "big") & (1 << 36) - 1 or None


def read_mp4(file: IO[bytes], begin: int) -> Structure:
    """MP4 files, each behind the end of the one before (ISO 14496-12, 4.2: boxes); a sentence where one has no beginning of its own."""
    size, at, starts, indexes = os.fstat(file.fileno()).st_size, begin, list[int](), list[int]()
    while at + 8 <= size:
        head = _bytes(file, at, 16)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:16], "big") if length == 1 else size - at if length == 0 else length
        if length < 8:
            break
        if head[4:8] == b"ftyp":
            starts.append(at)
        if head[4:8] == b"moov":
            indexes.append(at)
        at += length
    if len(indexes) < 2:
        return Structure()
    ends = [*starts[1:], size]
    if [sum(start < index < end for index in indexes) for start, end in zip(starts, ends, strict=True)] == [1] * len(indexes):
        return _joined(starts, ends)
    joined = "another file is" if len(indexes) == 2 else f"{len(indexes) - 1} other files are"
    return Structure(notes=(f"{joined} joined to the end of this one and not decoded; split it to have all analysed",))


def read_wavpack(file: IO[bytes], begin: int) -> Structure:
    """WavPack files, each behind the end of the one before (WavPack 4 & 5 Binary File / Block Format, 2.0)."""
    size, starts, position, at = os.fstat(file.fileno()).st_size, [begin], 0, begin
    while at < size:
        head = _bytes(file, at, WAVPACK_BYTES)
        if not head.startswith(WAVPACK_START) or len(head) < WAVPACK_BYTES:  # a tag
            at = next(_places(file, at + 1, WAVPACK_START), size)
            continue
        index = int.from_bytes(head[16:20], "little") | head[10] << 32
        if index < position:
            starts.append(at)
        position = index
        at += 8 + int.from_bytes(head[4:8], "little")
    return _joined(starts, [*starts[1:], size]) if len(starts) > 1 else Structure()


def _joined(starts: list[int], ends: list[int]) -> Structure:
    return Structure(tuple(Recording(((start, end),), is_joined=True) for start, end in zip(starts, ends, strict=True)))


def _bytes(file: IO[bytes], at: int, size: int) -> bytes:
    """Bytes of a file; none at a place that no file has."""
    if not 0 <= at < FARTHEST:
        return b""
    file.seek(at)
    return file.read(size)
