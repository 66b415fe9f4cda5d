"""Files written whole (`quant.files`), and the folders for cache, state and settings."""

from __future__ import annotations

import os
from pathlib import Path

from quant.files import Draft as Draft
from quant.files import open_growing as open_growing
from quant.files import write_atomic as write_atomic
from quant.files import write_text as write_text


def user_folder(xdg: str, usual: str) -> Path | None:
    """Return our folder in a base directory (XDG base directories 0.8), None for a user without a home."""
    base = os.environ.get(xdg, "")
    try:
        return Path(base if os.path.isabs(base) else Path.home() / usual) / "mflamingo"
    except RuntimeError:
        return None
