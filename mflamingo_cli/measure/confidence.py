"""The probability that a measured value is right, from signs that its measurement saw on the way.

Each is a logistic regression on a few signs. `python -m tests.bench.confidence` fits the weights and checks the probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mflamingo_cli.measure.facts import Key
from mflamingo_cli.measure.key import MODES

ALWAYS = "always"  # the weight of no sign
WEIGHTS: dict[str, dict[str, float]] = {
    "tempo": {"always": -2.35, "octave": 1.11, "fast": -1.74, "scatter": -1.17, "bars": 1.14, "pairs": -3.51, "even": 2.85,
              "fast even": 4.49, "fast threes": -4.74, "fast halves": 0.65, "fast thirds": -1.02, "slow halves": -1.52},
    "key": {"always": 0.32, "odds": 0.69},
    "meter": {"always": -6.38, "three": -0.71, "scatter": -2.56, "threes": -5.18, "halves of three": -1.34},
    "vocals": {"always": -1.62, "sung": 0.32, "phrase": 0.92},
}  # fmt: skip
CLEAR_VOCALS = 0.8  # below it nothing is said of voices
MOST_VOCALS = 0.9  # of a song's being sung or not: too few sung songs are in packages for a stronger statement
MOST = {"tempo": 0.94, "key": 0.94}  # fewer than the 59 that are needed to bear "95 % sure" were surer in fits that had not seen them
MOST_ALONE = 0.5  # of a key in which one triad sounds: it is the tonic's, or one of five others in the scale
MODERATE = 110.0  # beats per minute; above it a beat may be half of one, below it two
STEADY = 0.01  # beats; scatter of less is that of the frames
NEAR_FRAMES = 1  # a sound beside a beat is on it
LITTLE = 0.02  # of the mean onset strength, or of a probability: added to what is compared by ratios


def probability(name: str, signs: Mapping[str, float]) -> float:
    """That the value called `name` in WEIGHTS is right, given its signs."""
    weights = WEIGHTS[name]
    assert signs.keys() == weights.keys() - {ALWAYS}
    total = weights[ALWAYS] + sum(weights[sign] * value for sign, value in signs.items())
    return min(float(1 / (1 + np.exp(-np.clip(total, -30, 30)))), MOST.get(name, 1.0))


# --- signs -------------------------------------------------------------------------------------------------------------


def strength_near(onsets: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Strongest onset, or evidence of a beat, at and beside the frames: (n,), (k,) -> (k,)."""
    near = np.rint(frames).astype(int)[:, None] + np.arange(-NEAR_FRAMES, NEAR_FRAMES + 1)
    return np.asarray(onsets[np.clip(near, 0, len(onsets) - 1)].max(axis=1))


def stress(accents: np.ndarray, every: int) -> float:
    """How far the beats stand out that come `every` beats, 0 where all are alike: (k,) -> 0 and more."""
    means = [accents[first::every].mean() for first in range(every)]
    return float((max(means) - np.mean(means)) / (np.mean(means) + LITTLE))


def evenness(beats: np.ndarray, frames: np.ndarray) -> float:
    """Mean evidence on the weaker set of alternate beats over that on the stronger one: (n,), frames of beats (k >= 2,) -> 0..1."""
    strength = strength_near(beats, frames)
    low, high = sorted((float(strength[::2].mean()), float(strength[1::2].mean())))
    return low / max(high, 1e-9)


def beat_signs(onsets: np.ndarray, evidence: np.ndarray, frames: np.ndarray, scatter: float) -> dict[str, float]:
    """What the sound says about a pulse: onset strength (n,), evidence (n, 3), frames of beats (k,), their scatter in beats -> signs.

    `pairs` and `threes`: stress on every second and third beat; `halves` and `thirds`: sounds inside the beat, as logs of their part of
    those on it; `bars`: how far every second beat is likelier a downbeat; `even`: log of `evenness`; `scatter`: log of the distance of the
    beats from their line.
    """
    gaps = np.diff(frames)
    accents = strength_near(onsets, frames)
    on = accents.mean() + LITTLE
    inside = {part: strength_near(onsets, frames[:-1] + part * gaps).mean() for part in (1 / 3, 1 / 2, 2 / 3)}
    return {
        "scatter": float(np.log(scatter + STEADY)),
        "pairs": stress(accents, 2),
        "threes": stress(accents, 3),
        "bars": stress(strength_near(evidence[:, 1], frames), 2),
        "even": float(np.log(max(evenness(evidence[:, :2].sum(axis=1), frames), LITTLE))),
        "halves": float(np.log((inside[1 / 2] + LITTLE) / on)),
        "thirds": float(np.log(((inside[1 / 3] + inside[2 / 3]) / 2 + LITTLE) / on)),
    }


def of_tempo(bpm: float | None, signs: Mapping[str, float]) -> float | None:
    """That a tempo is within 4 % of the right one: what could be half or double of it, has other stresses than the beat."""
    if bpm is None:
        return None
    octave = float(np.log2(bpm / MODERATE))
    fast, slow = max(octave, 0.0), max(-octave, 0.0)
    seen = {"octave": octave, "fast": fast} | {name: signs[name] for name in ("scatter", "bars", "pairs", "even")}
    seen |= {f"fast {name}": fast * signs[name] for name in ("threes", "halves", "thirds", "even")}
    return probability("tempo", seen | {"slow halves": slow * signs["halves"]})


def of_meter(meter: str | None, signs: Mapping[str, float]) -> float | None:
    """That a meter is right: what is counted in three may be the eighths of 6/8, or its halves."""
    if meter is None:
        return None
    three = float(meter == "3/4")
    seen = {"three": three, "scatter": signs["scatter"], "threes": signs["threes"], "halves of three": three * signs["halves"]}
    return probability("meter", seen)


def of_key(key: Key, weights: np.ndarray, triads: np.ndarray) -> float:
    """That a key is right: its odds by `key.weigh` (24,), and whether `key.sounding` (36,) has one triad only, which is in many keys."""
    at = 12 * MODES.index(key.mode) + key.pitch
    others = np.delete(weights, at)
    odds = float(weights[at] - others.max() - np.log(np.exp(others - others.max()).sum()))
    sure = probability("key", {"odds": odds})
    return sure if np.count_nonzero(triads) > 1 else min(sure, MOST_ALONE)


def of_vocals(signs: Mapping[str, float]) -> tuple[bool | None, float | None]:
    """Whether a song is sung by the signs of `vocals.sung_signs`, and how likely that is right; neither where both are likely."""
    sung = probability("vocals", signs)
    confidence = max(sung, 1 - sung)
    return (sung > 0.5, min(confidence, MOST_VOCALS)) if confidence >= CLEAR_VOCALS else (None, None)
