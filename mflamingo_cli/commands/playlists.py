"""Names in playlists: M3U, PLS and XSPF, in the encodings that programs write them in.

A playlist names files: an entry is a path relative to its playlist, whatever it looks like, so none leads to the network.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

MAX_BYTES = 64 << 20  # a million entries; what is larger is not a playlist
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
HLS_TAG = b"#EXT-X-"  # RFC 8216, sec. 4.3: the list of a stream's pieces
PLS_FILE = re.compile(rb"\s*file\d+\s*=\s*(.+)", re.IGNORECASE)


class NotAPlaylistError(ValueError):
    """A file that holds no list of songs, whatever its name says."""


def names(path: str) -> list[str]:
    """Return the names in a playlist as they are written. Raises NotAPlaylistError, and OSError for what cannot be read."""
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise NotAPlaylistError("too large")
    return [os.fsdecode(name) for name in READERS[os.path.splitext(path)[1].lower()](content)]


def as_utf8(content: bytes) -> bytes:
    """Return text without its byte order mark, UTF-16 as UTF-8; other bytes as they are."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            rest = content[len(mark) :]
            return rest if encoding == "utf-8" else rest.decode(encoding, "replace").encode("utf-8")
    return content


def _lines(content: bytes) -> list[bytes]:
    text = as_utf8(content)
    if b"\0" in text:
        raise NotAPlaylistError("not text")
    return text.splitlines()


def _m3u(content: bytes) -> Iterator[bytes]:
    lines = _lines(content)
    if any(line.startswith(HLS_TAG) for line in lines):
        raise NotAPlaylistError("the list of a stream")
    return (line for line in lines if line.strip() and not line.lstrip().startswith(b"#"))


def _pls(content: bytes) -> Iterator[bytes]:
    return (found[1] for line in _lines(content) if (found := PLS_FILE.fullmatch(line)))


def _xspf(content: bytes) -> Iterator[bytes]:
    """The first location of each track (xspf.org/spec, sec. 4.1.1.2.14.1.1); no entity is fetched, and expat bounds those that grow."""
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an encoding that is not known
        raise NotAPlaylistError("not XML") from error
    for track in root.iterfind("{*}trackList/{*}track"):
        if (location := (track.findtext("{*}location") or "").strip()) and "\0" not in location:
            yield location.encode("utf-8")


READERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {".m3u": _m3u, ".m3u8": _m3u, ".pls": _pls, ".xspf": _xspf}
