"""Measured facts as a prompt gives them: drawn at random for training, and written as `grounding.facts_text` writes them.

Facts are strings as a prompt shows them ("87.5", "A minor", "A 0:00 B 0:32"); times are minutes and seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mflamingo_cli.core.audio import SAMPLE_RATE, Sound, Source
from mflamingo_cli.grounding import GROUND_CHORDS, GROUND_PREFIX, GROUND_SECTIONS, listed
from mflamingo_cli.grounding.prose.slots import COUNTED, TELLS, Slots, slots_of
from mflamingo_cli.grounding.replies import Known, seconds
from mflamingo_cli.measure import Confidence, Facts, Key, Tempo, Voices
from mflamingo_cli.parsers import TEMPO_RANGE_BPM
from mflamingo_cli.schema import FormPart, Loudness, Segment, Tag
from mflamingo_cli.text import clock

FIELDS = ("tempo", "key", "meter", "chords", "sections", "form", "loudness", "duration")  # the order of grounding.PHRASES
UNITS = {"tempo": " BPM", "loudness": " LUFS", "duration": " s"}
PHRASES = {name: f"{name} {{}}{UNITS.get(name, '')}" for name in FIELDS}
LABEL_FIELDS = ("key", "chords", "meter", "instruments", "genre", "mood", "vocals")  # what labels may answer where no fact is given
METERS = {"4/4": 0.34, "3/4": 0.2, "6/8": 0.14, "2/4": 0.06, "5/4": 0.06, "7/8": 0.06, "12/8": 0.06, "9/8": 0.03, "2/2": 0.03, "11/8": 0.02}
COMMON_QUALITIES = ("", "m", "7", "maj7", "m7")
RARE_QUALITIES = ("dim", "sus4", "sus2", "aug", "m7b5", "dim7", "6", "m6", "9", "maj9", "m9", "add9")
MEASURED_ROOTS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")  # as measure/chords.py spells them
NOTES = ("C", "C#", "Db", "D", "D#", "Eb", "E", "F", "F#", "Gb", "G", "G#", "Ab", "A", "A#", "Bb", "B")

HEARD = 0.5  # confidence of a key or meter that no fact gives: captions say "probably"

PromptFacts = dict[str, str]  # by FIELDS or HEARD_FIELDS; chords and instruments are separated by single spaces, genres and moods by ", "


def random_chord(rng: np.random.Generator) -> str:
    """A chord name: mostly spelled as measured, one in four of a rare kind."""
    root = rng.choice(MEASURED_ROOTS if rng.random() < 0.8 else NOTES)
    return str(root) + str(rng.choice(COMMON_QUALITIES if rng.random() < 0.75 else RARE_QUALITIES))


def random_chords(rng: np.random.Generator, count: int | None = None) -> str:
    """Up to `count` different chords, at most as many as a prompt holds."""
    count = int(rng.choice(GROUND_CHORDS, p=[0.1, 0.15, 0.2, 0.55])) + 1 if count is None else count
    return " ".join(dict.fromkeys(random_chord(rng) for _ in range(count)))


def few_sections(rng: np.random.Generator) -> int:
    """A number of sections whose form is given, small ones more often: a form of ten is as long as all other facts."""
    weights = 1 / np.arange(2, GROUND_SECTIONS + 2)
    return 1 + int(rng.choice(GROUND_SECTIONS, p=weights / weights.sum()))


def random_form(rng: np.random.Generator, count: int) -> tuple[list[str], list[int]]:
    """Letters and starts (s) of `count` sections: a new section takes the next letter; one form in ten has any letters."""
    letters, known = ["A"], 1
    for _ in range(count - 1):
        fresh = rng.random() < 0.45
        letters.append(chr(65 + (known if fresh else int(rng.integers(known)))))
        known += fresh
    if rng.random() < 0.1:
        letters = [chr(65 + int(rng.integers(8))) for _ in range(count)]
    longest = float(rng.choice([30, 60, 120, 600], p=[0.4, 0.4, 0.17, 0.03]))
    starts = np.cumsum(np.r_[0 if rng.random() < 0.9 else rng.integers(20), rng.uniform(4, longest, count - 1)]).astype(int)
    return letters, starts.tolist()


def form_text(letters: Sequence[str], starts: Sequence[float]) -> str:
    """`A 0:00 B 0:32`."""
    return " ".join(f"{letter} {clock(start)}" for letter, start in zip(letters, starts, strict=True))


def form_items(form: str) -> list[tuple[str, str]]:
    """`A 0:00 B 0:32` -> [(A, 0:00), (B, 0:32)]."""
    words = form.split()
    return list(zip(words[::2], words[1::2], strict=True))


def one_decimal(value: float) -> str:
    """As `grounding.facts_text` writes numbers: 120.04 -> "120", 87.5 -> "87.5"."""
    return f"{value:.1f}".removesuffix(".0")


def random_facts(rng: np.random.Generator, share: float | None = None) -> PromptFacts:
    """Random values, some absurd, each field present with probability `share`: copying must work for any value that texts are read for."""
    share = float(rng.choice([0.3, 0.6, 0.9, 1.0], p=[0.35, 0.25, 0.15, 0.25])) if share is None else share
    absurd = rng.random() < 0.1
    bpm = np.exp(rng.uniform(*np.log(TEMPO_RANGE_BPM if absurd else (40, 230))))
    count = int(rng.integers(GROUND_SECTIONS + 1, 40)) if rng.random() < 0.12 else few_sections(rng)
    letters, starts = random_form(rng, count)
    last = starts[-1] + int(rng.integers(5, 60)) if rng.random() < 0.7 else int(np.exp(rng.uniform(np.log(4), np.log(9000))))
    values = {
        "tempo": one_decimal(bpm) if rng.random() < 0.8 else f"{bpm:.0f}",
        "key": f"{rng.choice(NOTES)} {rng.choice(['major', 'minor'])}",
        "meter": str(rng.choice(list(METERS), p=list(METERS.values()))),
        "chords": random_chords(rng),
        "sections": str(count),
        "form": form_text(letters, starts),
        "loudness": one_decimal(rng.uniform(-69, 3) if absurd else rng.uniform(-34, -4)),
        "duration": str(last),
    }
    facts = {name: values[name] for name in FIELDS if rng.random() < share}
    if not ("sections" in facts and 2 <= count <= GROUND_SECTIONS):
        facts.pop("form", None)
    return facts


def consistent_facts(rng: np.random.Generator, labels: PromptFacts) -> PromptFacts:
    """Facts as the command line would measure them in a clip with these labels: harmony and meter agree with them."""
    facts = random_facts(rng, float(rng.choice([0.9, 1.0])))
    for name in ("key", "meter"):
        if name in labels and name in facts:
            facts[name] = labels[name]
    if "chords" in labels and "chords" in facts:
        facts["chords"] = " ".join(name + _seventh(rng, name) for name in labels["chords"].split())
    return facts


def _seventh(rng: np.random.Generator, triad: str) -> str:
    """A seventh that signal analysis may find on top of a triad."""
    if rng.random() < 0.75 or triad.endswith("dim"):
        return ""
    return "7" if triad.endswith("m") else str(rng.choice(["7", "maj7"]))


def ground_text(facts: PromptFacts, order: Sequence[str] = FIELDS) -> str:
    """The grounding prefix as `grounding.facts_text` writes it, in any order."""
    parts = [PHRASES[name].format(facts[name]) for name in order if name in facts]
    return f"{GROUND_PREFIX}{'; '.join(parts)}." if parts else ""


# --- the same as facts ------------------------------------------------------------------------------------------------------

CHORD_S = 2.0  # a prompt names chords without their times
QUALITIES_LONG = {"": "maj", "m": "min", "m7": "min7", "m7b5": "hdim7", "m9": "min9", "6": "maj6", "m6": "min6"}  # as in Harte's notation
NOT_IN_PROMPTS = frozenset({"cadence", "borrowed", "rate", "centred", "wanders"})  # what follows from the order and the length of chords


def prompt_slots(facts: PromptFacts, labels: PromptFacts | None = None) -> Slots:
    """What the phrase grammar can say of a prompt, and of labels where it gives nothing: a key that is only heard is not sure."""
    slots = slots_of(as_facts(facts, labels, heard_sureness=HEARD), float(facts["duration"]) if "duration" in facts else None)
    values = {name: value for name, value in slots.values.items() if TELLS.get(name) not in NOT_IN_PROMPTS | {"chords"}}
    conditions = slots.conditions - NOT_IN_PROMPTS - {"one_chord", "two_chords"}
    if names := (facts.get("chords") or (labels or {}).get("chords", "")).split():  # as they are given, however the key would spell them
        values |= {"chord": names[0]} if len(names) == 1 else {"chords": listed(names)}
        conditions |= {1: {"one_chord"}, 2: {"two_chords"}}.get(len(names), frozenset())
    if "duration" in facts:
        values["duration"] = f"{facts['duration']} s"
    if "sections" in facts and "form" not in facts:  # a form of many sections is not written out
        count = int(facts["sections"])
        values |= {"section_count": COUNTED[count - 1] if count <= len(COUNTED) else str(count)} if count > 1 else {"shape": "A"}
        conditions |= {"one_section"} if count == 1 else frozenset()
    return replace(slots, values=values, conditions=conditions)


def as_known(facts: PromptFacts, labels: PromptFacts | None = None) -> Known:
    """A song of which no more is known than a prompt and labels say."""
    length_s = float(facts.get("duration", 0))
    source = Source("-", length_s, SAMPLE_RATE, 1, "")
    return Known(as_facts(facts, labels), Sound("", round(length_s * SAMPLE_RATE), source, 0.0, SAMPLE_RATE, ()))


def as_facts(facts: PromptFacts, labels: PromptFacts | None = None, heard_sureness: float | None = None) -> Facts:
    """Facts that say what a prompt gives, and labels where it gives nothing."""
    values = {name: value for name, value in (labels or {}).items() if name in LABEL_FIELDS} | facts
    names = {"instruments": values.get("instruments", "").split(), "genre": _names(values, "genre"), "mood": _names(values, "mood")}
    key = values.get("key", "").split()
    return Facts(
        tempo=Tempo(float(facts["tempo"])) if "tempo" in facts else Tempo(),
        key=Key(key[0], "minor" if key[1] == "minor" else "major") if key else None,
        meter=values.get("meter"),
        chords=tuple(
            Segment(CHORD_S * at, CHORD_S * (at + 1), harte_label(name)) for at, name in enumerate(values.get("chords", "").split())
        ),
        sections=_sections(facts),
        loudness=Loudness(float(facts["loudness"]) if "loudness" in facts else None),
        vocals=Voices({"yes": True, "no": False}.get(values.get("vocals", ""))),
        tags=tuple(Tag(kind, name, 1.0, "measured") for kind, several in names.items() for name in several),  # type: ignore[arg-type]
        confidence=Confidence(key=None if "key" in facts else heard_sureness, meter=None if "meter" in facts else heard_sureness),
    )


def _names(values: PromptFacts, kind: str) -> list[str]:
    return values[kind].split(", ") if kind in values else []


def harte_label(name: str) -> str:
    """A chord as musicians write it in Harte's notation: F#m7 -> F#:min7."""
    root = name[:2] if name[1:2] in ("#", "b") else name[:1]
    quality = name[len(root) :]
    return f"{root}:{QUALITIES_LONG.get(quality, quality)}"


def _sections(facts: PromptFacts) -> tuple[FormPart, ...]:
    """The sections of a form; of a number without a form nothing is known but the number."""
    items = form_items(facts.get("form", ""))
    starts = [seconds(start) for _, start in items]
    ends = [*starts[1:], max(float(facts.get("duration", 0)), *starts)] if items else []
    return tuple(FormPart(start, end, letter) for (letter, _), start, end in zip(items, starts, ends, strict=True))
