"""Laws of claims: what a sentence says of the song, and what it only seems to say."""

from __future__ import annotations

import random

import pytest

from mflamingo_cli.claims import Reading, read_claims, sentences
from tests.docs import ROOT

CORPUS = [
    tuple(line.rsplit(" | ", 1))
    for line in (ROOT / "tests/data/claims.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def notation(reading: Reading) -> str:
    """A claim as the corpus writes it: `!key C major`, `?tempo 118..122`, `vocals no`."""
    value = reading.value
    if isinstance(value, bool):
        shown = "yes" if value else "no"
    elif isinstance(value, tuple):
        shown = "..".join("" if end is None else f"{end:g}" for end in value)
    else:
        shown = f"{value:g}" if isinstance(value, float) else value
    return f"{'!' if reading.denied else ''}{'' if reading.judged else '?'}{reading.kind} {shown}"


def test_the_corpus_is_large_and_holds_each_kind_asserted_denied_and_passed_over():
    claims = [claim for _, wanted in CORPUS for claim in wanted.split("; ")]
    assert len(CORPUS) >= 300
    assert {claim.lstrip("!?").split()[0] for claim in claims} == {
        "tempo", "key", "meter", "chords", "sections", "loudness", "clipping", "vocals", "duration", "-"
    }  # fmt: skip
    assert min(sum(claim.startswith(sign) for claim in claims) for sign in "!?-") >= 25


@pytest.mark.parametrize(("text", "wanted"), CORPUS)
def test_a_sentence_claims(text, wanted):
    assert sorted(map(notation, read_claims(text))) == sorted([] if wanted == "-" else wanted.split("; "))


def test_claims_of_a_text_are_those_of_its_sentences_at_their_places():
    chosen = [(text, wanted) for text, wanted in CORPUS if text.endswith(".") and wanted != "-"]
    text = " ".join(sentence for sentence, _ in chosen)
    found = read_claims(text)
    assert sorted(map(notation, found)) == sorted(claim for _, wanted in chosen for claim in wanted.split("; "))
    assert all(any(map(str.isalnum, text[reading.start : reading.end])) for reading in found)


def test_a_claim_stands_where_it_was_read():
    text = "It is  in **A\u2011minor**, at 87,5\u00a0BPM."
    assert [text[reading.start : reading.end] for reading in read_claims(text)] == ["A\u2011minor", "87,5\u00a0BPM"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It is in C. It is fast.", ["It is in C.", "It is fast."]),
        ("It runs at 128.5 BPM. Loud!", ["It runs at 128.5 BPM.", "Loud!"]),
        ("Approx. 128 BPM. B. B. King sings.", ["Approx. 128 BPM.", "B. B. King sings."]),
        ("A line\nAnother line", ["A line", "Another line"]),
        ('He said "no." Then it ends\u2026 Really?', ['He said "no."', "Then it ends\u2026", "Really?"]),
        ("It fades (slowly.) Then nothing", ["It fades (slowly.)", "Then nothing"]),
        ("", []),
        ("...", ["..."]),
    ],
)
def test_sentences_are_told_apart(text, wanted):
    assert [text[start:end] for start, end in sentences(text)] == wanted


def test_reading_never_fails_and_is_quick_on_any_text():
    rng = random.Random(0)
    words = [word for text, _ in CORPUS for word in text.split()]
    for _ in range(200):
        text = " ".join(rng.choice(words) for _ in range(rng.randrange(80)))
        cut = text[rng.randrange(len(text) + 1) :] + rng.choice(["", "\ud800", "\x00", "(" * 50, "not " * 50])
        assert all(0 <= reading.start < reading.end <= len(cut) for reading in read_claims(cut))
