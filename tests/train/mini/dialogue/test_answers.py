"""Answers are those of the program, parse back, outrank ears by facts, and say yes as often as no."""

import numpy as np
import pytest

from mflamingo_cli import parsers, thinking
from mflamingo_cli.grounding import NO_ANSWER
from mflamingo_cli.grounding.questions import is_yes_or_no, reply
from mflamingo_cli.train.evaluate.yesno import parsed
from mflamingo_cli.train.mini.dialogue import exchanges
from mflamingo_cli.train.mini.dialogue.answers import MAKERS, near_key
from mflamingo_cli.train.mini.dialogue.clip_labels import GENRES, INSTRUMENTS
from mflamingo_cli.train.mini.dialogue.prompt_facts import as_known, random_facts
from mflamingo_cli.train.mini.dialogue.questions import QUESTIONS, SPOKEN_INSTRUMENT, UNKNOWN, YES_NO

YES_NO_KINDS = [name for name in MAKERS if name.startswith(("is_", "has_", "comes_"))]


def drawn(kind: str, seed: int, count: int = 700, facts=None, labels=True):
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        given = random_facts(rng, 1.0) if facts is None else facts
        made = MAKERS[kind](rng, given, exchanges.random_labels(rng) if labels is True else labels)
        found += [(given, made)] if made else []
    return found


@pytest.mark.parametrize(("kind", "read", "field"), [
    ("key", lambda text: parsers.parse_key(text).name, "key"), ("meter", parsers.parse_meter, "meter"),
    ("chords", lambda text: " ".join(parsers.parse_chords(text)), "chords"),
    ("tempo", lambda text: f"{parsers.parse_tempo(text):.1f}".removesuffix(".0"), "tempo"),
])  # fmt: skip
def test_answers_parse_back_with_the_parsers_of_the_command_line(kind, read, field):
    said = [pair for pair in drawn(kind, 5, 60, labels=None) if 20 <= float(pair[0]["tempo"]) <= 400]  # as a tempo is read
    assert [read(made.answer) for _, made in said] == [facts[field] for facts, _ in said]


@pytest.mark.parametrize(("kind", "read", "join"), [
    ("instruments", parsers.parse_list, " "), ("genre", parsers.parse_genres, ", "), ("mood", parsers.parse_list, ", "),
])  # fmt: skip
def test_lists_that_only_the_sound_tells_parse_back(kind, read, join):
    rng = np.random.default_rng(6)
    heard = [labels for labels in (exchanges.random_labels(rng) for _ in range(60)) if kind in labels]
    assert [read(MAKERS[kind](rng, {}, labels).answer) for labels in heard] == [tuple(labels[kind].split(join)) for labels in heard]


def test_vocals_are_read_as_present_or_absent():
    rng = np.random.default_rng(0)
    assert parsers.parse_vocals(MAKERS["vocals"](rng, {}, {"vocals": "yes"}).answer).present is True
    assert parsers.parse_vocals(MAKERS["vocals"](rng, {}, {"vocals": "no"}).answer).present is False
    assert parsers.parse_vocals(NO_ANSWER).present is None


def test_measured_facts_outrank_labels():
    rng, facts, heard = np.random.default_rng(1), {"key": "B minor"}, {"key": "A minor", "chords": "C G"}
    assert MAKERS["key"](rng, facts, heard).answer.startswith("It is in B minor.")
    assert MAKERS["chords"](rng, facts, heard).answer == "Its main chords are C and G."


OWN = {"has_chord", "choice", "duration", "is_long", "chords"}  # chords without times and as they are spelled, durations in seconds


@pytest.mark.parametrize("kind", sorted(MAKERS.keys() - OWN))
def test_the_model_is_taught_the_answers_of_the_program(kind):
    made = [(facts, one) for facts, one in drawn(kind, 3, 40, labels=None) if one.answer != NO_ANSWER]
    assert [one.answer for _, one in made] == [reply(one.question, as_known(facts)).text for facts, one in made]


