"""A file of rows that grows song by song, each exactly once, whenever the process is killed.

Beside ROWS.jsonl stands ROWS.jsonl.songs: a line with the settings, then one for each song that is done: its sound, how far its rows
reach, and what was left out with the reason. It is written after the rows. Rows behind the last such place are of a song that was not
done: they are cut off, and the song is labelled again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.settings import require_same

SONGS = ".songs"


class LabelledRows:
    """Rows of songs in a file; a context manager."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open or make the files. Raises UsageError where other settings made them, or rows lie there that this did not write."""
        self.songs_path = path.with_name(path.name + SONGS)
        lines = self._lines(path.stat().st_size if path.exists() else 0)
        if not lines and path.exists() and path.stat().st_size:
            raise UsageError(f"{path}: exists, but `train data label` did not write it; choose another --output")
        if lines:
            require_same(path, lines[0].get("settings", {}), settings)
        self._known = {name: str(line["audio"]) for line in lines[1:] for name in (str(line["audio"]), line.get("audio_id")) if name}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, lines[-1].get("end", 0) if lines else 0)
        self._rows = path.open("ab")
        self._songs = self.songs_path.open("ab")
        if not lines:
            self._note({"settings": dict(settings)})

    def _lines(self, n_bytes: int) -> list[dict[str, Any]]:
        """Return the notes that are whole, of songs whose rows are all in the file of so many bytes, and cut off the others."""
        if not self.songs_path.exists():
            return []
        data = self.songs_path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
        try:
            lines = [json.loads(line) for line in whole]
            while lines and lines[-1].get("end", 0) > n_bytes:
                lines.pop()
            os.truncate(self.songs_path, sum(map(len, whole[: len(lines)])))
            return lines
        except (ValueError, AttributeError, TypeError) as error:
            raise UsageError(f"{self.songs_path}: cannot be read ({error}); choose another --output") from error

    def __len__(self) -> int:
        return len(set(self._known.values()))

    def same(self, path: str, audio_id: str | None = None) -> str | None:
        """Return the song that is done and is this one, by its path or its sound; None for a new one."""
        return self._known.get(path) or (self._known.get(audio_id) if audio_id else None)

    def add(self, audio: str, audio_id: str | None, rows: Sequence[Mapping[str, Any]], dropped: Sequence[tuple[str, str]]) -> None:
        """Add the rows of a song: when this returns it is done."""
        self._rows.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        self._rows.flush()
        left_out = [{"what": what, "why": why} for what, why in dropped]
        self._note({"audio": audio, "audio_id": audio_id, "rows": len(rows), "end": self._rows.tell(), "left_out": left_out})
        self._known |= {name: audio for name in (audio, audio_id) if name}

    def _note(self, line: Mapping[str, Any]) -> None:
        self._songs.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        self._songs.flush()

    def __enter__(self) -> LabelledRows:
        return self

    def __exit__(self, *exc: object) -> None:
        self._rows.close()
        self._songs.close()
