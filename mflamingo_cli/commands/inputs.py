"""What the user named -> the list of songs: files, folders, playlists, lists of paths, stdin. Paths are bytes kept as text (PEP 383)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mflamingo_cli.commands import playlists
from mflamingo_cli.commands.names import NameFinder
from mflamingo_cli.core import remote
from mflamingo_cli.core.remote import FetchError
from mflamingo_cli.errors import AudioError, ExitCode, ModelError, UsageError

STDIN = "-"
LIST_BYTES = 256 << 20  # of --files-from: some million paths


class NoInputError(AudioError):
    """No audio file was named or found: EX_NOINPUT of sysexits.h."""

    code = "not_found"
    exit_code = ExitCode.NO_INPUT


_SUFFIXES = """
    3gp aac ac3 aif aifc aiff alac amr ape au caf flac m4a m4b m4v mka mkv mov mp2 mp3 mp4
    oga ogg opus rf64 snd tta w64 wav wave webm wma wv
"""
AUDIO_SUFFIXES = frozenset("." + name for name in _SUFFIXES.split())  # what a folder is searched for; a file that is named is always tried


def refuse_a_file(question: str, songs: str = "the files") -> None:
    """Raise UsageError where a file stands in the place of the question."""
    if os.path.isfile(question):
        raise UsageError(f"{question!r} is a file; write the question first, then {songs}")


def collect(paths: Sequence[str], files_from: str | None = None, null: bool = False) -> list[str]:
    """All songs in the order they were named, folders sorted. Raises NoInputError when there is none."""
    if not paths and files_from is None:
        raise UsageError("name a file, a folder, a playlist, or - for stdin")
    if files_from == STDIN and STDIN in paths:
        raise UsageError("stdin cannot be both the list of paths and a song")
    named = list(paths) + (list(_listed(files_from, null)) if files_from is not None else [])
    finder = NameFinder()
    songs = [song for name in named for song in _expand(name if name == STDIN else finder.find(name), finder)]
    if not songs:
        where = ", ".join(repr(path) for path in named[:3]) or f"--files-from {files_from}"
        raise NoInputError(f"no audio files in {where}")
    return songs


def _listed(source: str, null: bool) -> Iterator[str]:
    content = sys.stdin.buffer.read(LIST_BYTES + 1) if source == STDIN else _content(source)
    if len(content) > LIST_BYTES:
        raise UsageError(f"--files-from {source}: the list is longer than {LIST_BYTES >> 20} MiB; give it in parts")
    content = content if null else playlists.as_utf8(content)
    if not null and b"\0" in content:
        raise UsageError(f"--files-from {source}: the list contains null bytes; add -0")
    lines = content.split(b"\0") if null else content.splitlines()
    yield from (os.fsdecode(line) for line in lines if line)


def _content(path: str | Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(LIST_BYTES + 1)
    except OSError as error:
        raise NoInputError(f"{path}: {error.strerror or error}") from error


def _expand(path: str, finder: NameFinder) -> Iterable[str]:
    """The songs of a path. What holds songs but cannot be listed stands for them, to fail once: it costs no other input."""
    try:
        if path == STDIN:
            return [path]
        if remote.is_address(path):
            return remote.find(path, AUDIO_SUFFIXES) if remote.is_folder(path) else [path]
        if os.path.isdir(path):
            return songs_below(path)
        if path.lower().endswith(tuple(playlists.READERS)) and os.path.isfile(path):
            return [finder.find(name, os.path.dirname(path) or os.curdir) for name in playlists.names(path)]
    except (OSError, playlists.NotAPlaylistError, FetchError, ModelError):  # decoding or fetching says why
        pass
    return [path]


def songs_below(folder: str) -> Iterator[str]:
    """Audio files below a folder, sorted, hidden ones left out, links to folders not followed; a folder that cannot be read stands for
    its songs, to fail for them."""
    closed: list[str] = []
    for where, folders, names in os.walk(folder, onerror=lambda error: closed.append(error.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(where, name)
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and _may_be_file(path):
                yield path
    yield from sorted(closed)


def _may_be_file(path: str) -> bool:
    """Not a pipe or a device, which may never end; a link that leads nowhere fails when it is decoded."""
    return os.path.isfile(path) or not os.path.exists(path)
