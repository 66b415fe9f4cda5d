"""Quiet C libraries: what they write to stderr goes nowhere, while Python's own stderr stays as it is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator

_hush_lock = threading.Lock()
_hush_depth = 0
_hush_saved: int | None = None
_hush_sink: int | None = None


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Send what C libraries write to stderr nowhere, while Python's own stderr stays as it is.

    mpg123 inside libsndfile comments on every flaw of an MP3. Swapping the C library's `stderr` (not file descriptor 2) keeps the lines of
    other threads; where the pointer cannot be swapped the comments stay.
    """
    global _hush_depth, _hush_saved, _hush_sink
    pointer = _c_stderr()
    if pointer is None:
        yield
        return
    with _hush_lock:
        if _hush_depth == 0:
            if _hush_sink is None:
                fopen = ctypes.CDLL(None).fopen
                fopen.restype = ctypes.c_void_p
                _hush_sink = fopen(os.fsencode(os.devnull), b"w")
            _hush_saved = pointer.value
            pointer.value = _hush_sink
        _hush_depth += 1
    try:
        yield
    finally:
        with _hush_lock:
            _hush_depth -= 1
            if _hush_depth == 0:
                pointer.value = _hush_saved


def _c_stderr() -> ctypes.c_void_p | None:
    """The C library's variable `stderr` where it is known to be writable: glibc and macOS (musl keeps it in read-only memory)."""
    if sys.platform == "darwin":
        symbol = "__stderrp"
    else:
        try:
            symbol = "stderr" if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc") else ""
        except (AttributeError, ValueError, OSError):  # not Unix; not glibc
            symbol = ""
    return ctypes.c_void_p.in_dll(ctypes.CDLL(None), symbol) if symbol else None
