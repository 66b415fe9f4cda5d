"""Sounds whose facts are known because they are computed here; 16 kHz mono float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mflamingo_cli.core.audio import Audio, Source

RATE = 16_000
CHORDS = {"maj": (0, 4, 7), "min": (0, 3, 7)}
NOTES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


def audio(samples: np.ndarray, start_s: float = 0.0) -> Audio:
    source = Source(path=str(Path("synth.wav")), duration_s=start_s + len(samples) / RATE, sample_rate=RATE, channels=1, codec="pcm")
    return Audio(samples=samples.astype(np.float32), source=source, start_s=start_s)


def tone(hertz: float, seconds: float, partials: int = 6) -> np.ndarray:
    """A plucked sound with 1/k partials."""
    t = np.arange(int(seconds * RATE)) / RATE
    return sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, partials + 1)) * np.exp(-2.0 * t)


def drum(rng: np.random.Generator, seconds: float = 0.08) -> np.ndarray:
    """A short noise burst over a low thump."""
    t = np.arange(int(seconds * RATE)) / RATE
    return (rng.standard_normal(len(t)) * 0.3 + np.sin(2 * np.pi * 60 * t) * 1.5) * np.exp(-t * 40)


def song(bars: list[str], bpm: float = 120.0, beats: int = 4, detune: float = 0.0) -> np.ndarray:
    """A band of one drum and strummed chords, a bar each: ["A:min", ...] -> samples."""
    rng = np.random.default_rng(0)
    beat = 60 / bpm
    out = np.zeros(int((len(bars) * beats * beat + 1) * RATE))

    def put(at_s: float, sound: np.ndarray, gain: float) -> None:
        start = int(at_s * RATE)
        part = sound[: len(out) - start]
        out[start : start + len(part)] += gain * part

    for bar, label in enumerate(bars):
        root, kind = label.split(":")
        midi = 48 + NOTES.index(root) + detune
        for step in range(beats):
            at = (bar * beats + step) * beat
            put(at, drum(rng), 0.6 if step == 0 else 0.3)
            if step == 0:
                put(at, tone(440 * 2 ** ((midi - 12 - 69) / 12), 2 * beat), 0.35)
            for interval in CHORDS[kind]:
                put(at, tone(440 * 2 ** ((midi + interval - 69) / 12), beat), 0.12)
    return (0.5 * out / np.abs(out).max()).astype(np.float32)
