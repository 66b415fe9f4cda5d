"""Laws of grounding: prompts tell known facts in a fixed order, and a text is held to them."""

from __future__ import annotations

import dataclasses

import pytest

from mflamingo_cli.grounding import PHRASES, SURE, fact_phrases, facts_text, grounded_prompt
from mflamingo_cli.measure import FACTS, Confidence, Facts, Key, Loudness, Segment, Tempo


def some_facts(**changes: object) -> Facts:
    chords, at = [], 0.0
    for label, length in (("C:maj", 4.0), ("G:maj", 4.0), ("A:min", 4.0), ("F:maj", 4.0), ("N", 9.0), ("D:min7", 0.5)):
        chords.append(Segment(at, at + length, label))
        at += length
    edges = (0.0, 31.99, 64.0, 96.0, 128.0, 160.0)
    sections = tuple(Segment(start, end, label) for start, end, label in zip(edges, edges[1:], "ABABA", strict=False))
    known = Facts(
        Tempo(87.5), Key("A", "minor"), meter="4/4", chords=tuple(chords), sections=sections, loudness=Loudness(-9.8),
        confidence=Confidence(None, 0.95, SURE),
    )  # fmt: skip
    return dataclasses.replace(known, **changes)  # type: ignore[arg-type]


def test_each_fact_has_a_phrase_or_is_left_out_on_purpose():
    assert list(PHRASES) == list(FACTS)


def test_grounding_states_known_facts_in_fixed_order():
    text, want = facts_text(some_facts(), 213.4, least=0.0), "tempo 87.5 BPM; key A minor; meter 4/4; chords C G Am F; sections 5"
    form = "form A 0:00 B 0:31 A 1:04 B 1:36 A 2:08"
    assert text == f"Measured facts: {want}; {form}; loudness -9.8 LUFS; duration 213 s."
    assert grounded_prompt("Q?", text) == text + " Q?"


def test_unknown_facts_are_left_out():
    facts = Facts()
    assert facts_text(facts) == ""
    assert grounded_prompt("Q?", "") == "Q?"
    assert facts_text(None, 12.0) == "Measured facts: duration 12 s."


@pytest.mark.parametrize(("name", "first"), [("tempo", "tempo 87.5 BPM"), ("key", "key A minor"), ("meter", "meter 4/4")])
def test_what_is_not_sure_is_not_told(name, first):
    sure = {"tempo": 0.9, "key": 0.9, "meter": 0.9}
    unsure = fact_phrases(some_facts(confidence=Confidence(**{**sure, name: SURE - 0.01})))
    assert [phrase for phrase in fact_phrases(some_facts(confidence=Confidence(**sure))) if phrase not in unsure] == [first]


@pytest.mark.parametrize(("count", "told"), [(1, False), (2, True), (10, True), (11, False)])
def test_a_form_is_told_when_there_is_one_to_tell(count, told):
    facts = some_facts(sections=tuple(Segment(30.0 * i, 30.0 * i + 30, "A") for i in range(count)))
    assert any(phrase.startswith("form ") for phrase in fact_phrases(facts, least=0.0)) is told
    assert not any(phrase.startswith(("form ", "sections ")) for phrase in fact_phrases(facts))  # to a caption, which repeats it as true


def test_whole_numbers_have_no_decimal():
    assert fact_phrases(some_facts(tempo=Tempo(120.04)))[0] == "tempo 120 BPM"
