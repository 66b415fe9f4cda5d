"""The analysis cache: the second question about a song neither decodes, nor measures, nor encodes it.

An entry's name is a SHA-256 of everything that decides its content: the bytes of the song's file, the part of it, the state of this program
and of the libraries that decode, and for an encoding `BackendInfo.encoder_fingerprint`. No song is known by its path or date; there is no
version that somebody must remember to raise: what another song, model or program left is never found. Sizes are bytes, times seconds.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import shutil
import stat
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mflamingo_cli import codec
from mflamingo_cli.backends.base import stamp
from mflamingo_cli.core import tags
from mflamingo_cli.core.audio import Sound
from mflamingo_cli.files import user_folder, write_atomic
from mflamingo_cli.measure import Facts
from mflamingo_cli.store.keys import program
from quant.files import PART

SUFFIX = ".heard"  # only files of this name and their parts are ever removed, whatever else lies in the folder
MAX_BYTES = 1_000_000_000
LARGEST_SHARE = 0.5  # of the bound for one entry: 20 minutes for an 8 B model are 430 MB in float32, still cheaper to read than to encode
LOW_WATER = 0.9  # of the bound is left when it was reached, so that the folder is not searched at every song
LARGEST_SONG = 1 << 30  # bytes of a file: hashing more than that, a second, can take longer than decoding a part of it
CHECK_BYTES = 4  # CRC-32 in front of every entry: damage is an accident here, not an attack


def default_folder() -> Path | None:
    """$MFLAMINGO_CACHE, or `mflamingo` in the user's cache directory; None for a user without a home."""
    own = os.environ.get("MFLAMINGO_CACHE")
    return Path(own) if own else user_folder("XDG_CACHE_HOME", ".cache")


NO_HOME = "there is no home folder"


def not_kept(trouble: str) -> str:
    """Say that nothing will be found by the next run, and why."""
    return f"results are not kept for the next run: {trouble}; name folders in MFLAMINGO_CACHE and MFLAMINGO_STATE, or use --no-cache"


