"""Settings files of folders that the user trusts.

Each is known by its path and its content, as by direnv and git.

`trusted.json` beside the user's own settings holds the SHA-256 of every file that was trusted, by path; one that has changed must be
trusted again.
"""

from __future__ import annotations

import os
from pathlib import Path

from mflamingo_cli.errors import ConfigError
from mflamingo_cli.files import user_folder, write_atomic

FILE = "trusted.json"


def is_trusted(path: Path, content: bytes) -> bool:
    """Whether the user has trusted a file with just this content."""
    return _trusted().get(_name(path)) == _digest(content)


def is_known(path: Path) -> bool:
    """Whether the user has trusted a file, whatever it held then."""
    return _name(path) in _trusted()


def trust(path: Path, content: bytes) -> None:
    """Trust a file until it changes. Raises ConfigError where that cannot be remembered."""
    _keep(_trusted() | {_name(path): _digest(content)})


def revoke(path: Path) -> None:
    """Trust a file no longer. Raises ConfigError where it was not trusted."""
    trusted = _trusted()
    if trusted.pop(_name(path), None) is None:
        raise ConfigError(f"{path}: is not trusted; there is nothing to revoke")
    _keep(trusted)


def _name(path: Path) -> str:
    return os.path.realpath(path)


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _file() -> Path | None:
    folder = user_folder("XDG_CONFIG_HOME", ".config")
    return folder and folder / FILE


def _trusted() -> dict[str, str]:
    """Read the list; what cannot be read trusts nothing."""
    import json

    path = _file()
    try:
        found = json.loads(path.read_bytes()) if path else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: digest for name, digest in found.items() if isinstance(digest, str)} if isinstance(found, dict) else {}


def _keep(trusted: dict[str, str]) -> None:
    import json

    path = _file()
    if path is None:
        raise ConfigError("there is no home folder to store this in; set HOME or XDG_CONFIG_HOME")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with write_atomic(path) as file:
            file.write(json.dumps(trusted, indent=1).encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
