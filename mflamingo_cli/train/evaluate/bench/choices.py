"""Replies to questions with options, by official rules, with their faults, and by the exact rule of `multiple_choice`."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from mflamingo_cli.train.evaluate.bench.items import BenchItem, Measure
from mflamingo_cli.train.multiple_choice import LETTERS, chosen, final_answer, is_right

Rule = Callable[[str, BenchItem], bool]


def words_rule(text: str, item: BenchItem) -> bool:
    r"""All words of the answer are there, and none that only another option has; a word is `\b\w+\b` of the text in lower case.

    github.com/Sakshi113/MMAU evaluation.py, github.com/ddlBoJack/MMAR code/evaluation.py.
    """

    def words(value: str) -> set[str]:
        return set(re.findall(r"\b\w+\b", value.lower()))

    said, wanted = words(final_answer(text)), words(item.references[0])
    wrong = set().union(*(words(choice) for choice in item.choices if words(choice) != wanted)) - wanted
    return bool(said) and wanted <= said and not said & wrong


def letters_rule(text: str, item: BenchItem) -> bool:
    """The one letter among those of the options that occurs as a character anywhere; else the first option that is contained.

    github.com/mulab-mir/muchomusic, muchomusic_eval.
    """
    answer = final_answer(text).split("The correct answer is:")[-1].strip()
    found = {letter for letter in LETTERS[: len(item.choices)] if letter in answer}
    if len(found) == 1:
        return item.choices[LETTERS.index(found.pop())] == item.references[0]
    contained = next((choice for choice in item.choices if choice.lower() in answer.lower()), None)
    return contained == item.references[0]


def name_rule(text: str, item: BenchItem) -> bool:
    """The name of the class as the set spells it, and nothing else: accuracy of strings, as in github.com/QwenLM/Qwen-Audio eval_audio."""
    return final_answer(text).strip() == item.references[0]


def _mean(rows: np.ndarray) -> float:
    return float(rows[:, 0].mean())


def _share(name: str, rule: Rule, *, higher_is_better: bool = True) -> Measure:
    return Measure(name, lambda text, item: (float(rule(text, item)),), _mean, higher_is_better)


EXACT = _share("exact", lambda text, item: is_right(text, item.references[0], item.choices))
UNPARSED = _share("unparsed", lambda text, item: chosen(text, item.choices) is None, higher_is_better=False)


def choice_measures(official: Rule | None) -> tuple[Measure, ...]:
    """Return the shares that are right by the official rule, where it can be had, and by ours, and the share that ours cannot read."""
    return (*(() if official is None else (_share("official", official),)), EXACT, UNPARSED)
