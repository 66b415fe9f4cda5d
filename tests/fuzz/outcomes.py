"""What may become of a broken input: it is read after all, or refused in one sentence; everything else is a fault of the program."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

OK, SENTENCE = "ok", "one sentence, "  # and its `error.code`
CRASH, TRACEBACK, HANG, MEMORY = "CRASH", "TRACEBACK", "HANG", "MEMORY"
FAULTS = (CRASH, TRACEBACK, HANG, MEMORY)

LIMIT_S = 10.0  # of processor time: other work on the machine is no fault of the program
WAIT_S = 120.0  # by the clock, for what waits in vain
LIMIT_BYTES = 10**9


def peak_bytes() -> int:
    """The most memory that this process, or its children, have held at once.

    Linux starts a process with the `ru_maxrss` of the one that started it, so its own is read elsewhere.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    children = unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    try:
        own = re.search(r"VmHWM:\s*([0-9]+)", Path("/proc/self/status").read_text(encoding="ascii"))
    except OSError:
        own = None
    return max(children, 1024 * int(own[1]) if own else unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
