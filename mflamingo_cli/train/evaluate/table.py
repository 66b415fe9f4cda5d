"""The lines of one or more runs as Markdown: what was aimed at and met, then every figure beside constant answers and baselines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mflamingo_cli.errors import UsageError
from mflamingo_cli.files import read_lines
from mflamingo_cli.train.evaluate.bootstrap import Score

COLUMNS = ("synth", "recordings", "text", "noise")


@dataclass(frozen=True)
class Target:
    """One line of the aims for each kind of clips: which figure it is, and what it must reach; `of_constant`: times the constant answer."""

    ability: str
    least: dict[str, float]  # by kind of clips
    name: str = ""  # where the figure's own says too little
    system: str = "model"
    of_constant: bool = False


TARGETS = (
    Target("facts copied exactly", {"synth": 0.99, "recordings": 0.99}),
    Target("captions with measured facts, precision", {"synth": 0.95, "recordings": 0.90}, "caption claims that are true"),
    Target("key, exact", {"synth": 0.70, "recordings": 0.50}),
    Target("key, MIREX", {"synth": 0.78, "recordings": 0.62}),
    Target("chords, majmin", {"synth": 0.72, "recordings": 0.60}, "chords, majmin (encoder head)", "encoder head"),
    Target("meter, balanced accuracy", {"synth": 0.85}),
    Target("instruments, micro F1", {"synth": 0.75}, "instrument families, micro F1"),
    Target("instrument tags, mAP", {"recordings": 2.0}, "instrument tags, mAP (encoder head)", "encoder head", of_constant=True),
    Target("style, accuracy", {"synth": 0.40}),
    Target("style, top genre among the first 3", {"recordings": 0.60}, "genre: the likeliest label among three"),
    Target("vocals, AUC", {"recordings": 0.85}),
    Target("yes or no, balanced accuracy", {"synth": 0.80, "recordings": 0.70}),
)


def line(score: Score) -> str:
    """A score as one line of JSON; figures that are no numbers are null."""
    values = {**asdict(score), "interval": list(score.interval), "claimed": score.claimed}
    return json.dumps({name: _finite(value) for name, value in values.items()})


def row(score: Score) -> str:
    """A score as one line for people."""
    where = f"{score.clips}{f' {score.seconds:g} s' if score.seconds else ''}"
    claim, note = "  claimed" if score.claimed else "", f"  {score.note}" if score.note else ""
    beside = f"constant {_number(score.constant):<6} chance {_number(score.chance):<6} n={score.n}"
    return f"{where:<16} {score.system:<13} {score.ability:<44} {score.value:.3f} ±{score.error:.3f}  {beside}{claim}{note}"


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(paths: Iterable[Path]) -> list[Score]:
    """The scores of the JSON lines of earlier runs; of two with the same name the later one."""
    found: dict[tuple[Any, ...], Score] = {}
    for path in paths:
        for text in read_lines(path):
            try:
                values = json.loads(text)
                values |= {name: math.nan for name in ("value", "error") if values[name] is None}
                score = Score(**{name: value for name, value in values.items() if name not in ("interval", "claimed")})
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise UsageError(f"{path}: not a line of `mflamingo train eval --json`: {text[:60]}") from error
            found[score.ability, score.system, score.clips, score.seconds] = score
    return list(found.values())


def markdown(scores: Sequence[Score]) -> Iterator[str]:
    """The tables, line by line."""
    yield from _aims(scores)
    yield ""
    yield from _figures(scores)


def _aims(scores: Sequence[Score]) -> Iterator[str]:
    yield "| target | clips | aim | value | constant | n | |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for target in TARGETS:
        for kind, least in target.least.items():
            score = _find(scores, (target.ability, target.system, kind))
            yield f"| {target.name or target.ability} | {kind} | {_verdict(target, least, score)} |"


def _verdict(target: Target, least: float, score: Score | None) -> str:
    aim = f"{least:g} x constant" if target.of_constant else _number(least)
    if score is None:
        return f"{aim} | not measured | | |"
    if target.of_constant:
        least *= score.constant or 0.0
        aim += f" = {_number(least)}"
    return f"{aim} | {_value(score)} | {_number(score.constant)} | {score.n} | {'met' if score.value >= least else 'missed'}"


def _find(scores: Sequence[Score], key: tuple[Any, ...]) -> Score | None:
    """The first measured score of (ability, system, kind of clips), or of these with the seconds of its excerpts."""
    return next((s for s in scores if (s.ability, s.system, s.clips, s.seconds)[: len(key)] == key and math.isfinite(s.value)), None)


def _figures(scores: Sequence[Score]) -> Iterator[str]:
    """One line for each figure of each system, a pair of columns for each kind of clips."""
    kinds = [kind for kind in COLUMNS if any(score.clips == kind for score in scores)]
    yield "| figure | by | excerpt | " + " | ".join(f"{kind} | constant, chance, n" for kind in kinds) + " |"
    yield "| --- | --- | --- |" + " --- | --- |" * len(kinds)
    rows = list(dict.fromkeys((s.ability, s.system, s.seconds if s.clips in COLUMNS[:2] else None) for s in scores))
    order = {name: index for index, name in enumerate(dict.fromkeys(s.ability for s in scores))}
    for ability, system, seconds in sorted(rows, key=lambda row: order[row[0]]):
        cells = []
        for kind in kinds:
            score = _find(scores, (ability, system, kind, seconds))
            note = f"; {score.note}" if score and score.note else ""
            cells += [_value(score), f"{_number(score.constant)}, {_number(score.chance)}, {score.n}{note}"] if score else ["", ""]
        if any(cells):
            yield f"| {ability} | {system} | {f'{seconds:g} s' if seconds else ''} | " + " | ".join(cells) + " |"


def _value(score: Score) -> str:
    """`0.890 ± 0.014`; in bold where it beats its constant answer clearly."""
    text = f"{score.value:.3f} ± {score.error:.3f}"
    return f"**{text}**" if score.claimed else text


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}".rstrip("0").rstrip(".") if value else "0"
