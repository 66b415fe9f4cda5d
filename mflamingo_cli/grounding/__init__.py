"""Facts -> prompts, answers, text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from mflamingo_cli.measure import Facts
from mflamingo_cli.parsers import short_chord
from mflamingo_cli.text import clock, number

GROUND_PREFIX: Final = "Measured facts: "
GROUND_CHORDS = 4  # a pop progression; more would cost tokens and say little
TOLD_CHORD = 0.05  # of the harmony: a text may name a chord that sounds so long
GROUND_SECTIONS = 10  # a form of more sections would cost tokens and say little; their number is given
NO_ANSWER: Final = "I cannot tell that from the sound."
LIKELY = 0.6  # confidence below which a tempo, key or meter is called unsure
SURE = 0.8  # confidence from which a tempo, key or meter is given to a model, which repeats it as true
SECTIONS_RIGHT = 0.75  # how right measured section starts are, F within 3 s (`python -m tests.bench.measure`): captions are not given them


def lasting_chords(facts: Facts) -> dict[str, float]:
    """How many seconds each chord sounds, as musicians write it, in the order of their first sound."""
    lasting: dict[str, float] = {}
    for segment in facts.chords:
        if name := short_chord(segment.label):
            lasting[name] = lasting.get(name, 0.0) + segment.end - segment.start
    return lasting


def main_chords(facts: Facts) -> list[str]:
    """The chords that sound longest, in the order of their first sound: as a grounded prompt gives them."""
    lasting = lasting_chords(facts)
    longest = sorted(lasting, key=lambda name: -lasting[name])[:GROUND_CHORDS]
    return [name for name in lasting if name in longest]  # in the order of their first sound


def told_chords(facts: Facts) -> list[str]:
    """The chords that a text may name: the main ones, and all that sound long enough."""
    lasting = lasting_chords(facts)
    least_s = TOLD_CHORD * sum(lasting.values())
    return list(dict.fromkeys([*main_chords(facts), *(name for name, seconds in lasting.items() if seconds >= least_s)]))


def sure(confidence: float | None, least: float = SURE) -> bool:
    """Whether a value is certain enough to be repeated; one without a confidence is."""
    return confidence is None or confidence >= least


# --- in sentences ------------------------------------------------------------------------------------------------------------


def likely(confidence: float | None) -> str:
    """A hedge before what is not sure, with a space behind it."""
    return "" if sure(confidence) else "probably " if sure(confidence, LIKELY) else "perhaps "


def listed(names: Sequence[str], joint: str = "and") -> str:
    """`A, B and C`."""
    return f"{', '.join(names[:-1])} {joint} {names[-1]}" if len(names) > 1 else "".join(names)


# --- in a prompt ---------------------------------------------------------------------------------------------------------------


Phrase = Callable[[Facts, float], list[str]]  # facts, and the least confidence that is given


def _tempo(facts: Facts, least: float) -> list[str]:
    return [f"tempo {number(facts.tempo.bpm)} BPM"] if facts.tempo.bpm and sure(facts.confidence.tempo, least) else []


def _key(facts: Facts, least: float) -> list[str]:
    return [f"key {facts.key.name}"] if facts.key and sure(facts.confidence.key, least) else []


def _meter(facts: Facts, least: float) -> list[str]:
    return [f"meter {facts.meter}"] if facts.meter and sure(facts.confidence.meter, least) else []


def _chords(facts: Facts, least: float) -> list[str]:
    chords = main_chords(facts)
    return ["chords " + " ".join(chords)] if chords else []


def _sections(facts: Facts, least: float) -> list[str]:
    if not facts.sections or not sure(SECTIONS_RIGHT, least):
        return []
    form = " ".join(f"{section.label} {clock(section.start)}" for section in facts.sections)
    return [f"sections {len(facts.sections)}", *([f"form {form}"] if 2 <= len(facts.sections) <= GROUND_SECTIONS else [])]


def _loudness(facts: Facts, least: float) -> list[str]:
    level = facts.loudness.integrated_lufs
    return [] if level is None else [f"loudness {number(level)} LUFS"]


PHRASES: dict[str, Phrase | None] = {
    "tempo": _tempo,
    "key": _key,
    "keys": None,  # the key is the one that sounds longest
    "scale": None,  # no model was taught it
    "meter": _meter,
    "beats": None,  # hundreds of times: the tempo says it shorter
    "chords": _chords,
    "sections": _sections,
    "loudness": _loudness,
    "dynamics": None,  # no model was taught it
    "vocals": None,  # mini was not trained to be given it; its texts are checked against it
    "tags": None,  # the same
}
"""What a prompt says of each fact of `measure.FACTS`, in its order; None: nothing."""


def fact_phrases(
    facts: Facts | None, duration_s: float | None = None, least: float = SURE, only: Collection[str] | None = None
) -> list[str]:
    """What was measured with at least the confidence `least`, or without one, in the fixed order of a prompt; `only` these, if given."""
    phrases = [phrase for name, write in PHRASES.items() if write and facts and _told(name, only) for phrase in write(facts, least)]
    return phrases + ([] if duration_s is None or not _told("duration", only) else [f"duration {duration_s:.0f} s"])


def _told(name: str, only: Collection[str] | None) -> bool:
    return only is None or name in only


def facts_text(facts: Facts | None, duration_s: float | None = None, least: float = SURE, only: Collection[str] | None = None) -> str:
    """`Measured facts: tempo 87.5 BPM; …; sections 3; form A 0:00 B 0:32 A 1:04; … duration 213 s.`, or "" when nothing is known."""
    phrases = fact_phrases(facts, duration_s, least, only)
    return f"{GROUND_PREFIX}{'; '.join(phrases)}." if phrases else ""


def grounded_prompt(question: str, facts_text: str) -> str:
    """A question with what was measured before it, one space between; without facts the question itself."""
    return f"{facts_text} {question}" if facts_text else question
