"""Answers parse back, outrank ears by facts, and say yes as often as no."""

import numpy as np
import pytest

from mflamingo_cli import parsers, thinking
from mflamingo_cli.grounding.questions import is_yes_or_no
from mflamingo_cli.train.mini.dialogue import exchanges
from mflamingo_cli.train.mini.dialogue.answers import CANNOT, MAKERS, NO, YES, answer, exchange, near_key
from mflamingo_cli.train.mini.dialogue.clip_labels import GENRES, INSTRUMENTS
from mflamingo_cli.train.mini.dialogue.prompt_facts import random_facts
from mflamingo_cli.train.mini.dialogue.questions import SPOKEN_INSTRUMENT, UNKNOWN, YES_NO

YES_NO_KINDS = [name for name in MAKERS if name.startswith(("is_", "has_", "comes_"))]


def test_answers_parse_back_with_the_parsers_of_the_command_line():
    rng = np.random.default_rng(5)
    for _ in range(60):
        facts, heard = random_facts(rng, 1.0), exchanges.random_labels(rng)
        assert parsers.parse_key(answer("key", facts)).name == facts["key"]
        assert parsers.parse_meter(answer("meter", facts)) == facts["meter"]
        assert list(parsers.parse_chords(answer("chords", facts))) == facts["chords"].split()
        if 20 <= float(facts["tempo"]) <= 400:
            assert parsers.parse_tempo(answer("tempo", facts)) == float(facts["tempo"])
        if "instruments" in heard:
            assert parsers.parse_list(answer("instruments", {}, heard)) == tuple(heard["instruments"].split())
        if "genre" in heard:
            assert parsers.parse_genres(answer("genre", {}, heard)) == tuple(heard["genre"].split(", "))
        if "mood" in heard:
            assert parsers.parse_list(answer("mood", {}, heard)) == tuple(heard["mood"].split(", "))


def test_vocals_are_read_as_present_or_absent():
    assert parsers.parse_vocals(answer("vocals", {}, {"vocals": "yes"})).present is True
    assert parsers.parse_vocals(answer("vocals", {}, {"vocals": "no"})).present is False
    assert parsers.parse_vocals(CANNOT).present is None


def test_measured_facts_outrank_labels():
    facts, heard = {"key": "B minor"}, {"key": "A minor", "chords": "C G"}
    assert answer("key", facts, heard) == "B minor"
    assert answer("chords", facts, heard) == "C - G"


def drawn(kind: str, seed: int, count: int = 700) -> list[str]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        drawn = exchange(rng, kind, random_facts(rng, 1.0), exchanges.random_labels(rng))
        if drawn and drawn.answer != CANNOT:
            found.append(drawn.answer)
    return found


@pytest.mark.parametrize("kind", YES_NO_KINDS)
def test_yes_is_as_frequent_as_no(kind):
    answers = drawn(kind, 6)
    assert set(answers) == {YES, NO}
    assert len(answers) > 100
    assert abs(np.mean([text == YES for text in answers]) - 0.5) < 0.1  # two standard errors of 100


@pytest.mark.parametrize("kind", YES_NO_KINDS)
def test_yes_or_no_to_something_unknown_is_not_answered(kind):
    rng = np.random.default_rng(7)
    for heard in (None, {}):
        drawn = exchange(rng, kind, {}, heard)
        assert drawn is not None
        assert drawn.answer == CANNOT


def test_the_command_line_knows_these_questions_for_yes_or_no():
    rng = np.random.default_rng(8)
    questions = [exchange(rng, kind, random_facts(rng, 1.0), None) for kind in YES_NO_KINDS for _ in range(20)]
    assert all(is_yes_or_no(drawn.question) for drawn in questions if drawn)


def test_facts_decide():
    rng = np.random.default_rng(9)
    facts = {"tempo": "119.8", "duration": "178", "loudness": "-9.8", "key": "A minor", "form": "A 0:00 B 0:32 A 1:04", "sections": "3"}
    truths = {
        "Is the tempo above 120 BPM?": NO, "Is the tempo below 120 BPM?": YES, "Is it longer than three minutes?": NO,
        "Is it shorter than three minutes?": YES, "Is it louder than -10 LUFS?": YES, "Is it louder than -9 LUFS?": NO,
        "Is the key A minor?": YES, "Is the key C major?": NO, "Is this song in a minor key?": YES, "Does section A come back?": YES,
        "Does section B come back?": NO, "When does the second section start?": "At 0:32.", "When does the last section start?": "At 1:04.",
        "When does section A start?": "At 0:00 and 1:04.", "How often does section A appear?": "2 times",
        "When does the fourth section start?": "It has only 3 sections.", "When does section C start?": "There is no section C.",
    }  # fmt: skip
    seen = {}
    for _ in range(3000):
        drawn = exchange(rng, str(rng.choice(list(MAKERS))), facts, None)
        if drawn and drawn.question in truths:
            seen[drawn.question] = drawn.answer
    assert seen == truths


def test_wrong_keys_are_near_ones():
    rng = np.random.default_rng(10)
    assert {near_key(rng, "A minor") for _ in range(200)} == {"C major", "A major", "D minor", "E minor", "G# minor"}


def test_one_option_of_a_choice_is_right():
    rng = np.random.default_rng(11)
    made = [exchange(rng, "choice", random_facts(rng, 1.0), exchanges.random_labels(rng)) for _ in range(200)]
    answered = [drawn for drawn in made if drawn and drawn.answer != CANNOT]
    assert len(answered) > 150
    for drawn in answered:
        options = [line for line in drawn.question.split("\n") if line.startswith("(")]
        assert len(options) > 1
        assert drawn.answer in options
        assert len({line[4:] for line in options}) == len(options)


def test_reasoning_leads_to_the_answer_it_gives():
    rng = np.random.default_rng(12)
    for _ in range(300):
        facts = random_facts(rng, 1.0)
        drawn = exchange(rng, "key", facts, None)
        assert drawn is not None
        assert facts["key"] in drawn.rationale
        assert thinking.split_thinking(f"<think>{drawn.rationale}</think><answer>{drawn.answer}</answer>").answer == facts["key"]


def test_what_nobody_knows_is_asked_nowhere_else():
    asked = {text.lower() for texts in YES_NO.values() for text in texts}
    assert not asked & {text.lower() for text in UNKNOWN}


def test_every_instrument_and_genre_can_be_said():
    assert set(SPOKEN_INSTRUMENT) == set(INSTRUMENTS)
    assert all(parsers.parse_genres(", ".join(GENRES[i : i + 3])) == GENRES[i : i + 3] for i in range(0, len(GENRES), 3))
