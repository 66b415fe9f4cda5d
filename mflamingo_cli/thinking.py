"""Separates reasoning from answer, in a whole reply or in a stream.

The text of a model is hostile input: everything here is total, whatever the text.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

THINK_SUFFIX: Final = " Output the thinking process in <think> </think> and final answer in <answer> </answer>."  # documented, exact
CLOSE_THINKING: Final = "</think> Hence, the final answer is: <answer>"  # what think checkpoints write between reasoning and answer


class Thought(NamedTuple):
    """A reply taken apart; `truncated` says that the reasoning never ended, so there is no answer."""

    thinking: str | None
    answer: str | None
    truncated: bool


_TAG = re.compile(r"<\s{0,2}(/?)\s{0,2}(think|answer)\s{0,2}>", re.IGNORECASE)


def think_prompt(question: str) -> str:
    """The question with the documented suffix that asks for a reasoning trace."""
    return question.rstrip() + THINK_SUFFIX


def split_thinking(text: str) -> Thought:
    """Take a reply apart, leniently: the last <answer>, else what follows </think>, else everything."""
    tags = [(m[2].lower(), bool(m[1]), m.start(), m.end()) for m in _TAG.finditer(text)]
    opened = next((t for t in tags if t[:2] == ("think", False)), None)
    closed = next((t for t in reversed(tags) if t[:2] == ("think", True)), None)
    answers = [t for t in tags if t[:2] == ("answer", False)]
    if opened is None and closed is None and not answers:
        return Thought(None, _TAG.sub("", text).strip() or None, False)
    first_answer = answers[0][2] if answers else len(text)
    start = opened[3] if opened else 0
    end = closed[2] if closed and closed[2] >= start else max(first_answer, start)
    thinking = _TAG.sub("", text[start:end]).strip() or None if opened or closed else None
    if answers:
        body_start = answers[-1][3]
        ends = [t[2] for t in tags if t[:2] == ("answer", True) and t[2] >= body_start]
        answer = text[body_start : ends[0] if ends else len(text)]
    elif closed:
        answer = text[closed[3] :]
    else:
        return Thought(thinking, None, True)
    return Thought(thinking, _TAG.sub("", answer).strip() or None, False)


_SPLIT_TAG = re.compile(r"<\s{0,2}/?\s{0,2}[a-z]{0,6}\s{0,2}$", re.IGNORECASE)


class ThoughtStream:
    """Separates reasoning from answer while a reply arrives: `feed` gives (is_answer, text) pieces, `end` what was held back."""

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"  # start, think, between, answer, done

    @property
    def thinks(self) -> bool:
        """Whether the text so far ends within the reasoning."""
        return self._state == "think"

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Take the next piece; a tag cut in two is held until it is whole."""
        text, self._held = self._held + text, ""
        out: list[tuple[bool, str]] = []
        while match := _TAG.search(text):
            self._add(out, text[: match.start()])
            self._turn(match[2].lower(), bool(match[1]))
            text = text[match.end() :]
        cut = _SPLIT_TAG.search(text)
        keep = cut.start() if cut else len(text)
        if self._state == "between":  # "Hence, the final answer is:" is the answer only if no <answer> follows
            keep = 0
        self._add(out, text[:keep])
        self._held = text[keep:]
        return [piece for piece in out if piece[1]]

    def end(self) -> list[tuple[bool, str]]:
        """What is left when the reply has ended."""
        held, self._held = self._held, ""
        return [(self._state != "think", held)] if held and self._state != "done" else []

    def _turn(self, tag: str, closing: bool) -> None:
        if tag == "think":
            self._state = "between" if closing else "think"
        else:
            self._state = "done" if closing else "answer"

    def _add(self, out: list[tuple[bool, str]], text: str) -> None:
        if self._state == "start" and text.strip():
            self._state = "answer"
        if self._state in ("think", "answer"):
            out.append((self._state == "answer", text))
