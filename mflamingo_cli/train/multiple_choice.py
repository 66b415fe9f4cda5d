"""The answer to a question with options, read exactly: a letter or the words of one option; what fits several is wrong.

Sharps and flats are kept: "C# major" is not "C major".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mflamingo_cli.thinking import split_thinking

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?", re.ASCII)
_LABEL = re.compile(r"\(([A-Za-z])\)\s*|([A-Za-z])[).:]\s+", re.ASCII)
_KEPT = re.compile(r"(?:[^\w#♯♭+]|_)+")


def with_options(question: str, choices: Sequence[str]) -> str:
    """Return a question with its options, as Audio Flamingo 3 was trained on them (its static/mmar.json)."""
    options = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{question} Choose the correct option from the following options:\n{options}"


def normalized(text: str) -> str:
    """Return words in lower case with one space between, sharps as #; "B♭ minor!" -> "b♭ minor"."""
    text = unicodedata.normalize("NFKC", text).replace("♯", "#").casefold()
    return _KEPT.sub(" ", text.replace("'", "").replace("’", "")).strip()


def final_answer(text: str) -> str:
    """Return what stands in the last <answer>, or the whole text."""
    return split_thinking(text).answer or ""


def chosen(text: str, choices: Sequence[str]) -> int | None:
    """Return the number of the option that a reply chooses, or None: no option, or more than one.

    An option is named by its letter, "(B)", by its words, or by both, "B. C major", which then must agree; nothing else may stand there.
    """
    answer, letters = final_answer(text).strip(), LETTERS[: len(choices)].lower()
    if (match := _LETTER.fullmatch(answer)) and match[1].lower() in letters:
        return letters.find(match[1].lower())
    label, words = None, answer
    if (match := _LABEL.match(answer)) and (match[1] or match[2]).lower() in letters:
        label, words = letters.find((match[1] or match[2]).lower()), answer[match.end() :]
    same = [number for number, choice in enumerate(choices) if normalized(choice) == normalized(words)]
    return same[0] if len(same) == 1 and label in (None, same[0]) else None


def is_right(text: str, answer: str, choices: Sequence[str] = ()) -> bool:
    """Return whether a reply gives the expected answer: its option, or without options the same words and no others."""
    if not choices:
        return normalized(final_answer(text)) == normalized(answer)
    wanted = [number for number, choice in enumerate(choices) if normalized(choice) == normalized(answer)]
    return len(wanted) == 1 and chosen(text, choices) == wanted[0]
