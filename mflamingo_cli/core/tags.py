"""What a file's own tags say: title, artist, album. Read by mutagen (extra `tags`) where it is installed, else what the decoder gives.

Tags are text that anybody wrote: here, where they are read, control characters go and lengths are limited. No tag reaches a model.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

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
INFLATED = {3: 0x80, 4: 0x08}  # by version of ID3v2: the bit of a frame's second flag byte that says its content is compressed
FLAGS_AT = 9  # of that byte in a frame


def read(path: Path, decoded: Mapping[str, Any]) -> SongTags | None:
    """Return a file's tags, None where it has none of the fields; `decoded` is what its decoder read, by name."""
    found = _fields(decoded) | _fields(_by_mutagen(path))
    return SongTags(**found) if found else None


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
    """Every tag of the file; none without mutagen, or where it cannot read them."""
    if not reader():
        return {}
    import mutagen

    try:
        found = None if inflates(path) else mutagen.File(path)
        return {} if found is None else _grouped(found.tags or {})
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


def inflates(path: str | Path) -> bool:
    """Whether a frame of a file's ID3 tags is compressed: mutagen would make a gigabyte of a megabyte, and no program writes such tags.

    Raises mutagen's errors and OSError.
    """
    from mutagen import aiff, dsdiff, dsf, id3, wave

    with_id3 = {b"ID3": id3.ID3FileType, b"RIF": wave.WAVE, b"FOR": aiff.AIFF, b"DSD": dsf.DSF, b"FRM": dsdiff.DSDIFF}
    with open(path, "rb") as file:
        kind = with_id3.get(file.read(3))
    tags = kind(path, known_frames={}, translate=False).tags if kind else None  # no frame is decoded
    if tags is None:
        return False
    flag = INFLATED.get(tags.version[1], 0)
    return flag > 0 and any(frame[FLAGS_AT] & flag for frame in tags.unknown_frames)
