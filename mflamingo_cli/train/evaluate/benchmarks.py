"""Published benchmarks with options, from where the user has them: their questions, their official rule, and our exact one beside it.

A reader cites where its layout and its rule are described. Not read, for want of a source that was looked at: MMAU-Pro, NSynth, GTZAN,
Medley-Solos-DB, Opencpop, MUSDB18 lyrics.
"""

from __future__ import annotations

import csv
import glob
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.multiple_choice import LETTERS, chosen, final_answer, is_right, with_options


@dataclass(frozen=True)
class BenchQuestion:
    """One question about a recording; `answer` is the words of an option."""

    id: str
    audio: Path
    question: str
    choices: tuple[str, ...]
    answer: str
    skill: str

    def prompt(self) -> str:
        """The question with its options."""
        return with_options(self.question, self.choices)


@dataclass(frozen=True)
class Benchmark:
    """A set of questions: where its layout and its rule are described, how it is read, and its official rule."""

    name: str
    source: str
    read: Callable[[Path], Iterator[BenchQuestion]]
    official: Callable[[str, BenchQuestion], bool]


# --- MMAU and MMAR: sets of words -------------------------------------------------------------------------------------------


def words_rule(text: str, question: BenchQuestion) -> bool:
    r"""All words of the answer are there, and none that only another option has; a word is `\b\w+\b` of the text in lower case."""

    def words(value: str) -> set[str]:
        return set(re.findall(r"\b\w+\b", value.lower()))

    said, wanted = words(final_answer(text)), words(question.answer)
    wrong = set().union(*(words(choice) for choice in question.choices if words(choice) != wanted)) - wanted
    return bool(said) and wanted <= said and not said & wrong


def _mmau(folder: Path) -> Iterator[BenchQuestion]:
    """Music questions of mmau-test-mini.json, whose audio_id is a path from its folder."""
    for entry in _json(folder, "mmau-test-mini.json"):
        if entry["task"] == "music":
            yield _question(folder, entry["id"], entry["audio_id"], entry, entry.get("sub-category") or entry.get("category") or "")


def _mmar(folder: Path) -> Iterator[BenchQuestion]:
    """Music questions of MMAR-meta.jsonl."""
    for entry in _json(folder, "MMAR-meta.jsonl"):
        if entry["modality"] == "music":
            yield _question(folder, entry["id"], entry["audio_path"], entry, entry.get("sub-category") or entry.get("category") or "")


def _question(folder: Path, name: Any, audio: str, entry: Mapping[str, Any], skill: str) -> BenchQuestion:
    return BenchQuestion(str(name), folder / audio, entry["question"], tuple(map(str, entry["choices"])), str(entry["answer"]), str(skill))


