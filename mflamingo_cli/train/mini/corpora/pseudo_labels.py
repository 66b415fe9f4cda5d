"""Pseudo-labels of a recording: tags of musicnn, singing of FireRedVAD, chords, key and beats of `measure`.

Times are seconds, labels 40 ms apart.

Only what a model is sure of is kept: the rest is unknown (-1 or 255) or left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mflamingo_cli.measure.beats import BeatTrack
from mflamingo_cli.measure.chords import CHANGE, NO_HARMONY, decode, join, scores
from mflamingo_cli.measure.facts import pitch_class
from mflamingo_cli.measure.key import MODES, STILL, chroma, correlations, measure_key, stillness
from mflamingo_cli.measure.meter import settle_bars
from mflamingo_cli.measure.networks import ChordEvidence, chord_evidence
from mflamingo_cli.measure.spectra import CQT_FPS, beat_bands, constant_q, tuning_of
from mflamingo_cli.measure.stretch import RETUNE
from mflamingo_cli.measure.tagging import TAG_NAMES, tag_evidence
from mflamingo_cli.measure.tempo import LEAD, measure_tempo, network_gain
from mflamingo_cli.measure.vocals import PRESENT, SINGING
from mflamingo_cli.measure.voice import FRAMES_PER_S, voice_evidence
from mflamingo_cli.schema import Segment
from mflamingo_cli.train.mini.frames import LABEL_S, NO_CHORD, UNKNOWN
from mflamingo_cli.train.mini.synth.harmony import QUALITIES

RATE = 16_000
PATCHES = 6  # per minute, evenly spread
SURE = 0.5  # least mean probability of a chord's triad
CLOSE = 0.05  # of two correlations of a key: nearer ones are a guess
QUALITY_OF = {  # chords of measure.chords -> compose.QUALITIES by their triad or seventh; others have no class
    "maj": "maj", "min": "min", "7": "7", "maj7": "maj7", "min7": "min7", "dim": "dim", "sus4": "sus4", "maj6": "maj", "min6": "min",
    "dim7": "dim", "hdim7": "dim",
}  # fmt: skip
SUNG, NOT_SUNG = PRESENT, 0.1  # probabilities of singing from which, and up to which, a token counts as sure
assert {*QUALITY_OF.values()} == {*QUALITIES}


def clip_tags(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tags of patches spread over a clip: (n,) -> their middles (p,) s, probabilities (p, 100)."""
    return tag_evidence(samples, max(1, round(PATCHES * len(samples) / (60 * RATE))))


# ---- what a clip is labelled with ----