@pytest.mark.parametrize("kind", YES_NO_KINDS)
def test_yes_is_as_frequent_as_no(kind):
    answers = [parsed(made.answer) for _, made in drawn(kind, 6) if made.answer != NO_ANSWER]
    assert set(answers) == {True, False}
    assert len(answers) > 100
    assert abs(np.mean(answers) - 0.5) < 0.1  # two standard errors of 100


@pytest.mark.parametrize("kind", YES_NO_KINDS)
@pytest.mark.parametrize("heard", [None, {}], ids=["no audio", "no music"])
def test_yes_or_no_to_something_unknown_is_not_answered(kind, heard):
    made = drawn(kind, 7, 20, facts={}, labels=heard)
    assert made
    assert {one.answer for _, one in made} == {NO_ANSWER}


def test_the_command_line_knows_these_questions_for_yes_or_no():
    for kind in YES_NO_KINDS:
        assert all(is_yes_or_no(made.question) for _, made in drawn(kind, 8, 20, labels=None))


def test_facts_decide():
    facts = {"tempo": "119.8", "duration": "178", "loudness": "-9.8", "key": "A minor", "form": "A 0:00 B 0:32 A 1:04", "sections": "3"}
    truths = {
        "Is the tempo above 120 BPM?": "No: the tempo is 119.8 BPM.",
        "Is it longer than three minutes?": "No: it lasts 178 s.",
        "Is it louder than -10 LUFS?": "Yes: the loudness is -9.8 LUFS.",
        "Is the key C major?": "No: it is in A minor.",
        "How long is it?": "It lasts 178 s.",
        "Is this song in a minor key?": "Yes: it is in A minor.",
        "When does the second section start?": "The second section is B, 0:32 to 1:04.",
        "When does section C start?": "There is no section C: A 0:00, B 0:32, A 1:04.",
    }
    rng, seen = np.random.default_rng(9), {}
    for _ in range(4000):
        made = MAKERS[str(rng.choice(list(MAKERS)))](rng, facts, None)
        if made and made.question in truths:
            seen[made.question] = made.answer
    assert seen == truths


def test_wrong_keys_are_near_ones():
    rng = np.random.default_rng(10)
    assert {near_key(rng, "A minor") for _ in range(200)} == {"C major", "A major", "D minor", "E minor", "G# minor"}


def test_one_option_of_a_choice_is_right():
    answered = [made for _, made in drawn("choice", 11, 200) if made.answer != NO_ANSWER]
    assert len(answered) > 150
    for made in answered:
        options = [line for line in made.question.split("\n") if line.startswith("(")]
        assert len(options) > 1
        assert made.answer in options
        assert len({line[4:] for line in options}) == len(options)


def test_reasoning_leads_to_the_answer_it_gives():
    for facts, made in drawn("key", 12, 100, labels=None):
        assert facts["key"] in made.rationale
        traced = thinking.split_thinking(f"<think>{made.rationale}</think><answer>{made.answer}</answer>")
        assert traced.answer == made.answer


def test_what_nobody_knows_is_asked_nowhere_else():
    asked = {text.lower() for texts in YES_NO.values() for text in texts}
    assert not asked & {text.lower() for text in UNKNOWN}


def test_every_kind_has_words_and_all_words_a_kind():
    kinds = {"is_above": "is_tempo", "is_below": "is_tempo", "is_longer": "is_long", "is_shorter": "is_long", "is_sung": "is_vocal",
             "is_instrumental": "is_vocal"}  # fmt: skip
    assert {kinds.get(name, name) for name in QUESTIONS | YES_NO} == set(MAKERS) - {"choice"}


def test_every_instrument_and_genre_can_be_said():
    assert set(SPOKEN_INSTRUMENT) == set(INSTRUMENTS)
    assert all(parsers.parse_genres(", ".join(GENRES[i : i + 3])) == GENRES[i : i + 3] for i in range(0, len(GENRES), 3))
