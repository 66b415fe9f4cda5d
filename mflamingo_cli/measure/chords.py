"""Chords in Harte's notation from frame-wise evidence; a Viterbi path that pays for each change of chord.

The vocabulary is major and minor triads, their sevenths and the common colours; inversions are not distinguished.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mflamingo_cli.measure.networks import ChordEvidence, chord_evidence
from mflamingo_cli.measure.spectra import CQT_FPS
from mflamingo_cli.schema import Segment

ROOTS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
QUALITIES = {  # name: (triad, seventh, thirteenth) as the network numbers them
    "maj": (0, 0, 0), "min": (1, 0, 0), "sus4": (2, 0, 0), "sus2": (3, 0, 0), "dim": (4, 0, 0), "aug": (5, 0, 0),
    "maj7": (0, 1, 0), "7": (0, 2, 0), "min7": (1, 2, 0), "hdim7": (4, 2, 0), "dim7": (4, 3, 0), "maj6": (0, 0, 1), "min6": (1, 0, 1),
}  # fmt: skip
CHANGE = 30.0  # log-likelihood that one more chord must gain
SHORTEST = 0.25  # seconds; shorter spans join their neighbour
FLOOR = 1e-6
NO_HARMONY = 0.8  # of the time without a chord: noise, speech and drums have 0.87 and more, music up to 0.3


def scores(evidence: ChordEvidence) -> tuple[list[str], np.ndarray]:
    """Names and log-likelihoods of all chords: evidence of n frames -> names, (n, names)."""
    parts = (evidence.triad, evidence.bass, evidence.seventh, evidence.thirteenth)
    triad, bass, seventh, thirteenth = (np.log(np.maximum(part, FLOOR)) for part in parts)
    names = ["N", *(f"{root}:{quality}" for quality in QUALITIES for root in ROOTS)]
    found = np.empty((len(triad), len(names)), triad.dtype)
    found[:, 0] = triad[:, 0] + bass[:, 0]
    for at, (kind, seven, thirteen) in enumerate(QUALITIES.values()):
        roots = slice(1 + 12 * at, 13 + 12 * at)
        found[:, roots] = triad[:, 1 + 12 * kind : 13 + 12 * kind] + (seventh[:, seven] + thirteenth[:, thirteen])[:, None]
    return names, found


def decode(likelihood: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Best path where entering any other state before frame i costs cost[i]: (n, states), (n,) -> (n,) states."""
    n, states = likelihood.shape
    stay = np.arange(states)
    back = np.empty((n, states), np.int16)
    best = likelihood[0].astype(np.float64)
    back[0] = stay
    for i in range(1, n):
        top = int(best.argmax())
        moved = best[top] - cost[i]
        back[i] = np.where(best >= moved, stay, top)
        best = np.maximum(best, moved) + likelihood[i]
    path = np.empty(n, int)
    state = int(best.argmax())
    for i in range(n - 1, -1, -1):
        path[i] = state
        state = int(back[i, state])
    return path


def join(path: np.ndarray, names: list[str]) -> list[Segment]:
    """Runs of one chord as spans from the first frame; a run below SHORTEST belongs to the one before it: (n,) -> segments."""
    spans: list[Segment] = []
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    for first, last in pairwise(edges):
        start, end, label = first / CQT_FPS, last / CQT_FPS, names[path[first]]
        if spans and (end - start < SHORTEST or spans[-1].label == label):
            spans[-1] = Segment(spans[-1].start, end, spans[-1].label)
        else:
            spans.append(Segment(start, end, label))
    return spans


def measure_chords(spectrogram: np.ndarray, duration_s: float) -> tuple[Segment, ...]:
    """Chords that cover the clip, "N" where there is none; nothing where nothing is harmony: (frames, 252) -> segments."""
    names, likelihood = scores(chord_evidence(spectrogram))
    spans = join(decode(likelihood, np.full(len(likelihood), CHANGE)), names)
    spans = [Segment(s.start, min(s.end, duration_s), s.label) for s in spans if s.start < duration_s]
    spans[-1] = Segment(spans[-1].start, duration_s, spans[-1].label)
    silent = sum(s.end - s.start for s in spans if s.label == "N")
    return () if silent > NO_HARMONY * duration_s else tuple(spans)
