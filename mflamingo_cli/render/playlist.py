"""An extended M3U playlist of the songs that were analysed, UTF-8 but for names that are not."""

from __future__ import annotations

import os
from typing import TextIO
from urllib.parse import quote

from mflamingo_cli.render import Layout
from mflamingo_cli.render.text import heading, safe
from mflamingo_cli.schema import Analysis, path_of


class PlaylistWriter:
    """An entry per song, relative to the playlist's folder where the song lies below it; songs that failed are left out."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._stream, self._folder = stream, os.path.abspath(layout.folder)
        stream.write("#EXTM3U\n")

    def write(self, record: Analysis) -> None:
        """Print one entry; a name with a line break or what could steer a terminal as a file:// address, which players read too."""
        if record.audio is None:
            return
        entry = self._entry(path_of(record))
        title = safe(heading(record) or os.path.splitext(os.path.basename(record.path or ""))[0])
        self._stream.write(f"#EXTINF:{record.audio.duration:.0f},{title}\n")
        self._line(entry)

    def _entry(self, path: str) -> str:
        path = os.path.abspath(path)
        text = "".join(char for char in path if not "\udc80" <= char <= "\udcff")  # without bytes that are no text (PEP 383)
        if safe(text) != text:
            return "file://" + quote(os.fsencode(path))  # RFC 8089
        inside = os.path.relpath(path, self._folder)
        entry = path if inside.startswith(os.pardir + os.sep) else inside
        return os.path.join(os.curdir, entry) if entry[0] == "#" or entry[0].isspace() else entry

    def _line(self, entry: str) -> None:
        """The bytes of a name as they are, whatever the encoding of the stream."""
        buffer = getattr(self._stream, "buffer", None)
        if buffer is None:  # a stream in memory
            self._stream.write(entry + "\n")
            return
        self._stream.flush()
        buffer.write(os.fsencode(entry) + b"\n")
        buffer.flush()
