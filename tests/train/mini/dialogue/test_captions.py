"""Captions say every given fact exactly, mark what is only heard, and can be read back."""

import numpy as np
import pytest

from mflamingo_cli import parsers
from mflamingo_cli.train.mini.dialogue.captions import NOTHING, ORDER, caption, claims, parse_caption, unread
from mflamingo_cli.train.mini.dialogue.exchanges import random_labels
from mflamingo_cli.train.mini.dialogue.prompt_facts import random_facts

STYLES = (*ORDER, "short")


@pytest.mark.parametrize("style", STYLES)
def test_a_caption_is_read_back_as_what_it_was_written_from(style):
    rng = np.random.default_rng(3)
    for _ in range(150):
        facts = random_facts(rng) if rng.random() < 0.7 else {}
        heard = random_labels(rng) if rng.random() < 0.7 else None
        text = caption(style, facts, heard)
        assert parse_caption(text) == claims(style, facts, heard), text
        assert unread(text) == []


@pytest.mark.parametrize("style", STYLES)
def test_every_fact_is_claimed(style):
    facts = random_facts(np.random.default_rng(4), 1.0) | {"sections": "2", "form": "A 0:00 B 0:41"}
    assert set(claims(style, facts)) == set(facts) - ({"form"} if style == "short" else set())


def test_measured_facts_outrank_labels():
    text = caption("full", {"key": "B minor"}, {"key": "A minor", "chords": "C G"})
    assert parse_caption(text) == {"key": "B minor", "chords": "C G"}


@pytest.mark.parametrize("style", STYLES)
def test_what_was_not_measured_is_marked_as_such(style):
    given, heard = caption(style, {"key": "A minor"}), caption(style, {}, {"key": "A minor"})
    assert given != heard
    assert any(words in heard for words in ("hear", "By ear", "ears"))


def test_a_garbled_sentence_is_no_claim():
    assert unread("The key is A minor. The loudness is loud LUFS.") == ["The loudness is loud LUFS."]
    assert unread("A fast track at 120 BPM, in in 4/4; by ear: jazz, in C majr.") == ["in in 4/4", "in C majr"]
    assert parse_caption("The key is A minor. The loudness is loud LUFS.") == {"key": "A minor"}


@pytest.mark.parametrize("text", ["", NOTHING, "<think>", "By ear: ", "; by ear: ", "A track .", "\x00(((", "A (0:00)" * 500])
def test_reading_is_total(text):
    assert parse_caption(text) == {}


@pytest.mark.parametrize("style", STYLES)
def test_the_parsers_of_the_command_line_read_captions_too(style):
    facts = {"tempo": "143.7", "key": "F# minor", "meter": "7/8"}
    text = caption(style, facts, {"instruments": "piano drums", "vocals": "no"})
    assert (parsers.parse_tempo(text), parsers.parse_key(text).name, parsers.parse_meter(text)) == (143.7, "F# minor", "7/8")
