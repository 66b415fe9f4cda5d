"""Tempo, beats and bars of mono audio at 16 kHz; nothing where nothing beats steadily.

Tempo is the slope of a straight line through the beat times, never one inter-beat interval.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mflamingo_cli.measure.beats import FASTEST, Bars, BeatTrack, decode
from mflamingo_cli.measure.confidence import beat_signs, evenness, strength_near, stress
from mflamingo_cli.measure.networks import beat_evidence
from mflamingo_cli.measure.onsets import place_beats
from mflamingo_cli.measure.spectra import BEAT_FPS, RATE, onset_strength

MIN_BEATS = 8
SLOPE_BEATS = 16  # beats under one local line
SAME_TEMPO = 0.01  # local slopes this close belong to one tempo
CLEAR = 0.55  # evidence on the beats above that between them: music has 0.6 and more, speech, rain and coloured noise up to 0.5
FAIR = 0.25  # enough where the beats also lie on one line,
ON_LINE = 0.05  # this close to it, in beats
DOUBLE = 125.0  # beats per minute; a faster pulse may be double the one that is felt,
UNEVEN = 0.62  # if the evidence on every second beat is so much weaker
SLOWER = 0.75  # of the tempo: the fastest pulse that is looked for then
LEVEL = 0.12  # root mean square of the network's input: its bands are log(1 + x), mastered songs lie there
LEAD = 5  # frames of silence in front: what begins with its first sample rises from nothing, as the first beat of a loop that is cut on it
SILENT = 1e-5  # root mean square, -100 dBFS: below it there is nothing to measure
ALTERNATIVES = (40.0, 240.0)  # range in which other octaves are named


def fit_period(times: np.ndarray) -> tuple[float, float]:
    """Seconds per beat and scatter in beats, from the longest run of one tempo: (n,) s, n >= 3 -> (period, scatter)."""
    gaps = np.diff(times)
    index = np.concatenate([[0], np.cumsum(np.maximum(1, np.round(gaps / np.median(gaps))))])
    n = min(SLOPE_BEATS, len(times))
    x, y = (np.lib.stride_tricks.sliding_window_view(a, n) for a in (index, times))
    x = x - x.mean(axis=1, keepdims=True)
    slopes = (x * y).sum(axis=1) / (x**2).sum(axis=1)
    steady = np.abs(slopes / np.median(slopes) - 1) < SAME_TEMPO
    edges = np.flatnonzero(np.diff(np.concatenate([[False], steady, [False]]).astype(int)))
    first, last = max(edges.reshape(-1, 2), key=lambda run: run[1] - run[0]) if len(edges) else (0, len(slopes))
    run = slice(first, last - 1 + n)
    period, start = np.polyfit(index[run], times[run], 1)
    return float(period), float(np.std(times[run] - period * index[run] - start) / period)


def octaves(bpm: float) -> tuple[float, ...]:
    """Half and double of a tempo where people still tap them."""
    low, high = ALTERNATIVES
    return tuple(round(value, 2) for value in (bpm / 2, bpm * 2) if low <= value <= high)


def _contrast(evidence: np.ndarray, frames: np.ndarray) -> float:
    """How far the evidence on the beats stands above that away from them."""
    away = np.ones(len(evidence), bool)
    away[np.clip(frames[:, None] + np.arange(-3, 4), 0, len(evidence) - 1)] = False
    beat = evidence[:, :2].sum(axis=1)
    between = beat[away]
    return float(np.median(strength_near(beat, frames)) - (between.mean() if len(between) else 0.0))


def _is_double(evidence: np.ndarray, onsets: np.ndarray, frames: np.ndarray) -> bool:
    """Whether a pulse is twice the one that is felt: every second of its beats has little evidence.

    Bars of three have no set of weaker alternate beats. Where sounds stress every third beat more than every second one, it is the network
    that has begun to leave out beats, not the music.
    """
    accents = strength_near(onsets, frames)
    return evenness(evidence[:, :2].sum(axis=1), frames) < UNEVEN and stress(accents, 2) >= stress(accents, 3)


def track(evidence: np.ndarray, onsets: np.ndarray, fastest: float = FASTEST) -> tuple[BeatTrack, Bars | None]:
    """Pulse and likeliest bars from (frames, 3) evidence and (frames,) onset strength, 50 a second; times from the first frame."""
    bars = decode(evidence, BEAT_FPS, fastest)
    if bars is None or len(bars.frames) < MIN_BEATS:
        return BeatTrack(), None
    period, scatter = fit_period(bars.frames / BEAT_FPS)
    contrast = _contrast(evidence, bars.frames)
    if contrast < FAIR or (contrast < CLEAR and scatter > ON_LINE):
        return BeatTrack(), None
    beats, bpm = bars.frames / BEAT_FPS, round(60 / period, 2)
    if bpm > DOUBLE and fastest == FASTEST and _is_double(evidence, onsets, bars.frames):
        pulse, slower = track(evidence, onsets, bpm * SLOWER)
        if pulse.bpm is not None and abs(2 * pulse.bpm / bpm - 1) < SAME_TEMPO:
            return pulse, slower
    return BeatTrack(bpm, beats, beats[bars.places == 0]), bars


def network_gain(samples: np.ndarray) -> float:
    """What brings sound to the level that the beat network was trained on: (n,) float32 -> a factor, 0 for silence."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return LEVEL / level if level >= SILENT else 0.0


def measure_tempo(samples: np.ndarray, bands: np.ndarray) -> tuple[BeatTrack, Bars | None]:
    """Pulse and likeliest bars: (n,) float32 at 16 kHz, its `beat_bands` times `network_gain` from LEAD frames in front of it on.

    Times count from its first sample.
    """
    if len(samples) < MIN_BEATS * RATE // 4 or not bands.any():
        return BeatTrack(), None
    evidence, onsets = beat_evidence(bands), onset_strength(bands)
    pulse, bars = track(evidence, onsets)
    if bars is None:
        return pulse, None
    scatter = fit_period(pulse.beats)[1]
    signs = beat_signs(onsets, evidence, bars.frames, scatter)
    bars = replace(bars, frames=bars.frames - LEAD, signs=signs)
    beats = np.maximum(place_beats(samples, bars.frames), 0.0)
    return replace(pulse, beats=beats, downbeats=beats[bars.places == 0]), bars
