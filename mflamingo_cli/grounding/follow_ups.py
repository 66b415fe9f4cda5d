"""Follow-up questions: what is left out of a question is taken from the one before it, so that it can be read by itself.

"And at 0:20?" after "Which chord is at 0:10?" asks "Which chord is at 0:20?". What cannot be completed stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from mflamingo_cli.grounding.questions import BPM, CHANGES, CHORD, KEY, NTH, TIME, read

METER = r"(?P<meter>\d\d?/\d\d?)"
MOST_WORDS = 9  # of a question that leaves something out
_OPENING = r"^\W*(?:(?:and|or|so|but|then|ok(?:ay)?|what about|how about|all right),?\s+)*(?:then\s+)?"
_END = r"(?:\s+then)?\W*$"


class FollowUp(NamedTuple):
    """Words that leave something out, and the question that they ask: `\\g<name>` are words of it, `{name}` words of the one before."""

    words: re.Pattern[str]
    question: str


def _row(words: str, question: str) -> FollowUp:
    return FollowUp(re.compile(_OPENING + words + _END, re.IGNORECASE), question)


_ONE = r"(?:(?:which|what)(?: (?:one|is|comes|is the))*|the|is the)?\s*"
_CHANGES = rf"(?:does|will|is|has) (?:it|that|this) (?:ever )?{CHANGES}(?: (?:there|like that|the same|throughout|so))?"
TOPICS: Mapping[str, tuple[FollowUp, ...]] = {
    "tempo": (_row(_CHANGES, "Does the tempo change?"),),
    "key": (
        _row(_CHANGES, "Does the key change?"),
        _row(r"(?:(?:what|which) is )?(?:its|the) relative(?: one)?", "What is its relative key?"),
        _row(r"(?:is (?:it|that) )?(?:(?-i:an?) )?(?P<mode>major|minor)(?: key| one)?", r"Is it in a \g<mode> key?"),
        _row(rf"(?:is (?:it|that) )?(?:in )?{KEY}", r"Is it in \g<key>?"),
    ),
    "chord": (
        _row(r"how many(?: \w+){0,3}", "How many chords are there?"),
        _row(rf"{_ONE}(?:comes? )?{NTH}(?: one)?", r"What is the \g<nth> chord?"),
        _row(
            r"(?:(?:what are |which are )?(?:those|the ones) )?(?:of|in) (?:section|part) (?P<letter>[A-Z])",
            r"What are the chords of section \g<letter>?",
        ),
        _row(rf"(?:at|around) {TIME}", r"Which chord is at \g<time>?"),
    ),
    "section": (
        _row(r"how many(?: \w+){0,3}", "How many sections are there?"),
        _row(rf"(?:when|where) (?:does|do|is) (?:the )?{NTH}(?: one)?(?: \w+)?", r"When does the \g<nth> section begin?"),
        _row(r"(?:when|where) (?:does|is) (?P<letter>[A-Z])(?: \w+)?", r"When does section \g<letter> start?"),
        _row(r"does (?P<letter>[A-Z]) (?:come back|return|repeat)", r"Does section \g<letter> come back?"),
        _row(
            r"(?:does|is) (?:it|that)(?: one)? (?:ever )?(?:come back|return|repeated)(?: again| later)?",
            "Does section {letter} come back?",
        ),
    ),
    "meter": (_row(rf"(?:is it )?(?:in )?{METER}", r"Is it in \g<meter>?"),),
    "loudness": (
        _row(r"(?:and )?(?:the |its )?range", "What is the loudness range?"),
        _row(r"(?:(?:of|in|for) )?(?:section|part) (?P<letter>[A-Z])", r"How loud is section \g<letter>?"),
        _row(rf"(?:(?:of|in|for) )?(?:the )?{NTH} (?:section|part|one)", r"How loud is the \g<nth> section?"),
    ),
    "duration": (_row(rf"(?:is it )?than {TIME}", r"Is it longer than \g<time>?"),),
}
"""What may be left out after a question about each topic."""
ANY_TOPIC = (
    _row(r"how (?P<how>fast|slow|loud|quiet|long|dynamic|bright|busy|dense)", r"How \g<how> is it?"),
    _row(r"(?P<than>(?:longer|shorter|faster|slower|louder|quieter) than .+?)", r"Is it \g<than>?"),
    _row(r"it(?:'s| is) (?:not )?(?P<what>[^,]+), (?:is|isn't) it", r"Is it \g<what>?"),
    _row(r"(?:which|what) (?P<what>section|part|chord) is (?:that|it|this|playing|there)", r"Which \g<what> is at {time}?"),
)
VALUES = (METER, TIME, BPM, KEY, r"(?:section |part )?(?P<letter>[A-Z])", CHORD, NTH)
"""What a question may ask about another one of: "And in A minor?" after "Is it in C minor?"."""
OF_TWO = {"letter": "other", "nth": "other_nth"}
"""The words for the second of two things that are compared: "And than C?" asks about another one of those."""
_VALUE_ALONE = tuple(
    re.compile(rf"(?i:{_OPENING}(?:is it )?(?:at|in|(?P<than>than)|of|with|after|for)?\s*(?:the\s+)?){value}(?i:(?: bpm| one)?{_END})")
    for value in VALUES
)


def _topic(kind: str) -> str | None:
    names = {"pace": "tempo", "form": "section", "named_section": "section", "extreme": "loudness", "volume": "loudness"}
    first = names.get(kind, kind.split("_")[0])
    return next((topic for topic in (first, first.removesuffix("s")) if topic in TOPICS), None)


def completed(question: str, before: str | None) -> str:
    """The question with what it leaves out, by the one before it; as it is where it can be read alone, or not be completed either."""
    if before is None or len(question.split()) > MOST_WORDS:
        return question
    asked = read(before)
    words = {name: word for one in asked for name, word in one.words.items()}
    topics = [topic for one in reversed(asked) if (topic := _topic(one.name))]
    rows = [*(row for topic in topics for row in TOPICS[topic]), *ANY_TOPIC]
    found = (_filled(row, question, words) for row in rows)
    whole = next((one for one in found if one and read(one)), None) or _with_another_value(question, before)
    return whole or question


def _filled(row: FollowUp, question: str, words: Mapping[str, str]) -> str | None:
    match = row.words.match(question.strip())
    if match is None:
        return None
    try:
        return match.expand(row.question).format(**words)
    except KeyError:
        return None


def _with_another_value(question: str, before: str) -> str | None:
    """The question before with another value in the place of its own, where it can be read the same way then."""
    if read(question):
        return None
    for pattern in _VALUE_ALONE:
        match = pattern.match(question.strip())
        slots = match.groupdict() if match else {}
        second = slots.pop("than", None)
        for name, value in slots.items():
            asked = [one.words for one in read(before)]
            own = next(
                (
                    words[slot]
                    for slot in (OF_TWO.get(name, name) if second else name, name, f"{name}s")
                    for words in asked
                    if slot in words
                ),
                None,
            )
            whole = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", value, before) if own else before
            if whole != before and [one.name for one in read(whole)] == [one.name for one in read(before)]:
                return whole
    return None
