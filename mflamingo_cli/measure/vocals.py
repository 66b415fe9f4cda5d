"""Where somebody sings or speaks, and the signs of whether a song is sung: what the evidence of voices comes to. Times are seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.measure.voice import FRAMES_PER_S
from mflamingo_cli.schema import Segment

PRESENT = 0.5  # probability of a voice in a frame (the threshold of FireRedVAD for singing)
SMOOTH = 20  # frames over which evidence is averaged: a consonant ends no phrase
BREATH_S = 1.0  # shorter pauses belong to a phrase
SHORTEST_S = {"singing": 0.6, "speech": 1.5}  # of what is shown: instruments are taken for a voice for shorter moments
SPEECH, SINGING = 0, 1  # columns of the evidence


@dataclass(frozen=True)
class Voicing:
    """What voices do in one stretch of sound: phrases in the seconds of the file, and seconds with evidence of singing of all."""

    singing: tuple[Segment, ...] = ()
    speech: tuple[Segment, ...] = ()
    sung_s: float = 0.0
    heard_s: float = 0.0


def voicing(evidence: np.ndarray, start_s: float) -> Voicing:
    """The phrases of a stretch that begins at `start_s`: probabilities of `voice.voice_evidence` (frames, 3) -> Voicing."""
    spans = {name: _phrases(evidence[:, column], name, start_s) for name, column in (("singing", SINGING), ("speech", SPEECH))}
    sung = float((evidence[:, SINGING] > PRESENT).sum()) / FRAMES_PER_S
    return Voicing(spans["singing"], spans["speech"], sung, len(evidence) / FRAMES_PER_S)


def _phrases(probability: np.ndarray, name: str, start_s: float) -> tuple[Segment, ...]:
    """Where the averaged probability is high, breaths included: (frames,) -> segments."""
    padded = np.concatenate([[0.0], np.cumsum(np.pad(probability, (SMOOTH // 2, SMOOTH - SMOOTH // 2)), dtype=np.float64)])
    high = (padded[SMOOTH:-1] - padded[: -SMOOTH - 1]) / SMOOTH > PRESENT
    edges = np.flatnonzero(np.diff(np.concatenate([[False], high, [False]]).astype(np.int8))).reshape(-1, 2) / FRAMES_PER_S
    joined: list[list[float]] = []
    for start, end in edges.tolist():
        if joined and start - joined[-1][1] < BREATH_S:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return tuple(Segment(start_s + start, start_s + end, name) for start, end in joined if end - start >= SHORTEST_S[name])


def sung_signs(found: Sequence[Voicing]) -> dict[str, float]:
    """The signs that a song is sung: odds of its seconds with evidence, and its longest phrase, both as logarithms."""
    sung, heard = sum(one.sung_s for one in found), sum(one.heard_s for one in found)
    longest = max((phrase.end - phrase.start for one in found for phrase in one.singing), default=0.0)
    return {"sung": float(np.log((sung + 1) / (heard - sung + 1))), "phrase": float(np.log1p(longest))}


def spans(found: Sequence[Voicing], *, sung: bool) -> tuple[Segment, ...]:
    """All phrases in their order; of a song that is not known to be sung, speech alone."""
    every = [phrase for one in found for phrase in (*(one.singing if sung else ()), *one.speech)]
    return tuple(Segment(round(s.start, 3), round(s.end, 3), s.label) for s in sorted(every, key=lambda s: (s.start, s.label)))
