"""What is taught: captions say every fact, facts parse back, nothing is answered that is not known."""

import numpy as np
import pytest

from mflamingo_cli import tasks
from mflamingo_cli.measure.facts import Facts as MeasuredFacts
from mflamingo_cli.measure.facts import Key, Loudness, Segment, Tempo
from mflamingo_cli.train import data
from mflamingo_cli.train.evaluate import copied, invented, mirex, parsed_key

STYLES = ("full", "short", "technical", "critic")


@pytest.mark.parametrize("style", STYLES)
def test_every_caption_says_every_fact_and_nothing_else(style):
    rng = np.random.default_rng(3)
    for _ in range(60):
        facts = data.random_facts(rng)
        text = data.caption(style, facts)
        marks = copied(text, facts)
        assert all(marks.values()), (facts, text, marks)
        assert not invented(text, facts), (facts, text)


@pytest.mark.parametrize("style", STYLES)
def test_a_changed_fact_is_noticed(style):
    facts = data.random_facts(np.random.default_rng(4), 1.0)
    text = data.caption(style, facts)
    for name in facts:
        other = data.random_facts(np.random.default_rng(11), 1.0)
        if other[name] != facts[name]:
            assert not copied(text, {**facts, name: other[name]})[name], (name, text)


def test_what_is_measured_outranks_what_is_heard():
    facts, heard = {"key": "B minor"}, {"key": "A minor", "chords": "C G"}
    assert data.answer("key", facts, heard) == "B minor"
    assert data.answer("chords", facts, heard) == "C - G"
    assert "A minor" not in data.caption("full", facts, heard)


def test_what_nobody_knows_is_not_answered():
    for intent in ("tempo", "meter", "key", "unknown", "duration", "sections"):
        assert data.answer(intent, {}) == data.CANNOT


def test_grounding_is_written_as_the_command_line_writes_it():
    measured = MeasuredFacts(
        tempo=Tempo(87.5), key=Key("A", "minor"), meter="4/4", chords=(Segment(0, 2, "C:maj"), Segment(2, 4, "A:min7")),
        sections=(Segment(0, 4, "A"),), loudness=Loudness(-9.8, None, None),
    )  # fmt: skip
    facts = {"tempo": "87.5", "key": "A minor", "meter": "4/4", "chords": "C Am7", "sections": "1", "loudness": "-9.8", "duration": "213"}
    assert data.ground_text(facts) == tasks.ground(measured, 213.2)


def test_answers_parse_back_with_the_parsers_of_the_command_line():
    rng = np.random.default_rng(5)
    for _ in range(60):
        facts = data.random_facts(rng, 1.0)
        assert tasks.parse_key(data.answer("key", facts)) == facts["key"]
        assert tasks.parse_tempo(data.answer("tempo", facts)) == float(facts["tempo"])
        assert tasks.parse_meter(data.answer("meter", facts)) == facts["meter"]
        assert list(tasks.parse_chords(data.answer("chords", facts))) == facts["chords"].split()


def test_thinking_comes_apart_into_trace_and_answer():
    thought = tasks.split_thinking(data.think("key", {"key": "A minor"}))
    assert thought.answer == "A minor"
    assert thought.thinking
    assert not thought.truncated


def test_turns_are_a_function_of_the_generator():
    turns = [[data.text_turn(np.random.default_rng([1, i])) for i in range(20)] for _ in range(2)]
    assert turns[0] == turns[1]


def test_heard_chords_are_the_longest_in_order_of_first_sound():
    row = {"tonic": 9, "mode": "minor", "chords": [[0, 1, 9, "min7"], [1, 4, 5, "maj"], [4, 5, 0, "7"], [5, 8, 9, "min"]]}
    assert data.heard_facts(row, 0.5, 8.0) == {"key": "A minor", "chords": "Am F C"}


def test_mirex_weights_relations_of_keys():
    truth = (9, "minor")
    assert [mirex(truth, parsed_key(name)) for name in ("A minor", "E minor", "C major", "A major", "F# major", "")] == [
        1.0,
        0.5,
        0.3,
        0.2,
        0.0,
        0.0,
    ]
