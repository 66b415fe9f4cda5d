"""What the language model says of an excerpt without any fact in the prompt: one question of the command line, asked of every excerpt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mflamingo_cli.parsers import parse_chords, parse_genres, parse_meter, parse_tempo, parse_vocals
from mflamingo_cli.tasks import TASKS
from mflamingo_cli.thinking import split_thinking, think_prompt
from mflamingo_cli.train.evaluate import bootstrap, ground_truth
from mflamingo_cli.train.evaluate.bootstrap import Score, Scoring, against_constant, auc_scores, balanced_scores, scored
from mflamingo_cli.train.evaluate.ground_truth import NAMED_FAMILIES, Item
from mflamingo_cli.train.evaluate.inference import SongBatch, Update, questions
from mflamingo_cli.train.evaluate.music import chord_scores, key_scores, parsed_key, set_f1, tempo_scores

GENRES_HEARD = {"synth": 1, "recordings": 3}  # how many of the named genres count: a clip is of one style, a recording of several


# --- figures of lists --------------------------------------------------------------------------------------------------


def meter_scores(ability: str, truths: Sequence[str], claims: Sequence[str | None], **where: Any) -> list[Score]:
    """Balanced accuracy: the mean recall of the meters; a constant answer has 1 / their number."""
    names = sorted(set(truths))
    rows = np.array([[names.index(t), t == c] for t, c in zip(truths, claims, strict=True)])
    constant = rows.copy()
    constant[:, 1] = rows[:, 0] == names.index(Counter(truths).most_common(1)[0][0])
    note = ", ".join(f"{name} {rows[rows[:, 0] == i, 1].mean():.2f} (n={int((rows[:, 0] == i).sum())})" for i, name in enumerate(names))
    balanced, chance = bootstrap.balanced_accuracy, 1 / len(names)
    return [bootstrap.resampled(f"{ability}, balanced accuracy", rows, balanced, constant, chance, note=note, **where)]


def family_rows(truths: Sequence[tuple[frozenset[str], frozenset[str]]], claims: Sequence[Sequence[str]]) -> np.ndarray:
    """Hits, false claims and misses of every family: (clips, families, 3); families of which nothing is known are zeros."""
    rows = np.zeros((len(truths), len(NAMED_FAMILIES), 3))
    for row, (present, absent), said in zip(rows, truths, claims, strict=True):
        for cell, name in zip(row, NAMED_FAMILIES, strict=True):
            cell[:] = (name in present and name in said, name in absent and name in said, name in present and name not in said)
    return rows


def best_families(truths: Sequence[tuple[frozenset[str], frozenset[str]]]) -> list[str]:
    """The fixed set of families with the best micro F1: some of the commonest."""
    common = [name for name, _ in Counter(name for present, _ in truths for name in present).most_common()]
    sets = [common[:size] for size in range(1, len(common) + 1)] or [[]]
    return max(sets, key=lambda said: bootstrap.micro_f1(family_rows(truths, [said] * len(truths)).sum(axis=1)))


def family_scores(
    ability: str, truths: Sequence[tuple[frozenset[str], frozenset[str]]], claims: Sequence[Sequence[str]], **where: Any
) -> list[Score]:
    """Micro F1 beside the best fixed set, then each family beside "always there"."""
    rows, constant = family_rows(truths, claims), family_rows(truths, [best_families(truths)] * len(truths))
    always = family_rows(truths, [NAMED_FAMILIES] * len(truths))
    out = [bootstrap.resampled(f"{ability}, micro F1", rows.sum(axis=1), bootstrap.micro_f1, constant.sum(axis=1), **where)]
    for index, name in enumerate(NAMED_FAMILIES):
        known = np.array([name in present or name in absent for present, absent in truths])
        if rows[known, index][:, [0, 2]].sum():
            out.append(bootstrap.resampled(f"{ability}: {name}, F1", rows[known, index], bootstrap.micro_f1, always[known, index], **where))
    return out


def style_scores(ability: str, truths: Sequence[Sequence[str]], claims: Sequence[Sequence[str]], **where: Any) -> list[Score]:
    """Whether the style (of a recording, its likeliest genre) is named, beside always naming the commonest ones."""
    size = GENRES_HEARD[where.get("clips", "synth")]
    firsts = [genres[0] for genres in truths]
    constant = [name for name, _ in Counter(firsts).most_common(size)]
    right = [float(first in [name.casefold() for name in said[:size]]) for first, said in zip(firsts, claims, strict=True)]
    name = f"{ability}, accuracy" if size == 1 else f"{ability}, top genre among the first {size}"
    return [bootstrap.mean(name, right, [float(first in constant) for first in firsts], size / len(set(firsts)), **where)]


def mood_scores(ability: str, truths: Sequence[Sequence[str]], claims: Sequence[Sequence[str]], **where: Any) -> list[Score]:
    """F1 of the moods as sets, beside the best set found among the truths."""
    sets, said = ([frozenset(name.casefold() for name in names) for names in part] for part in (truths, claims))
    return [against_constant(f"{ability}, F1", sets, said, set_f1, sorted(set(sets), key=sorted), **where)]


# --- questions -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ability:
    """A question of the command line: what is true, how an answer is read, and how both are compared."""

    task: str
    truth: Callable[[Item], Any]  # None: not known
    claim: Callable[[str], Any]
    score: Scoring
    max_new: int = 24


ABILITIES: dict[str, Ability] = {
    "key": Ability("key", ground_truth.key_truth, parsed_key, key_scores),
    "key against measure": Ability("key", ground_truth.measured_key, parsed_key, key_scores),
    "tempo": Ability("tempo", ground_truth.tempo_truth, parse_tempo, tempo_scores),
    "meter": Ability("meter", lambda item: item.clip_labels.get("meter"), parse_meter, meter_scores),
    "chords": Ability("chords", lambda item: item.clip_labels.get("chords", "").split() or None, parse_chords, chord_scores, 40),
    "instruments": Ability("instruments", ground_truth.families_truth, ground_truth.families_in, family_scores, 48),
    "style": Ability("genre", ground_truth.names_truth("genre"), parse_genres, style_scores),
    "mood": Ability("mood", ground_truth.names_truth("mood"), lambda text: TASKS["mood"].parse(text), mood_scores, 32),
    "vocals": Ability("vocals", ground_truth.vocals_truth, lambda text: parse_vocals(text).present, balanced_scores),
}


@dataclass
class QuestionAccuracy:
    """One ability through the language model."""

    name: str
    truths: list[Any] = field(default_factory=list)
    claims: list[Any] = field(default_factory=list)
    sure: list[float] = field(default_factory=list)  # vocals: probability of Yes

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """Ask about those items whose truth is known."""
        ability = ABILITIES[self.name]
        known = [(i, t) for i, item in enumerate(items) if (t := ability.truth(item)) is not None]
        asked = [(i, TASKS[ability.task].prompt) for i, _ in known]
        self.truths += [t for _, t in known]
        texts = yield questions(asked, ability.max_new)
        self.claims += [ability.claim(text) for text in texts]
        if self.name == "vocals" and asked:
            self.sure += songs.yes(asked)

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figures."""
        pairs = list(zip(self.truths, self.claims, strict=True))
        yield from scored(ABILITIES[self.name].score, self.name, pairs, **where)
        if self.sure:
            yield from auc_scores(self.name, self.truths, self.sure, **where)


@dataclass
class Thinking:
    """The format of reasoning, and whether its answer is the one given without it."""

    limit: int
    tasks: tuple[str, ...] = ("key", "chords", "meter", "instruments", "genre", "vocals")
    formed: list[float] = field(default_factory=list)
    same: list[float] = field(default_factory=list)

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """One question to every item, asked both ways, until there are enough."""
        items = items[: max(self.limit - len(self.formed), 0)]
        tasks = [TASKS[self.tasks[item.row["index"] % len(self.tasks)]] for item in items]
        plain = yield questions(((i, task.prompt) for i, task in enumerate(tasks)), 48)
        thought = yield questions(((i, think_prompt(task.prompt)) for i, task in enumerate(tasks)), 160)
        for task, direct, text in zip(tasks, plain, thought, strict=True):
            parts = split_thinking(text)
            self.formed.append(float(bool(parts.thinking) and bool(parts.answer) and not parts.truncated and "<answer>" in text))
            self.same.append(float(task.parse(parts.answer or "") == task.parse(direct)))

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figures."""
        if self.formed:
            yield bootstrap.mean("think format kept", self.formed, **where)
            yield bootstrap.mean("think answer as without thinking", self.same, **where)
