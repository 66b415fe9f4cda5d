"""Where each kind of file keeps a field, through mutagen (GPL-2.0-or-later, the extra `tags`): ID3, Vorbis comments, MP4 atoms.

A field has one value of one or several words. The homes are those that players, DJ programs and MusicBrainz Picard read.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from mutagen import File, MutagenError
from mutagen.aiff import AIFF
from mutagen.flac import FLAC, Padding, VCFLACDict
from mutagen.id3 import COMM, TBPM, TCON, TKEY, TMOO, TXXX
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4FreeForm
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from mflamingo_cli.core.tags import GuardedFile, TagsRefused
from mflamingo_cli.library.tag_fields import (
    ALBUM_GAIN,
    FIELDS,
    GAINS,
    JOIN,
    MARK,
    R128_LUFS,
    REFERENCE_LUFS,
    TRACK_GAIN,
    TagError,
)

__all__ = ["Container", "MutagenError", "open_tags"]
ID3_FRAMES = {"bpm": TBPM, "key": TKEY, "genre": TCON, "mood": TMOO}
VORBIS_HOMES = {  # the first is written, the others too where a file has them
    "bpm": ("BPM",),
    "key": ("INITIALKEY", "KEY"),
    "genre": ("GENRE",),
    "mood": ("MOOD",),
    "comment": ("COMMENT", "DESCRIPTION"),
    MARK: (MARK,),
    **{field: (field.upper(),) for field in GAINS},
}
R128_HOMES = {TRACK_GAIN: "R128_TRACK_GAIN", ALBUM_GAIN: "R128_ALBUM_GAIN"}
R128_STEPS = 256  # per dB: Q7.8, in 16 bits
FREE = "----:com.apple.iTunes:"
MP4_HOMES = {  # read in this order
    "bpm": (FREE + "BPM", "tmpo"),
    "key": (FREE + "initialkey", FREE + "KEY"),
    "genre": ("\xa9gen",),
    "mood": (FREE + "MOOD",),
    "comment": ("\xa9cmt",),
    MARK: (FREE + MARK,),
    **{field: (FREE + field,) for field in GAINS},
}
NO_TEMPO = re.compile(r"\s*0*[.,]?0*\s*")
ID3V1_BYTES = 128  # at the very end of an MP3, after "TAG"


class Container(ABC):
    """The tags of one open file; `demuxer` is ffmpeg's name of its kind."""

    def __init__(self, file: str | BinaryIO, kind: type[Any], demuxer: str, **how: Any) -> None:
        self._file, self.demuxer = kind(file, **how), demuxer
        self._new = self._file.tags is None
        if self._new:
            self._file.add_tags()
        self._tags: Any = self._file.tags

    def get(self, field: str) -> str | None:
        """The value of a field or of MARK, None where there is none: blanks and a tempo of 0 are what other programs write for unknown."""
        for words in self._kept(field):
            if known := [word for word in map(str, words) if word.strip() and not (field == "bpm" and NO_TEMPO.fullmatch(word))]:
                return JOIN.join(known)
        return None

    def holds(self, field: str) -> bool:
        """Whether this kind of file has a place for a field."""
        return True

    @abstractmethod
    def _kept(self, field: str) -> Iterator[Sequence[Any]]:
        """What stands in each home of a field, the first first."""

    @abstractmethod
    def put(self, field: str, words: Sequence[str]) -> None:
        """Set a field or MARK, in its home and wherever else the file keeps it already."""

    @abstractmethod
    def others(self) -> Any:
        """Everything else, in a form that can be compared."""

    def save(self, copy: BinaryIO) -> None:
        """Write to a copy of the file. Raises mutagen's errors and OSError."""
        copy.seek(0)
        self._file.save(copy)

    def reopened(self, copy: BinaryIO) -> Container:
        """The tags of a copy, read anew as those of a file of the same kind."""
        copy.seek(0)
        return type(self)(copy, type(self._file), self.demuxer)


class Id3(Container):
    """ID3v2.3 and 2.4, of which a file keeps its own; new tags are 2.3, which everything reads."""

    def __init__(self, file: str | BinaryIO, kind: type[Any], demuxer: str) -> None:
        # frames as they are: neither those of 2.3 nor those of ID3v1 become those of 2.4
        super().__init__(file, kind, demuxer, translate=False, v2_version=3)
        self._major = 3 if self._new or self._tags.version[0] == 1 else self._tags.version[1]
        if self._major not in (3, 4):
            raise TagError(f"the tags are ID3v2.{self._major}, which cannot be written; convert them to ID3v2.3 first")

    def _home(self, field: str) -> str:
        """The key of a field's frame; moods have one in 2.4 only."""
        if field == "comment":  # of any language
            return next((key for key, frame in self._tags.items() if key.startswith("COMM:") and not frame.desc), "COMM::eng")
        if field in GAINS:  # of any case
            return next((key for key in self._tags if key.upper() == f"TXXX:{field.upper()}"), f"TXXX:{field.upper()}")
        if field == MARK or (field == "mood" and self._major == 3):
            return f"TXXX:{field.upper()}"
        return str(ID3_FRAMES[field].__name__)

    def _kept(self, field: str) -> Iterator[Sequence[Any]]:
        if (frame := self._tags.get(self._home(field))) is not None:
            yield frame.text

    def put(self, field: str, words: Sequence[str]) -> None:
        home, text = self._home(field), list(words) if self._major == 4 else [JOIN.join(words)]
        encoding = 0 if all(word.isascii() for word in text) else 1  # Latin-1 or UTF-16: both are known to 2.3
        if home.startswith("COMM"):
            self._tags[home] = COMM(encoding=encoding, lang=home.rpartition(":")[2], desc="", text=text)
        elif home.startswith("TXXX"):
            self._tags[home] = TXXX(encoding=encoding, desc=home.partition(":")[2], text=text)
        else:
            self._tags[home] = ID3_FRAMES[field](encoding=encoding, text=text)

    def others(self) -> Any:
        ours = {self._home(field) for field in (*FIELDS, *GAINS, MARK)}
        return self._major, {key: repr(frame) for key, frame in self._tags.items() if key not in ours}, self._tags.unknown_frames

    def save(self, copy: BinaryIO) -> None:
        size = copy.seek(0, os.SEEK_END)
        copy.seek(max(0, size - ID3V1_BYTES))
        end = copy.read() if self.demuxer == "mp3" else b""
        copy.seek(0)
        self._tags.save(copy, v2_version=self._major, v23_sep=None)
        if end.startswith(b"TAG"):  # mutagen has written ours into it too
            copy.seek(-ID3V1_BYTES, os.SEEK_END)
            copy.write(end)


