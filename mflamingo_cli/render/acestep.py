"""What trainers of ACE-Step and of tools like it read beside each song: annotations, a caption, and lyrics.

`song.json`, `song.caption.txt`, `song.lyrics.txt`, with the names of fields of ACE-Step 1.5's "LoRA Training Tutorial". All are optional
there, so what is not likely right is left out: a wrong tempo teaches a wrong tempo.
"""

from __future__ import annotations

import json
from typing import Any, TextIO

from mflamingo_cli.grounding import LIKELY, sure
from mflamingo_cli.render import Layout
from mflamingo_cli.render.lyrics import beside
from mflamingo_cli.schema import Analysis, Result, path_of
from mflamingo_cli.text import scrub

INSTRUMENTAL = "[Instrumental]"  # the trainer's lyrics of a song without voices


class _PartWriter:
    """Writes one file of a song; nothing where nothing is known for it."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._stream = stream

    def write(self, record: Analysis) -> None:
        """Write what belongs into the file."""
        text = scrub(self._text(record, record.result)) if record.result is not None else ""
        if text:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _text(self, record: Analysis, result: Result) -> str:
        raise NotImplementedError


class AnnotationWriter(_PartWriter):
    """`song.json`: caption, bpm (whole), keyscale ("D major"), timesignature ("4")."""

    def _text(self, record: Analysis, result: Result) -> str:
        known: dict[str, Any] = {"caption": result.caption}
        if result.tempo.bpm is not None and _is_likely(result.tempo.confidence):
            known["bpm"] = round(result.tempo.bpm)
        if _is_likely(result.key.confidence):
            known["keyscale"] = result.key.name
        if result.meter.value is not None and _is_likely(result.meter.confidence):
            known["timesignature"] = result.meter.value.partition("/")[0]
        return json.dumps({name: value for name, value in known.items() if value}, indent=2)


def _is_likely(confidence: float | None) -> bool:
    """Whether a value is worth to be learnt; a model's own has no confidence."""
    return sure(confidence, LIKELY)


class CaptionWriter(_PartWriter):
    """`song.caption.txt`: the description alone."""

    def _text(self, record: Analysis, result: Result) -> str:
        return result.caption or ""


class LyricsWriter(_PartWriter):
    """`song.lyrics.txt`: the lyrics beside the song without their times, or that there are none to sing."""

    def _text(self, record: Analysis, result: Result) -> str:
        lyrics = beside(path_of(record))
        return lyrics.plain if lyrics else INSTRUMENTAL if result.vocals.present is False else ""
