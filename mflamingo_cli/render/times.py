"""Times in one song for the programs that show or compare them: labels, beats, chords, JAMS. Seconds from the start of the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, TextIO

from mflamingo_cli import __version__
from mflamingo_cli.render.layout import Layout
from mflamingo_cli.render.text import safe
from mflamingo_cli.schema import Analysis, AudioInfo, Result, Segment

JAMS_VERSION = "0.3.5"  # of the specification


class _ResultWriter:
    """Writes what is known of a song; of a song that failed, nothing."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._stream = stream

    def write(self, record: Analysis) -> None:
        """Print the lines of one record."""
        if record.result is not None:
            self._stream.writelines(line + "\n" for line in self._lines(record, record.result))
            self._stream.flush()

    def _lines(self, record: Analysis, result: Result) -> Iterable[str]:
        raise NotImplementedError


def _spans(spans: Iterable[Segment]) -> Iterable[str]:
    return (f"{span.start:.3f}\t{span.end:.3f}\t{safe(span.label)}" for span in spans)


class LabelWriter(_ResultWriter):
    """Audacity's labels of sections and chords: `start<TAB>end<TAB>text`."""

    def _lines(self, record: Analysis, result: Result) -> Iterable[str]:
        return _spans([*result.sections, *result.chords])


class ChordWriter(_ResultWriter):
    """Chords in Harte's notation, `start<TAB>end<TAB>chord`, as mir_eval and the Isophonics annotations have them."""

    def _lines(self, record: Analysis, result: Result) -> Iterable[str]:
        return _spans(result.chords)


class BeatWriter(_ResultWriter):
    """Beats as beat trackers write them: `time<TAB>place in the bar`, the time alone where the meter is unknown."""

    def _lines(self, record: Analysis, result: Result) -> Iterable[str]:
        return (f"{time:.3f}" if place is None else f"{time:.3f}\t{place}" for time, place in result.beats)


# --- JAMS ----------------------------------------------------------------------------------------------------------------

Observation = tuple[float, float, Any, float | None]  # time, duration, value, confidence


def _observations(audio: AudioInfo, result: Result) -> dict[str, list[Observation]]:
    """What is known by JAMS namespace; a tempo without a confidence cannot be said there."""
    start, length = audio.start, audio.end - audio.start
    tempo, key, tags = result.tempo, result.key, (*result.genre, *result.mood, *result.instruments)
    known = tempo.bpm is not None and tempo.confidence is not None
    return {
        "tempo": [(start, length, tempo.bpm, tempo.confidence)] if known else [],
        "beat": [(time, 0.0, place, None) for time, place in result.beats],
        "key_mode": [(start, length, f"{key.tonic}:{key.mode}", key.confidence)] if key.tonic else [],
        "chord": [(span.start, span.end - span.start, span.label, None) for span in result.chords],
        "segment_open": [(span.start, span.end - span.start, span.label, None) for span in result.sections],
        "tag_open": [(start, length, tag, None) for tag in tags],
    }


def _annotation(namespace: str, data: list[Observation], audio: AudioInfo, tools: str) -> dict[str, Any]:
    names = ("time", "duration", "value", "confidence")
    return {
        "namespace": namespace,
        "time": audio.start,
        "duration": round(audio.end - audio.start, 3),
        "data": [dict(zip(names, (round(time, 3), round(length, 3), *rest), strict=True)) for time, length, *rest in data],
        "annotation_metadata": {
            "annotation_tools": tools,
            "data_source": "program",
            "curator": {"name": "", "email": ""},
            "annotator": {},
            "version": __version__,
            "corpus": "",
            "annotation_rules": "",
            "validation": "",
        },
        "sandbox": {},
    }


def jams(record: Analysis) -> dict[str, Any] | None:
    """A record as a JAMS file (Humphrey et al., ISMIR 2014): an annotation for each namespace of which something is known."""
    audio, result = record.audio, record.result
    if audio is None or result is None:
        return None
    tools = f"mflamingo {__version__}{f', {record.model.id}' if record.model else ''}"
    known = {namespace: data for namespace, data in _observations(audio, result).items() if data}
    return {
        "annotations": [_annotation(namespace, data, audio, tools) for namespace, data in known.items()],
        "file_metadata": {
            "title": os.path.basename(record.path),
            "artist": "",
            "release": "",
            "duration": audio.duration,
            "identifiers": {},
            "jams_version": JAMS_VERSION,
        },
        "sandbox": {"mflamingo": {"audio_id": record.audio_id}},
    }


class JamsWriter(_ResultWriter):
    """One JAMS file."""

    def _lines(self, record: Analysis, result: Result) -> Iterable[str]:
        return [json.dumps(jams(record), allow_nan=False)]
