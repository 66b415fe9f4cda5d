"""Exclusive creation and atomic replacement of files; the folders for cache, state and settings.

`open_exclusive(path)` gives an empty file that only this process writes; what a killed process left under the name is taken over.
`write_atomic(path)` writes `path.part` that way. When the block ends well the file takes the place of `path` in one step, with the mode of
the file that was there; when it raises, `path` is as it was and the part is removed. Readers never see half a file; after a power cut the
old one or the new one is there, or an empty one on file systems that order nothing: what must survive that is synced by the caller.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def open_exclusive(path: Path, mode: int = 0o666) -> BinaryIO:
    """Return an empty file that no other process writes while it is open. Raises BlockingIOError where one does, OSError for a link."""
    while True:
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode), "r+b")
        try:
            _lock(stream)
            if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                stream.truncate(0)
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()  # it was another process's, which has just given it its name


def part_of(path: Path) -> Path:
    """Return the file that is written before it becomes `path`."""
    return path.with_name(path.name + ".part")


@contextlib.contextmanager
def write_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose content becomes the file when the block ends well. Raises what `open_exclusive` does."""
    part = part_of(path)
    with open_exclusive(part) as stream:
        try:
            yield stream
            stream.flush()
            replace_by(part, path)  # while it is ours
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def replace_by(part: Path, path: Path) -> None:
    """Let a finished part take the place of a file, with the mode of the file that was there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copymode(path, part)
    part.replace(path)


def _lock(stream: BinaryIO) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        pass


def user_folder(xdg: str, usual: str) -> Path | None:
    """Return our folder in a base directory (XDG base directories 0.8), None for a user without a home."""
    base = os.environ.get(xdg, "")
    try:
        return Path(base if os.path.isabs(base) else Path.home() / usual) / "mflamingo"
    except RuntimeError:
        return None
