"""The engine: conditions, slots, parts, articles, and that nothing is told twice."""

from __future__ import annotations

from random import Random

import pytest

from mflamingo_cli.grounding.prose.grammar import Composer, Sayable, article, finish

TELLS = {"bpm": "tempo", "key": "key", "pulse": "tempo", "lufs": "loudness", "voice": "vocals", "duration": "duration"}


def said(block: str, slots=None, conditions=(), seed: int = 0, more=None):
    composer = Composer({"it": block, **(more or {})}, Random(seed))
    return composer.sentence("it", Sayable(slots or {}, conditions, TELLS))


def test_a_line_is_said_where_its_slots_are_known_and_its_conditions_hold():
    assert said("The tempo is {bpm} BPM.", {"bpm": "120"}) == "The tempo is 120 BPM."
    assert said("The tempo is {bpm} BPM.") is None
    assert said("slow | It drags.\n!slow | It moves.", conditions={"slow"}) == "It drags."
    assert said("slow | It drags.\n!slow | It moves.") == "It moves."


def test_a_part_may_be_left_out_only_where_it_is_marked():
    parts = {"where": ", in {key}"}
    assert said("It moves<where?>.", {}, more=parts) == "It moves."
    assert said("It moves<where?>.", {"key": "D major"}, more=parts) == "It moves, in D major."
    assert said("It moves<where>.", {}, more=parts) is None


def test_no_fact_is_told_twice():
    composer = Composer({"a": "At {bpm} BPM.", "b": "It runs at {pulse}.\nIt is in {key}."}, Random(1))
    known = Sayable({"bpm": "120", "pulse": "120", "key": "C major"}, (), TELLS)
    assert composer.sentence("a", known) == "At 120 BPM."
    assert composer.told == {"tempo"}
    assert composer.sentence("b", known) == "It is in C major."
    assert composer.sentence("b", known) is None


def test_a_slot_among_the_conditions_is_told_without_its_words():
    composer = Composer({"a": "+bpm | It is fast.", "b": "The tempo is {bpm} BPM."}, Random(1))
    known = Sayable({"bpm": "160"}, (), TELLS)
    assert composer.sentence("a", known) == "It is fast."
    assert composer.sentence("b", known) is None


def test_lines_that_tell_more_are_likelier():
    block = "It is loud, {lufs} LUFS.\nIt is loud, {lufs} LUFS, and sung: {voice}."
    drawn = [said(block, {"lufs": "-9", "voice": "sung"}, seed=seed) for seed in range(200)]
    assert 150 < sum("sung" in text for text in drawn) < 200


def test_tempo_and_key_are_told_before_two_other_facts():
    block = "It is in {key}.\nIt is {voice}, and {duration} long."
    drawn = [said(block, {"key": "C major", "voice": "sung", "duration": "1:00"}, seed=seed) for seed in range(200)]
    assert 150 < sum("C major" in text for text in drawn) < 200


def test_a_sentence_begins_with_a_capital_and_ends_with_a_stop():
    assert finish("two chords alternate") == "Two chords alternate."
    assert finish("  is it?  ") == "Is it?"


@pytest.mark.parametrize(("word", "it"), [
    ("slow", "a"), ("energetic", "an"),
    ("unhurried", "an"), ("unique", "a"), ("instrumental", "an"), ("E", "an"), ("Eb", "an"), ("F#m", "an"),
    ("Am", "an"), ("G#", "a"), ("B", "a"), ("i-VI-III-VII", "a"), ("I-V-vi-IV", "a"), ("IV-I", "a"),
    ("87.5", "an"), ("8", "an"), ("11", "an"),
    ("118", "a"), ("128", "a"), ("180", "a"), ("18", "an"), ("hour", "an"), ("C", "a"), ("Dm7", "a"), ("Each", "an"), ("bII-i", "a"),
])  # fmt: skip
def test_articles_are_those_that_are_spoken(word, it):
    assert article(word) == it
