"""Small musical clips made by arithmetic, for tests that compare and do not judge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mflamingo_cli.core.audio import SAMPLE_RATE, Audio, Source

CHORDS_HZ = ((220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (130.8, 164.8, 196.0), (196.0, 246.9, 293.7))  # Am F C G


def song(seconds: float, *, bpm: float = 120.0, silence_s: float = 0.0) -> npt.NDArray[np.float32]:
    """Plucked chords, one per two beats, the last `silence_s` silent: (seconds * 16000,) float32."""
    n = round(seconds * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    beat = t * bpm / 60.0
    chords = np.array(CHORDS_HZ)[(beat // 2).astype(int) % len(CHORDS_HZ)]
    pluck = np.exp(-4.0 * (beat % 1.0))
    tones = sum(np.sin(2 * np.pi * np.cumsum(chords[:, voice]) / SAMPLE_RATE) for voice in range(3))
    samples = 0.2 * pluck * tones + 0.01 * np.random.default_rng(int(seconds * 1000)).standard_normal(n)
    samples[n - round(silence_s * SAMPLE_RATE) :] = 0.0
    return samples.astype(np.float32)


def audio(seconds: float, **options: float) -> Audio:
    """The same as decoded audio."""
    return Audio(song(seconds, **options), Source("clip.wav", seconds, SAMPLE_RATE, 1, "pcm_f32le"))
