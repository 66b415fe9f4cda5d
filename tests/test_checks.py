"""Laws of checks: no text says of a song what the facts deny, whole or as it is written; what is right is left word for word."""

from __future__ import annotations

import dataclasses
import random

import pytest

from mflamingo_cli.checks import JUDGES, NO_ANSWER, Check, CheckedStream, CheckOptions, wrong
from mflamingo_cli.claims import READERS
from mflamingo_cli.grounding.prose.phrases import RULES
from mflamingo_cli.measure import FACTS, Confidence, Facts, Key, Loudness, Segment, Tempo, Voices
from mflamingo_cli.schema import FormPart
from mflamingo_cli.thinking import split_thinking

CHORDS = tuple(Segment(float(at), at + 4.0, label) for at, label in enumerate(("C:maj", "G:maj", "A:min", "F:maj")))
KNOWN = Facts(
    Tempo(140.0, (70.0,)), Key("A", "minor"), (), None, "4/4", (), CHORDS,
    (FormPart(0.0, 32.0, "A"), FormPart(32.0, 64.0, "B")), Loudness(-9.8),
    confidence=Confidence(0.95, 0.95, 0.95),
)  # fmt: skip
UNSURE = dataclasses.replace(KNOWN, confidence=Confidence(0.5, 0.5, 0.5))
DURATION_S = 213.4
MARK, FULL = CheckOptions("mark"), CheckOptions("fix", grounded=True, describes=True, complete=True)
ANSWER = CheckOptions("fix", grounded=True)


def shown(text: str, options: CheckOptions, facts: Facts | None = KNOWN) -> str:
    return Check.whole(text, facts, DURATION_S, options)[0]


def agreement(text: str, facts: Facts | None = KNOWN) -> list[bool | None]:
    return [claim.agrees for claim in Check.whole(text, facts, DURATION_S, MARK)[1]]


def test_a_text_is_held_to_who_sings() -> None:
    sung = dataclasses.replace(KNOWN, vocals=Voices(True), confidence=Confidence(0.95, 0.95, 0.95, 0.9))
    assert agreement("An instrumental track. A woman sings. Without vocals.", sung) == [False, True, False]
    assert agreement("An instrumental track.", dataclasses.replace(sung, confidence=Confidence(0.95, 0.95, 0.95, 0.7))) == [None]
    assert shown("It is purely instrumental.", FULL, sung) == "The tempo is 140 BPM. It is in A minor. Somebody sings."
    quiet = dataclasses.replace(sung, vocals=Voices(False))
    assert shown("It is at 140 BPM in A minor, with a singer.", FULL, quiet) == "It is at 140 BPM in A minor. Nobody sings."


def test_what_can_be_claimed_can_be_judged_and_every_fact_can_be_claimed():
    assert JUDGES.keys() == READERS.keys()
    assert FACTS.keys() - {"beats", "keys", "scale", "dynamics", "tags"} <= JUDGES.keys()  # too many; by `key`; absence is not known
    assert {rule.removeprefix("fact_") for rule in RULES if rule.startswith("fact_")} <= JUDGES.keys()


@pytest.mark.parametrize(
    ("text", "agrees"),
    [
        ("It runs at 140 BPM.", [True]),
        ("It runs at 145.6 BPM.", [True]),  # 4 % is the tolerance of the field
        ("It runs at 150 BPM.", [False]),
        ("Between 135 and 145 BPM.", [True]),
        ("It is faster than 120 BPM.", [True]),
        ("It is slower than 120 BPM.", [False]),
        ("It is 70 BPM.", [False]),
        ("It is felt at 70 BPM, in half-time.", [True]),
        ("It is 140 BPM, or 70 BPM.", [True, True]),
        ("It is not 140 BPM.", [False]),
        ("It is not 120 BPM.", [True]),
        ("The bridge drops to 60 BPM.", [None]),
        ("It is in A minor.", [True]),
        ("It is in C major.", [False]),
        ("It is not in C major but in A minor.", [True, True]),
        ("It is in 4/4, not 3/4.", [True, True]),
        ("It is in 3/4.", [False]),
        ("The chords are C, G, Am and F.", [True] * 4),
        ("It is at -9.5 LUFS.", [True]),
        ("It is at -14 LUFS.", [False]),
        ("It lasts 3:33.", [True]),
        ("It lasts about 4 minutes.", [True]),
        ("It lasts 2 minutes.", [False]),
        ("A (0:00) and B (0:32).", [True, True]),
        ("Nobody sings.", [None]),
        ("This track is fast, at 140 BPM.", [True, True]),
        ("At 140 BPM this is a slow track.", [True, False]),
        ("A fast solo at 140 BPM.", [None]),
        ("No voice is heard.", [None]),
        ("The voice leading is smooth.", []),
        ("It feels energetic.", []),
    ],
)
def test_a_claim_agrees_with_what_was_measured(text, agrees):
    assert agreement(text) == agrees


