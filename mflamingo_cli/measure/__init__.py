"""Tempo, key, chords, sections and loudness by signal analysis, in NumPy alone."""

from __future__ import annotations

from mflamingo_cli.measure.facts import Facts, Key, Loudness, Segment, Tempo

__all__ = ["Facts", "Key", "Loudness", "Segment", "Tempo"]
