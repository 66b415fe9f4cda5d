"""What may become of a broken input: it is read after all, or refused in one sentence; everything else is a fault of the program."""

from __future__ import annotations

import resource
import sys

OK, SENTENCE = "ok", "one sentence, "  # and its `error.code`
CRASH, TRACEBACK, HANG, MEMORY = "CRASH", "TRACEBACK", "HANG", "MEMORY"
FAULTS = (CRASH, TRACEBACK, HANG, MEMORY)

LIMIT_S = 10.0
LIMIT_BYTES = 10**9


def peak_bytes(*whose: int) -> int:
    """The most memory that this process, or its children, have held at once."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return unit * max(resource.getrusage(who).ru_maxrss for who in whose)
