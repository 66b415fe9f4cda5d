"""What a file's own tags say: title, artist, album. Read by mutagen (extra `tags`) where it is installed, else what the decoder gives.

Tags are text that anybody wrote: here, where they are read, control characters go and lengths are limited. No tag reaches a model.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mflamingo_cli.core.decode import id3
from mflamingo_cli.schema import SongTags
from mflamingo_cli.text import tidy

MAX_CHARS = 500  # of a value; longer ones are cut
JOIN = "; "  # between the values of a field that has several
NAMES = {  # field: what Vorbis comments, APE and RIFF call it in lower case, then ID3 (id3.org, 2.4.0, sec. 4.2), MP4, ASF
    "title": ("title", "tit2", "\xa9nam"),
    "artist": ("artist", "tpe1", "\xa9art", "author"),
    "album": ("album", "talb", "\xa9alb", "wm/albumtitle"),
    "date": ("date", "tdrc", "\xa9day", "year", "wm/year"),
    "track": ("tracknumber", "track", "trck", "trkn", "wm/tracknumber"),
    "genre": ("genre", "tcon", "\xa9gen", "wm/genre"),
}
MOST_READ = 1 << 27  # bytes at once: ten covers of 10 MB
MOST_READS = 700_000  # of a file: of a radio programme of ten hours, chained Ogg, mutagen reads every page, four times each
MOST_FIELDS = 100_000  # of other tags than ID3; comments are read in linear time, 0.4 s for so many


class TagsRefused(Exception):
    """Tags are not read because of what they hold; says what."""


class GuardedFile(io.FileIO):
    """A file as mutagen reads it: what it asks for is looked at before it gets it. Raises TagsRefused."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(os.fspath(path))
        self._n_bytes, self._n_reads = os.fstat(self.fileno()).st_size, 0
        self._header, self._at, self._end = b"", 0, 0  # of the ID3 tag that is being read, the place up to which it was, and its end

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes."""
        at = self.tell()
        left = max(0, self._n_bytes - at)
        size = left if size is None or size < 0 else min(size, left)
        self._n_reads += 1
        if size > MOST_READ or self._n_reads > MOST_READS:
            raise TagsRefused(id3.LARGE)
        data = super().read(size) or b""
        if len(data) == id3.HEADER_BYTES and data.startswith(b"ID3"):
            self._header, self._at = data, at + len(data)
            self._end = self._at + id3.size_of(data)
        elif self._header and at == self._at < self._end:  # an extended header, or the frames
            if why := id3.refusal(self._header, data):
                raise TagsRefused(why)
            self._at = at + len(data)
        return data


def read(path: Path, decoded: Mapping[str, Any]) -> tuple[SongTags | None, tuple[str, ...]]:
    """Return a file's tags, None where it has none of the fields, and a sentence where they were not read.

    `decoded` is what its decoder read, by name.
    """
    notes, own = tuple[str, ...](), dict[str, str]()
    try:
        own = _fields(_by_mutagen(path))
    except TagsRefused as refused:
        notes = (id3.unread(str(refused)),)
    found = _fields(decoded) | own
    return SongTags(**found) if found else None, notes


@functools.cache
def reader() -> str:
    """Name what reads tags besides the decoders: another one may read a file differently."""
    try:
        return f"mutagen {metadata.version('mutagen')}"
    except metadata.PackageNotFoundError:
        return ""


def _fields(raw: Mapping[str, Any]) -> dict[str, str]:
    """The fields that have a value, from the names of any container."""
    known = {name.lower(): value for name, value in raw.items()}
    texts = {field: next(filter(None, (_text(known[name]) for name in names if name in known)), "") for field, names in NAMES.items()}
    return {field: text for field, text in texts.items() if text}


def _text(value: Any) -> str:
    """One line of any kind of value: text, a list, an ID3 frame, MP4's pair of a track and how many there are; of bytes none."""
    items = getattr(value, "genres", None) or getattr(value, "text", value)
    items = items if isinstance(items, Iterable) and not isinstance(items, str | bytes) else [items]
    texts = [item for item in items if not isinstance(item, bytes)]
    parts = ["/".join(map(str, filter(None, item))) if isinstance(item, tuple) else str(item) for item in texts]
    return " ".join(tidy(JOIN.join(filter(None, dict.fromkeys(parts)))[:MAX_CHARS]).split())


def _by_mutagen(path: Path) -> Mapping[str, Any]:
    """Every tag of the file; none without mutagen, or where it cannot read them. Raises TagsRefused."""
    if not reader():
        return {}
    import mutagen

    try:
        with GuardedFile(path) as file:
            found = mutagen.File(file)
        tags = {} if found is None else found.tags or {}
        if len(tags) > MOST_FIELDS:
            raise TagsRefused(id3.LARGE)
        return _grouped(tags)
    except TagsRefused:
        raise
    except Exception:  # of any kind: the bytes are anybody's, and no title is worth a song
        return {}


def _grouped(tags: Any) -> Mapping[str, Any]:
    """Values by name; Vorbis comments and ASF are lists of pairs, in which mutagen looks for each name from the beginning."""
    if not isinstance(tags, list):
        return dict(tags)
    values: dict[str, list[Any]] = {}
    for name, value in tags:
        values.setdefault(name.lower(), []).append(value)
    return values
