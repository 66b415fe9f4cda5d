"""A collection for rekordbox (File, Preferences, Advanced, rekordbox xml): grid, key, and memory cues at sections.

Elements and attributes are those of AlphaTheta's "xml_format_list.pdf"; positions are seconds with three decimals.
"""

from __future__ import annotations

import os
from typing import TextIO
from urllib.parse import quote
from xml.etree.ElementTree import Element

from mflamingo_cli.render import Layout
from mflamingo_cli.render.dj import PROGRAM, VERSION, CollectionTrack, CollectionWriter, element
from mflamingo_cli.render.dj.mp3 import rekordbox_shift_s

MEMORY_CUE, MOST_CUES = -1, 10  # a track holds no more memory cues
KIND = {".mp3": "MP3 File", ".m4a": "M4A File", ".wav": "WAV File", ".aif": "AIFF File", ".aiff": "AIFF File", ".flac": "FLAC File"}


class RekordboxWriter(CollectionWriter):
    """The DJ_PLAYLISTS document: every song in the collection, and in a playlist from which they can be imported."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        super().__init__(stream)

    def _track(self, track: CollectionTrack, number: int) -> Element:
        tags, result, audio = track.tags, track.result, track.audio
        node = element(
            None, "TRACK", TrackID=number, Name=tags["title"], Artist=tags.get("artist"), Album=tags.get("album"),
            Genre=tags.get("genre"), Kind=KIND.get(os.path.splitext(track.path)[1].lower()), Size=track.size,
            TotalTime=round(audio.duration), AverageBpm=None if track.bpm is None else f"{track.bpm:.2f}",
            SampleRate=audio.sample_rate, Tonality=result.key.id3, Location="file://localhost" + quote(os.fsencode(track.path)),
        )  # fmt: skip
        shift_s = rekordbox_shift_s(track.path)
        for anchor in track.anchors(shift_s):
            metre = result.meter.value or "4/4"
            element(node, "TEMPO", Inizio=f"{anchor.time_s:.3f}", Bpm=f"{anchor.bpm:.2f}", Metro=metre, Battito=anchor.place or 1)
        for name, at in list(track.cues(shift_s))[:MOST_CUES]:
            element(node, "POSITION_MARK", Name=name, Type=0, Start=f"{at:.3f}", Num=MEMORY_CUE)
        return node

    def _document(self, tracks: list[Element]) -> Element:
        root = element(None, "DJ_PLAYLISTS", Version="1.0.0")
        element(root, "PRODUCT", Name=PROGRAM, Version=VERSION, Company="")
        element(root, "COLLECTION", Entries=len(tracks)).extend(tracks)
        top = element(element(root, "PLAYLISTS"), "NODE", Type=0, Name="ROOT", Count=1)
        playlist = element(top, "NODE", Name=PROGRAM, Type=1, KeyType=0, Entries=len(tracks))
        for track in tracks:
            element(playlist, "TRACK", Key=track.get("TrackID"))
        return root