def pseudo_labels(samples: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Everything the models are sure of: (n,) float32 at 16 kHz -> fields of the manifest row, labels of n / 640 tokens."""
    duration, count = len(samples) / RATE, int(len(samples) / RATE / LABEL_S)
    times, tags = clip_tags(samples)
    row: dict[str, Any] = {"tags": {name: round(float(p), 4) for name, p in zip(TAG_NAMES, tags.mean(0), strict=True)}}
    labels = {"tags": spread(times, tags, count)}
    labels["singing"] = singing(samples, count)
    labels["vocals"] = vocals(labels["singing"])
    spectrogram = constant_q(samples)
    if stillness(spectrogram) > STILL:
        return row, labels
    tuning = tuning_of(spectrogram)
    if abs(tuning) > RETUNE:
        spectrogram = constant_q(samples, tuning)
    evidence = chord_evidence(spectrogram)
    chords = chord_segments(evidence, duration)
    if chords:
        keys(row, spectrogram, chords)
        harmony(row, labels, evidence, chords, count)
    tempo, bars = measure_tempo(samples, beat_bands(samples, network_gain(samples), LEAD))
    tempo, meter = settle_bars(tempo, bars, chords)
    rhythm(row, labels, tempo, meter, count)
    return row, labels


def spread(times: np.ndarray, tags: np.ndarray, count: int) -> np.ndarray:
    """Probabilities between the patches: (p,) s, (p, 100) -> (count, 100) uint8, 254 at most (255 is unknown)."""
    middles = (np.arange(count) + 0.5) * LABEL_S
    return in_bytes(np.stack([np.interp(middles, times, column) for column in tags.T], axis=1))


def in_bytes(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities as uint8, 254 at most: 255 is unknown."""
    return np.minimum(np.round(probabilities * 255), 254).astype(np.uint8)


def singing(samples: np.ndarray, count: int) -> np.ndarray:
    """The voice network's probability of singing, mean over each label's time: (n,) -> (count,) uint8, 254 at most."""
    evidence, width = voice_evidence(samples)[:, SINGING], round(LABEL_S * FRAMES_PER_S)
    padded = np.pad(evidence, (0, max(0, count * width - len(evidence))), mode="edge")
    return in_bytes(padded[: count * width].reshape(count, width).mean(axis=1))


def vocals(singing: np.ndarray) -> np.ndarray:
    """Whether someone sings, where that is sure: (T,) uint8 of 255 -> (T,) uint8, 255 unknown."""
    return np.where(singing >= SUNG * 255, 1, np.where(singing <= NOT_SUNG * 255, 0, UNKNOWN)).astype(np.uint8)


def chord_segments(evidence: ChordEvidence, duration: float) -> tuple[Segment, ...]:
    """Chords as `measure.chords` decodes them, from evidence that is kept; nothing where nothing is harmony."""
    names, likelihood = scores(evidence)
    spans = join(decode(likelihood, np.full(len(likelihood), CHANGE)), names)
    spans = [Segment(s.start, min(s.end, duration), s.label) for s in spans if s.start < duration]
    silent = sum(s.end - s.start for s in spans if s.label == "N")
    return () if silent > NO_HARMONY * duration else tuple(spans)


def keys(row: dict[str, Any], spectrogram: np.ndarray, chords: Sequence[Segment]) -> None:
    """Add the measured key and the second estimator's to a row, where there is one."""
    if (key := measure_key(spectrogram, chords)) is not None:
        row.update(tonic=key.pitch, mode=key.mode)
        if (second := second_key(spectrogram)) is not None:
            row["key2"] = second


def harmony(row: dict[str, Any], labels: dict[str, np.ndarray], evidence: ChordEvidence, chords: Sequence[Segment], count: int) -> None:
    """Add chords, those with a sure triad, to a row and to labels."""
    root, quality, bass = (np.full(count, -1, np.int8) for _ in range(3))
    certain = []
    for chord in chords:
        span = slice(round(chord.start / LABEL_S), round(chord.end / LABEL_S))
        frames = slice(round(chord.start * CQT_FPS), max(round(chord.end * CQT_FPS), round(chord.start * CQT_FPS) + 1))
        name, _, kind = chord.label.partition(":")
        mean = evidence.triad[frames].mean(axis=0)
        if name == "N":
            if mean[0] >= SURE:
                root[span] = bass[span] = NO_CHORD
            continue
        pitch, base = pitch_class(name), evidence.bass[frames].mean(axis=0)
        if mean[1 + pitch : 1 + 72 : 12].sum() >= SURE:  # any triad on this root
            root[span] = pitch
        if base[1:].max() >= SURE:
            bass[span] = int(base[1:].argmax())
        if mean[1:].max() >= SURE and kind in QUALITY_OF:
            quality[span] = QUALITIES.index(QUALITY_OF[kind])
            certain.append([round(chord.start, 3), round(chord.end, 3), pitch, QUALITY_OF[kind]])
    row["chords"] = certain
    labels.update(root=root, quality=quality, bass=bass)


def second_key(spectrogram: np.ndarray) -> list[Any] | None:
    """Another estimator's key, from the correlation of the chroma with the profiles alone: -> [tonic, mode], None where two are close."""
    fit = correlations(chroma(spectrogram))
    ranked = np.sort(fit, axis=None)
    mode, tonic = divmod(int(fit.argmax()), 12)
    return [tonic, MODES[mode]] if ranked[-1] - ranked[-2] >= CLOSE else None


def rhythm(row: dict[str, Any], labels: dict[str, np.ndarray], tempo: BeatTrack, meter: str | None, count: int) -> None:
    """Add tempo and beats where there are any, and bars where the meter is sure, to a row and to labels."""
    if tempo.bpm is None:
        return
    row.update(tempo=tempo.bpm, beats=[round(float(beat), 3) for beat in tempo.beats])
    if meter is None:
        return  # without downbeats a token's class is not known
    row["meter"] = meter
    beat = np.zeros(count, np.uint8)
    for times, value in ((tempo.beats, 1), (tempo.downbeats, 2)):
        at = np.round(times / LABEL_S).astype(int)
        beat[at[(at >= 0) & (at < count)]] = value
    labels["beat"] = beat
