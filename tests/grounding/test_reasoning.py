"""Laws of reasoning from facts: evidence first, then what follows; nothing in it contradicts what was measured or the answer."""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path

import pytest

from mflamingo_cli.checks import Check, CheckOptions
from mflamingo_cli.grounding.prose.captions import write_caption
from mflamingo_cli.grounding.questions import KINDS, Known, read, reply
from mflamingo_cli.grounding.reasoning import NOT_MEASURED, READ_FROM_FILE, STEPS, reason
from mflamingo_cli.measure import Facts
from mflamingo_cli.schema import KeySpan
from mflamingo_cli.styles import CAPTION_STYLES
from tests.grounding.prose.songs import made_up_song
from tests.grounding.test_questions import NOTHING, SONG, UNSURE

QUESTIONS = Path(__file__).parents[1] / "bench" / "questions.tsv"
ASKED = [row["question"] for row in csv.DictReader(QUESTIONS.open(encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE)]
BY_FACTS = [
    question for question in ASKED if (found := read(question)) and all(set(one.kind.facts) - {"tags", "duration"} for one in found)
]


@pytest.mark.parametrize(("question", "thought"), [
    ("Is it faster than 120 BPM?", "The beats lie on a constant grid of 124 BPM (97 % sure). 124 is above 120."),
    ("Is it in Eb major?", "The notes and chords were held against all keys, and C minor fits best (90 % sure). "
                           "The tonic is C, not Eb, although both have the same notes."),
    ("Is it in C major?", "The notes and chords were held against all keys, and C minor fits best (90 % sure). "
                          "The tonic is C in both, but major is not minor."),
    ("Is it in A major?", "The notes and chords were held against all keys, and C minor fits best (90 % sure). The tonic is C, not A."),
    ("Which section is at 0:20?", "The sections that were found are A (0:00), B (0:16) and A (0:32). 0:20 lies between 0:16 and 0:32."),
    ("Does section B come back?", "The sections that were found are A (0:00), B (0:16) and A (0:32). B is among them once."),
    ("Is it quiet?", "The integrated loudness is -9.8 LUFS, the loudness range 5 LU and the true peak 0.7 dBTP. "
                     "Levels from -11 upwards count as loud, levels below -20 as quiet."),
    ("Is it longer than one minute?", "The sound runs 1:04. 1:04 is held against 1:00."), ("Is it good music?", NOT_MEASURED),
    ("Who is the artist?", READ_FROM_FILE),
])  # fmt: skip
def test_evidence_comes_before_what_follows_from_it(question: str, thought: str) -> None:
    assert reason(question, SONG) == thought


@pytest.mark.parametrize("question", BY_FACTS)
def test_what_facts_answer_has_its_reasons_and_what_they_do_not_has_none(question: str) -> None:
    assert (reason(question, SONG) != NOT_MEASURED) >= reply(question, SONG).answers
    assert reason(question, NOTHING) == NOT_MEASURED


def contradictions(text: str, known: Known) -> list[str]:
    return [
        claim.text for claim in Check.whole(text, known.facts, known.sound.duration_s, CheckOptions("mark"))[1] if claim.agrees is False
    ]


@pytest.mark.parametrize("known", [SONG, UNSURE], ids=["sure", "unsure"])
def test_no_reasoning_contradicts_what_was_measured(known: Known) -> None:
    for question in ASKED:
        assert not contradictions(reason(question, known), known), question


def test_the_reasoning_before_a_caption_gives_every_fact_that_a_caption_tells() -> None:
    thought = reason("Describe it.", SONG)
    for evidence in ("124 BPM", "4/4", "C minor", "C, G, Am and F", "A (0:00), B (0:16) and A (0:32)", "-9.8 LUFS", "1:04"):
        assert evidence in thought
    for seed in range(80):
        facts, _ = made_up_song(seed)
        assert not contradictions(reason("Describe it.", Known(facts, SONG.sound)), Known(facts, SONG.sound))


@pytest.mark.parametrize("style", ["full", "short", "technical", "critic"])
def test_the_documented_caption_prompts_are_answered_by_the_caption_of_their_style(style: str) -> None:
    assert reply(CAPTION_STYLES[style], SONG).text == write_caption(style, SONG.facts, SONG.sound.duration_s)
    assert reason(CAPTION_STYLES[style], SONG) == reason("Describe it.", SONG)


def test_a_song_of_which_nothing_is_known_is_not_reasoned_about() -> None:
    assert reason("What is the tempo?", Known(Facts(), SONG.sound)) == NOT_MEASURED


def test_every_step_belongs_to_a_kind_of_question() -> None:
    assert STEPS.keys() <= KINDS.keys()


def test_reasoning_about_a_song_that_changes_key_names_each_key_once() -> None:
    spans = tuple(KeySpan(20.0 * at, 20.0 * at + 20, name, 0.9) for at, name in enumerate(("C minor", "G minor", "C minor")))
    for confidence in (SONG.facts.confidence, UNSURE.facts.confidence):
        song = dataclasses.replace(SONG, facts=dataclasses.replace(SONG.facts, keys=spans, confidence=confidence))
        for question in ("What key is it in?", "Does the key change?", "Tell me about this song."):
            assert reason(question, song).count("C minor (from 0:00 and 0:40) and G minor (from 0:20)") == 1
            assert len(re.findall("[A-G] (?:major|minor)", reason(question, song))) == 2
