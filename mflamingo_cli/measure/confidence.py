"""How sure a measured value is: the probability that it is right, told by signs that its measurement saw on the way.

Each is a logistic regression on a few signs. `python -m tests.bench.confidence` fits the weights and checks the probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mflamingo_cli.measure.facts import Key, Segment, Tempo
from mflamingo_cli.measure.key import MODES, functions, heard_triads

ALWAYS = "always"  # the weight of no sign
WEIGHTS: dict[str, dict[str, float]] = {
    "tempo": {"always": -2.56, "octave": 2.63, "scatter": -1.14, "pairs": -4.46, "fast threes": -7.52, "fast halves": 3.36,
              "fast thirds": -1.83, "slow halves": -3.95},
    "key": {"always": -3.92, "chroma": 5.53, "chords": 9.97, "minor": 1.69, "opening": 0.90, "harmony": 3.29},
    "meter": {"always": -1.05, "three": -0.22, "scatter": -0.96, "threes": -5.86, "halves of three": -0.83},
}  # fmt: skip
MODERATE = 110.0  # beats per minute; above it a beat may be half of one, below it two
STEADY = 0.01  # beats; scatter of less is that of the frames
NEAR_FRAMES = 1  # a sound beside a beat is on it
BUSY = 0.02  # of the mean onset strength: added to what is compared by ratios


def probability(name: str, signs: Mapping[str, float]) -> float:
    """That the value called `name` in WEIGHTS is right, given its signs."""
    weights = WEIGHTS[name]
    assert signs.keys() == weights.keys() - {ALWAYS}
    total = weights[ALWAYS] + sum(weights[sign] * value for sign, value in signs.items())
    return float(1 / (1 + np.exp(-np.clip(total, -30, 30))))


# --- signs -------------------------------------------------------------------------------------------------------------


def _strength(onsets: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Strongest onset at and beside the frames: (n,), (k,) -> (k,)."""
    near = np.rint(frames).astype(int)[:, None] + np.arange(-NEAR_FRAMES, NEAR_FRAMES + 1)
    return np.asarray(onsets[np.clip(near, 0, len(onsets) - 1)].max(axis=1))


def _stress(accents: np.ndarray, every: int) -> float:
    """How far the beats stand out that come `every` beats, 0 where all are alike: (k,) -> 0 and more."""
    means = [accents[first::every].mean() for first in range(every)]
    return float((max(means) - np.mean(means)) / (np.mean(means) + BUSY))


def beat_signs(onsets: np.ndarray, frames: np.ndarray, scatter: float) -> dict[str, float]:
    """What the sound says about a pulse: onset strength (n,), frames of the beats (k,), their scatter in beats -> signs.

    `pairs` and `threes`: stress on every second and third beat; `halves` and `thirds`: sounds inside the beat, as logs of their part of
    those on it; `scatter`: log of the distance of the beats from their line.
    """
    gaps = np.diff(frames)
    accents = _strength(onsets, frames)
    on = accents.mean() + BUSY
    inside = {part: _strength(onsets, frames[:-1] + part * gaps).mean() for part in (1 / 3, 1 / 2, 2 / 3)}
    return {
        "scatter": float(np.log(scatter + STEADY)),
        "pairs": _stress(accents, 2),
        "threes": _stress(accents, 3),
        "halves": float(np.log((inside[1 / 2] + BUSY) / on)),
        "thirds": float(np.log(((inside[1 / 3] + inside[2 / 3]) / 2 + BUSY) / on)),
    }


def of_tempo(tempo: Tempo, signs: Mapping[str, float]) -> float | None:
    """That a tempo is within 4 % of the right one: what could be half or double of it, has other stresses than the beat."""
    if tempo.bpm is None:
        return None
    octave = float(np.log2(tempo.bpm / MODERATE))
    fast, slow = max(octave, 0.0), max(-octave, 0.0)
    told = {
        "octave": octave,
        "scatter": signs["scatter"],
        "pairs": signs["pairs"],
        "fast threes": fast * signs["threes"],
        "fast halves": fast * signs["halves"],
        "fast thirds": fast * signs["thirds"],
        "slow halves": slow * signs["halves"],
    }
    return probability("tempo", told)


def of_meter(meter: str | None, signs: Mapping[str, float]) -> float | None:
    """That a meter is right: what is counted in three may be the eighths of 6/8, or its halves."""
    if meter is None:
        return None
    three = float(meter == "3/4")
    return probability(
        "meter", {"three": three, "scatter": signs["scatter"], "threes": signs["threes"], "halves of three": three * signs["halves"]}
    )


def of_key(key: Key | None, fit: np.ndarray, chords: Sequence[Segment], duration_s: float) -> float | None:
    """That a key is right: how far chroma and chords, each alone, prefer it to the best other key; `fit` is `key.correlations`."""
    if key is None:
        return None
    at = 12 * MODES.index(key.mode) + key.pitch
    heard = heard_triads(chords)
    third = {"major": "maj", "minor": "min"}[key.mode]
    return probability(
        "key",
        {
            "chroma": _lead(fit, at),
            "chords": _lead(functions(chords, ends=False), at),
            "minor": float(key.mode == "minor"),
            "opening": float(bool(heard) and heard[0][:2] == (key.pitch, third)),
            "harmony": sum(seconds for *_, seconds in heard) / duration_s,
        },
    )


def _lead(scores: np.ndarray, at: int) -> float:
    """Of one key before the best other: (2 modes, 12 tonics)."""
    flat = scores.ravel()
    return float(flat[at] - np.delete(flat, at).max())