def open_default() -> tuple[Cache | None, str]:
    """Open the user's cache; with what keeps it from taking entries, if anything does."""
    folder = default_folder()
    if folder is None:
        return None, NO_HOME
    cache = Cache(folder)
    return cache, cache.check()


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Cache:
    """Entries by name in one folder, bounded; the least recently used go first. Threads and processes may share the folder.

    It never fails: what cannot be read is not there and is removed where it is damaged; after the first entry that cannot be written
    `problem` says why, and no other is tried.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.problem: str | None = None
        self._room: int | None = None  # bytes until the folder must be searched again; None: not searched yet

    def check(self) -> str:
        """Make the folder; return what keeps it from taking entries, if anything does: those that are there can be read all the same."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            self.problem = f"{self.folder}: {error.strerror or error}"
        return self.problem or ""

    def entry(self, path: object, start_s: float, end_s: float | None) -> CacheEntry | None:
        """The place of one part of a song; None for what is not a regular file (stdin has no second time), too large or not readable."""
        if not isinstance(path, str | os.PathLike) or os.fspath(path) == "-":
            return None
        try:
            state = os.stat(path)
            if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST_SONG:
                return None
            before, digest = stamp([path]), digest_of(path)
        except OSError:  # decoding reports it
            return None
        return CacheEntry(self, path, before, (digest, float(start_s), None if end_s is None else float(end_s)))

    def get(self, name: str) -> memoryview | None:
        """The content of an entry, which becomes the most recently used; None where there is none or it is damaged."""
        path = self._path(name)
        try:
            content = memoryview(path.read_bytes())
        except OSError:
            return None
        whole = len(content) > CHECK_BYTES and content[:CHECK_BYTES] == _check(content[CHECK_BYTES:])
        with contextlib.suppress(OSError):
            os.utime(path) if whole else path.unlink()
        return content[CHECK_BYTES:] if whole else None

    def put(self, name: str, content: bytes | memoryview) -> None:
        """Keep an entry, or leave it out where it is too large for the bound or cannot be written."""
        size = len(content) + CHECK_BYTES
        if self.problem is not None or size > LARGEST_SHARE * self.max_bytes:
            return
        try:
            self._write(self._path(name), content)
            self._room = (self._searched() if self._room is None else self._room) - size
            if self._room < 0:
                self._room = self._searched()
        except OSError as error:
            self.problem = f"{self.folder}: {error.strerror or error}"

    def _path(self, name: str) -> Path:
        return self.folder / (name + SUFFIX)

    def _write(self, path: Path, content: bytes | memoryview) -> None:
        """Write an entry, if no other process does or has taken it for a leftover when it made room."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(BlockingIOError, FileNotFoundError), write_atomic(path) as file:
            file.write(_check(content))
            file.write(content)

    def _searched(self) -> int:
        """Remove the least recently used entries where the bound is reached; the bytes that are left of it."""
        entries = []
        with os.scandir(self.folder) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):  # another process makes room too
                    if entry.name.endswith((SUFFIX, PART)):
                        entries.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        total = sum(size for _, size, _ in entries)
        if total > self.max_bytes:
            for _, size, path in sorted(entries):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                total -= size
                if total <= LOW_WATER * self.max_bytes:
                    break
        return self.max_bytes - total


@dataclass(frozen=True)
class SoundAndFacts:
    """What an entry holds of a sound, and the names of the facts that were measured: the others are empty and answer no question."""

    sound: Sound
    facts: Facts = field(default_factory=Facts)
    measured: tuple[str, ...] = ()


class CacheEntry:
    """What is known of one part of one file: its sound with the facts, and its encoding by each model."""

    def __init__(self, cache: Cache, path: str | os.PathLike[str], state: str, part: tuple[str, float, float | None]) -> None:
        self._cache, self._path, self._state, self._part = cache, path, state, part

    def within(self, cache: Cache) -> CacheEntry:
        """The same place, counted by this view of the cache: an entry that comes from another process has a view of its own."""
        return CacheEntry(cache, self._path, self._state, self._part)

    def sound(self) -> SoundAndFacts | None:
        """The sound, under the name that its file has now, and its facts as far as they were measured."""
        content = self._cache.get(self._name("sound"))
        if content is None:
            return None
        plain = json.loads(bytes(content))
        try:
            song: SoundAndFacts = codec.from_plain(SoundAndFacts, plain)
        except ValueError:
            return None
        if codec.to_plain(song) != plain:  # whole, but of another shape: measured anew
            return None
        return replace(song, sound=replace(song.sound, source=replace(song.sound.source, path=os.fspath(self._path))))

    def keep_sound(self, song: SoundAndFacts) -> None:
        """Remember a sound with all that was measured of it."""
        nameless = replace(song.sound, source=replace(song.sound.source, path=""))  # copies share an entry, and names stay private
        self._keep(self._name("sound"), json.dumps(codec.to_plain(replace(song, sound=nameless))).encode())

    def encoding(self, fingerprint: str) -> NDArray[Any] | None:
        """The encoding by an encoder of this fingerprint, as `Backend.pack` gave it."""
        content = self._cache.get(self._name("encoding", fingerprint))
        return None if content is None else np.load(io.BytesIO(content), allow_pickle=False)

    def keep_encoding(self, fingerprint: str, encoding: NDArray[Any]) -> None:
        """Remember an encoding, bit by bit: half precision would save space and now and then change a word."""
        content = io.BytesIO()
        np.save(content, encoding, allow_pickle=False)
        self._keep(self._name("encoding", fingerprint), content.getbuffer())

    def _name(self, *kind: str) -> str:
        return hashlib.sha256(repr((kind, program(), decoders(), self._part)).encode()).hexdigest()

    def _keep(self, name: str, content: bytes | memoryview) -> None:
        with contextlib.suppress(OSError):
            if stamp([self._path]) == self._state:  # else the file was written to after it was hashed: what was decoded is not certain
                self._cache.put(name, content)


@functools.cache
def decoders() -> str:
    """Identify the libraries and the program that read songs: another version may read a file differently."""
    ffmpeg = shutil.which("ffmpeg")
    return repr((np.__version__, soxr.__version__, soundfile.__libsndfile_version__, tags.reader(), stamp([ffmpeg] if ffmpeg else [])))


def _check(content: bytes | memoryview) -> bytes:
    return zlib.crc32(content).to_bytes(CHECK_BYTES, "little")
