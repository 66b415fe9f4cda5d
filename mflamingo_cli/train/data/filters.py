"""What is wrong with a text that a model wrote of a song: a reason to leave it out, or None. Facts are those of a row, with confidences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from mflamingo_cli.claims import Reading, read_claims, sentences
from mflamingo_cli.train.rewards import JUDGED, sure_facts

LEAST_WORDS = 5  # of a caption
LEAST_REASONS = 12  # words of reasons: fewer name an answer and no reason
MOST_WRONG = 0.3  # of the claims of reasons (arXiv 2511.10289, section 3.3)
LOOP_WORDS, LOOP_TIMES = 6, 3
LEAST_LETTERS = 0.6  # of the characters of a text in words

Facts = Mapping[str, Any]


def _short(text: str, facts: Facts) -> str | None:
    return f"has fewer than {LEAST_WORDS} words" if len(text.split()) < LEAST_WORDS else None


def _no_words(text: str, facts: Facts) -> str | None:
    letters = sum(character.isalpha() for character in text if not character.isspace())
    return "contains no words" if letters < LEAST_LETTERS * len(re.sub(r"\s", "", text)) else None


def _repeats(text: str, facts: Facts) -> str | None:
    said = [text[start:end].strip().casefold() for start, end in sentences(text)]
    words = text.casefold().split()
    runs = Counter(tuple(words[at : at + LOOP_WORDS]) for at in range(len(words) - LOOP_WORDS + 1))
    if len(set(said)) < len(said):
        return "repeats a sentence"
    return "repeats itself" if max(runs.values(), default=0) >= LOOP_TIMES else None


def _wrong(text: str, facts: Facts) -> str | None:
    wrong = next((reading for reading, right in checked_claims(text, facts) if not right), None)
    return None if wrong is None else f"contradicts the {wrong.kind} that was measured"


def _unfounded(text: str, facts: Facts) -> str | None:
    known, guessed = sure_facts(facts), sure_facts(facts, least=0.0)
    for claim in read_claims(text):
        if claim.kind in JUDGED and claim.judged and claim.kind not in known:
            measured = guessed.get(claim.kind)
            if measured is None or JUDGED[claim.kind](measured, claim.value) == claim.denied:
                return f"claims a {claim.kind} that measurement does not support"
    return None


CAPTION_FILTERS: tuple[Callable[[str, Facts], str | None], ...] = (_short, _no_words, _repeats, _wrong, _unfounded)


def caption_flaw(text: str, facts: Facts) -> str | None:
    """Return why a caption or an answer in sentences is left out."""
    return next((reason for check in CAPTION_FILTERS if (reason := check(text, facts))), None)


def reasons_flaw(text: str, facts: Facts, name: str) -> str | None:
    """Return why reasons for the answer about the fact `name` are left out: at most 30 % of their claims may be wrong, that one never."""
    if len(text.split()) < LEAST_REASONS:
        return f"have fewer than {LEAST_REASONS} words"
    if reason := _no_words(text, facts) or _repeats(text, facts):
        return reason
    claims = checked_claims(text, facts)
    wrong = [reading for reading, right in claims if not right]
    if not claims:
        return "claim nothing that can be checked"
    if any(reading.kind == name for reading in wrong):
        return f"conclude another {name} than was measured"
    return f"are wrong in {len(wrong)} of {len(claims)} claims" if len(wrong) > MOST_WRONG * len(claims) else None


def checked_claims(text: str, facts: Facts) -> list[tuple[Reading, bool]]:
    """Return the claims of a text that a sure fact can check, and whether they are right."""
    known = sure_facts(facts)
    return [
        (reading, JUDGED[reading.kind](known[reading.kind], reading.value) != reading.denied)
        for reading in read_claims(text)
        if reading.kind in known and reading.kind in JUDGED and reading.judged
    ]
