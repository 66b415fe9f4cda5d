"""Laws of follow-up questions: what is left out is taken from the question before, what stands alone stays as it is."""

from __future__ import annotations

import pytest

from mflamingo_cli.grounding.follow_ups import completed
from mflamingo_cli.grounding.questions import read
from tests.bench.chat import verdicts


@pytest.mark.parametrize(("before", "question", "whole"), [
    ("Which chord is at 0:10?", "And at 0:20?", "Which chord is at 0:20?"),
    ("Does section B come back?", "And A?", "Does section A come back?"),
    ("Is it in C minor?", "Or in F minor?", "Is it in F minor?"),
    ("What is the tempo?", "Does it change?", "Does the tempo change?"),
    ("What key is it in?", "Does it stay there?", "Does the key change?"),
    ("What key is it in?", "Minor?", "Is it in a Minor key?"),
    ("When does section B start?", "Does it come back?", "Does section B come back?"),
    ("What are the chords?", "And those of section A?", "What are the chords of section A?"),
    ("How long is it?", "Longer than a minute?", "Is it Longer than a minute?"),
    ("Is it in 4/4?", "3/4?", "Is it in 3/4?"),
    ("Is it in C minor?", "or A minor?", "Is it in A minor?"),
    ("What key is it in?", "A minor?", "Is it in A minor?"),
    ("How loud is it?", "And the range?", "What is the loudness range?"),
    ("Is section A louder than section B?", "And than C?", "Is section A louder than section C?"),
    ("Is section A longer than the second section?", "And than the third?", "Is section A longer than the third section?"),
    ("How loud is section A?", "And B?", "How loud is section B?"),
    ("How loud is it?", "And of section B?", "How loud is section B?"),
    ("How loud is it?", "And the second section?", "How loud is the second section?"),
    ("Is section A louder than section B?", "And C?", "Is section C louder than section B?"),
])  # fmt: skip
def test_a_question_is_completed_by_the_one_before(before: str, question: str, whole: str) -> None:
    assert completed(question, before) == whole
    assert read(whole)


@pytest.mark.parametrize(
    "question", ["What is the tempo?", "Is it in A minor?", "Do you like it?", "And now?", "", "x" * 500, "And {letter}?"]
)
@pytest.mark.parametrize("before", [None, "What are the chords?", "When does section B start?", "Nothing that can be read"])
def test_what_stands_alone_or_cannot_be_completed_stays(before: str | None, question: str) -> None:
    assert completed(question, before) == question


def test_conversations_of_five_turns_are_answered() -> None:
    found = [verdict for *_, verdict in verdicts()]
    assert len(found) == 100
    assert found.count("right") >= 96
    assert found.count("wrong") == 0
    alone = [verdict for *_, verdict in verdicts(follows=False)]
    assert found.count("right") >= alone.count("right") + 15
