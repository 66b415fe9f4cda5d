"""The number of threads: physical cores that this process may use; hyper-threads slow matrix products down."""

from __future__ import annotations

import os
from pathlib import Path

BYTES_PER_THREAD = 64 << 20  # of weights; with fewer, ggml's threads spend their time waiting for each other at every operation


def useful_threads(weight_bytes: int) -> int:
    """Return the threads for a ggml model of this size: physical cores, but fewer for a model too small to share.

    The embedded model (9 MB) took 0.26 s of CPU for two answers with one thread and 2.9 s or more with two, on a busy machine.
    """
    return min(physical_cores(), max(1, weight_bytes // BYTES_PER_THREAD))


def physical_cores() -> int:
    """Return the physical cores in this process's CPU set, at least 1; logical ones where the system does not tell them apart."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    return max(1, len({_core(cpu) for cpu in usable}))


def _core(cpu: int) -> str:
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return siblings.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return str(cpu)
