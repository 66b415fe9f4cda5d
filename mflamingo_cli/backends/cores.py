"""How many threads help: physical cores that this process may use; hyper-threads slow matrix products down."""

from __future__ import annotations

import os
from pathlib import Path


def physical_cores() -> int:
    """Physical cores within this process's CPU set, at least 1; logical ones where the system does not tell them apart."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core(cpu) for cpu in usable}
    return max(1, len(cores))


def _core(cpu: int) -> str:
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return siblings.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return str(cpu)
