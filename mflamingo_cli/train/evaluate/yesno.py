"""Questions for yes and no with hard negatives: about every thing that is asked, as many true statements as false ones.

A false statement is near the truth: a neighbouring key, a family that is common but not there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from mflamingo_cli.grounding import grounded_prompt
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.parsers import plain
from mflamingo_cli.train.evaluate import bootstrap, ground_truth
from mflamingo_cli.train.evaluate.bootstrap import Score
from mflamingo_cli.train.evaluate.ground_truth import Item
from mflamingo_cli.train.evaluate.inference import SongBatch, Update, questions
from mflamingo_cli.train.mini.dialogue.answers import FORMS_OF_GENRE, MAKERS, USUAL
from mflamingo_cli.train.mini.dialogue.prompt_facts import ground_text, random_facts
from mflamingo_cli.train.mini.dialogue.questions import PLURALS, SPOKEN_INSTRUMENT, YES_NO

METERS = ("4/4", "3/4", "6/8")
OTHER_MODE = {"major": "minor", "minor": "major"}
Slots = tuple[bool, dict[str, str]]  # whether it is true, what fills the question


def _keys(rng: np.random.Generator, item: Item) -> list[Slots]:
    """The key against its relative, its parallel, a fifth up or down, or a semitone off."""
    key = ground_truth.key_truth(item)
    if key is None:
        return []
    tonic, mode = key
    relative = ((tonic + (9 if mode == "major" else 3)) % 12, OTHER_MODE[mode])
    near = [relative, (tonic, OTHER_MODE[mode]), *(((tonic + step) % 12, mode) for step in (5, 7, 1, 11))]
    other, other_mode = near[rng.integers(len(near))]
    return [(True, {"key": Key.of(tonic, mode).name}), (False, {"key": Key.of(other, other_mode).name})]


def _modes(rng: np.random.Generator, item: Item) -> list[Slots]:
    key = ground_truth.key_truth(item)
    return [(True, {"mode": key[1]}), (False, {"mode": OTHER_MODE[key[1]]})] if key else []


def _meters(rng: np.random.Generator, item: Item) -> list[Slots]:
    meter = item.clip_labels.get("meter")
    others = [name for name in METERS if name != meter]
    return [(True, {"meter": meter}), (False, {"meter": others[rng.integers(len(others))]})] if meter else []


def _instruments(rng: np.random.Generator, item: Item) -> list[Slots]:
    """A family that sounds, rather a rare one, and one that does not, rather a common one: a blind guess gains nothing."""
    known = ground_truth.families_truth(item)
    if known is None or not all(known):
        return []
    found: list[Slots] = []
    for sound, names in zip((True, False), map(sorted, known), strict=True):
        weights = np.array([1 - USUAL[name] if sound else USUAL[name] for name in names])
        name = names[rng.choice(len(names), p=weights / weights.sum())]
        spoken = SPOKEN_INSTRUMENT[name]
        found.append((sound, {"a": spoken, "is_there": f"{'Are' if name in PLURALS else 'Is'} there {spoken}"}))
    return found


def _genres(rng: np.random.Generator, item: Item) -> list[Slots]:
    yes, no = (ground_truth.names_in(item.clip_labels.get(name, "")) for name in ("genre", "not_genre"))
    if not yes or not no:
        return []
    names = (yes[0], no[rng.integers(len(no))])
    return [(sound, {"genre": FORMS_OF_GENRE.get(name, name), "name": name}) for sound, name in zip((True, False), names, strict=True)]


def _sung(expected: bool) -> Callable[[np.random.Generator, Item], list[Slots]]:
    def statements(rng: np.random.Generator, item: Item) -> list[Slots]:
        sung = ground_truth.vocals_truth(item)
        return [] if sung is None else [(sung == expected, {})]

    return statements


KINDS: dict[str, Callable[[np.random.Generator, Item], list[Slots]]] = {  # of questions.YES_NO, those that sound can answer
    "is_key": _keys, "is_mode": _modes, "is_meter": _meters, "has_instrument": _instruments, "is_genre": _genres,
    "is_sung": _sung(True), "is_instrumental": _sung(False),
}  # fmt: skip


@dataclass(frozen=True)
class Statement:
    """One question, what it asks about ("drums"; "" where nothing is commoner than another), and whether "Yes." is right."""

    text: str
    about: str
    true: bool


def statements(rng: np.random.Generator, item: Item, kind: str) -> list[Statement]:
    """Questions of a kind about an excerpt: a true statement and a false one, where both can be made."""
    words = YES_NO[kind]
    return [
        Statement(words[rng.integers(len(words))].format(**slots), "" if kind == "is_key" else " ".join(slots.values()), true)
        for true, slots in KINDS[kind](rng, item)
    ]


def statement_of_facts(rng: np.random.Generator, kind: str) -> Statement | None:
    """A question whose answer lies in random facts of its prompt."""
    facts = random_facts(rng, 1.0)
    exchange = MAKERS[kind](rng, facts, None)
    true = None if exchange is None else parsed(exchange.answer)
    if exchange is None or true is None:
        return None
    return Statement(grounded_prompt(exchange.question, ground_text(facts)), "", true)


def parsed(text: str) -> bool | None:
    """Yes or no, from the first word of an answer."""
    word = plain(text).split(" ", 1)[0].strip(".,!;:").casefold()
    return {"yes": True, "no": False}.get(word)


def even(questions: Sequence[Statement]) -> list[int]:
    """Which questions to keep, so that about every thing as many are true as false: the usual answer to each is no help."""
    sides: dict[str, tuple[list[int], list[int]]] = {}
    for index, question in enumerate(questions):
        sides.setdefault(question.about, ([], []))[question.true].append(index)
    return sorted(index for pair in sides.values() for side in pair for index in side[: min(map(len, pair))])


FACT_KINDS = ("is_tempo", "is_pace", "is_long", "is_louder", "has_chord", "comes_back")


@dataclass
class YesNo:
    """All kinds; an answer that is neither is wrong."""

    name: ClassVar = "yes or no"
    answered: dict[str, list[tuple[Statement, bool | None]]] = field(default_factory=lambda: defaultdict(list))  # by kind

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """Ask everything of every excerpt."""
        for number, kind in enumerate(KINDS):
            rngs = [np.random.default_rng([item.row["index"], number]) for item in items]
            yield from self._ask(kind, [(i, q) for i, item in enumerate(items) for q in statements(rngs[i], item, kind)])

    def _ask(self, kind: str, found: Sequence[tuple[int, Statement]]) -> Update:
        texts = yield questions(((i, question.text) for i, question in found), 4)
        self.answered[kind] += [(question, parsed(text)) for (_, question), text in zip(found, texts, strict=True)]

    def scores(self, **where: Any) -> Iterator[Score]:
        """Balanced accuracy over all kinds and of each; always yes and always no have one half."""
        table = {}
        for kind, answers in self.answered.items():
            if kept := even([question for question, _ in answers]):
                table[f": {kind}"] = np.array([[question.true, said == question.true] for question, said in map(answers.__getitem__, kept)])
        if table:
            for kind, rows in {"": np.concatenate(list(table.values())), **table}.items():
                yield bootstrap.resampled(f"{self.name}, balanced accuracy{kind}", rows, bootstrap.balanced_accuracy, 0.5, 0.5, **where)


@dataclass
class YesNoOfFacts(YesNo):
    """The same about facts of the prompt, so many questions of each kind."""

    name: ClassVar = "yes or no from facts"
    count: int = 0
    batches: int = 0

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """As many questions as there are excerpts (or silences)."""
        self.batches += 1
        for kind in FACT_KINDS:
            rngs = [np.random.default_rng([self.batches, i]) for i in range(min(songs.count, self.count - len(self.answered[kind])))]
            found = [(i, statement_of_facts(rng, kind)) for i, rng in enumerate(rngs)]
            yield from self._ask(kind, [(i, question) for i, question in found if question is not None])
