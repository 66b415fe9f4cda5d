"""Local audio files as streams of blocks at their own rate: soundfile for what it reads, ffmpeg for the rest.

The end of a decoder is not the end of a file: what a file is made of is read from its structure first (the border is `structure_of`), and
every decoder is given one recording of it. Only the named local file is ever opened: the container is recognised by its first bytes and
named to ffmpeg, so playlists and scripts cannot lead anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import soundfile

from mflamingo_cli.core import limits
from mflamingo_cli.core.decode import au, caf, flac, joined, mp4, mpeg, ogg, riff, wavpack
from mflamingo_cli.core.decode.base import MOST_PARTS, Damaged, Decoder, Recording, Structure, damage_report
from mflamingo_cli.core.decode.by_ffmpeg import INSTALL_FFMPEG, FfmpegDecoder
from mflamingo_cli.core.decode.by_soundfile import JoinedDecoder, SoundFileDecoder
from mflamingo_cli.core.decode.joined import MOST_ZEROS
from mflamingo_cli.errors import AudioError

__all__ = ["INSTALL_FFMPEG", "Damaged", "Decoder", "damage_report", "open_decoder"]

HEAD_BYTES = 1 << 16  # read to recognise the container
MOST_PROCESSES = 50  # of those that ffmpeg reads, a process each

# offset, bytes there, ffmpeg's demuxer. Those that name other files (hls, concat, dash, image2, …) are left out on purpose.
CONTAINERS = [
    (4, b"ftyp", "mov"),  # m4a, mp4, 3gp
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),  # mkv, mka, webm
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),  # wma, wmv
    (8, b"AVI ", "avi"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b".RMF", "rm"),
    (0, b"\x06\x0e\x2b\x34", "mxf"),
    (0, b"wvpk", "wv"),
    (0, b"MAC ", "ape"),
    (0, b"TTA1", "tta"),
    (0, b"tBaK", "tak"),
    (0, b"MPCK", "mpc8"),
    (0, b"MP+", "mpc"),
    (0, b"nut/multimedia container\0", "nut"),
    (0, b"ajkg", "shn"),
    (0, b"ea3\3", "oma"),
    (0, b"EA3\1", "oma"),
    (0, b"TWIN97012000", "vqf"),
    (4, b"\xf8\x72\x6f\xba", "truehd"),
    (4, b"\xf8\x72\x6f\xbb", "mlp"),
    (8, b"XWMA", "xwma"),
    (8, b"QLCM", "qcp"),
    (0, b"DSD ", "dsf"),
    (0, b"FRM8", "iff"),  # DSDIFF
    (0, b"#!AMR", "amr"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"Creative Voice File\x1a", "voc"),
    (0, b"2BIT", "avr"),
    (0, b"NIST_1A", "nistsphere"),
    (0, b" paf", "epaf"),
    (0, b"fap ", "epaf"),
    (0, b"PVF1\n", "pvf"),
    (0, b"\xf0\x7e\0\1", "sds"),
    *[(0, bytes((0x64, 0xA3, writer, 0)), "ircam") for writer in range(1, 5)],
    *[(0, bytes((0, writer, 0xA3, 0x64)), "ircam") for writer in range(1, 5)],
    (0, b".snd", "au"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (8, b"WAVE", "wav"),  # codings in known containers that libsndfile lacks
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"caff", "caf"),
    (8, b"8SVX", "iff"),
    (8, b"16SV", "iff"),
    (0, b"FORM", "aiff"),
]
NOT_SOUND = [  # what people do hand over, and what to do about it
    (b"MThd", "a MIDI file, which contains notes and no audio; render it with a synthesizer first"),
    (b"#EXTM3U", "a playlist; name its songs, rename it to end with .m3u, or record the stream that it plays"),
    (b"ffconcat", "a list of files; name the files"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
]
Reader = Callable[[IO[bytes], int], Structure | None]  # None: only its first bytes look like it
OWN_READERS: dict[str, Reader] = {
    "wav": riff.read,
    "aiff": riff.read,
    "iff": riff.read,
    "au": au.read,
    "caf": caf.read,
    "flac": flac.read,
    "mov": mp4.read,
    "ogg": ogg.read,
    "wv": wavpack.read,
    **dict.fromkeys(("ac3", "eac3"), joined.read_frames),
}
READERS: dict[str, Reader] = {  # of the structure, by demuxer; others are one recording
    **OWN_READERS,
    **{demuxer: joined.reader(demuxer) for demuxer in joined.STARTS.keys() - OWN_READERS.keys()},
}
MOST_TAGS = 100  # in front of the sound; each may be ten bytes long
OWN_ZEROS = range(1, 4)  # a container may begin with so many: the size of its first box, as in MP4
APE_TAG = b"APETAGEX"
APE_BYTES = 32  # of its header or footer (wiki.hydrogenaud.io, APEv2 specification)


@dataclass(frozen=True)
class Recognised:
    """What a file is: its first bytes behind tags and zeros, ffmpeg's demuxer if it is a container that we know, and what it is made of."""

    head: bytes
    demuxer: str | None
    structure: Structure


def open_decoder(path: Path, name: str) -> Decoder:
    """Open a regular file with the first decoder that knows it; `name` is what messages call it."""
    with path.open("rb") as file:
        found = structure_of(file)
        if not file.seek(0, os.SEEK_END):
            raise AudioError(f"{name}: the file is empty", code="not_audio")
        n_bytes = file.tell()
    decoder = _open(path, name, found)
    if decoder.frames is not None and not limits.believable(decoder.frames / decoder.rate_hz, n_bytes):
        decoder.frames = None
    if not limits.believable(decoder.guess_s, n_bytes):
        decoder.guess_s = 0.0
    return decoder


