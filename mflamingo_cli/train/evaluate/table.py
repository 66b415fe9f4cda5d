"""The lines of one or more runs as Markdown: what was aimed at and met, then every figure beside constant answers and baselines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.evaluate.bootstrap import Score

COLUMNS = ("synth", "recordings", "text", "noise")


@dataclass(frozen=True)
class Target:
    """One line of the aims: which figure it is, and what it must reach; `of_constant`: so many times the constant answer."""

    name: str
    ability: str
    system: str
    clips: str
    least: float
    of_constant: bool = False


TARGETS = (
    Target("facts copied exactly", "facts copied exactly", "model", "synth", 0.99),
    Target("facts copied exactly", "facts copied exactly", "model", "recordings", 0.99),
    Target("caption claims that are true", "captions with measured facts, precision", "model", "synth", 0.95),
    Target("caption claims that are true", "captions with measured facts, precision", "model", "recordings", 0.90),
    Target("key, exact", "key, exact", "model", "synth", 0.70),
    Target("key, exact", "key, exact", "model", "recordings", 0.50),
    Target("key, MIREX", "key, MIREX", "model", "synth", 0.78),
    Target("key, MIREX", "key, MIREX", "model", "recordings", 0.62),
    Target("chords, majmin (encoder head)", "chords, majmin", "encoder head", "synth", 0.72),
    Target("chords, majmin (encoder head)", "chords, majmin", "encoder head", "recordings", 0.60),
    Target("meter, balanced accuracy", "meter, balanced accuracy", "model", "synth", 0.85),
    Target("instrument families, micro F1", "instruments, micro F1", "model", "synth", 0.75),
    Target("instrument tags, mAP (encoder head)", "instrument tags, mAP", "encoder head", "recordings", 2.0, True),
    Target("style, accuracy", "style, accuracy", "model", "synth", 0.40),
    Target("genre: the likeliest label among three", "style, top genre among the first 3", "model", "recordings", 0.60),
    Target("vocals, AUC", "vocals, AUC", "model", "recordings", 0.85),
    Target("yes or no, balanced accuracy", "yes or no, balanced accuracy", "model", "synth", 0.80),
    Target("yes or no, balanced accuracy", "yes or no, balanced accuracy", "model", "recordings", 0.70),
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
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(text)
                values["value"] = math.nan if values["value"] is None else values["value"]
                values["error"] = math.nan if values["error"] is None else values["error"]
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
        wanted = (target.ability, target.system, target.clips)
        score = next((s for s in scores if (s.ability, s.system, s.clips) == wanted and math.isfinite(s.value)), None)
        if score is None:
            yield f"| {target.name} | {target.clips} | {_aim(target, None)} | not measured | | | |"
            continue
        least = target.least * (score.constant or 0.0) if target.of_constant else target.least
        verdict = "met" if score.value >= least else "missed"
        value = f"{_value(score)} | {_number(score.constant)} | {score.n}"
        yield f"| {target.name} | {target.clips} | {_aim(target, least)} | {value} | {verdict} |"


def _aim(target: Target, least: float | None) -> str:
    if target.of_constant:
        return f"{target.least:g} x constant" + (f" = {_number(least)}" if least is not None else "")
    return _number(target.least)


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
            where = (ability, system, kind, seconds)
            score = next((s for s in scores if (s.ability, s.system, s.clips, s.seconds) == where and math.isfinite(s.value)), None)
            cells += [_value(score), _beside(score)] if score else ["", ""]
        if any(cells):
            yield f"| {ability} | {system} | {f'{seconds:g} s' if seconds else ''} | " + " | ".join(cells) + " |"


def _beside(score: Score) -> str:
    """`0.067, 0.042, 500`: the constant answer, chance, how many; and a note."""
    return f"{_number(score.constant)}, {_number(score.chance)}, {score.n}" + (f"; {score.note}" if score.note else "")


def _value(score: Score) -> str:
    """`0.890 ± 0.014`; in bold where it beats its constant answer clearly."""
    text = f"{score.value:.3f} ± {score.error:.3f}"
    return f"**{text}**" if score.claimed else text


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}".rstrip("0").rstrip(".") if value else "0"
