"""The standard streams at the border of the process: what stderr cannot take costs messages only, what stdout cannot take ends the run.

The border is here: everything that Python code writes to stderr, a library's too, passes `MessageFile`, which never raises; nothing else
asks whether stderr works. stdout is checked where the program ends (`cli.main`).
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NAMES = ("stdin", "stdout", "stderr")  # of descriptors 0, 1 and 2
CLOSED = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)  # how /dev/null stands in for a closed one: stdin is empty, stdout fails, stderr takes all


class MessageFile(io.FileIO):
    """A descriptor for messages: what it cannot take, because the disk is full or the reader has gone, is lost without an error."""

    def write(self, data: ReadableBuffer) -> int:
        """Write what can be written; all of it counts as written."""
        try:
            return super().write(data) or len(memoryview(data))  # None: a pipe that is full and does not wait
        except OSError:
            return len(memoryview(data))


def messages_to(number: int) -> TextIO:
    """Return a stream for messages to a descriptor, line by line."""
    file = io.BufferedWriter(MessageFile(number, "w", closefd=False))
    return io.TextIOWrapper(file, getattr(sys.stderr, "encoding", "utf-8"), "backslashreplace", line_buffering=True)


def guard() -> None:
    """Give every closed descriptor a file, so that no other takes its number and children inherit it, and let stderr never raise."""
    for number, (name, mode) in enumerate(zip(NAMES, CLOSED, strict=True)):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, mode)
            os.dup2(nowhere, number)
            if nowhere == number:
                os.set_inheritable(number, True)
            else:
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115
    sys.stderr = messages_to(2)


def require_stdout() -> None:
    """Raise OSError before any work where the shell has closed stdout (`>&-`): /dev/null for reading stands in for it."""
    if fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def sentence(error: OSError) -> str:
    """Return what could not be written, and why."""
    if error.errno == errno.EBADF:
        return "cannot write: stdout is closed; send it to a file, or to /dev/null"
    return f"{os.fsdecode(error.filename) if error.filename else 'cannot write'}: {error.strerror or error}"


def discard_stdout() -> None:
    """Let what is still in buffers go nowhere: its reader or its disk is gone, which was said."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