@pytest.mark.parametrize("text", ["It runs at 150 BPM.", "It is in C major.", "It is in 3/4."])
def test_what_is_not_sure_contradicts_nothing(text):
    assert agreement(text, UNSURE) == [None]
    assert agreement(text, None) == [None]


def test_a_marked_text_stays_as_it_is_and_each_contradiction_is_named_once():
    text = "It is in C major, at 150 BPM. It is in C major! It lasts"
    kept, claims = Check.whole(text, KNOWN, DURATION_S, MARK)
    assert kept == text
    assert wrong(claims) == ["the text says C major, measured A minor", "the text says 150 BPM, measured 140 BPM"]
    assert [claim.text for claim in claims] == ["C major", "150 BPM", "C major"]


def test_lengths_are_told_as_times():
    _, claims = Check.whole("It lasts over 5 minutes.", KNOWN, 128.0, MARK)
    assert wrong(claims) == ["the text says over 5:00, measured 2:08"]
    _, claims = Check.whole("It lasts 1:04:10.", KNOWN, 3850.0, MARK)
    assert wrong(claims) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It is slow, at 60 BPM. I hear drums.", "I hear drums. The tempo is 140 BPM. It is in A minor."),
        ("It runs at 140 BPM. It is in A minor.", "It runs at 140 BPM. It is in A minor."),
        ("I hear drums. I hear drums. It is in A minor.", "I hear drums. It is in A minor. The tempo is 140 BPM."),
        ("It is in A minor, at 140 BPM. It is loud and the", "It is in A minor, at 140 BPM."),
        ("Nobody sings.", "The tempo is 140 BPM. It is in A minor."),  # no voice was measured
        ("At 140 BPM in A minor. Chords are C and Bb.", "At 140 BPM in A minor. Its main chords are C, G, Am and F."),
        ("At 140 BPM in A minor. The bridge is in F minor.", "At 140 BPM in A minor."),
        (
            "A track at 140 BPM, in A minor, lasting 3:33; by ear: in 3/4, with drums.",
            "A track at 140 BPM, in A minor, lasting 3:33; by ear: with drums. It is in 4/4.",
        ),
        ("A track at 140 BPM, in A minor, in 4/4; by ear: without singing.", "A track at 140 BPM, in A minor, in 4/4."),
        ("It is at 140 BPM in A minor. No voice is heard.", "It is at 140 BPM in A minor."),
        ("I hear it in A minor. The key is A minor. The tempo is 140 BPM.", "I hear it in A minor. The tempo is 140 BPM."),
        ("At 140 BPM this is a slow track. It is in A minor.", "It is in A minor. The tempo is 140 BPM."),
        (  # the same words again, in one sentence
            "At 140 BPM in A minor, on the chords C, G, Am and F; by ear: on the chords C, G, Am and F; by ear: with bass.",
            "At 140 BPM in A minor, on the chords C, G, Am and F; by ear: with bass.",
        ),
        (
            "At 140 BPM in A minor, on the chords C, G, Am and F; by ear: rock, on the chords C, G, Am and F.",
            "At 140 BPM in A minor, on the chords C, G, Am and F; by ear: rock.",
        ),
        (
            "At 140 BPM in A minor, on the chords C, G, Am and F; by ear: on the chords C, G, Am and F.",
            "At 140 BPM in A minor, on the chords C, G, Am and F.",
        ),
    ],
)
def test_a_description_is_put_right(text, wanted):
    assert shown(text, FULL) == wanted
    assert all(claim.agrees for claim in Check.whole(text, KNOWN, DURATION_S, FULL)[1])


