"""Facts under the names of AcousticBrainz and Essentia's MusicExtractor, which taggers and libraries map already: JSON, one song a line.

Only what means the same is written. Rates of chords are per frame of 2048 samples at 44.1 kHz, as Essentia's ChordsDescriptors counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TextIO

from mflamingo_cli import __version__
from mflamingo_cli.measure.facts import pitch_class
from mflamingo_cli.render import Layout
from mflamingo_cli.schema import Analysis, AudioInfo, Result

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")  # as Essentia spells them
FRAMES_PER_S = 44_100 / 2048
NO_CHORD = "N"


class AcousticBrainzWriter:
    """One line of JSON for each song that was analysed."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._stream = stream

    def write(self, record: Analysis) -> None:
        """Write the line of one record."""
        if record.result is not None and record.audio is not None:
            known = _known(_document(record, record.result, record.audio))
            self._stream.write(json.dumps(known, allow_nan=False, separators=(",", ":")) + "\n")
            self._stream.flush()


def _document(record: Analysis, result: Result, audio: AudioInfo) -> dict[str, Any]:
    """Every value by its place, None where it is not known."""
    tempo, key, level, tags = result.tempo, result.key, result.loudness, audio.tags
    frames = max(1.0, (audio.end - audio.start) * FRAMES_PER_S)
    chords = [chord.label for chord in result.chords if chord.label != NO_CHORD]
    voice = {True: "voice", False: "instrumental", None: None}[result.vocals.present]
    named = {name: [getattr(tags, name)] for name in ("title", "artist", "album") if tags is not None and getattr(tags, name)}
    return {
        "metadata": {
            "audio_properties": {"length": audio.duration, "sample_rate": audio.sample_rate, "codec": audio.codec},
            "tags": {"file_name": os.path.basename(record.path or ""), **named},
            "version": {"extractor": f"mflamingo {__version__}"},
        },
        "rhythm": {
            "bpm": tempo.bpm,
            "beats_count": len(result.beats) or None,
            "beats_position": [time for time, _ in result.beats] or None,
        },
        "tonal": {
            "key_key": None if key.tonic is None else TONICS[pitch_class(key.tonic)],
            "key_scale": key.mode,
            "key_strength": key.confidence,
            "chords_changes_rate": (len(result.chords) - 1) / frames if chords else None,
            "chords_number_rate": len(set(chords)) / frames if chords else None,
        },
        "lowlevel": {"loudness_ebu128": {"integrated": level.integrated_lufs, "loudness_range": level.range_lu}},
        "highlevel": {"voice_instrumental": {"value": voice}},
    }


def _known(value: Mapping[str, Any]) -> dict[str, Any]:
    """A tree without what is not known, and without branches that hold nothing."""
    kept = {name: _known(inner) if isinstance(inner, Mapping) else inner for name, inner in value.items()}
    return {name: inner for name, inner in kept.items() if inner is not None and inner != {}}