def _json(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / name
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else list(json.loads(text))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error


# --- MuChoMusic: the letters that occur -------------------------------------------------------------------------------------


def letters_rule(text: str, question: BenchQuestion) -> bool:
    """The one letter among those of the options that occurs as a character anywhere; else the first option that is contained."""
    answer = final_answer(text).split("The correct answer is:")[-1].strip()
    found = {letter for letter in LETTERS[: len(question.choices)] if letter in answer}
    if len(found) == 1:
        return question.choices[LETTERS.index(found.pop())] == question.answer
    contained = next((choice for choice in question.choices if choice.lower() in answer.lower()), None)
    return contained == question.answer


def _muchomusic(folder: Path) -> Iterator[BenchQuestion]:
    """Questions of muchomusic.csv; the number of the row draws the order of its options, which the official script draws anew each time."""
    path = folder / "muchomusic.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    for number, row in enumerate(rows):
        options = [row["correct_answer"], *(row[f"distractor_{k}_answer"] for k in (1, 2, 3))]
        order = np.random.default_rng(number).permutation(len(options))
        audio = _muchomusic_audio(folder, row)
        skill = next((name for name in ("music_knowledge", "music_reasoning") if row.get(name)), "")
        yield BenchQuestion(str(number), audio, row["question"], tuple(options[at] for at in order), row["correct_answer"], skill)


def _muchomusic_audio(folder: Path, row: Mapping[str, str]) -> Path:
    """Where the evaluation script has a recording: Song Describer's in MTG-Jamendo's folders, MusicCaps' by address and times."""
    name = row["dataset_identifier"].removesuffix(".json")
    if row["dataset"] == "sdd":
        return folder / "data" / "sdd" / "audio" / f"{int(name) % 100:02d}" / f"{name}.2min.mp3"
    clips, address = folder / "data" / "musiccaps" / "audio", name.rpartition("_")[0]
    return next(iter(sorted(clips.glob(f"{glob.escape(f'[{address}]-')}*.wav"))), clips / f"[{address}].wav")


BENCHMARKS: Mapping[str, Benchmark] = {
    row.name: row
    for row in (
        Benchmark("mmau", "github.com/Sakshi113/MMAU, mmau-test-mini.json and evaluation.py, v05.15.25", _mmau, words_rule),
        Benchmark("mmar", "github.com/ddlBoJack/MMAR, MMAR-meta.jsonl and code/evaluation.py", _mmar, words_rule),
        Benchmark("muchomusic", "zenodo.org/records/12709974 and github.com/mulab-mir/muchomusic", _muchomusic, letters_rule),
    )
}


# --- scores ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BenchReply:
    """A reply to a question of a benchmark, judged by both rules."""

    id: str
    skill: str
    text: str
    official: bool
    exact: bool
    unparsed: bool


def judge(benchmark: Benchmark, question: BenchQuestion, text: str) -> BenchReply:
    """Judge a reply."""
    unread = chosen(text, question.choices) is None
    return BenchReply(
        question.id, question.skill, text, benchmark.official(text, question), is_right(text, question.answer, question.choices), unread
    )


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    share, spread = right / count, z * z / count
    middle, half = share + spread / 2, z * (share * (1 - share) / count + spread / (4 * count)) ** 0.5
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def table(replies: Sequence[BenchReply]) -> list[dict[str, Any]]:
    """Return scores of all replies, then of each skill: by the official rule, by the exact one with its interval, the share unparsed."""
    skills = ["", *sorted({reply.skill for reply in replies if reply.skill})]
    found = []
    for skill in skills:
        some = [reply for reply in replies if not skill or reply.skill == skill]
        right = sum(reply.exact for reply in some)
        found.append(
            {
                "skill": skill or "all", "n": len(some), "official": sum(reply.official for reply in some) / max(1, len(some)),
                "exact": right / max(1, len(some)), "interval": wilson(right, len(some)),
                "unparsed": sum(reply.unparsed for reply in some) / max(1, len(some)),
            }
        )  # fmt: skip
    return found


def run(benchmark: Benchmark, folder: Path, ask: Callable[[Path, str], str], replies: Path, limit: int | None = None) -> list[BenchReply]:
    """Ask every question whose reply is not in the file `replies` yet, add it there, and judge all. Raises UsageError without questions."""
    questions = list(benchmark.read(folder))[:limit]
    if not questions:
        raise UsageError(f"{folder}: has no questions of {benchmark.name}")
    known = dict(_replies(replies))
    replies.parent.mkdir(parents=True, exist_ok=True)
    with replies.open("a", encoding="utf-8") as log:
        for question in (question for question in questions if question.id not in known):
            known[question.id] = ask(question.audio, question.prompt())
            log.write(json.dumps({"id": question.id, "text": known[question.id]}, ensure_ascii=False) + "\n")
            log.flush()
    return [judge(benchmark, question, known[question.id]) for question in questions]


def _replies(path: Path) -> Iterator[tuple[str, str]]:
    """Replies of an earlier run; a line that a crash cut off is asked again."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            yield str(entry["id"]), str(entry["text"])
        except (ValueError, KeyError, TypeError):
            continue
