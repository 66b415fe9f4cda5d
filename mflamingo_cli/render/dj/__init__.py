"""Collections of DJ programs: a song as they know it, with tempo grid, key and a cue point at each section.

Places in the song are seconds of its sound as we decode it; `shift_s` is added where the program counts from somewhere else.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO
from xml.etree import ElementTree

import numpy as np

from mflamingo_cli import __version__
from mflamingo_cli.measure import grid
from mflamingo_cli.measure.grid import Anchor
from mflamingo_cli.render.text import safe
from mflamingo_cli.schema import Analysis, AudioInfo, Result, SongTags, path_of

PROGRAM, VERSION = "mflamingo", __version__  # as collections and their playlist name what wrote them


@dataclass(frozen=True)
class CollectionTrack:
    """A song that was analysed, its path from the root, and what the file itself says."""

    path: str
    audio: AudioInfo
    result: Result

    @classmethod
    def of(cls, record: Analysis) -> CollectionTrack | None:
        """A record as a track, None where nothing was analysed."""
        if record.audio is None or record.result is None:
            return None
        return cls(os.path.abspath(path_of(record)), record.audio, record.result)

    @property
    def tags(self) -> dict[str, str]:
        """Title, artist, album and genre of the file's own tags, the title else its name."""
        tags = self.audio.tags or SongTags()
        title = tags.title or os.path.splitext(os.path.basename(self.path))[0]
        known = {"title": title, "artist": tags.artist, "album": tags.album, "genre": tags.genre}
        return {name: safe(text) for name, text in known.items() if text}

    @property
    def size(self) -> int | None:
        """Bytes of the file, None where it is gone."""
        return os.path.getsize(self.path) if os.path.isfile(self.path) else None

    @property
    def bpm(self) -> float | None:
        """The tempo of the grid where one fits, else the measured one."""
        anchors = grid.anchors(self.result.beats)
        return anchors[0].bpm if len(anchors) == 1 else self.result.tempo.bpm

    def anchors(self, shift_s: float, from_downbeat: bool = False) -> list[Anchor]:
        """The tempo map; with `from_downbeat` each tempo begins where a bar does."""
        return grid.anchors(self.result.beats, shift_s, from_downbeat)

    def cues(self, shift_s: float) -> Iterator[tuple[str, float]]:
        """The name and the place of each section; on the grid where that is as near as beats are to it."""
        grids = grid.fit_grids(np.array([time for time, _ in self.result.beats]))
        for section in self.result.sections:
            on = next((g for g in grids if g.fits and g.start_s <= section.start <= g.end_s), None)
            line = section.start if on is None else on.start_s + float(on.number(np.array(section.start))) * on.period_s
            at = line if abs(line - section.start) <= grid.ON_GRID_S else section.start
            yield safe(section.label), max(0.0, at + shift_s)


class CollectionWriter:
    """Keeps the tracks of a run, and writes the document with its end: the number of tracks stands before them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tracks: list[ElementTree.Element] = []

    def write(self, record: Analysis) -> None:
        """Take one record; one without a result is left out."""
        track = CollectionTrack.of(record)
        if track is not None:
            self._tracks.append(self._track(track, len(self._tracks) + 1))

    def end(self) -> None:
        """Write the document, in ASCII: other characters are named by their number, which no encoding of a terminal or pipe changes."""
        root = self._document(self._tracks)
        ElementTree.indent(root)
        text = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=False).decode("ascii")
        self._stream.write(f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')
        self._stream.flush()

    def _track(self, track: CollectionTrack, number: int) -> ElementTree.Element:
        raise NotImplementedError

    def _document(self, tracks: list[ElementTree.Element]) -> ElementTree.Element:
        raise NotImplementedError


def element(parent: ElementTree.Element | None, name: str, **attributes: object) -> ElementTree.Element:
    """An element with those attributes that are known, in their order, numbers as text."""
    known = {key: str(value) for key, value in attributes.items() if value is not None}
    return ElementTree.Element(name, known) if parent is None else ElementTree.SubElement(parent, name, known)


def fits_xml(text: str) -> bool:
    """Whether XML can hold a text as it is (XML 1.0, 2.2): no control characters, no broken bytes."""
    return not any(unicodedata.category(char) in ("Cc", "Cs") for char in text)