def test_what_is_put_in_says_how_sure_it_is():
    assert shown("I hear drums.", FULL, UNSURE) == "I hear drums. The tempo is perhaps 140 BPM. It is perhaps in A minor."


def test_a_key_that_was_not_measured_is_not_told():
    assert (
        shown("It sounds like A major. I hear drums.", FULL, dataclasses.replace(KNOWN, key=None)) == "I hear drums. The tempo is 140 BPM."
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It is in C major.", "It is in A minor."),
        ("A minor", "A minor"),
        ("140", "140"),
        ("It lasts 10 minutes.", NO_ANSWER),
        ("C major would mix well with it.", "C major would mix well with it."),
        (NO_ANSWER, NO_ANSWER),
    ],
)
def test_an_answer_is_put_right_or_withdrawn(text, wanted):
    assert shown(text, ANSWER) == wanted


def test_dropping_puts_nothing_in():
    assert shown("It is in C major. I hear drums.", CheckOptions("drop", True, True, True)) == "I hear drums."


def test_raw_text_is_not_read():
    text = "It is in C major. It is in C major. It"
    assert Check.whole(text, KNOWN, DURATION_S, CheckOptions("raw", True, True, True)) == (text, ())


def test_a_model_that_was_told_nothing_may_name_what_was_not_measured():
    text = "The bridge moves to Ab and Bb. Nobody sings."
    assert shown(text, CheckOptions("drop", describes=True)) == text


@pytest.mark.parametrize("options", [MARK, FULL, ANSWER, CheckOptions("raw"), CheckOptions("drop", describes=True)])
def test_a_text_is_shown_as_it_comes_as_it_is_in_the_end(options):
    rng = random.Random(0)
    sentences = [
        "It is in A minor.",
        "It is in C major!",
        "I hear drums.",
        "Approx. 140 BPM?",
        "Why\u2026",
        "And so",
        "B. B. King sings.",
        "\n",
    ]
    for _ in range(200):
        text = " ".join(rng.choice(sentences) for _ in range(rng.randrange(7)))
        check = Check(KNOWN, DURATION_S, options)
        stream, pieces, at = CheckedStream(check), "", 0
        while at < len(text):
            size = rng.randrange(1, 9)
            pieces += stream.feed(text[at : at + size], ended=False)[0]
            at += size
        pieces += stream.feed("", ended=True)[0]
        assert pieces.strip() == shown(text, options)
        assert stream.text == text


def test_a_sentence_is_shown_when_the_next_begins():
    check = Check(KNOWN, DURATION_S, MARK)
    assert [check.feed(text) for text in ("It is in C", " major. ", "I")] == ["", "", "It is in C major."]
    assert check.claims[0].agrees is False


def test_reasons_pass_as_they_come_and_the_answer_is_held_until_it_is_checked():
    stream = CheckedStream(Check(KNOWN, DURATION_S, ANSWER), thinks=True)
    pieces = ["<think>It could be C ", "major.</think><answer>It is in C", " major.</answer>"]
    shown = [stream.feed(piece, ended=piece is pieces[-1])[0] for piece in pieces]
    assert shown[:2] == ["<think>It could be C ", "major."]
    assert split_thinking("".join(shown)) == ("It could be C major.", "It is in A minor.", False)
    assert stream.text == "".join(pieces)


def test_wrong_words_are_named_with_the_piece_that_has_them():
    stream = CheckedStream(Check(KNOWN, DURATION_S, MARK))
    assert stream.feed("It is in C major. Loud", ended=False) == ("It is in C major.", ("C major",))
    assert stream.feed(".", ended=True) == (" Loud.", ())