class Vorbis(Container):
    """Vorbis comments: FLAC and everything in Ogg."""

    def _kept(self, field: str) -> Iterator[Sequence[Any]]:
        yield from (self._tags[home] for home in VORBIS_HOMES[field] if home in self._tags)

    def put(self, field: str, words: Sequence[str]) -> None:
        first, *aliases = VORBIS_HOMES[field]
        for home in (first, *(alias for alias in aliases if alias in self._tags)):
            self._tags[home] = list(words)

    def others(self) -> Any:
        ours = {home for homes in VORBIS_HOMES.values() for home in homes} | {*R128_HOMES.values()}
        blocks = [block for block in getattr(self._file, "metadata_blocks", []) if not isinstance(block, Padding | VCFLACDict)]
        comments = [(name, value) for name, value in self._tags if name.upper() not in ours]
        return self._tags.vendor, comments, [(block.code, block.write()) for block in blocks]


class Opus(Vorbis):
    """Vorbis comments of Opus, whose gains are R128_* beside none of ReplayGain (RFC 7845, 5.2.1); it has no peaks.

    They are added to the output gain of the header, which decoders apply and so is in what is measured.
    """

    def holds(self, field: str) -> bool:
        return field in R128_HOMES or field not in GAINS

    def _kept(self, field: str) -> Iterator[Sequence[Any]]:
        if field in R128_HOMES and (home := R128_HOMES[field]) in self._tags:
            yield [_decibels(text) for text in self._tags[home]]
        yield from super()._kept(field)

    def put(self, field: str, words: Sequence[str]) -> None:
        if field not in R128_HOMES:
            super().put(field, words)
            return
        steps = round((float(words[0].split()[0]) - REFERENCE_LUFS + R128_LUFS) * R128_STEPS)
        self._tags[R128_HOMES[field]] = [str(max(-(1 << 15), min(steps, (1 << 15) - 1)))]
        for other in GAINS:
            if other.upper() in self._tags:
                del self._tags[other.upper()]


def _decibels(steps: str) -> str:
    """A gain of Opus as ReplayGain writes it; what is no number stays."""
    try:
        return f"{int(steps) / R128_STEPS - R128_LUFS + REFERENCE_LUFS:.2f} dB"
    except ValueError:
        return steps


class Mp4(Container):
    """Atoms of iTunes. `tmpo` holds a whole number, so a tempo with decimals stands beside it."""

    def _homes(self, field: str) -> list[str]:
        """The keys under which the file has the field, however their case."""
        return [key for home in MP4_HOMES[field] for key in self._tags if key.lower() == home.lower()]

    def _kept(self, field: str) -> Iterator[Sequence[Any]]:
        for home in self._homes(field):
            yield [word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in self._tags[home]]

    def put(self, field: str, words: Sequence[str]) -> None:
        homes = {*self._homes(field), "tmpo" if field == "bpm" else MP4_HOMES[field][0]}
        if field == "bpm" and not words[0].isdecimal():
            homes.add(MP4_HOMES[field][0])
        for home in homes:
            if home == "tmpo":
                self._tags[home] = [int(float(words[0]) + 0.5)]
            else:
                self._tags[home] = [MP4FreeForm(word.encode()) for word in words] if home.startswith("----") else list(words)

    def others(self) -> Any:
        ours = {key for field in (*FIELDS, *GAINS, MARK) for key in self._homes(field)}
        plain = {key: [(repr(item), getattr(item, "imageformat", None)) for item in _list(value)] for key, value in self._tags.items()}
        return {key: value for key, value in plain.items() if key not in ours}, repr(self._tags._failed_atoms)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


KINDS: dict[type[Any], tuple[type[Container], str]] = {  # mutagen's class -> ours, ffmpeg's demuxer
    MP3: (Id3, "mp3"),
    WAVE: (Id3, "wav"),
    AIFF: (Id3, "aiff"),
    FLAC: (Vorbis, "flac"),
    OggVorbis: (Vorbis, "ogg"),
    OggOpus: (Opus, "ogg"),
    OggFLAC: (Vorbis, "ogg"),
    MP4: (Mp4, "mov"),
}


def open_tags(path: str) -> Container:
    """The tags of a file. Raises TagError for a kind that is not written, mutagen's errors and OSError for what cannot be read."""
    try:
        with GuardedFile(path) as file:
            found = File(file, options=list(KINDS))
    except TagsRefused as refused:
        raise TagError(f"its tags are {refused}; remove them first") from refused
    if found is None:
        raise TagError("tags are written to MP3, FLAC, Ogg, Opus, M4A, WAV and AIFF files only")
    container, demuxer = KINDS[type(found)]
    return container(path, type(found), demuxer)
