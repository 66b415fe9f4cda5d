"""Agreement of musical answers: keys, tempi, chords, sections, sets of names. Times are seconds, tempi beats a minute.

Chord and section measures are mir_eval's (Raffel et al., ISMIR 2014), key weights those of the MIREX task.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any

import mir_eval
import numpy as np

from mflamingo_cli.measure.facts import TONICS
from mflamingo_cli.parsers import parse_key
from mflamingo_cli.train.evaluate.bootstrap import Score, against_constant, mean
from mflamingo_cli.train.mini.synth.harmony import chord_set

Span = tuple[float, float, str]  # start, end, label

KEY_CHANCE, MIREX_CHANCE = 1 / 24, (1 + 0.5 + 0.3 + 0.2) / 24
TEMPO_TOLERANCE = 0.04
OCTAVES = (1.0, 2.0, 0.5, 3.0, 1 / 3)
HARTE = {"add9": "maj(9)", "7sus4": "sus4(b7)", "7b9": "7(b9)"}  # chords as mir_eval writes them, where that is not their name here
BOUNDARY_STEPS = (8.0, 10.0, 12.0, 15.0, 16.0, 20.0, 24.0, 30.0)  # the constant answers of a form: a boundary every so many seconds


# --- keys ------------------------------------------------------------------------------------------------------------


def parsed_key(text: str | None) -> tuple[int, str] | None:
    """Pitch class and mode of a named key."""
    key = parse_key(text)
    return None if key is None else (key.pitch, key.mode)


def mirex(truth: tuple[int, str], claim: tuple[int, str] | None) -> float:
    """The weighted score of the MIREX task: 1 exact, .5 a fifth above, .3 relative, .2 parallel; an unnamed key has 0."""
    if claim is None:
        return 0.0
    return float(mir_eval.key.weighted_score(*(f"{TONICS['major'][tonic]} {mode}" for tonic, mode in (truth, claim))))


def key_scores(ability: str, truths: Sequence[tuple[int, str]], claims: Sequence[tuple[int, str] | None], **where: Any) -> list[Score]:
    """Exact and MIREX-weighted, each beside the best constant key."""
    return [
        against_constant(f"{ability}, exact", truths, claims, operator.eq, dict.fromkeys(truths), KEY_CHANCE, **where),
        against_constant(f"{ability}, MIREX", truths, claims, mirex, sorted(set(truths)), MIREX_CHANCE, **where),
    ]


# --- tempo -----------------------------------------------------------------------------------------------------------


def same_tempo(truth: Sequence[float], claim: float | None, octaves: Sequence[float] = (1.0,)) -> bool:
    """Within 4 % of one of the true tempi, or of one of its multiples."""
    return claim is not None and any(abs(claim / (bpm * factor) - 1) <= TEMPO_TOLERANCE for bpm in truth for factor in octaves)


def tempo_scores(ability: str, truths: Sequence[Sequence[float]], claims: Sequence[float | None], **where: Any) -> list[Score]:
    """Accuracy 1 (4 %) and 2 (octaves and thirds allowed), beside the best constant tempo."""
    constants = sorted({bpm for t in truths for bpm in t})
    return [
        against_constant(f"{ability}, {name}", truths, claims, partial(same_tempo, octaves=octaves), constants, **where)
        for name, octaves in (("Acc1", (1.0,)), ("Acc2", OCTAVES))
    ]


# --- chords ----------------------------------------------------------------------------------------------------------


def set_f1(truth: frozenset[Any], claim: frozenset[Any]) -> float:
    """F1 of two sets; two empty ones agree."""
    return 2 * len(truth & claim) / (len(truth) + len(claim)) if truth or claim else 1.0


def chord_scores(ability: str, truths: Sequence[Sequence[str]], claims: Sequence[Sequence[str]], **where: Any) -> list[Score]:
    """Main chords as a set (F1) and the first of them, beside the best constant answers found among the truths."""
    sets, said = ([frozenset(chord_set(names)) for names in part] for part in (truths, claims))
    firsts, named = ([next(iter(chord_set(names[:1])), None) for names in part] for part in (truths, claims))
    return [
        against_constant(f"{ability}, F1", sets, said, set_f1, sorted(set(sets), key=sorted), **where),
        against_constant(f"{ability}, first", firsts, named, operator.eq, dict.fromkeys(firsts), **where),
    ]


def harte(root: int, quality: str) -> str:
    """`C#:min7` of a pitch class and a quality; a root of 12 or less than 0 is no chord."""
    return f"{TONICS['major'][root]}:{HARTE.get(quality, quality)}" if 0 <= root < 12 else "N"


def chord_spans(chords: Sequence[Sequence[Any]], start: float, end: float, gap: str) -> list[Span]:
    """The chords of a manifest row between two times, from 0; what no chord covers is `gap` ("N": silence, "X": not known)."""
    spans: list[Span] = []
    at = start
    for chord_start, chord_end, root, quality in chords:
        left, right = max(chord_start, at), min(chord_end, end)
        if right - left < 1e-3:
            continue
        if left - at > 1e-3:
            spans.append((at - start, left - start, gap))
        spans.append((left - start, right - start, harte(root, quality)))
        at = right
    return [*spans, (at - start, end - start, gap)] if end - at > 1e-3 else spans


def runs(labels: Sequence[str], step_s: float) -> list[Span]:
    """Equal neighbours of a sequence of labels as spans."""
    edges = [0, *(i for i in range(1, len(labels)) if labels[i] != labels[i - 1]), len(labels)]
    return [(a * step_s, b * step_s, labels[a]) for a, b in pairwise(edges) if b > a]


def chord_agreement(
    truth: Sequence[Span], claim: Sequence[Span], rules: Sequence[str] = ("majmin", "root", "sevenths")
) -> dict[str, float]:
    """mir_eval's duration-weighted accuracies; NaN where the truth holds nothing that the rule compares."""
    end = truth[-1][1]
    times, names = mir_eval.util.adjust_intervals(np.array([s[:2] for s in claim]), [s[2] for s in claim], 0.0, end, "N", "N")
    merged, left, right = mir_eval.util.merge_labeled_intervals(np.array([s[:2] for s in truth]), [s[2] for s in truth], times, names)
    lengths = mir_eval.util.intervals_to_durations(merged)
    found = {}
    for rule in rules:
        marks = getattr(mir_eval.chord, rule)(left, right)
        found[rule] = float(mir_eval.chord.weighted_accuracy(marks, lengths)) if (marks >= 0).any() else float("nan")
    return found


