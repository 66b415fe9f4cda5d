"""One's own rows as a benchmark: those of the test split, each held against its answer; a model is compared before and after training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli.errors import UsageError
from mflamingo_cli.parsers import parse_key, parse_meter, parse_tempo, parse_vocals
from mflamingo_cli.train.data.row import TrainingRow
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.evaluate.bench.items import BenchItem, Measure
from mflamingo_cli.train.multiple_choice import chosen, final_answer, is_right, with_options
from mflamingo_cli.train.rewards import JUDGED

VALUES: Mapping[str, Callable[[str], Any]] = {  # of an answer to a question for a fact, None for what is none
    "tempo": parse_tempo,
    "key": lambda text: key.name if (key := parse_key(text)) else None,
    "meter": parse_meter,
    "vocals": lambda text: parse_vocals(text).present,
}


def read(path: Path) -> Iterator[BenchItem]:
    """Yield questions of rows with one answer: of the test split, or of all where no row names one. Raises UsageError."""
    if not path.is_file():
        raise UsageError(f"{path}: cannot be read (there is no such file of rows)")
    rows = list(Rows([path]))
    split = "test" if any(row.extra.get("split") for row in rows) else None
    for row in rows:
        if row.extra.get("split") == split and len(row.exchanges) == 1 and row.exchanges[0].answer and row.audio and _can_be_right(row):
            yield _item(row)


def _can_be_right(row: TrainingRow) -> bool:
    """Whether an answer is right or wrong: captions are neither."""
    return row.extra.get("answer") is not None


def _item(row: TrainingRow) -> BenchItem:
    [exchange], audio = row.exchanges, row.audio
    assert audio is not None
    choices = tuple(map(str, row.extra.get("choices") or ()))
    question = exchange.question.removesuffix(with_options("", choices)) if choices else exchange.question
    name, task = str(row.extra.get("id") or row.place), str(row.extra.get("task") or "")
    return BenchItem(name, audio.path, question, (str(row.extra["answer"]),), choices, task, audio.start_s, audio.end_s)


def _value(text: str, item: BenchItem) -> Any:
    """What a reply says: the number of an option, the value of a fact, or its words."""
    if item.choices:
        return chosen(text, item.choices)
    read_value = VALUES.get(item.skill.partition("-")[0])
    return read_value(final_answer(text)) if read_value else final_answer(text).strip() or None


def _right(text: str, item: BenchItem) -> tuple[float]:
    if (name := item.skill.partition("-")[0]) in VALUES and not item.choices:
        truth, said = (_value(answer, item) for answer in (item.references[0], text))
        return (float(truth is not None and said is not None and JUDGED[name](truth, said)),)
    return (float(is_right(text, item.references[0], item.choices)),)


def _share(rows: np.ndarray) -> float:
    return float(rows[:, 0].mean())


MEASURES = (
    Measure("right", _right, _share),
    Measure("unparsed", lambda text, item: (float(_value(text, item) is None),), _share, higher_is_better=False),
)
