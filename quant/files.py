"""Files that appear whole or not at all, written beside their place under a name that nobody can foresee.

A `Draft` is a new file of ours alone: made with O_EXCL under a random name in the folder of the file that it becomes, so nothing that
somebody put there is ever opened, followed or overwritten. `publish` gives it the name in one step, with the mode, owner and extended
attributes of the file that was there; until then that file is as it was, and where nothing is published, nothing is left. A lock says that
the writer lives: two do not write one file at a time, and the next one removes what a killed one left. Readers never see half a file.
`open_growing` is for what grows over several runs, in a folder of our own. This is the border: nothing else of the program makes files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

OURS, PART = ".mflamingo-", ".part"  # .NAME.mflamingo-RANDOM.part
RANDOM = re.compile(r"[0-9a-f]{16}")
NAME_BYTES = 255  # longest name of a file on all usual file systems
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
ATTEMPTS = 8  # to make a file that no run takes for a leftover: one is enough, but for an instant
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ABANDONED_S = 24 * 3600  # where a file system has no locks, nobody writes a file any longer that is as old as this


class Draft:
    """A new file, open as `stream`, that becomes `path` when it is published and is gone at the end of the block otherwise.

    Raises BlockingIOError where another process writes the same file, OSError where none can be made.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.published = path, False
        for _ in range(ATTEMPTS):
            self.part = path.with_name(f"{_stem(path)}{os.urandom(8).hex()}{PART}")
            self.stream = _made(self.part, path)
            if _lock(self.stream.fileno()) is not False and self._is_ours():
                break
            self.stream.close()  # a run that cleans up took it for a leftover, before it was locked
        try:
            if _another_lives(path, self.part):
                raise BlockingIOError(errno.EAGAIN, "another run is writing this file", str(path))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *exc: object) -> None:
        for error in exc:
            if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
                error.filename = os.fspath(self.path)  # the system does not say which file had no room
        if not self.published and self._is_ours():
            self.part.unlink(missing_ok=True)
        with contextlib.suppress(OSError, ValueError):  # what could not be written is gone, and the failure has been raised
            self.stream.close()

    def finish(self) -> None:
        """See what was written on the disk. Raises OSError where it is full."""
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def publish(self, *, dates: bool = False) -> None:
        """Give the file its name; with `dates` also the times of the file that it replaces."""
        self.stream.flush()
        if self.path.is_file():
            _take_state(self.path, self.stream.fileno(), dates)
            self.finish()  # after a power cut the old file is there or the new one
        self.keep_as(self.path)

    def keep_as(self, path: Path) -> None:
        """Give what was written so far another name in the same folder. Raises OSError where it is no longer ours alone."""
        state = os.lstat(self.part)
        if not os.path.samestat(state, os.fstat(self.stream.fileno())) or state.st_nlink != 1:
            raise PermissionError(errno.EPERM, "another program interfered while it was written", str(path))
        self.part.replace(path)
        self.published = True

    def _is_ours(self) -> bool:
        """Whether the name still leads to what we made."""
        try:
            return os.path.samestat(os.lstat(self.part), os.fstat(self.stream.fileno()))
        except (FileNotFoundError, ValueError):  # ValueError: closed
            return False


@contextlib.contextmanager
def write_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose content becomes the file when the block ends well. Raises what `Draft` does."""
    with Draft(path) as draft:
        yield draft.stream
        draft.publish()


def write_text(path: Path, text: str) -> None:
    """Write a small file of text, UTF-8. Raises what `Draft` does."""
    with write_atomic(path) as stream:
        stream.write(text.encode())


def open_growing(path: Path) -> io.FileIO:
    """Open a file at its end, of which earlier runs may have left the beginning; its folder is made, for this user alone.

    Raises BlockingIOError where another process writes it, PermissionError where it or its folder could be somebody else's.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.lstat(path.parent)
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.geteuid() or folder.st_mode & OTHERS_MAY_WRITE:
        raise PermissionError(errno.EPERM, "this folder can be changed by others; remove it", str(path.parent))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    stream = io.FileIO(descriptor, "ab")
    try:
        if not _is_only_ours(os.fstat(descriptor)):
            raise PermissionError(errno.EPERM, "this file has other names or another owner; remove it", str(path))
        if _lock(descriptor) is False or not path.exists() or not os.path.samestat(path.stat(), os.fstat(descriptor)):  # or just finished
            raise BlockingIOError(errno.EAGAIN, "another run is writing this file", str(path))
    except BaseException:
        stream.close()
        raise
    return stream


# --- what a killed process left --------------------------------------------------------------------------------------------


def _another_lives(path: Path, own: Path) -> bool:
    """Whether another process writes the file; the parts whose writers are dead are removed."""
    stem = _stem(path)
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(stem) and name != own.name]
    except PermissionError:  # a folder that can be written to and not listed
        return False
    parts = [path.with_name(name) for name in names if RANDOM.fullmatch(name.removeprefix(stem).removesuffix(PART))]
    return not all([_remove_if_dead(part) for part in parts])


def _remove_if_dead(part: Path) -> bool:
    """Remove a part that nobody writes any longer; False where somebody does. What is not a file of this user alone is left there."""
    try:
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # gone meanwhile, a link, or not ours
        return True
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        state = os.fstat(descriptor)
        if not _is_only_ours(state):
            return True
        locked = _lock(descriptor)
        if locked or (locked is None and time.time() - state.st_mtime > ABANDONED_S):
            part.unlink(missing_ok=True)
        return locked is not False


def _is_only_ours(state: os.stat_result) -> bool:
    return stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid() and state.st_nlink == 1


def _lock(descriptor: int) -> bool | None:
    """Lock a file as long as it is open; False where another process has, None on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


# --- a new file ------------------------------------------------------------------------------------------------------------


def _stem(path: Path) -> str:
    """How the names of a file's parts begin; that of a very long name has its hash in the place."""
    name, longest = path.name, NAME_BYTES - len(f".{OURS}{PART}") - 16
    import hashlib  # 2 ms, which most commands can do without

    return f".{name if len(os.fsencode(name)) <= longest else hashlib.sha256(os.fsencode(name)).hexdigest()}{OURS}"


def _made(part: Path, path: Path) -> BinaryIO:
    """Make a file that was not there, for no more eyes than the one that it will replace."""
    mode = 0o666
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode) & 0o666
    try:
        return os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "r+b")
    except OSError as error:
        error.filename = os.fspath(path)  # the name that people know
        raise


def _take_state(path: Path, descriptor: int, dates: bool) -> None:
    """Give an open file the owner, mode and extended attributes of another, as far as this user may."""
    state = path.stat()
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, state.st_uid, state.st_gid)
    with contextlib.suppress(PermissionError):  # a file system without modes
        os.fchmod(descriptor, stat.S_IMODE(state.st_mode) & 0o777)  # after the owner: a change of owner takes bits away
    with contextlib.suppress(OSError):
        for name in os.listxattr(path) if hasattr(os, "listxattr") else ():  # Linux; access-control lists are among them
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(path, name))
    if dates:
        os.utime(descriptor, ns=(state.st_atime_ns, state.st_mtime_ns))
