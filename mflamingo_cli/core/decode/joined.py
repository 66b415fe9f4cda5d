"""Files of one format, each behind the one before, and where the sound of the last one ends."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from typing import IO

from mflamingo_cli.core.decode.base import MOST_PARTS, Recording, Structure

FIRST_BYTES, SEARCH_BYTES = 1 << 14, 1 << 20  # of the file searched at once: at first, and at most
STARTS = {  # what begins a file of a demuxer, long enough not to be met by chance in 100 GB of noise
    "aiff": rb"FORM....AIF[FC](?:COMM|FVER|COMT|MARK|INST|APPL|ID3 |NAME|AUTH|ANNO|CHAN)",
    "ape": rb"MAC [\x80-\xa0]\x0f\0\0\x34\0\0\0",  # Monkey's Audio 3.98 and later: a descriptor of 52 bytes
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",  # the GUID of the header object
    "au": rb"\.snd\0[\0\x01]......\0\0\0[\x01-\x1b]\0[\0-\x0b]..\0\0\0[\x01-\x20]",  # place and size of the data, coding, rate, channels
    "avr": rb"2BIT.{8}(?:\0\0|\xff\xff)\0[\x08\x10]",
    "caf": rb"caff\0\x01\0\0desc",
    "dsf": rb"DSD \x1c\0\0\0\0\0\0\0",
    "epaf": rb" paf\0{8}\0[\0-\x0b]..\0\0\0[\0-\2]|fap \0{4}\x01\0\0\0..[\0-\x0b]\0[\0-\2]\0\0\0",
    "flac": rb"fLaC[\x00\x80]\x00\x00\x22",  # RFC 9639, sec. 8: the marker and the header of the streaminfo block, 34 bytes long
    "flv": rb"FLV\x01[\x01\x04\x05]\0\0\0\x09\0\0\0\0",
    "iff": rb"FORM....(?:8SVX|16SV)(?:VHDR|NAME|ANNO|AUTH)",
    "ircam": rb"\x64\xa3[\1-\4]\0.{4}[\1-\x20]\0\0\0.\0[\0-\4]\0|\0[\1-\4]\xa3\x64.{4}\0\0\0[\1-\x20]\0[\0-\4]\0.",
    "matroska": rb"\x1a\x45\xdf\xa3(?:[\x80-\xff]|\x01\0{6}.)\x42\x86\x81\x01",  # EBML header and version (RFC 8794, sec. 11.2)
    "mov": rb"\0\0\0[\x10-\x80]ftyp[ -~]{4}",
    "nistsphere": rb"NIST_1A\n   1024\n",
    "nut": rb"nut/multimedia container\0",
    "ogg": rb"OggS\0\x02\0{8}",  # RFC 3533, sec. 6: the first page of a stream
    "pvf": rb"PVF1\n[1-9][0-9]? [0-9]{4,6} (?:8|16|32)\n",
    "rm": rb"\.RMF\0\0\0\x12\0[\0\1]",
    "sds": rb"\xf0\x7e[\0-\x7f]\x01.{16}\xf7\xf0\x7e",
    "tta": rb"TTA1[\x01-\x03]\0[\x01-\x08]\0[\x08\x10\x18\x20]\0..[\0-\x0b]\0",
    "voc": rb"Creative Voice File\x1a\x1a\0",
    "w64": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",
    "wav": rb"R(?:IFF|F64)....WAVE(?:fmt |ds64|JUNK|bext|LIST|fact|PEAK|iXML|cue )",
    "wv": rb"wvpk....[\x02-\x10]\x04",
}
LONGEST_START = 32  # bytes of what begins a file, at most
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # what may lie behind or between files and is no sound
ID3V1_BYTES = 128
APE_ZEROS = 8  # at the end of its footer
TAIL_BYTES = 64  # no frame ends with as many zeros
MOST_ZEROS = 1 << 28  # are looked at: as many as the largest ID3v2 tag that was wiped leaves
MOST_CHUNKS = 100_000  # are stepped through; a song that is recorded in fragments of a second has as many after half a day


def end_of_frames(file: IO[bytes]) -> int:
    """Where the frames of a file end, in front of an ID3v1 tag or zeros."""
    return _without_zeros(file, _without_tag(file, os.fstat(file.fileno()).st_size))


def parts(file: IO[bytes], starts: list[int], end: int | None = None) -> Structure:
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
    first, kept = end, b""
    while not kept and first > 0 and end - first < MOST_ZEROS:
        block = bytes_at(file, max(0, first - SEARCH_BYTES), min(first, SEARCH_BYTES))
        kept = block.rstrip(b"\0")
        first -= len(block) - len(kept)
    return first + APE_ZEROS if end - first >= TAIL_BYTES else end


def places(file: IO[bytes], at: int, words: bytes) -> Iterator[int]:
    """The places from there on where a pattern of at most LONGEST_START bytes is, as many as recordings may be joined."""
    return itertools.islice(_all_places(file, at, words), MOST_PARTS)


def _all_places(file: IO[bytes], at: int, words: bytes) -> Iterator[int]:
    pattern, kept, size = re.compile(words, re.DOTALL), b"", FIRST_BYTES
    while block := bytes_at(file, at + len(kept), size):
        data = kept + block
        is_last = len(block) < size
        until = len(data) if is_last else len(data) - LONGEST_START
        for found in pattern.finditer(data):
            if found.start() < until:
                yield at + found.start()
        kept, size = data[until:], min(2 * size, SEARCH_BYTES)
        at += until


def is_name(head: bytes) -> bool:
    """Whether a chunk may be called so: four printable letters."""
    return all(0x20 <= byte < 0x7F for byte in head[:4])


def bytes_at(file: IO[bytes], at: int, size: int) -> bytes:
    """Bytes of a file; none at a place that it does not have, wherever a size points to."""
    if not 0 <= at < os.fstat(file.fileno()).st_size:
        return b""
    file.seek(at)
    return file.read(size)
