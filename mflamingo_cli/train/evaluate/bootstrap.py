"""Figures with their errors: a mean, or a statistic of all clips, beside the best constant answer and chance on the same clips.

Errors are standard errors over clips: of a mean by its formula, of any other statistic by resampling clips 200 times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

CLAIM_SIGMAS = 2.0  # an ability is claimed when it beats its constant answer by this many standard errors
RESAMPLES = 200

Statistic = Callable[[np.ndarray], float]  # (clips, columns) -> figure


@dataclass(frozen=True)
class Score:
    """One figure of one system on one set of clips; `margin_se` is the standard error of its difference from the constant answer."""

    ability: str
    value: float
    n: int
    error: float
    constant: float | None = None
    margin_se: float | None = None
    chance: float | None = None
    system: str = "model"
    clips: str = "synth"  # "synth" | "recordings" | "noise" | "text"
    seconds: float | None = None  # of each clip's excerpt
    note: str = ""

    @property
    def claimed(self) -> bool:
        """Whether it beats the constant answer clearly."""
        if self.constant is None or not math.isfinite(self.value):
            return False
        return self.value - self.constant > CLAIM_SIGMAS * (self.error if self.margin_se is None else self.margin_se)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval, normal approximation."""
        return self.value - 1.96 * self.error, self.value + 1.96 * self.error


Scoring = Callable[..., Sequence[Score]]  # (ability, truths, claims, **where)


def mean(
    ability: str, values: Sequence[float], constants: Sequence[float] | None = None, chance: float | None = None, **where: Any
) -> Score:
    """The mean of item values, paired with those of a constant answer. A share of 0 or 1 has the error of one item gone wrong."""
    array = np.asarray(values, dtype=float)
    n = max(len(array), 1)
    error = float(array.std()) / math.sqrt(n) or 1 / n
    value = float(array.mean()) if len(array) else math.nan
    beside = margin = None
    if constants is not None:
        beside = float(np.mean(constants)) if len(array) else None
        margin = float((array - np.asarray(constants, dtype=float)).std()) / math.sqrt(n)
    return Score(ability, value, len(array), error, beside, margin, chance, **where)


def resampled(
    ability: str,
    rows: np.ndarray,
    statistic: Statistic,
    constant: np.ndarray | float | None = None,
    chance: float | None = None,
    **where: Any,
) -> Score:
    """A statistic of all clips: rows (clips, columns) of the system, and of the constant answer (rows as well, or one figure)."""
    rows = np.asarray(rows, dtype=float)
    rng = np.random.default_rng(0)
    picks = rng.integers(len(rows), size=(RESAMPLES, len(rows))) if len(rows) else np.zeros((0, 0), dtype=int)
    values = np.array([statistic(rows[pick]) for pick in picks])
    value = statistic(rows) if len(rows) else math.nan
    error = _spread(values) or 1 / max(len(rows), 1)
    beside, margin = constant, None if constant is None else error
    if isinstance(constant, np.ndarray):
        beside, margin = statistic(constant), _spread(values - np.array([statistic(constant[pick]) for pick in picks]))
    return Score(ability, value, len(rows), error, beside, margin, chance, **where)


def against_constant(
    ability: str,
    truths: Sequence[Any],
    claims: Sequence[Any],
    agreement: Callable[[Any, Any], float],
    constants: Iterable[Any],
    chance: float | None = None,
    **where: Any,
) -> Score:
    """The mean agreement of claims with their truths, beside the best of some constant answers (of equal ones the first)."""
    best = max(constants, key=lambda constant: sum(agreement(true, constant) for true in truths))
    values = [float(agreement(true, claim)) for true, claim in zip(truths, claims, strict=True)]
    return mean(ability, values, [float(agreement(true, best)) for true in truths], chance, **where)


def scored(scoring: Scoring, ability: str, pairs: Sequence[tuple[Any, Any]], **where: Any) -> Iterator[Score]:
    """The figures of pairs of truth and claim, where there are any."""
    if pairs:
        yield from scoring(ability, *([*column] for column in zip(*pairs, strict=True)), **where)


def _spread(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.std()) if len(finite) else math.nan


# --- statistics; each takes (clips, columns) ---------------------------------------------------------------------------


def micro_f1(rows: np.ndarray) -> float:
    """Columns: hits, false claims, misses."""
    hits, false, missed = rows.sum(axis=0)
    return float(2 * hits / (2 * hits + false + missed)) if hits + false + missed else math.nan


def binned_auc(rows: np.ndarray) -> float:
    """Area under the ROC curve of counts by rising score: columns of those without, then as many of those with; a bin is one tie."""
    without, having = np.split(rows.sum(axis=0), 2)
    pairs = without.sum() * having.sum()
    return float(((np.cumsum(without) - 0.5 * without) * having).sum() / pairs) if pairs else math.nan


def share(rows: np.ndarray) -> float:
    """Columns: part, whole."""
    part, whole = rows.sum(axis=0)
    return float(part / whole) if whole else math.nan


def balanced_accuracy(rows: np.ndarray) -> float:
    """Columns: class of the truth, 1 where the claim is right; the mean of the classes' recalls."""
    if not len(rows):
        return math.nan
    true, classes = rows[:, 0], np.unique(rows[:, 0])
    claimed = np.where(rows[:, 1] > 0, true, classes.min() - 1)  # a wrong claim is no class at all
    return float(recall_score(true, claimed, labels=classes, average="macro"))


def auc(rows: np.ndarray) -> float:
    """Columns: truth (0, 1), score; the probability that a positive scores above a negative (ties count half)."""
    return float(roc_auc_score(rows[:, 0], rows[:, 1])) if len(np.unique(rows[:, 0])) == 2 else math.nan


def mean_average_precision(rows: np.ndarray, figure: Callable[[np.ndarray, np.ndarray], float] = average_precision_score) -> float:
    """Columns: truths (NaN where unknown) of all tags, then their scores; tags without a positive are left out."""
    truth, score = np.split(rows, 2, axis=1)
    found = []
    for tag in range(truth.shape[1]):
        known = ~np.isnan(truth[:, tag])
        if (positive := truth[known, tag] > 0.5).any():
            found.append(figure(positive, score[known, tag]))
    return float(np.mean(found)) if found else math.nan


def base_rate(rows: np.ndarray) -> float:
    """The mean share of positives over the tags that `mean_average_precision` counts: what a constant answer reaches."""
    return mean_average_precision(rows, lambda truth, _: float(truth.mean()))


# --- figures whose constant answer is known -------------------------------------------------------------------------------


def balanced_scores(ability: str, truths: Sequence[bool], claims: Sequence[bool | None], **where: Any) -> list[Score]:
    """Balanced accuracy of yes and no; always yes and always no have one half."""
    rows = np.array([[true, true == claim] for true, claim in zip(truths, claims, strict=True)], dtype=float)
    return [resampled(f"{ability}, balanced accuracy", rows, balanced_accuracy, 0.5, 0.5, **where)]


def auc_scores(ability: str, truths: Sequence[bool], claims: Sequence[float], **where: Any) -> list[Score]:
    """How well probabilities rank yes above no."""
    return [resampled(f"{ability}, AUC", np.column_stack([truths, claims]), auc, 0.5, 0.5, **where)]
