"""A file that one process writes before it gets its name: what is left of a killed process is taken over, what is being written is not."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO


def open_exclusive(path: Path, mode: int = 0o666) -> BinaryIO:
    """An empty file that no other process writes as long as it is open. Raises BlockingIOError where one does, OSError for a link."""
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


def _lock(stream: BinaryIO) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        pass
