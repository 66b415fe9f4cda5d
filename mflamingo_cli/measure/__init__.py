"""Tempo, key, chords, sections and loudness by signal analysis, in NumPy alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mflamingo_cli.measure.facts import Confidence, Facts, Key, Loudness, Segment, Tempo
from mflamingo_cli.measure.loudness import LoudnessMeter

if TYPE_CHECKING:
    from mflamingo_cli.core.audio import Audio

__all__ = ["Confidence", "Facts", "Key", "Loudness", "LoudnessMeter", "Segment", "Tempo", "measure"]

SILENT = 1e-5  # root mean square, -100 dBFS: below it there is nothing to measure
RETUNE = 0.04  # semitones off A = 440 Hz before the spectrum is taken again in tune
SHORTEST = 1.0  # seconds with any harmony to tell


def _shift(segments: tuple[Segment, ...], start_s: float) -> tuple[Segment, ...]:
    return tuple(Segment(round(s.start + start_s, 3), round(s.end + start_s, 3), s.label) for s in segments)


def measure(audio: Audio, meter: LoudnessMeter | None = None) -> Facts:
    """All facts of a song; `meter` is the listener that heard its native stream. Times count from the start of the file."""
    from mflamingo_cli.measure import confidence as how_sure  # soxr and the networks load when first needed
    from mflamingo_cli.measure.chords import measure_chords
    from mflamingo_cli.measure.key import STILL, choose_key, chroma, correlations, stillness, weigh
    from mflamingo_cli.measure.meter import settle_bars
    from mflamingo_cli.measure.sections import measure_sections
    from mflamingo_cli.measure.spectra import RATE, constant_q, tuning_of
    from mflamingo_cli.measure.tempo import measure_tempo

    loudness = meter.result() if meter else Loudness()
    samples, duration_s = audio.samples, len(audio.samples) / RATE
    if duration_s < SHORTEST or float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < SILENT:
        return Facts(loudness=loudness)
    spectrogram = constant_q(samples)
    if stillness(spectrogram) > STILL:
        return Facts(loudness=loudness)  # a drone: no harmony that moves, no beat, no form
    tuning = tuning_of(spectrogram)
    if abs(tuning) > RETUNE:
        spectrogram = constant_q(samples, tuning)
    chords = measure_chords(spectrogram, duration_s)
    tempo, bars = measure_tempo(samples)
    tempo, counted = settle_bars(tempo, bars, chords)
    fit = correlations(chroma(spectrogram))
    weights = weigh(fit, chords)
    key = choose_key(fit, weights) if chords else None
    signs = bars.signs if bars else {}
    confidence = Confidence(how_sure.of_tempo(tempo, signs), how_sure.of_key(key, weights, chords), how_sure.of_meter(counted, signs))
    sections = measure_sections(spectrogram, duration_s, tempo) if chords or tempo.bpm else ()
    start_s = audio.start_s
    tempo = replace(tempo, beats=tempo.beats + start_s, downbeats=tempo.downbeats + start_s if counted else np.zeros(0))
    return Facts(tempo, key, counted, _shift(chords, start_s), _shift(sections, start_s), loudness, confidence)
