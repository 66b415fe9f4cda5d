"""Writes the kept outputs anew: `python -m tests.golden`, after a change that is meant to alter records; then read `git diff`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.golden.record import COMMANDS, write

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
    print(f"{len(COMMANDS)} files in tests/golden; `git diff tests/golden` shows what changed")
