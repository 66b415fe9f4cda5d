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
from mflamingo_cli.core.decode import au, caf, ends, flac, frames, joined, mp4, mpeg, ogg, riff, stated, wavpack
from mflamingo_cli.core.decode.base import MOST_PARTS, Damaged, Decoder, Recording, Structure, damage_report
from mflamingo_cli.core.decode.by_ffmpeg import INSTALL_FFMPEG, FfmpegDecoder
from mflamingo_cli.core.decode.by_soundfile import JoinedDecoder, SoundFileDecoder
from mflamingo_cli.core.decode.containers import CONTAINERS, container
from mflamingo_cli.core.decode.others import HEAD_BYTES, begin_of_sound, named_others
from mflamingo_cli.errors import AudioError

__all__ = ["CONTAINERS", "INSTALL_FFMPEG", "Damaged", "Decoder", "container", "damage_report", "open_decoder"]

MOST_PROCESSES = 50  # of those that ffmpeg reads, a process each

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
    **{name: ends.frame_reader(name) for name in frames.FORMATS},
}
READERS: dict[str, Reader] = {  # of the structure, by demuxer; others are one recording
    **OWN_READERS,
    **{demuxer: ends.reader(demuxer) for demuxer in (joined.STARTS.keys() | ends.ENDS.keys()) - OWN_READERS.keys()},
}


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
        if claim := stated.header(found.demuxer, found.head):
            limits.check(claim, name)
        demuxer, refusal = found.demuxer, error.error_string
        structure = _bounded(found.structure, MOST_PROCESSES)
        return _opened(lambda part, structure: FfmpegDecoder(path, name, demuxer, refusal, part, structure), structure, is_mpeg)


def structure_of(file: IO[bytes]) -> Recognised:
    """Recognise a file by its bytes and read what it is made of: the one place that decides where sound begins and ends."""
    begin = begin_of_sound(file)
    file.seek(begin)
    head = file.read(HEAD_BYTES)
    demuxer = container(head)
    if demuxer in READERS:
        read = READERS[demuxer](file, begin)
        return Recognised(head, demuxer, named_others(file, read, demuxer)) if read is not None else Recognised(head, None, Structure())
    if demuxer is None and not any(head.startswith(magic) for magic, _ in NOT_SOUND):
        structure = mpeg.read(file, begin, begin + HEAD_BYTES)
        if structure is not None:
            return Recognised(head, "mp3", named_others(file, structure, "mp3"))
        row = frames.row_in(head)  # of a recording that begins within a frame
        if row is not None and (read := READERS[row[1]](file, begin + row[0])):
            return Recognised(head[row[0] :], row[1], named_others(file, read, row[1]))
        for known, start in joined.STARTS.items():  # behind a header of HTTP, or other text that a recorder left in front
            if (found := re.search(start, head, re.DOTALL)) and (read := READERS[known](file, begin + found.start())):
                return Recognised(head[found.start() :], known, named_others(file, read, known))
    return Recognised(head, demuxer, Structure((Recording(((begin, file.seek(0, os.SEEK_END)),)),) if begin else (Recording(),)))


def _bounded(structure: Structure, most: int) -> Structure:
    """Leave out what is beyond any real file: a recorder that begins anew for every song makes 15 recordings an hour."""
    if len(structure.parts) <= most:
        return structure
    note = f"the file is made of more than {most:,} recordings; only the first {most:,} were analysed"
    return replace(structure, parts=structure.parts[:most], length_s=None, notes=(*structure.notes, note))


def _opened(open_part: Callable[[Recording, Structure], Decoder], structure: Structure, is_mpeg: bool) -> Decoder:
    """Open the one recording of a file, or the first of several. Raises what `open_part` does."""
    if len(structure.parts) > 1:
        return JoinedDecoder(open_part, structure, is_mpeg=is_mpeg)
    return open_part(structure.parts[0], structure)
