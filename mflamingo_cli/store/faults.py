"""The log of this program's own faults: the traceback of each, beside the run store, for a report. Sizes are bytes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mflamingo_cli import __version__
from mflamingo_cli.errors import InternalError
from mflamingo_cli.store.runs import default_folder

FILE, OLDER = "errors.log", "errors.log.1"
MAX_BYTES = 1 << 20  # then the file becomes the older one, as logrotate has it


def log(failure: InternalError) -> Path | None:
    """Append what happened; return the log, None where it cannot be written."""
    folder = default_folder()
    if folder is None:
        return None
    path = folder / FILE
    entry = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} mflamingo {__version__}\n{failure}\n{failure.trace}\n"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > MAX_BYTES:
            path.replace(folder / OLDER)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(entry)
    except OSError:
        return None
    return path
