"""Times in one song for the programs that show or compare them: labels, beats, chords, JAMS. Seconds from the start of the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from mflamingo_cli import __version__
from mflamingo_cli.render import Layout, Writer
from mflamingo_cli.render.text import safe
from mflamingo_cli.schema import Analysis, AudioInfo, Result, Segment, SongTags

JAMS_VERSION = "0.3.5"  # of the specification


class _LineWriter:
    """Writes lines of what is known of a song; of a song that failed, nothing."""

    def __init__(self, stream: TextIO, lines: Callable[[Analysis, Result], Iterable[str]]) -> None:
        self._stream, self._lines = stream, lines

    def write(self, record: Analysis) -> None:
        """Print the lines of one record."""
        if record.result is not None:
            self._stream.writelines(line + "\n" for line in self._lines(record, record.result))
            self._stream.flush()


def _spans(spans: Iterable[Segment]) -> Iterable[str]:
    return (f"{span.start:.3f}\t{span.end:.3f}\t{safe(span.label)}" for span in spans)


def label_writer(stream: TextIO, layout: Layout) -> Writer:
    """Audacity's labels of sections, chords, singing and speech: `start<TAB>end<TAB>text`."""
    return _LineWriter(stream, lambda record, result: _spans([*result.sections, *result.chords, *result.vocals.spans]))


def chord_writer(stream: TextIO, layout: Layout) -> Writer:
    """Chords in Harte's notation, `start<TAB>end<TAB>chord`, as mir_eval and the Isophonics annotations have them."""
    return _LineWriter(stream, lambda record, result: _spans(result.chords))


def beat_writer(stream: TextIO, layout: Layout) -> Writer:
    """Beats as beat trackers write them: `time<TAB>place in the bar`, the time alone where the meter is unknown."""
    return _LineWriter(
        stream, lambda record, result: (f"{time:.3f}" if place is None else f"{time:.3f}\t{place}" for time, place in result.beats)
    )


def jams_writer(stream: TextIO, layout: Layout) -> Writer:
    """One JAMS file."""
    return _LineWriter(stream, lambda record, result: [json.dumps(_jams(record, result), allow_nan=False)])


# --- JAMS ----------------------------------------------------------------------------------------------------------------

Observation = tuple[float, float, Any, float | None]  # time, duration, value, confidence


def _observations(audio: AudioInfo, result: Result) -> dict[str, list[Observation]]:
    """What is known by JAMS namespace; a tempo without a confidence cannot be said there."""
    start, length = audio.start, audio.end - audio.start
    tempo, key, tags = result.tempo, result.key, (*result.genre, *result.mood, *result.instruments)
    keys = [(part.start, part.end - part.start, part.name.replace(" ", ":"), part.confidence) for part in result.keys]
    known = tempo.bpm is not None and tempo.confidence is not None
    return {
        "tempo": [(start, length, tempo.bpm, tempo.confidence)] if known else [],
        "beat": [(time, 0.0, place, None) for time, place in result.beats],
        "key_mode": keys if len(keys) > 1 else [(start, length, f"{key.tonic}:{key.mode}", key.confidence)] if key.tonic else [],
        "chord": [(span.start, span.end - span.start, span.label, None) for span in result.chords],
        "segment_open": [(span.start, span.end - span.start, span.label, None) for span in result.sections],
        "tag_open": [
            *((start, length, tag, None) for tag in tags),
            *((span.start, span.end - span.start, span.label, None) for span in result.vocals.spans),
        ],
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


def _jams(record: Analysis, result: Result) -> dict[str, Any] | None:
    """A record as a JAMS file (Humphrey et al., ISMIR 2014): an annotation for each namespace of which something is known."""
    audio = record.audio
    if audio is None:
        return None
    tools = f"mflamingo {__version__}{f', {record.model.id}' if record.model else ''}"
    tags = audio.tags or SongTags()
    known = {namespace: data for namespace, data in _observations(audio, result).items() if data}
    return {
        "annotations": [_annotation(namespace, data, audio, tools) for namespace, data in known.items()],
        "file_metadata": {
            "title": tags.title or os.path.basename(record.path or ""),
            "artist": tags.artist or "",
            "release": tags.album or "",
            "duration": audio.duration,
            "identifiers": {},
            "jams_version": JAMS_VERSION,
        },
        "sandbox": {"mflamingo": {"audio_id": record.audio_id}},
    }
