"""Files written whole (`quant.files`), and the folders for cache, state and settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from quant.files import Draft as Draft
from quant.files import open_growing as open_growing
from quant.files import write_atomic as write_atomic
from quant.files import write_text as write_text


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file, behind the end of a last one that a killed process left without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        n_bytes = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, n_bytes - 1))
        start = b"" if stream.read() in (b"", b"\n") else b"\n"
        stream.write(start + "".join(f"{line}\n" for line in lines).encode())


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, which end at line feeds alone, as those of JSON do: `splitlines` knows eight other ends.

    Bytes that are not UTF-8 become U+FFFD: a process that was killed may have left half a character.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as lines:
        yield from (line.rstrip("\r\n") for line in lines)


def user_folder(xdg: str, usual: str) -> Path | None:
    """Return our folder in a base directory (XDG base directories 0.8), None for a user without a home."""
    base = os.environ.get(xdg, "")
    try:
        return Path(base if os.path.isabs(base) else Path.home() / usual) / "mflamingo"
    except RuntimeError:
        return None
