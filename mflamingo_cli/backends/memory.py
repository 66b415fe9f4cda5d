"""Memory that is left, and that a model and a song need: an error before minutes of work, not after. Sizes are bytes."""

from __future__ import annotations

import os
from pathlib import Path

from mflamingo_cli.errors import ModelError
from mflamingo_cli.store.hub import size

V1, V2 = "sys/fs/cgroup/memory/memory", "sys/fs/cgroup/memory"  # versions of control groups
CGROUPS = (  # files of the limit and of the use, and the file and key of the part of the use that is reclaimed on demand
    (f"{V2}.max", f"{V2}.current", f"{V2}.stat", "inactive_file"),
    (f"{V1}.limit_in_bytes", f"{V1}.usage_in_bytes", f"{V1}.stat", "total_inactive_file"),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """Return what a process can still allocate, with swap and within a container's limit; None where the system does not say (not Linux).

    The page cache counts as available, and so do weights that are mapped from a file, before and after they were read.
    """
    try:
        machine = _table(root / "proc" / "meminfo")
        free = [1024 * (machine["MemAvailable"] + machine.get("SwapFree", 0))]
    except (OSError, KeyError, ValueError):
        return None
    for limit, used, stat, reclaimable in CGROUPS:
        try:
            left = int((root / limit).read_text()) - int((root / used).read_text())  # "max" is no number: no limit
            free.append(left + _table(root / stat).get(reclaimable, 0))
        except (OSError, ValueError):
            continue
    return max(0, min(free))


def require_bytes(what: str, needed: int, free: int | None, cure: str) -> None:
    """Raise ModelError(code="oom") with both numbers where `needed` is more than `free`; None is unknown and passes."""
    if free is not None and needed > free:
        raise ModelError(f"{what} needs {size(needed)} of memory, but only {size(free)} are free; {cure}", code="oom")


def kv_bytes(n_layers: int, n_kv_heads: int, d_head: int, bytes_per_value: float) -> float:
    """Return the size of one position in a KV cache."""
    return 2 * n_layers * n_kv_heads * d_head * bytes_per_value


def file_bytes(*paths: str | os.PathLike[str]) -> int:
    """Return the size of files together."""
    return sum(os.stat(path).st_size for path in paths)


def _table(path: Path) -> dict[str, int]:
    """Return names and numbers of lines like `Name: 12 kB` or `name 12`."""
    rows = (line.replace(":", " ").split() for line in path.read_text(encoding="ascii", errors="replace").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
