"""The loudness of a folder as one album: EBU R128, gated over the blocks of all its songs, and their highest true peak.

Every song is decoded for it once, the exact mean squares of its blocks are kept, and no histogram stands for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mflamingo_cli.core import audio
from mflamingo_cli.errors import AudioError
from mflamingo_cli.measure.loudness import LoudnessMeter, integrated
from mflamingo_cli.schema import Loudness

QUIET = ("silent", "too_short")  # songs without a block above the gate change no album


def measure_album(songs: Iterable[str | Path]) -> tuple[Loudness, Sequence[AudioError]]:
    """Measure songs together: their loudness and true peak, and why those that cannot be decoded are no part of it."""
    steps: list[np.ndarray] = []
    peaks: list[float] = []
    left_out: list[AudioError] = []
    for song in songs:
        meter = LoudnessMeter()
        try:
            audio.load(song, listeners=(meter,), on_part=lambda part, at_s: None)  # nothing of it is kept
        except AudioError as error:
            left_out += [] if error.code in QUIET else [error]
            continue
        peak = meter.result().true_peak_dbtp
        steps.append(meter.steps)
        peaks += [] if peak is None else [peak]
    return Loudness(integrated(*steps) if steps else None, None, max(peaks, default=None)), left_out
