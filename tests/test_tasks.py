"""Laws of the questions: each has a parser that reads its short form, and is total on any text."""

from __future__ import annotations

import dataclasses
import random
import time

import pytest

from mflamingo_cli.parsers import Vocals
from mflamingo_cli.requests import caption_request
from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.tasks import ANALYZE, TASKS

HOSTILE_SECONDS = 2.0  # generous for a loaded machine; a quadratic expression needs minutes on these texts


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_reads_its_own_example(task):
    assert task.parse(task.example) not in (None, (), Vocals(None, None))


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_parser_is_total_and_fast_on_hostile_text(task):
    rng = random.Random(0)
    alphabet = " \n\t<>/thinkanswer[]{}()'\"*-_:;,.#b0123456789ABCDEFGm\x00\x1b\u202e\ud800\uff11\u2011é"
    texts = ["".join(rng.choices(alphabet, k=400)) for _ in range(100)]
    texts += [c * 50_000 for c in ("<", " ", "1", "A ", "a, ", "<think>", "((((", "120 -", "- \n", "voice no ", "The ", "key of ")]
    texts += ["", "120 " + " " * 50_000 + "bpm", "< " * 30_000, "no " * 20_000 + "vocals"]
    began = time.perf_counter()
    for text in texts:
        task.parse(text)
    assert time.perf_counter() - began < HOSTILE_SECONDS * 4


def test_a_caption_style_changes_only_the_words():
    assert set(CAPTION_STYLES) == {"full", "short", "technical", "critic", "lyrics"}
    [task] = caption_request("critic").tasks
    assert task == dataclasses.replace(TASKS["caption"], prompt=CAPTION_STYLES["critic"])


def test_analyze_asks_each_task_that_has_a_place_in_the_record():
    assert [task.name for task in ANALYZE] == ["tempo", "key", "meter", "instruments", "genre", "mood", "vocals", "caption"]
