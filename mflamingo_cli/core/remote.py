"""Songs at addresses, `s3://bucket/song.mp3` and whatever else fsspec reaches: listed, and fetched when they are decoded.

fsspec and the package of a protocol come with the [ray] extra or by hand; nothing of them is imported where no address is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Any

from mflamingo_cli.errors import AudioError, ModelError

HERE = {"file", "local", "memory"}  # protocols that ask no network
TRUE = {"1", "ON", "YES", "TRUE"}  # what huggingface_hub takes for yes
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")  # a scheme (RFC 3986, sec. 3.1), or several, as fsspec chains them
PAGES = ("http://", "https://")  # where what has no suffix may be a stream without an end


class FetchError(AudioError):
    """An address that gave no file: the network, the rights, the server."""

    code = "unreachable"
    retryable = True


def is_offline() -> bool:
    """Return whether the environment forbids the network, by the variables that huggingface_hub and transformers obey."""
    return (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in TRUE


def forbid_network() -> None:
    """Forbid the network, as --offline does, also to libraries that are imported later."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")


def is_address(name: str) -> bool:
    """Whether a name is an address rather than a file that is here."""
    return ADDRESS.match(name) is not None and not os.path.lexists(name)


def is_folder(address: str) -> bool:
    """Whether an address ends with a slash or names no file. Raises FetchError, ModelError."""
    if address.endswith("/"):
        return True
    if address.startswith(PAGES) or os.path.splitext(address)[1]:
        return False
    system, path = _file_system(address)
    try:
        return bool(system.isdir(path))
    except Exception as error:  # each protocol raises errors of its own
        raise FetchError(f"{address}: cannot be listed: {error or type(error).__name__}") from error


def check(address: str) -> None:
    """Raise ModelError where no installed package reaches such addresses."""
    _file_system(address)


def fetch(address: str, local: str) -> None:
    """Copy a file to a local name. Raises FileNotFoundError, FetchError, ModelError."""
    system, path = _file_system(address)
    try:
        system.get_file(path, local)
    except FileNotFoundError:
        raise
    except Exception as error:  # each protocol raises errors of its own
        raise FetchError(f"{address}: cannot be fetched: {error or type(error).__name__}") from error


def find(folder: str, suffixes: Collection[str]) -> list[str]:
    """Addresses of the files below a folder's that end so, sorted, hidden ones left out. Raises FetchError, ModelError."""
    system, root = _file_system(folder)
    try:
        found = sorted(system.find(root))
    except Exception as error:  # each protocol raises errors of its own
        raise FetchError(f"{folder}: cannot be listed: {error or type(error).__name__}") from error
    inside = {path: path.removeprefix(root).split("/") for path in found}
    shown = [path for path, parts in inside.items() if not any(part.startswith(".") for part in parts)]
    return [system.unstrip_protocol(path) for path in shown if os.path.splitext(path)[1].lower() in suffixes]


def _file_system(address: str) -> tuple[Any, str]:
    if is_offline() and address.partition("://")[0] not in HERE:
        raise ModelError(f"{address}: this is a URL, and --offline forbids the network; name a file", code="offline")
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        cure = "download it first, or let fsspec fetch it: pip install 'mflamingo-cli[ray]'"
        raise ModelError(f"{address}: this is a URL, not a file; {cure}", code="not_installed") from error
    try:
        system, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ModelError(f"{address}: cannot be opened from here: {error}", code="not_installed") from error
    return system, path
