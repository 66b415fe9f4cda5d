"""What a language model writes of a song that it is told about: a caption, questions with answers, reasons."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mflamingo_cli.render.lyrics import beside
from mflamingo_cli.schema import Analysis
from mflamingo_cli.train.text_models import ChatWriter

CAPTION = (
    "Write a caption of four to six sentences about a song for people who know music. Use only the facts that are given, all of them, "
    "with their numbers and names as they are; claim nothing else. Answer with the caption alone."
)
QUESTIONS = (
    "Write {count} questions about a song that can be answered by listening to it, with short answers, from the facts that are given and "
    "nothing else: about what happens when, about tempo, key and meter, about harmony, about the voice and the words, about what changes. "
    'Answer with one JSON object a line, {{"question": "…", "answer": "…"}}, and nothing else.'
)
REASONS = (
    "You listen to a song and are asked a question about it, whose right answer is given with facts. Write in at most 120 words how one "
    "who hears the song comes to this answer, from what is heard to the conclusion. Do not mention that anything was given. Answer with "
    "the reasons alone."
)
N_QUESTIONS = 3
MOST_CHORDS, MOST_SECTIONS, MOST_LYRICS = 24, 12, 1500  # chords, sections, characters: a prompt is a page


@dataclass(frozen=True)
class SongWriter:
    """Writes of a song what is known of it; what is drawn at random depends on the seed alone."""

    writer: ChatWriter
    seed: int = 0

    @property
    def name(self) -> str:
        """Who writes."""
        return self.writer.name

    def caption(self, facts: Mapping[str, Any], record: Analysis, parts: list[str]) -> str | None:
        """Return a caption from facts and from captions of parts, None where nothing is known of a song."""
        known = told(facts, record) | ({"parts, as somebody described them": parts} if parts else {})
        return self.writer.complete(CAPTION, json.dumps(known, ensure_ascii=False), self.seed) if known else None

    def questions(self, facts: Mapping[str, Any], record: Analysis) -> list[tuple[str, str]]:
        """Return questions with their answers; lines that are none are left out."""
        known = told(facts, record)
        if not known:
            return []
        text = self.writer.complete(QUESTIONS.format(count=N_QUESTIONS), json.dumps(known, ensure_ascii=False), self.seed)
        return [pair for found in re.findall(r"\{[^{}]*\}", text) if (pair := _pair(found)) is not None]

    def reasons(self, question: str, answer: str, facts: Mapping[str, Any], record: Analysis) -> str:
        """Return how one comes to an answer."""
        known = {"question": question, "right answer": answer, "facts": told(facts, record)}
        return self.writer.complete(REASONS, json.dumps(known, ensure_ascii=False), self.seed)


def told(facts: Mapping[str, Any], record: Analysis) -> dict[str, Any]:
    """Return what a writer is told: sure facts, chords and sections with their times, tags, words that lie beside the song."""
    lyrics = beside(record.path) if record.path else None
    known = {
        **{name: fact["value"] for name, fact in facts.items()},
        "chords": [f"{chord.label} {chord.start:.1f} s" for chord in record.chords[:MOST_CHORDS]],
        "sections": [f"{part.label} {part.start:.0f}-{part.end:.0f} s" for part in record.sections[:MOST_SECTIONS]],
        "genre": list(record.genre),
        "instruments": list(record.instruments),
        "mood": list(record.mood),
        "lyrics": lyrics.plain[:MOST_LYRICS] if lyrics else "",
    }
    return {name: value for name, value in known.items() if value not in (None, "", [])}


def _pair(text: str) -> tuple[str, str] | None:
    try:
        entry = json.loads(text)
        question, answer = (entry[name].strip() for name in ("question", "answer"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (question, answer) if question and answer else None
