"""The file that a name means: as it is written, else as VLC, Windows, macOS and file managers write names of files.

This is where names of other programs end: what is found here is the path that is opened and that the record has. A name is never followed
to the network.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

CODE_PAGES = (
    "cp1252",
    "mac_roman",
    "cp1250",
    "cp1251",
    "cp932",
    "gb18030",
    "cp949",
    "big5",
    "cp850",
    "cp437",
)  # of names that are not UTF-8: commonest first
FILE_URI = re.compile(r"file:(?://(?P<host>[^/\\]*))?(?P<path>[/\\].*)", re.IGNORECASE | re.DOTALL)  # RFC 8089
HERE = ("", "localhost")  # hosts of such addresses
DRIVE = re.compile(r"/?([A-Za-z])[:|](?=[/\\])")  # C:\Music, and /C:/Music of file:///C:/Music, C| as RFC 8089, E.2.2 has it
SHARE = re.compile(r"[/\\]{2}[^/\\]+(?=[/\\])")  # \\server
MAC = re.compile(r"/(?:Volumes|Users)/[^/]+(?=/)")  # a disk or a home of macOS
MAX_BYTES = 4096  # Linux's PATH_MAX: a longer name is no path, whatever it may mean
MAX_FOLDERS = 16  # of a path from another machine that are looked for here
WSL = "/mnt"  # where the Windows Subsystem for Linux has the drives


class NameFinder:
    """Finds files by names that other programs wrote. A folder is listed once, so a finder is for one list of names."""

    def __init__(self) -> None:
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, name: str, folder: str = "") -> str:
        """Return the path that a name in a folder means: the literal one first, and also where there is no file."""
        for reading in dict.fromkeys(_readings(name, folder)):
            path = os.path.join(folder, reading)
            if os.path.lexists(path):
                return path
            if (same := self._same_text(path)) is not None:
                return same
        uri = FILE_URI.fullmatch(name)
        path = _unquoted(uri["path"]) if uri else name
        return os.path.join(folder, name if "\0" in path else path)  # %00 is in no path

    def _same_text(self, path: str) -> str | None:
        """The file whose name is the same text composed otherwise, or in other case.

        "é" is one character or two (Unicode, UAX 15); for Windows and macOS "A" and "a" are the same name.
        """
        found = ""
        for name in path.split("/"):
            step = os.path.join(found, name) or "/"
            if not os.path.lexists(step):
                names, text = self._names(found), normalize("NFC", name)
                other = names.get(text, names.get(text.casefold()))
                if other is None:
                    return None
                step = os.path.join(found, other)
            found = step
        return found

    def _names(self, folder: str) -> dict[str, str]:
        """The names in a folder by their composed form, and by that without case; none of what cannot be listed."""
        if folder not in self._listings:
            self._listings[folder] = {}
            with contextlib.suppress(OSError):
                composed = {normalize("NFC", name): name for name in os.listdir(folder or os.curdir)}
                self._listings[folder] = {text.casefold(): name for text, name in composed.items()} | composed
        return self._listings[folder]


def _readings(name: str, folder: str) -> Iterator[str]:
    """What a name may mean, the literal name first; each is a path, relative to the folder or absolute."""
    if len(os.fsencode(name)) > MAX_BYTES:
        return
    for written in _unescaped(name):
        for text in _recoded(written):
            yield text
            yield text.replace("\\", "/")
            yield from _from_elsewhere(text, folder)


def _unescaped(name: str) -> Iterator[str]:
    """The name, without the spaces around it, with its percent-encoding undone, and the path of a file:// address."""
    yield from (name, name.strip())
    if uri := FILE_URI.fullmatch(name.strip()):
        host, path = uri["host"] or "", uri["path"]
        drive = host if DRIVE.match(f"{host}/") else ""  # file://C:/Music, as some write it
        yield from (drive + path, drive + _unquoted(path))
        if not drive and host.lower() not in HERE:
            yield f"//{host}{_unquoted(path)}"
    elif "%" in name:
        yield _unquoted(name.strip())


def _unquoted(name: str) -> str:
    return os.fsdecode(unquote_to_bytes(os.fsencode(name)))


def _recoded(text: str) -> Iterator[str]:
    """The text; where it is not UTF-8, as other code pages read it; else the bytes that an old disk may have for it."""
    yield text
    raw = os.fsencode(text)
    if raw.isascii():
        return
    legacy = any("\udc80" <= char <= "\udcff" for char in text)  # PEP 383: bytes that are no text
    for page in CODE_PAGES:
        with contextlib.suppress(UnicodeError):
            yield raw.decode(page) if legacy else os.fsdecode(text.encode(page))


def _from_elsewhere(text: str, folder: str) -> Iterator[str]:
    """A path of another machine: a drive of Windows under WSL, then ever shorter ends of it below the folder and those above it."""
    root = DRIVE.match(text) or SHARE.match(text) or MAC.match(text)
    if root is None:
        return
    parts = text[root.end() :].replace("\\", "/").strip("/").split("/")
    if root.re is DRIVE:
        yield "/".join([WSL, root[1].lower(), *parts])
    above = [os.path.abspath(folder)]
    while above[-1] != os.path.dirname(above[-1]):
        above.append(os.path.dirname(above[-1]))
    yield from (os.path.join(place, *parts[first:]) for first in range(max(0, len(parts) - MAX_FOLDERS), len(parts)) for place in above)