def _open(path: Path, name: str, found: Recognised) -> Decoder:
    """Open it with libsndfile, else with ffmpeg."""
    is_mpeg = found.demuxer == "mp3"
    try:
        structure = _bounded(found.structure, MOST_PARTS)
        return _opened(lambda part, structure: SoundFileDecoder(path, found.head, part, structure, is_mpeg=is_mpeg), structure, is_mpeg)
    except soundfile.LibsndfileError as error:
        if found.demuxer is None:
            kinds = (f"this is {kind}" for magic, kind in NOT_SOUND if found.head.startswith(magic))
            what = next(kinds, "not a recognised audio file, despite its name")
            raise AudioError(f"{name}: {what}", code="not_audio") from error
        demuxer, refusal = found.demuxer, error.error_string
        structure = _bounded(found.structure, MOST_PROCESSES)
        return _opened(lambda part, structure: FfmpegDecoder(path, name, demuxer, refusal, part, structure), structure, is_mpeg)


def structure_of(file: IO[bytes]) -> Recognised:
    """Recognise a file by its bytes and read what it is made of: the one place that decides where sound begins and ends."""
    begin = _begin(file)
    file.seek(begin)
    head = file.read(HEAD_BYTES)
    demuxer = container(head)
    if demuxer in READERS:
        read = READERS[demuxer](file, begin)
        return Recognised(head, demuxer, read) if read is not None else Recognised(head, None, Structure())
    if demuxer is None and not any(head.startswith(magic) for magic, _ in NOT_SOUND):
        structure = mpeg.read(file, begin, begin + HEAD_BYTES)
        if structure is not None:
            return Recognised(head, "mp3", structure)
        for known, start in joined.STARTS.items():  # behind a header of HTTP, or other text that a recorder left in front
            if (found := re.search(start, head, re.DOTALL)) and (read := READERS[known](file, begin + found.start())):
                return Recognised(head[found.start() :], known, read)
    return Recognised(head, demuxer, Structure((Recording(((begin, file.seek(0, os.SEEK_END)),)),) if begin else (Recording(),)))


def _bounded(structure: Structure, most: int) -> Structure:
    """Leave out what is beyond any real file: a recorder that begins anew for every song makes 15 recordings an hour."""
    if len(structure.parts) <= most:
        return structure
    note = f"the file is made of more than {most:,} recordings; only the first {most:,} were analysed"
    return replace(structure, parts=structure.parts[:most], length_s=None, notes=(*structure.notes, note))


def container(head: bytes) -> str | None:
    """Choose ffmpeg's demuxer by a file's first bytes (after any ID3 tag)."""
    for offset, magic, demuxer in CONTAINERS:
        if head.startswith(magic, offset):
            return demuxer
    if any({head[first + at : first + at + 1] for at in (0, step, 2 * step)} == {b"\x47"} for first, step in ((0, 188), (4, 192))):
        return "mpegts"  # of 192 bytes on Blu-ray discs, with a time in front
    if len(head) > 2 and head[0] == 0x56 and head[1] & 0xE0 == 0xE0:  # AudioSyncStream (ISO 14496-3, 1.7.2)
        length = 3 + ((head[1] & 0x1F) << 8 | head[2])
        behind = head[length : length + 2]
        return "loas" if behind[:1] == b"\x56" and behind[1:] >= b"\xe0" else None
    if head[:2] == b"\x0b\x77":
        return "eac3" if len(head) > 5 and head[5] >> 3 > 10 else "ac3"  # bsid (ETSI TS 102 366, E.2.1)
    if len(head) > 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # ADTS, layer 0 (ISO 14496-3, 1.A.3.2)
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return "aac" if length > 7 and head[length : length + 2] in (head[:2], b"") else None
    return None


def _opened(open_part: Callable[[Recording, Structure], Decoder], structure: Structure, is_mpeg: bool) -> Decoder:
    """Open the one recording of a file, or the first of several. Raises what `open_part` does."""
    if len(structure.parts) > 1:
        return JoinedDecoder(open_part, structure, is_mpeg=is_mpeg)
    return open_part(structure.parts[0], structure)


def _begin(file: IO[bytes]) -> int:
    """Where the file begins behind tags in front (ID3v2, more than one of them, APEv2) and zeros that wiped ones left."""
    at = 0
    for _ in range(MOST_TAGS):
        file.seek(at)
        head = file.read(APE_BYTES)
        if head.startswith(b"ID3") and len(head) >= 10:
            at += 10 + mpeg.tag_bytes(head)
        elif head.startswith(APE_TAG) and len(head) == APE_BYTES:
            at += APE_BYTES + int.from_bytes(head[12:16], "little")
        elif head.startswith(bytes(8)) and at < MOST_ZEROS:
            at = _behind_zeros(file, at)
        else:
            break
    return at


def _behind_zeros(file: IO[bytes], at: int) -> int:
    """The place of the first byte that is not zero, or of the first of the zeros that a container begins with; or the end."""
    file.seek(at)
    first = at
    while at - first < MOST_ZEROS and (block := file.read(HEAD_BYTES)):
        rest = block.lstrip(b"\0")
        if rest:
            behind = at + len(block) - len(rest)
            return next((behind - own for own in OWN_ZEROS if container(bytes(own) + rest)), behind)
        at += len(block)
    return at
