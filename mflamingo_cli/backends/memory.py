"""What a model and a song need, and whether it is there: said before minutes of work, not after. Sizes are bytes."""

from __future__ import annotations

import os
from pathlib import Path

from mflamingo_cli.errors import ModelError
from mflamingo_cli.models.hub import size

CGROUPS = (  # limit, use, where the part of the use stands that is given back on demand, and its name there
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "sys/fs/cgroup/memory/memory.usage_in_bytes",
        "sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """KVCache that a process can still get, with swap and within the limit of a container; None where the system does not tell (not Linux).

    What the page cache holds counts as available, so weights that are mapped from a file do, too, before and after they were read.
    """
    try:
        machine = _table(root / "proc" / "meminfo")
        free = [1024 * (machine["MemAvailable"] + machine.get("SwapFree", 0))]
    except (OSError, KeyError, ValueError):
        return None
    for limit, used, stat, given_back in CGROUPS:
        try:
            room = int((root / limit).read_text()) - int((root / used).read_text())  # "max" is no number: no limit
            free.append(room + _table(root / stat).get(given_back, 0))
        except (OSError, ValueError):
            continue
    return max(0, min(free))


def require_bytes(what: str, needed: int, room: int | None, cure: str) -> None:
    """Raise ModelError(code="oom") with the numbers where `needed` is more than `room`; None is not known and passes."""
    if room is not None and needed > room:
        raise ModelError(f"{what} needs {size(needed)} of memory, {size(room)} are left; {cure}", code="oom")


def kv_bytes(n_layers: int, n_kv_heads: int, d_head: int, bytes_per_value: float) -> float:
    """Bytes that one position takes in a KV cache."""
    return 2 * n_layers * n_kv_heads * d_head * bytes_per_value


def file_bytes(*paths: str | os.PathLike[str]) -> int:
    """Size of files together."""
    return sum(os.stat(path).st_size for path in paths)


def _table(path: Path) -> dict[str, int]:
    """Names and first numbers of a file of lines like `Name: 12 kB` or `name 12`."""
    rows = (line.replace(":", " ").split() for line in path.read_text(encoding="ascii", errors="replace").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
