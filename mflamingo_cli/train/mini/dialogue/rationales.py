"""What is known of a song and why: facts of the prompt first, then clip labels; plain questions, and the rationale of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.train.mini.dialogue.captions import listed, slots
from mflamingo_cli.train.mini.dialogue.prompt_facts import LABEL_FIELDS, PromptFacts
from mflamingo_cli.train.mini.dialogue.questions import QUESTIONS, YES_NO

CANNOT = "I cannot tell that from the sound."
YES, NO = "Yes.", "No."
VOCALS = {"yes": YES, "no": "No, it is instrumental."}


@dataclass(frozen=True)
class Exchange:
    """A question with its answer and the reasoning that leads to it."""

    question: str
    answer: str
    rationale: str


def pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    """The first half of the time (the command line's own words), else any."""
    return texts[0] if rng.random() < 0.5 else texts[rng.integers(len(texts))]


def value_of(field: str, facts: PromptFacts, labels: PromptFacts | None) -> str | None:
    """What is known of a field: facts of the prompt come before clip labels."""
    return facts.get(field) or (labels or {}).get(field)


def undecided(field: str, facts: PromptFacts, labels: PromptFacts | None) -> bool:
    """Whether a field could be answered from sound but this clip has no label for it: then it is not asked."""
    return field in LABEL_FIELDS and bool(labels) and value_of(field, facts, labels) is None


# --- reasoning ----------------------------------------------------------------------------------------------------------

MEASURED = {  # how a given fact is recalled
    "tempo": ("The tempo was measured: {tempo} BPM.", "A tempo of {tempo} BPM was measured."),
    "key": ("The key was measured: {key}.", "The measured key is {key}."),
    "meter": ("The meter was measured: {meter}.", "The measured meter is {meter}."),
    "chord": ("The chord was measured: {chords}.", "The measured chord is {chords}."),
    "chords": ("The chords were measured: {chords}.", "The measured chords are {chords}."),
    "sections": ("The sections were counted: {sections}.", "The number of sections was measured: {sections}."),
    "form": ("The sections and their times were measured.", "I list the sections that were measured."),
    "loudness": ("The loudness was measured: {loudness} LUFS.", "A loudness of {loudness} LUFS was measured."),
    "duration": ("The duration was measured: {duration} s.", "It lasts {duration} s, as was measured."),
}
LISTENED = {  # how a label is come by
    "key": ("The notes settle around {tonic}, and the third above it is {mode}.", "{tonic} feels like home, and its third is {mode}."),
    "chord": ("I follow the bass and the notes above it: {chords}.", "Bass and harmony stay on {chords}."),
    "chords": ("I follow the bass and the notes above it: {chords}.", "Bass and harmony move through {chords}."),
    "instruments": ("I listen to one sound after another: {instruments}.", "The sounds I can tell apart are {instruments}."),
    "genre": ("The beat and the sound point to {genre}.", "Rhythm and instruments are those of {genre}."),
    "mood": ("The way it moves and sounds feels {mood}.", "Its pace and colour feel {mood}."),
}
BEATS = {"4/4": "The beats come in fours.", "3/4": "The beats come in threes.", "6/8": "The beats come in pairs, each split in three."}
VOICE = {"yes": "I listen for a voice and hear one.", "no": "I listen for a voice and hear none."}
NOT_KNOWN = "The sound does not tell me this, and nothing was measured about it."


def rationale(rng: np.random.Generator, field: str, facts: PromptFacts, labels: PromptFacts | None) -> str:
    """Where the knowledge of a field comes from, in one sentence."""
    value = value_of(field, facts, labels)
    if value is None:
        return NOT_KNOWN
    words = "chord" if field == "chords" and " " not in value else field
    if field in facts:
        return str(rng.choice(MEASURED[words])).format(**slots({field: value}))
    if field == "meter":
        return BEATS.get(value, f"The bars count as {value}.")
    if field == "vocals":
        return VOICE[value]
    extra = dict(zip(("tonic", "mode"), value.split(), strict=True)) if field == "key" else {}
    return str(rng.choice(LISTENED[words])).format(**slots({field: value}), **extra)


# --- plain questions ------------------------------------------------------------------------------------------------------


def answer(intent: str, facts: PromptFacts, labels: PromptFacts | None = None) -> str:
    """The short answer to a plain question, as the parsers of `tasks` read it; CANNOT where nothing is known."""
    if intent in ("mode", "first_chord"):
        known = value_of("key" if intent == "mode" else "chords", facts, labels)
        return CANNOT if known is None else known.split()[-1 if intent == "mode" else 0]
    value = value_of(intent, facts, labels)
    if value is None:
        return CANNOT
    if intent in ("form", "instruments"):
        return ", ".join(listed(intent, value))
    forms = {"chords": " - ".join(value.split()), "loudness": f"{value} LUFS", "duration": f"{value} s", "vocals": VOCALS.get(value, "")}
    return forms.get(intent, value)


def plain(rng: np.random.Generator, intent: str, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """A question for one field."""
    field = {"mode": "key", "first_chord": "chords"}.get(intent, intent)
    if undecided(field, facts, labels):
        return None
    return Exchange(pick(rng, QUESTIONS[intent]), answer(intent, facts, labels), rationale(rng, field, facts, labels))


def worded(rng: np.random.Generator, intent: str, **values: str) -> str:
    """A question of a kind with its slots filled."""
    table = QUESTIONS if intent in QUESTIONS else YES_NO
    return pick(rng, table[intent]).format(**values)


def unanswered(question: str) -> Exchange:
    """A question that neither prompt nor audio answers."""
    return Exchange(question, CANNOT, NOT_KNOWN)
