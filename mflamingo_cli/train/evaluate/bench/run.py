"""A run of a benchmark: what is asked once, the replies that are kept, and the figures with their intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli.errors import UsageError
from mflamingo_cli.files import append_lines, read_lines
from mflamingo_cli.train.evaluate.bench.items import BenchItem, Benchmark, Measure
from mflamingo_cli.train.settings import require_same

RESAMPLES = 1000
Ask = Callable[[BenchItem], str]


@dataclass(frozen=True)
class Figure:
    """A measure of some replies and its 95 % interval over items."""

    name: str
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class SkillScores:
    """The figures of the items of one skill, or of all."""

    skill: str
    n: int
    figures: tuple[Figure, ...]


def read_items(benchmark: Benchmark, folder: Path, limit: int | None = None) -> tuple[list[BenchItem], list[Path]]:
    """Return the items whose recordings are there, and the recordings that are not. Raises UsageError where nothing can be asked."""
    items = list(benchmark.read(folder))[:limit]
    if not items:
        raise UsageError(f"{folder}: contains no questions of {benchmark.name}")
    there = [item for item in items if item.audio.is_file()]
    missing = sorted({item.audio for item in items if not item.audio.is_file()})
    if not there:
        raise UsageError(f"{missing[0]}: not found, and neither is any other recording of {benchmark.name}")
    return there, missing


def replies(
    items: Sequence[BenchItem], ask: Ask, log: Path, settings: Mapping[str, Any] | None = None, question: Ask = BenchItem.prompt
) -> list[str]:
    """Ask what has no reply in the file `log` yet, add it there at once, and return the replies of all items.

    A reply is kept with its question, and with the settings under which it was given; one to another question is asked for again. Raises
    UsageError where the file has replies of other settings.
    """
    settings, known = settings or {}, {}
    for entry in _kept(log):
        require_same(log, entry, settings)
        known[str(entry["id"])] = entry
    texts = []
    for item in items:
        asked, entry = question(item), known.get(item.id)
        if entry is None or entry.get("question", asked) != asked:
            entry = {"id": item.id, **settings, "question": asked, "text": ask(item)}
            append_lines(log, [json.dumps(entry, ensure_ascii=False)])
        texts.append(str(entry["text"]))
    return texts


def _kept(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the replies of an earlier run; a line that a crash cut off is left out."""
    for line in read_lines(path) if path.exists() else ():
        try:
            entry = json.loads(line)
            yield entry | {"id": str(entry["id"]), "text": str(entry["text"])}
        except (ValueError, KeyError, TypeError):
            continue


def scores(items: Sequence[BenchItem], texts: Sequence[str], measures: Sequence[Measure]) -> list[SkillScores]:
    """Return the figures of all items, then of each skill."""
    tables = [np.array([list(m.row(text, item)) for item, text in zip(items, texts, strict=True)], dtype=float) for m in measures]
    found = []
    for skill in ["", *sorted({item.skill for item in items if item.skill})]:
        some = np.array([not skill or item.skill == skill for item in items])
        figures = (Figure(m.name, m.figure(table[some]), interval(m, table[some])) for m, table in zip(measures, tables, strict=True))
        found.append(SkillScores(skill or "all", int(some.sum()), tuple(figures)))
    return found


def beside(left: Sequence[SkillScores], right: Sequence[SkillScores]) -> list[SkillScores]:
    """Return the figures of two measurements of the same items side by side."""
    return [SkillScores(a.skill, a.n, (*a.figures, *b.figures)) for a, b in zip(left, right, strict=True)]


def interval(measure: Measure, rows: np.ndarray) -> tuple[float, float]:
    """95 % interval: Wilson's for a share, else of 1,000 resamplings of the items."""
    if rows.shape[1] == 1 and np.isin(rows, (0.0, 1.0)).all():
        return wilson(int(rows.sum()), len(rows))
    rng = np.random.default_rng(0)
    values = [measure.figure(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(values, (2.5, 97.5)) if not np.isnan(values).all() else (np.nan, np.nan)
    return float(low), float(high)


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    share, spread = right / count, z * z / count
    middle, half = share + spread / 2, z * (share * (1 - share) / count + spread / (4 * count)) ** 0.5
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def as_record(found: Sequence[SkillScores]) -> list[dict[str, Any]]:
    """Return scores as JSON values; what has no value, as a rate without units, is null."""
    return [
        {
            "skill": row.skill,
            "n": row.n,
            "figures": {
                figure.name: {"value": _number(figure.value), "interval": [_number(end) for end in figure.interval]}
                for figure in row.figures
            },
        }
        for row in found
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
