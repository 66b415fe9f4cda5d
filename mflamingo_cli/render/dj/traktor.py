"""A playlist with its collection for Traktor (Import Playlist): grid, key, and cue points at sections.

Elements and attributes are those that Traktor Pro 3 writes (NML version 19); positions are milliseconds.
"""

from __future__ import annotations

import os
import uuid
from typing import TextIO
from xml.etree.ElementTree import Element

from mflamingo_cli.errors import OutputError
from mflamingo_cli.measure.facts import pitch_class
from mflamingo_cli.render import Layout
from mflamingo_cli.render.dj import PROGRAM, CollectionTrack, CollectionWriter, element, fits_xml
from mflamingo_cli.render.dj.mp3 import traktor_shift_s

CUE, GRID = 0, 4  # types of CUE_V2
NO_BUTTON = -1  # of the eight hot cues
BOOT_VOLUME, VOLUMES = "Macintosh HD", "/Volumes/"  # as macOS names the one and mounts the others


class TraktorWriter(CollectionWriter):
    """The NML document: every song in the collection, and in a playlist from which they can be imported."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        super().__init__(stream)

    def _track(self, track: CollectionTrack, number: int) -> Element:
        if not fits_xml(track.path):
            raise OutputError(f"{track.path}: Traktor cannot store this file name; rename the file")
        tags, result, duration = track.tags, track.result, track.audio.duration
        entry = element(None, "ENTRY", TITLE=tags["title"], ARTIST=tags.get("artist"))
        volume, folders = _place(track.path)
        element(entry, "LOCATION", DIR=_steps(folders), FILE=os.path.basename(track.path), VOLUME=volume, VOLUMEID=volume)
        if "album" in tags:
            element(entry, "ALBUM", TITLE=tags["album"])
        size = None if track.size is None else track.size // 1024
        element(
            entry, "INFO", GENRE=tags.get("genre"), KEY=result.key.openkey, PLAYTIME=round(duration), PLAYTIME_FLOAT=f"{duration:.6f}",
            FILESIZE=size,
        )  # fmt: skip
        anchors = track.anchors(traktor_shift_s(track.path), from_downbeat=True)
        if track.bpm is not None:
            element(entry, "TEMPO", BPM=f"{track.bpm:.6f}", BPM_QUALITY="100.000000")
        if result.key.tonic is not None:
            element(entry, "MUSICAL_KEY", VALUE=pitch_class(result.key.tonic) + 12 * (result.key.mode == "minor"))
        for anchor in anchors:
            element(_cue(entry, "AutoGrid", GRID, anchor.time_s), "GRID", BPM=f"{anchor.bpm:.6f}")
        for name, at in track.cues(traktor_shift_s(track.path)):
            _cue(entry, name, CUE, at)
        return entry

    def _document(self, tracks: list[Element]) -> Element:
        root = element(None, "NML", VERSION=19)
        element(root, "HEAD", COMPANY="www.native-instruments.com", PROGRAM="Traktor")
        element(root, "COLLECTION", ENTRIES=len(tracks)).extend(tracks)
        top = element(element(root, "PLAYLISTS"), "NODE", TYPE="FOLDER", NAME="$ROOT")
        node = element(element(top, "SUBNODES", COUNT=1), "NODE", TYPE="PLAYLIST", NAME=PROGRAM)
        keys = [_key(track) for track in tracks]
        name = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(keys)).hex  # the same songs are the same playlist
        playlist = element(node, "PLAYLIST", ENTRIES=len(tracks), TYPE="LIST", UUID=name)
        for key in keys:
            element(element(playlist, "ENTRY"), "PRIMARYKEY", TYPE="TRACK", KEY=key)
        return root


def _cue(entry: Element, name: str, kind: int, at_s: float) -> Element:
    start = f"{1000 * at_s:.6f}"
    return element(entry, "CUE_V2", NAME=name, DISPL_ORDER=0, TYPE=kind, START=start, LEN="0.000000", REPEATS=-1, HOTCUE=NO_BUTTON)


def _place(path: str) -> tuple[str, list[str]]:
    """The volume of a path from the root, and the folders on it."""
    if path.startswith(VOLUMES):
        volume, _, path = path.removeprefix(VOLUMES).partition("/")
    else:
        volume = BOOT_VOLUME
    return volume, [folder for folder in os.path.dirname(path).split("/") if folder]


def _steps(folders: list[str]) -> str:
    """Folders as Traktor writes them: a colon after each slash, and at the end."""
    return "/:" + "".join(f"{folder}/:" for folder in folders)


def _key(entry: Element) -> str:
    place = entry.find("LOCATION")
    assert place is not None, "every entry has one"
    return f"{place.get('VOLUME')}{place.get('DIR')}{place.get('FILE')}"
