"""Analysed songs -> rows to train on: questions for each fact that is sure, captions that agree with what was measured, reasons.

In the order of MF-Skills (arXiv 2511.10289, section 3.2): captions of parts and of the whole, facts, lyrics beside the songs; questions and
captions by the program's own phrases or a writer's; a filter that keeps its reasons. Every row says where each of its fields comes from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli.assemble import facts_in
from mflamingo_cli.grounding.prose.captions import STYLES, write_caption
from mflamingo_cli.render.lyrics import beside
from mflamingo_cli.schema import Analysis
from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.thinking import think_prompt
from mflamingo_cli.train.data.filters import caption_flaw, reasons_flaw
from mflamingo_cli.train.data.formats import ROWS
from mflamingo_cli.train.data.skills import SKILLS, Skill, lyric_questions
from mflamingo_cli.train.data.writer import SongWriter
from mflamingo_cli.train.multiple_choice import LETTERS, with_options
from mflamingo_cli.train.rewards import SURE

SPLITS = {"train": 0.9, "dev": 0.05, "test": 0.05}
OPTIONS = 4
OWN = "mflamingo"  # who asks, and reasons without a writer
REASONED = "<think>{reasons}</think>\n<answer>{answer}</answer>"  # what the reward `format` pays

Row = dict[str, Any]


@dataclass(frozen=True)
class LabelOptions:
    """What is made of a song. What is drawn at random depends on the seed and the song alone."""

    seed: int = 0
    writer: SongWriter | None = None
    think: bool = False


@dataclass(frozen=True)
class Labels:
    """Rows of one song, and what was left out: (what, why)."""

    rows: list[Row]
    dropped: list[tuple[str, str]]


def labels_of(record: Analysis, options: LabelOptions | None = None, parts: Sequence[Analysis] = ()) -> Labels:
    """Return the rows of an analysed song and of its parts that were described."""
    if record.error is not None or record.path is None or record.audio is None:
        return Labels([], [("song", record.error.message if record.error else "there is no song")])
    labels = _SongLabels(record, options or LabelOptions())
    labels.ask_facts()
    labels.ask_lyrics()
    labels.describe(parts)
    return Labels(labels.shared(), labels.dropped)


class _SongLabels:
    """The rows of a song as they are made."""

    def __init__(self, record: Analysis, options: LabelOptions) -> None:
        self.record, self.options, self.facts = record, options, facts_of(record)
        self.rng = np.random.default_rng([options.seed, _number(str(record.audio_id or record.path))])
        self.rows: list[Row] = []
        self.dropped: list[tuple[str, str]] = []

    def ask_facts(self) -> None:
        """Ask for each sure fact: plainly, with options, and for reasons."""
        for name, skill in SKILLS.items():
            value, confidence = skill.value(self.record), skill.confidence(self.record) or 0.0
            if value is None:
                self.dropped.append((name, "is not known"))
            elif confidence < SURE:
                self.dropped.append((name, f"is {value} with a confidence of {confidence:.2f}, below {SURE}"))
            else:
                self._ask_fact(name, skill, value, f"measured, {confidence:.2f}")

    def _ask_fact(self, name: str, skill: Skill, value: str, origin: str) -> None:
        question = str(self.rng.choice(skill.questions))
        self.add(name, question, value, origin, answer=value)
        near = list(self.rng.permutation(skill.near(value)))
        question, choices, chosen = self._options(str(self.rng.choice(skill.questions)), value, near)
        self.add(f"{name}-choice", question, chosen, origin, answer=value, choices=choices)
        if self.options.think:
            self._reason(name, skill, value, origin)

    def _reason(self, name: str, skill: Skill, value: str, origin: str) -> None:
        question, writer = str(self.rng.choice(skill.questions)), self.options.writer
        text = writer.reasons(question, value, self.facts, self.record) if writer else skill.reasons(self.record, value)
        if reason := reasons_flaw(text, self.facts, name):
            self.dropped.append((f"reasons for the {name}, {writer.name if writer else OWN}", reason))
        else:
            answer = REASONED.format(reasons=text, answer=value)
            self.add(f"{name}-think", think_prompt(question), answer, origin, answer=value, reasons=writer.name if writer else OWN)

    def _options(self, question: str, value: str, others: Sequence[str]) -> tuple[str, list[str], str]:
        """Return a question with options in an order that is drawn, the options, and the right one with its letter."""
        options = [value, *dict.fromkeys(other for other in others if other != value)][:OPTIONS]
        shuffled = [str(options[at]) for at in self.rng.permutation(len(options))]
        return with_options(question, shuffled), shuffled, f"({LETTERS[shuffled.index(value)]}) {value}"

    def ask_lyrics(self) -> None:
        """Ask for the words that lie beside the song: all of them, and lines of them."""
        lyrics = beside(self.record.path or "")
        if lyrics is None or not lyrics.plain:
            return
        self.add("lyrics", CAPTION_STYLES["lyrics"], lyrics.plain, lyrics.path)
        for asked in lyric_questions(lyrics, self.rng):
            self.add(asked.task, asked.question, asked.answer, lyrics.path, answer=asked.answer)
            if asked.others:
                others = list(self.rng.permutation(asked.others))
                question, choices, chosen = self._options(asked.question, asked.answer, others)
                self.add(f"{asked.task}-choice", question, chosen, lyrics.path, answer=asked.answer, choices=choices)

    def describe(self, parts: Sequence[Analysis]) -> None:
        """Add captions of parts and of the whole by the model, in every style by the phrase grammar, and what a writer makes of them."""
        texts = []
        for part in parts:
            if text := _caption(part):
                texts.append(text)
                self._describe("caption-part", text, _captioned_by(part), part, facts_of(part))
        if text := _caption(self.record):
            self._describe("caption", text, _captioned_by(self.record), self.record, self.facts)
        assert self.record.audio is not None
        duration_s = self.record.audio.end - self.record.audio.start
        own = "full" if self.record.caption_source == "measured" else None  # there already
        for style in [style for style in STYLES if self.facts and style != own]:
            text = write_caption(style, facts_in(self.record), duration_s, self.options.seed)
            self._describe(f"caption-{style}", text, OWN, self.record, self.facts, CAPTION_STYLES[style])
        if (writer := self.options.writer) is not None:
            if written := writer.caption(self.facts, self.record, texts):
                self._describe("caption", written, writer.name, self.record, self.facts)
            for question, answer in writer.questions(self.facts, self.record):
                self._describe("question", answer, writer.name, self.record, self.facts, question, asked_by=writer.name)

    def _describe(
        self, task: str, text: str, origin: str, record: Analysis, facts: Mapping[str, Any], question: str = "", asked_by: str = OWN
    ) -> None:  # fmt: skip
        flaw = caption_flaw(f"{question} {text}" if question else text, facts)
        if flaw:
            self.dropped.append((f"{task}, {origin}", flaw))
        else:
            row = self.add(task, question or CAPTION_STYLES["full"], text, origin, asked_by=asked_by)
            row.update(_part(record), facts=facts)

    def add(
        self, task: str, question: str, said: str, origin: str, *, asked_by: str = OWN, reasons: str | None = None, **more: Any
    ) -> Row:  # fmt: skip
        """Add a row: a question, what is said to it, and where either comes from; `more` are further fields of the row."""
        same = sum(row["task"] == task for row in self.rows)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": said}]
        provenance = {"question": asked_by, "answer": origin, **({"reasons": reasons} if reasons else {})}
        row = {
            "format": ROWS, "id": f"{self.record.audio_id}/{task}" + (f"/{same + 1}" if same else ""), "audio": self.record.path,
            **_part(self.record), "task": task, "messages": messages, **more, "provenance": provenance,
        }  # fmt: skip
        self.rows.append(row)
        return row

    def shared(self) -> list[Row]:
        """Return the rows with what all of a song have: its facts, tags, group and split."""
        group, named_by = _group(self.record)
        tags = _tags(self.record)
        whole = {"facts": self.facts, "tags": tags, "group": group, "split": split_of(group, self.options.seed)}
        origins = {"facts": "measured", "group": named_by, **({"tags": _tagged_by(self.record)} if tags else {})}
        return [
            {key: value for key, value in (whole | row).items() if value not in (None, {}, [])}
            | {"provenance": row["provenance"] | {name: origin for name, origin in origins.items() if whole.get(name) or name == "group"}}
            for row in self.rows
        ]


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def _part(record: Analysis) -> dict[str, float]:
    """The part of the file that a record is about, nothing for the whole."""
    audio = record.audio
    assert audio is not None
    return {"start": audio.start, "end": audio.end} if audio.start > 0 or audio.end < audio.duration else {}


def _caption(record: Analysis) -> str | None:
    return record.text if record.command == "caption" and record.text else record.result.caption if record.result else None


def _captioned_by(record: Analysis) -> str:
    """Who wrote the caption of a record: the program, from facts, or the model."""
    return OWN if record.caption_source == "measured" else _model(record)


def _model(record: Analysis) -> str:
    return record.model.id if record.model else "a model"


def facts_of(record: Analysis) -> dict[str, Any]:
    """Return facts with their confidence, as the reward `facts` reads them."""
    found = {
        "tempo": (record.tempo.bpm if record.tempo.source == "measured" else None, record.tempo.confidence),
        "key": (record.key.name if record.key.source == "measured" else None, record.key.confidence),
        "meter": (record.meter.value if record.meter.source == "measured" else None, record.meter.confidence),
        "vocals": (record.vocals.present if record.vocals.source == "measured" else None, record.vocals.confidence),
    }
    return {name: {"value": value, "confidence": confidence} for name, (value, confidence) in found.items() if value is not None}


def _tags(record: Analysis) -> dict[str, list[str]]:
    found = {"genre": record.genre, "instruments": record.instruments, "mood": record.mood}
    return {name: list(values) for name, values in found.items() if values}


def _tagged_by(record: Analysis) -> str:
    """Whether tags were measured, or named by a model."""
    return ", ".join(sorted({"measured" if tag.source == "measured" else _model(record) for tag in record.tags})) or _model(record)


def _group(record: Analysis) -> tuple[str, str]:
    """Who made a song, or the folder it lies in, and which of the two: songs of one group stand in one split."""
    tags = record.audio.tags if record.audio else None
    return (tags.artist, "artist") if tags and tags.artist else (Path(record.path or "").resolve().parent.name, "folder")


def split_of(group: str, seed: int) -> str:
    """Return the split of a group, the same for a seed whatever other groups there are."""
    at = int(hashlib.sha256(f"{seed}:{group.casefold()}".encode()).hexdigest()[:8], 16) / 2**32
    for name, share in SPLITS.items():
        if at < share:
            return name
        at -= share
    return "train"


def parts_of(start_s: float, end_s: float, count: int, length_s: float = 30.0) -> Iterator[tuple[float, float]]:
    """Yield so many parts of half a minute, evenly over a song; none of a song that is hardly longer than one (the paper's stage 1)."""
    spare = end_s - start_s - length_s
    for number in range(count if spare >= length_s else 0):
        start = start_s + spare * (number + 0.5) / count
        yield round(start, 2), round(start + length_s, 2)
