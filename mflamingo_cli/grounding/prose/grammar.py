"""The engine of the phrase grammar: rules with alternatives -> one sentence whose every slot is known.

A rule is a block of lines, one alternative each: `conditions | text`. A text holds slots `{bpm}`, other rules `<pace>` (`<pace?>`: left
out where it cannot be said) and `a/an`. A line can be said where its conditions hold, `!` before one denies it, and all its slots are
known; `+voice` among the conditions is a slot whose fact the line tells in other words, `~` marks a plain line, said where no other can.

No fact is told twice: each slot belongs to one, and a line that tells a fact which an earlier sentence told is not said any more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from math import log
from random import Random

_PART = re.compile(r"\{(?P<slot>\w+)\}|<(?P<rule>\w+)(?P<optional>\??)>")
_ARTICLE = re.compile(r"\b([aA])/an (?=(\S+))")
_VOWEL_LETTER = re.compile(r"[AEF][#b]?(?:m|maj|min|dim|aug|sus|\d|\b)(?![a-z]{2})|F#|[AEFHILMNORSX]\d")  # spoken: an E minor, an F, an A7
_VOWEL_WORD = re.compile(r"(?:[aeo]|i(?![-v]|i)|u(?!n[ia]|s[ei])|8|11(?!\d)|18(?!\d)|1[18]\d{3}\b|hour|honest)", re.IGNORECASE)
_ROMAN = re.compile(r"[b#]?[ivIV]+[°+]?(?:-|\b)")
FRESH = 12  # times as likely is a line for each fact that it tells,
PLAIN = 1e-6  # times as likely is a plain line
FIRST = {"tempo": 3, "key": 3}  # of which these count as so many: what musicians ask first is told where one line alone is said


@dataclass(frozen=True)
class Line:
    """One alternative of a rule: its text, the conditions that must and must not hold, its slots and the rules of its parts."""

    text: str
    holds: frozenset[str]
    fails: frozenset[str]
    slots: tuple[str, ...]
    parts: tuple[str, ...]
    plain: bool


@cache
def parse_rule(block: str) -> tuple[Line, ...]:
    """Read a block of alternatives."""
    return tuple(_line(line) for line in map(str.strip, block.strip().splitlines()) if line and not line.startswith("#"))


def _line(line: str) -> Line:
    conditions, bar, text = line.rpartition("|")
    words = conditions.split() if bar else []
    return Line(
        text.strip("\n").lstrip() if bar else line,
        frozenset(word for word in words if word[0] not in "!+~"),
        frozenset(word[1:] for word in words if word[0] == "!"),
        (*(word[1:] for word in words if word[0] == "+"), *(match["slot"] for match in _PART.finditer(text) if match["slot"])),
        tuple(match["rule"] for match in _PART.finditer(text) if match["rule"]),
        "~" in words,
    )


@dataclass(frozen=True)
class Sayable:
    """What may be said: values of slots, conditions that hold, and the fact that each slot tells ("" for none)."""

    slots: Mapping[str, str]
    conditions: Collection[str]
    tells: Mapping[str, str]

    def with_slots(self, slots: Mapping[str, str], conditions: Collection[str]) -> Sayable:
        """The same with what holds of one part of the song."""
        return Sayable({**self.slots, **slots}, {*self.conditions, *conditions}, self.tells)


class Composer:
    """Writes the sentences of one text: draws alternatives, remembers which facts are told and which lines were used."""

    def __init__(self, rules: Mapping[str, str], rng: Random) -> None:
        self._rules, self._rng = rules, rng
        self._used: set[Line] = set()
        self.told: set[str] = set()

    def sentence(self, rule: str, known: Sayable) -> str | None:
        """A sentence of a rule that tells nothing that was told; None where there is none. What it tells is told from now on."""
        said = self._expand(rule, known)
        if said is None:
            return None
        text, told = said
        self.told |= told
        return finish(text)

    def _expand(self, rule: str, known: Sayable) -> tuple[str, set[str]] | None:
        """The first drawn alternative that can be said, and the facts that it tells.

        Drawn by weight without replacement (Efraimidis and Spirakis 2006), as logarithms: small weights do not become 0.
        """
        lines = [line for line in parse_rule(self._rules[rule]) if self._can_be_said(line, known)]
        weighed = sorted(lines, key=lambda line: log(1 - self._rng.random()) / self._weight(line, known), reverse=True)
        for line in weighed:
            if said := self._fill(line, known):
                self._used.add(line)
                return said
        return None

    def _can_be_said(self, line: Line, known: Sayable) -> bool:
        return (
            line.holds <= set(known.conditions)
            and not line.fails & set(known.conditions)
            and all(slot in known.slots and known.tells.get(slot) not in self.told for slot in line.slots)
        )

    def _weight(self, line: Line, known: Sayable) -> float:
        """Lines that tell more are likelier, those that were used hardly likely at all."""
        told = sum(FIRST.get(fact, 1) for fact in self._facts(line, known))
        return float(FRESH**told) * (0.01 if line in self._used else 1.0) * (PLAIN if line.plain else 1.0)

    def _facts(self, line: Line, known: Sayable) -> set[str]:
        """The facts that a line tells, or may tell in one of its parts."""
        facts = {known.tells[slot] for slot in line.slots if known.tells.get(slot)}
        parts = [part for rule in line.parts for part in parse_rule(self._rules[rule]) if self._can_be_said(part, known)]
        return facts.union(*(self._facts(part, known) for part in parts)) if parts else facts

    def _fill(self, line: Line, known: Sayable) -> tuple[str, set[str]] | None:
        """The text of a line with all its parts, or None where one cannot be said."""
        told = {known.tells[slot] for slot in line.slots if known.tells.get(slot)}
        text, at = "", 0
        for match in _PART.finditer(line.text):
            text += line.text[at : match.start()]
            at = match.end()
            if match["slot"]:
                text += known.slots[match["slot"]]
                continue
            part = self._expand(match["rule"], known)
            if part is None and not match["optional"]:
                return None
            text += part[0] if part else ""
            told |= part[1] if part else set()
        return text + line.text[at:], told


def finish(text: str) -> str:
    """A sentence with its articles chosen, no space where a part was left out, its first letter a capital and its full stop."""
    text = _ARTICLE.sub(lambda match: f"{match[1]}{article(match[2])[1:]} ", re.sub(r" (?=[.,;])", "", re.sub(r"\s+", " ", text)).strip())
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def article(word: str) -> str:
    """`a` or `an` before a word, a number, a chord, a key or a Roman numeral, as they are spoken."""
    if _ROMAN.match(word) and not re.match(r"[b#]?[ivIV]+[a-z]", word):
        return "a"  # i-VI-III-VII is spoken "one, six, three, seven"
    return "an" if _VOWEL_LETTER.match(word) or _VOWEL_WORD.match(word) else "a"
