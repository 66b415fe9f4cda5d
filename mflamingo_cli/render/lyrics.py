"""Lyrics that lie beside a song, and LRC, which players show in time: nothing is transcribed here.

`song.lrc`, `song.srt` and `song.vtt` have times, `song.lyrics.txt` and `song.txt` have none. What lies there is anybody's text. Seconds.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from mflamingo_cli import __version__
from mflamingo_cli.errors import OutputError
from mflamingo_cli.render import Layout
from mflamingo_cli.render.text import safe
from mflamingo_cli.schema import Analysis, SongTags, path_of

MOST_BYTES = 1 << 20  # of a file of lyrics
PAUSE_S = 4.0  # without words, after which players show none
LRC_TIME = re.compile(r"\[(\d{1,3}):(\d{1,2}(?:[.:]\d{1,3})?)\]")
LRC_OFFSET = re.compile(r"^\[offset:\s*([+-]?\d{1,7})\s*\]", re.IGNORECASE | re.MULTILINE)  # milliseconds, positive: earlier
WORD_TIME = re.compile(r"<\d{1,3}:\d{1,2}(?:[.:]\d{1,3})?>")
CUE = re.compile(r"^\s*(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{3})\s+-->\s+(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{3})")
MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")  # of WebVTT and SubRip
Line = tuple[float, str]  # when it is sung, and its words


@dataclass(frozen=True)
class Lyrics:
    """Words of a song, line by line, with times where the file has them; `text` is the file itself."""

    path: str
    text: str
    timed: tuple[Line, ...] = ()

    @property
    def plain(self) -> str:
        """The words alone, an empty line where nothing is sung."""
        lines = [words for _, words in self.timed] if self.timed else self.text.splitlines()
        return "\n".join(" ".join(WORD_TIME.sub(" ", line).split()) for line in lines).strip()


def _lrc(text: str) -> list[Line]:
    offset = LRC_OFFSET.search(text)
    earlier = int(offset[1]) / 1000 if offset else 0.0
    lines = []
    for line in text.splitlines():
        times, rest = [], line.strip()
        while match := LRC_TIME.match(rest):
            times.append(60 * int(match[1]) + float(match[2].replace(":", ".")) - earlier)
            rest = rest[match.end() :].lstrip()
        lines += [(max(0.0, time), rest) for time in times]
    return sorted(lines, key=lambda line: line[0])


def _cues(text: str) -> list[Line]:
    lines: list[Line] = []
    begun = ended = None
    for line in [*text.splitlines(), ""]:
        match = CUE.match(line)
        if match:
            hour, minute, second, milli, *end = (int(part or 0) for part in match.groups())
            begun = hour * 3600 + minute * 60 + second + milli / 1000
            if ended is not None and begun - ended >= PAUSE_S:
                lines.append((ended, ""))
            ended = end[0] * 3600 + end[1] * 60 + end[2] + end[3] / 1000
        elif begun is not None and line.strip():
            lines.append((begun, html.unescape(MARKUP.sub("", line)).strip()))
        else:
            begun = None
    return lines


READERS: dict[str, Callable[[str], list[Line]]] = {  # in this order
    ".lrc": _lrc, ".srt": _cues, ".vtt": _cues, ".lyrics.txt": lambda text: [], ".txt": lambda text: [],
}  # fmt: skip


def beside(song: str) -> Lyrics | None:
    """The lyrics beside a song, those with times first; None where there are none."""
    for suffix, read in READERS.items():
        path = os.path.splitext(song)[0] + suffix
        text = _text(path)
        if text and text.strip():
            timed = tuple(read(text))
            if timed or not suffix.startswith((".lrc", ".srt", ".vtt")):
                return Lyrics(path, text, timed)
    return None


def _text(path: str) -> str | None:
    """A text of any common encoding; None where there is no such file, or too large a one."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > MOST_BYTES:
            return None
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return None
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


class LrcWriter:
    """LRC of the timed lyrics beside a song: one that is there as it is, subtitles turned into it."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._stream = stream

    def write(self, record: Analysis) -> None:
        """Write the lines of one song. Raises OutputError where no timed lyrics lie beside it."""
        if record.audio is None:
            return
        song = path_of(record)
        lyrics = beside(song)
        if lyrics is None or not lyrics.timed:
            stem = os.path.splitext(os.path.basename(song))[0]
            raise OutputError(
                f"{record.path}: no timed lyrics were found beside the song; put them into {stem}.lrc, {stem}.srt or {stem}.vtt"
            )
        if lyrics.path.endswith(".lrc"):
            self._stream.writelines(safe(line.replace("\t", " ")) + "\n" for line in lyrics.text.splitlines())
            self._stream.flush()
            return
        tags = record.audio.tags or SongTags()
        head = {"ti": tags.title, "ar": tags.artist, "al": tags.album, "length": _time(record.audio.duration)[:-3]}
        for name, value in {**head, "re": "mflamingo", "ve": __version__}.items():
            if value:
                self._stream.write(f"[{name}:{safe(value)}]\n")
        self._stream.writelines(f"[{_time(at)}]{safe(words)}\n" for at, words in lyrics.timed)
        self._stream.flush()


def _time(seconds: float) -> str:
    """Minutes, seconds and hundredths: 01:02.50."""
    hundredths = round(100 * seconds)
    return f"{hundredths // 6000:02}:{hundredths % 6000 // 100:02}.{hundredths % 100:02}"
