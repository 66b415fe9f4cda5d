"""Debian packages as sources of music and styles: downloaded and unpacked once, never installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from mflamingo_cli.errors import ModelError


def unpacked(folder: Path, name: str, finish: Callable[[Path], object] = lambda _: None) -> Path:
    """Files of a package that lies in `folder` or is downloaded there; `finish` adds to them before they count as complete."""
    target = folder / "unpacked" / name
    if (target / ".ready").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{name}_*.deb")):
        if shutil.which("apt-get") is None:
            raise ModelError(f"{name}: not in {folder}, and there is no apt-get; put the Debian (bookworm) package there")
        if subprocess.run(["apt-get", "download", name], cwd=folder, capture_output=True, check=False).returncode:
            raise ModelError(f"{name}: apt-get cannot download it; put the Debian (bookworm) package into {folder}")
    deb = max(folder.glob(f"{name}_*.deb"))
    if shutil.which("dpkg"):
        if subprocess.run(["dpkg", "-x", str(deb), str(target)], capture_output=True, check=False).returncode:
            raise ModelError(f"{deb}: dpkg cannot unpack it; delete it and try again")
    elif not any(target.iterdir()):  # else somebody unpacked it by hand
        raise ModelError(f"{name}: there is no dpkg; unpack {deb.name} elsewhere and put its files into {target}")
    finish(target)
    (target / ".ready").touch()
    return target
