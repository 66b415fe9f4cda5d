"""What is taught: prompts are written as the command line writes them, nothing is said that is not known."""

import re

import numpy as np
import pytest

from mflamingo_cli import grounding, thinking
from mflamingo_cli.grounding import NO_ANSWER
from mflamingo_cli.measure import Facts as MeasuredFacts
from mflamingo_cli.measure.facts import Key, Tempo
from mflamingo_cli.schema import Loudness, Segment
from mflamingo_cli.train.evaluate.caption_metrics import parse_caption
from mflamingo_cli.train.mini.dialogue import exchanges
from mflamingo_cli.train.mini.dialogue.prompt_facts import FIELDS, consistent_facts, ground_text, random_facts
from mflamingo_cli.train.rows import Turn

STYLES = {prompt: style for style, prompts in exchanges.CAPTION_PROMPTS.items() for prompt in prompts}


def turns(seed: int, count: int) -> list[tuple[Turn, dict[str, str] | None]]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        heard = exchanges.random_labels(rng) if rng.random() < 0.9 else {}
        found += [(turn, heard) for turn in exchanges.audio_turns(rng, heard, 6)] + [(exchanges.text_turn(rng), None) for _ in range(6)]
    return found


def facts_of(question: str) -> dict[str, str]:
    """The facts that a prompt gives."""
    if not question.startswith(grounding.GROUND_PREFIX):
        return {}
    said = question.removeprefix(grounding.GROUND_PREFIX).split(". ")[0].split("; ")
    return dict((phrase.split(" BPM")[0].split(" LUFS")[0].removesuffix(" s").split(" ", 1)) for phrase in said)


def test_grounding_is_written_as_the_command_line_writes_it():
    measured = MeasuredFacts(
        tempo=Tempo(87.5), key=Key("A", "minor"), meter="4/4", chords=(Segment(0, 2, "C:maj"), Segment(2, 4, "A:min7")),
        sections=(Segment(0, 73.9, "A"), Segment(73.9, 213, "B")), loudness=Loudness(-9.8, None, None),
    )  # fmt: skip
    facts = {
        "tempo": "87.5", "key": "A minor", "meter": "4/4", "chords": "C Am7", "sections": "2", "form": "A 0:00 B 1:13", "loudness": "-9.8",
        "duration": "213",
    }  # fmt: skip
    assert ground_text(facts) == grounding.facts_text(measured, 213.2, least=0.0)
    assert facts_of(ground_text(facts) + " What?") == facts


def test_turns_are_a_function_of_the_generator():
    assert turns(1, 8) == turns(1, 8)


def test_captions_claim_facts_of_the_prompt_and_else_only_labels():
    seen = 0
    for turn, heard in turns(2, 150):
        question = turn.question.removesuffix(thinking.THINK_SUFFIX)
        facts = facts_of(question)
        if question.split(". ", 1)[-1] in STYLES or question in STYLES:
            answer = thinking.split_thinking(turn.answer).answer
            claims, known = parse_caption(answer), {**(heard or {}), **facts}
            assert claims or not known.keys() & {"tempo", "key"}
            if "choir" in answer.casefold():  # which is read as singing
                claims.pop("vocals", None)
            for name, value in claims.items():
                assert set(value.replace(",", "").split()) <= set(known[name].replace(",", "").split()), (name, value, known, answer)
            seen += 1
    assert seen > 200


def test_a_conversation_asks_several_things_about_the_same_facts():
    rng = np.random.default_rng(9)
    talks = [turn for turn in (exchanges.text_turn(rng) for _ in range(400)) if turn.history]
    assert 20 < len(talks) < 150
    for talk in talks:
        assert len({frozenset(facts_of(question).items()) for question, _ in (*talk.history, (talk.question, ""))}) == 1


def test_without_facts_and_without_music_nothing_is_known():
    rng = np.random.default_rng(3)
    for heard in ({}, None):
        for kind in {**exchanges.MEASURED_KINDS, **exchanges.LABEL_QUESTIONS, **exchanges.LABEL_KINDS}:
            turn = exchanges.make_turn(rng, kind, {}, heard)
            assert turn is not None
            assert thinking.split_thinking(turn.answer).answer == NO_ANSWER


def test_fields_without_a_label_are_not_asked():
    rng, kinds = np.random.default_rng(4), [*exchanges.LABEL_QUESTIONS, *(name for name in exchanges.LABEL_KINDS if name != "choice")]
    assert [kind for kind in kinds if exchanges.make_turn(rng, kind, {}, {"mood": "calm"})] == ["mood"]


def test_an_excerpt_of_which_little_is_known_still_has_turns():
    assert len(exchanges.audio_turns(np.random.default_rng(5), {"mood": "calm"}, 12)) == 12


def test_facts_measured_in_a_clip_agree_with_what_it_sounds_like():
    rng, heard = np.random.default_rng(6), {"key": "A minor", "meter": "3/4", "chords": "Am Bdim F"}
    for _ in range(40):
        facts = consistent_facts(rng, heard)
        assert facts.get("key", "A minor") == "A minor"
        assert facts.get("meter", "3/4") == "3/4"
        assert [re.sub("(maj)?7", "", chord) for chord in facts.get("chords", "Am Bdim F").split()] == ["Am", "Bdim", "F"]


def test_a_form_is_given_only_with_its_count_and_in_order_of_time():
    rng = np.random.default_rng(7)
    forms = [facts for facts in (random_facts(rng) for _ in range(300)) if "form" in facts]
    for facts in forms:
        words = facts["form"].split()
        starts = [sum(60**i * int(part) for i, part in enumerate(reversed(start.split(":")))) for start in words[1::2]]
        assert len(starts) == int(facts["sections"])
        assert starts == sorted(set(starts))
    assert len(forms) > 60


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_given_in_some_prompts_only(name):
    rng = np.random.default_rng(8)
    share = np.mean([name in random_facts(rng) for _ in range(300)])
    assert 0.2 < share < 0.9


@pytest.mark.parametrize("style", ["full", "short", "technical", "critic"])
def test_a_caption_of_facts_with_nothing_to_say_is_not_empty(style):
    """Chords that are one under three names are no harmony; a row without an answer cannot be trained on."""
    rng = np.random.default_rng(0)
    turns = [exchanges.make_turn(rng, f"caption:{style}", {"chords": "F#maj7 C# Gbmaj7 Dbmaj7"}, None, 0.0) for _ in range(40)]
    assert all(turn is not None and turn.answer for turn in turns)