def chord_sequence_scores(ability: str, truths: Sequence[Sequence[Span]], claims: Sequence[Sequence[Span]], **where: Any) -> list[Score]:
    """Majmin, root and sevenths of mir_eval, mean over clips, beside the best single chord."""
    total: Counter[str] = Counter()  # how long each major or minor chord sounds over all clips
    for start, end, label in chain.from_iterable(truths):
        root, _, quality = label.partition(":")
        if quality:
            total[f"{root}:{'min' if quality.startswith('min') else 'maj'}"] += end - start
    constant = max(total, key=total.__getitem__, default="N")
    rows = [chord_agreement(t, c) for t, c in zip(truths, claims, strict=True)]
    fixed = [chord_agreement(t, [(0.0, t[-1][1], constant)]) for t in truths]
    out = []
    for rule in rows[0]:
        kept = [(a[rule], b[rule]) for a, b in zip(rows, fixed, strict=True) if not np.isnan(a[rule])]
        if kept:
            out.append(mean(f"{ability}, {rule}", [a for a, _ in kept], [b for _, b in kept], **where))
    return out


# --- sections ----------------------------------------------------------------------------------------------------------


def boundary_f(truth: Sequence[float], claim: Sequence[float], duration: float, window: float) -> float:
    """F of inner section boundaries within `window` s, after mir_eval's `trim`: the song's start and end are not counted."""
    left, right = (_intervals(times, duration) for times in (truth, claim))
    if len(left) == 1 or len(right) == 1:
        return 0.0  # no boundary at all
    return float(mir_eval.segment.detection(left, right, window=window, trim=True)[2])


def _intervals(times: Sequence[float], duration: float) -> np.ndarray:
    inner = sorted({round(t, 3) for t in times if 0.5 < t < duration - 0.5})
    return np.array(list(pairwise([0.0, *inner, duration])))


def section_scores(
    ability: str, truths: Sequence[tuple[Sequence[float], float]], claims: Sequence[Sequence[float]], **where: Any
) -> list[Score]:
    """F at 3 s and 0.5 s, beside the best regular grid; truths are boundaries with the song's duration."""
    longest = max(duration for _, duration in truths)
    grids = [np.arange(step, longest, step) for step in BOUNDARY_STEPS]  # what lies behind a song's end is not counted

    def score(window: float) -> Score:
        return against_constant(
            f"{ability}, F at {window:g} s", truths, claims, lambda true, claim: boundary_f(true[0], claim, true[1], window), grids, **where
        )

    return [score(3.0), score(0.5)]
