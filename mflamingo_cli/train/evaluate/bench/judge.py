"""A language model that rates replies in sentences against their references, only where one is named: it is a model's opinion."""

from __future__ import annotations

import json
import math
import re

import numpy as np

from mflamingo_cli.train.evaluate.bench.items import BenchItem, Measure
from mflamingo_cli.train.multiple_choice import final_answer
from mflamingo_cli.train.text_models import ChatWriter

ORDER = (
    "You are given a question about a recording of music, what people who listened to it answered, and the answer of a model. Rate from "
    "1 to 10 how well the model's answer agrees with the people's in what it says of the music, whatever its style and length: 10 says "
    "the same and nothing that contradicts it, 1 has nothing in common with it. Answer with the number alone."
)  # ours: the prompts of the paper's judge are not published


def rate(judge: ChatWriter, item: BenchItem, reply: str) -> str:
    """Return what the judge says of a reply."""
    given = {"question": item.question, "people": list(item.references), "model": final_answer(reply)}
    return judge.complete(ORDER, json.dumps(given, ensure_ascii=False), temperature=0.0)


def rating(text: str) -> float:
    """Return the rating in a judge's words, NaN where there is not exactly one number from 1 to 10."""
    numbers = {int(number) for number in re.findall(r"\b\d+\b", re.sub(r"\b(?:/|out of|of)\s*10\b", "", text))}
    return float(numbers.pop()) if len(numbers) == 1 and numbers <= set(range(1, 11)) else math.nan


def _mean(rows: np.ndarray) -> float:
    known = rows[~np.isnan(rows[:, 0]), 0]
    return float(known.mean()) if len(known) else math.nan


RATED = (
    Measure("rated 1 to 10", lambda text, item: (rating(text),), _mean),
    Measure("unrated", lambda text, item: (float(math.isnan(rating(text))),), _mean, higher_is_better=False),
)
