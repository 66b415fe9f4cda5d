"""Analysed songs -> rows to train on: questions for each fact that is sure, captions that agree with what was measured.

In the order of MF-Skills (arXiv 2511.10289, section 3.2): captions and facts are those of records, lyrics lie beside the songs, words are
the program's own questions and the shortest answers to them or a writer's, and what a filter leaves out is kept with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli.claims import sentences
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.parsers import parse_key
from mflamingo_cli.render.lyrics import beside
from mflamingo_cli.schema import Analysis
from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.tasks import TASKS
from mflamingo_cli.text import number
from mflamingo_cli.train import rewards
from mflamingo_cli.train.data.formats import ROWS
from mflamingo_cli.train.data.row import QuestionAnswer, TrainingRow
from mflamingo_cli.train.multiple_choice import LETTERS, with_options
from mflamingo_cli.train.rewards import SURE

SPLITS = {"train": 0.9, "dev": 0.05, "test": 0.05}
LEAST_WORDS = 5  # of a caption
METERS = ("2/4", "3/4", "4/4", "6/8")

Writer = Callable[[Mapping[str, Any], Analysis], str | None]  # facts and record -> a caption


@dataclass(frozen=True)
class Labels:
    """Rows of one song, and what was left out: (what, why)."""

    rows: list[dict[str, Any]]
    dropped: list[tuple[str, str]]


@dataclass(frozen=True)
class Skill:
    """A fact that is asked for: its value in a record, how sure it is, and wrong values that are near it."""

    value: Callable[[Analysis], str | None]
    confidence: Callable[[Analysis], float | None]
    near: Callable[[str], list[str]]


def _near_tempi(value: str) -> list[str]:
    """The tempi that are most often mistaken for one."""
    bpm = float(value)
    return [number(round(bpm * ratio, 2)) for ratio in (0.5, 2.0, 2 / 3, 1.25)]


def _near_keys(value: str) -> list[str]:
    """The relative, the parallel and the two neighbours in fifths."""
    key = parse_key(value)
    if key is None:
        return []
    other = "minor" if key.mode == "major" else "major"
    relative = Key.of(key.pitch + (9 if key.mode == "major" else 3), other)
    found = (relative, Key.of(key.pitch, other), Key.of(key.pitch + 7, key.mode), Key.of(key.pitch + 5, key.mode))
    return [near.name for near in found]


SKILLS: Mapping[str, Skill] = {
    "tempo": Skill(
        lambda r: number(r.tempo.bpm) if r.tempo.bpm and r.tempo.source == "measured" else None, lambda r: r.tempo.confidence, _near_tempi
    ),
    "key": Skill(lambda r: r.key.name if r.key.source == "measured" else None, lambda r: r.key.confidence, _near_keys),
    "meter": Skill(
        lambda r: r.meter.value if r.meter.source == "measured" else None,
        lambda r: r.meter.confidence,
        lambda value: [meter for meter in METERS if meter != value],
    ),
}


def labels_of(record: Analysis, *, seed: int = 0, writer: Writer | None = None) -> Labels:
    """Return the rows of an analysed song. What is drawn at random depends on the seed and the song alone."""
    if record.error is not None or record.path is None or record.audio is None:
        return Labels([], [("song", record.error.message if record.error else "there is no song")])
    facts = _facts(record)
    rows, dropped = _questions(record, seed)
    for origin, text in _captions(record, writer, facts):
        if reason := _flaw(text, record, facts):
            dropped.append((f"caption, {origin}", reason))
        else:
            rows.append(_row(record, "caption", CAPTION_STYLES["full"], text, origin))
    sung = record.vocals
    if sung.source == "measured" and sung.present is not None and (sung.confidence or 0.0) >= SURE:
        rows.append(_row(record, "vocals", TASKS["vocals"].prompt, "Yes." if sung.present else "No.", f"measured, {sung.confidence:.2f}"))
    if (lyrics := beside(record.path)) and lyrics.plain:
        rows.append(_row(record, "lyrics", CAPTION_STYLES["lyrics"], lyrics.plain, lyrics.path))
    shared = {"facts": facts, "tags": _tags(record), "group": _group(record), "split": split_of(_group(record), seed)}
    return Labels([row | {key: value for key, value in shared.items() if value} for row in rows], dropped)


def _questions(record: Analysis, seed: int) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Rows that ask for each fact, plainly and with options, and what was not asked for."""
    rng = np.random.default_rng([seed, int(hashlib.sha256(str(record.audio_id or record.path).encode()).hexdigest()[:12], 16)])
    rows: list[dict[str, Any]] = []
    dropped: list[tuple[str, str]] = []
    for name, skill in SKILLS.items():
        value, confidence = skill.value(record), skill.confidence(record)
        if value is None:
            dropped.append((name, "is not known"))
        elif (confidence or 0.0) < SURE:
            dropped.append((name, f"is {value} with a confidence of {confidence or 0.0:.2f}, below {SURE}"))
        else:
            rows.append(_row(record, name, TASKS[name].prompt, value, f"measured, {confidence:.2f}"))
            options = [value, *skill.near(value)][:4]
            shuffled = [options[at] for at in rng.permutation(len(options))]
            chosen = f"({LETTERS[shuffled.index(value)]}) {value}"
            question = with_options(TASKS[name].prompt, shuffled)
            rows.append(
                _row(record, f"{name}-choice", question, chosen, f"measured, {confidence:.2f}") | {"choices": shuffled, "answer": value}
            )
    return rows, dropped


def _row(record: Analysis, task: str, question: str, answer: str, provenance: str) -> dict[str, Any]:
    assert record.audio is not None
    audio = record.audio
    part = {"start": audio.start, "end": audio.end} if audio.start > 0 or audio.end < audio.duration else {}
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {
        "format": ROWS,
        "id": f"{record.audio_id}/{task}",
        "audio": record.path,
        **part,
        "task": task,
        "messages": said,
        "provenance": provenance,
    }


def _facts(record: Analysis) -> dict[str, Any]:
    """Facts with their confidence, as the reward `facts` reads them."""
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


def _captions(record: Analysis, writer: Writer | None, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield captions of the record and of the writer, with where they come from."""
    text = record.text if record.command == "caption" else record.result.caption if record.result else None
    if text:
        yield (record.model.id if record.model else "a model"), text
    if writer is not None and (written := writer(facts, record)):
        yield "the writer", written


def _flaw(text: str, record: Analysis, facts: Mapping[str, Any]) -> str | None:
    """Return why a caption is left out, or None."""
    if len(text.split()) < LEAST_WORDS:
        return f"has fewer than {LEAST_WORDS} words"
    said = [text[start:end].strip().casefold() for start, end in sentences(text)]
    if len(set(said)) < len(said):
        return "repeats a sentence"
    for name, fact in facts.items():
        row = TrainingRow((QuestionAnswer("", None),), None, record.path or "", None, {"facts": {name: fact}})
        if rewards.facts([text], row) == [-1.0]:
            return f"contradicts the {name} that was measured"
    return None


def _group(record: Analysis) -> str:
    """Who made a song, or the folder it lies in: songs of one group stand in one split."""
    tags = record.audio.tags if record.audio else None
    return (tags.artist if tags and tags.artist else None) or Path(record.path or "").resolve().parent.name


def split_of(group: str, seed: int) -> str:
    """Return the split of a group, the same for a seed whatever other groups there are."""
    at = int(hashlib.sha256(f"{seed}:{group.casefold()}".encode()).hexdigest()[:8], 16) / 2**32
    for name, share in SPLITS.items():
        if at < share:
            return name
        at -= share
    return "train"
