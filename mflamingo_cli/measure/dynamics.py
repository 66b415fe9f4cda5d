"""How dense and how bright a song sounds: onsets a second and the spectral centroid, from the bands that the beat network reads.

Frames are 20 ms apart. Brightness is the spectral centroid (Peeters, CUIDADO report 2004, 6.1.1) of the mean magnitude spectrum from 30 Hz
to 7 kHz: loud moments weigh more, silence nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mflamingo_cli.measure.spectra import N_KNOWN, band_centres

AROUND = 5  # frames before and after one, with whose mean it is compared: 100 ms
ABOVE = (
    0.4  # of the mean onset strength, above that mean; with it as many onsets are found on rendered songs as there are notes 50 ms apart
)


@dataclass(frozen=True)
class Texture:
    """What one stretch of sound is made of: its onsets, its seconds, and the magnitude in each band, summed over its frames (119,)."""

    onsets: int = 0
    heard_s: float = 0.0
    spectrum: np.ndarray = field(default_factory=lambda: np.zeros(N_KNOWN))


def onset_frames(strength: np.ndarray) -> np.ndarray:
    """Frames in which something begins, as Böck, Krebs and Schedl (ISMIR 2012) pick peaks: strength (n,), 1 on average -> (k,) int."""
    if len(strength) == 0:
        return np.zeros(0, int)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(strength, AROUND, mode="edge"), 2 * AROUND + 1)
    neighbours = around[:, AROUND - 1 : AROUND + 2].max(axis=1)
    return np.flatnonzero((strength >= neighbours) & (strength > around.mean(axis=1) + ABOVE))


def texture(bands: np.ndarray, strength: np.ndarray, gain: float, duration_s: float) -> Texture:
    """The texture of a stretch: `spectra.beat_bands` (frames, 272) of the sound times `gain`, onset strength (frames,)."""
    magnitude = 10.0 ** bands[:, :N_KNOWN] - 1
    return Texture(len(onset_frames(strength)), duration_s, magnitude.sum(axis=0, dtype=np.float64) / gain)


def onsets_per_s(found: Sequence[Texture]) -> float | None:
    """Onsets in each second of sound; None without any."""
    heard_s = sum(one.heard_s for one in found)
    return sum(one.onsets for one in found) / heard_s if heard_s else None


def brightness(found: Sequence[Texture]) -> float | None:
    """The spectral centroid of all stretches together, in Hz; None without sound."""
    spectrum = np.sum([one.spectrum for one in found], axis=0) if found else np.zeros(N_KNOWN)
    hertz = band_centres()
    total = float(np.trapezoid(spectrum, hertz))
    return float(np.trapezoid(spectrum * hertz, hertz)) / total if total > 0 else None
