"""Reasoning of grounded models: what was measured, step by step, until it decides the question.

The sentences are those of the phrase grammar (rules `evidence_…` and `step_…`); the answer is `questions.reply`, so that both always agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random

from mflamingo_cli.grounding.prose.captions import evidence_of, sayable
from mflamingo_cli.grounding.prose.grammar import Composer
from mflamingo_cli.grounding.prose.harmony import progression
from mflamingo_cli.grounding.prose.phrases import RULES
from mflamingo_cli.grounding.prose.slots import Slots, slots_of
from mflamingo_cli.grounding.questions import Asked, read
from mflamingo_cli.grounding.replies import ORDINALS, Known, Words, lettered, named_key, seconds
from mflamingo_cli.text import clock, number

EVIDENCE: Mapping[str, tuple[str, ...]] = {"instruments": ("sound",), "genre": ("sound",), "mood": ("sound",)}
"""What is evidence for kinds of questions that no fact decides by its name alone."""
FIRST_CHORDS = 8  # of a song, which show the order of its chords
FROM_FILE = ("artist", "title", "album", "year", "file", "file_is")
READ_FROM_FILE = "The file itself says this; nothing has to be measured for it."
NOT_MEASURED = "Nothing was measured that decides this."


def reason(question: str, known: Known) -> str:
    """The reasoning that leads to the answer of `questions.reply`: the evidence of every fact that is asked about, then what follows."""
    slots, asked = slots_of(known.facts, known.sound.duration_s), read(question)
    if any(one.name == "describe" for one in asked):
        return " ".join(evidence_of(slots))
    composer = Composer(RULES, Random(0))
    said = [sentence for one in asked for sentence in _steps(one, known, slots, composer)]
    return " ".join(dict.fromkeys(said)) or NOT_MEASURED


def _steps(asked: Asked, known: Known, slots: Slots, composer: Composer) -> Iterator[str]:
    """The evidence of a kind of question, and its step where there is some."""
    rules = [f"evidence_{fact}" for fact in EVIDENCE.get(asked.name, asked.kind.facts)]
    found = [sentence for rule in rules if rule in RULES and (sentence := composer.sentence(rule, sayable(slots)))]
    yield from found
    if asked.name in FROM_FILE and asked.kind.say(known, asked.words).answers:
        yield READ_FROM_FILE
    step = STEPS.get(asked.name)
    if (found or not asked.kind.facts) and step and (sentence := step(known, asked.words)):
        yield sentence


# --- what follows from the evidence ------------------------------------------------------------------------------------------

Step = Callable[[Known, Words], str | None]


def _compared(value: float | None, bound: float) -> str | None:
    if value is None:
        return None
    side = "above" if value > bound else "below" if value < bound else "exactly"
    return f"{number(value)} is {side} {number(bound)}."


def _key_beside(known: Known, words: Words) -> str | None:
    """Where a key that is asked about differs from that of the song."""
    own, asked = known.facts.key, named_key(words)
    if own is None:
        return None
    if asked is None:
        return f"{own.name} is a {own.mode} key."
    if asked.pitch == own.pitch:
        return f"The tonic is {own.tonic} in both{'' if asked.mode == own.mode else f', but {asked.mode} is not {own.mode}'}."
    relative = own.neighbours["relative key"]
    same_notes = ", although both have the same notes" if (asked.pitch, asked.mode) == (relative.pitch, relative.mode) else ""
    return f"The tonic is {own.tonic}, not {asked.tonic}{same_notes}."


def _at_time(known: Known, words: Words) -> str | None:
    at = seconds(words["time"])
    part = next((section for section in known.facts.sections if section.start <= at < section.end), None)
    return f"{clock(at)} lies between {clock(part.start)} and {clock(part.end)}." if part else None


def _nth_section(known: Known, words: Words) -> str | None:
    count = len(known.facts.sections)
    return f"The last of them is number {count}." if count and words["nth"].lower() in ("last", *ORDINALS) else None


def _of_letter(known: Known, words: Words) -> str | None:
    letter = words["letter"].upper()
    times = len(lettered(known, letter))
    return f"{letter} is among them {'once' if times == 1 else f'{times} times' if times else 'nowhere'}." if known.facts.sections else None


def _order_of_chords(known: Known, words: Words) -> str | None:
    names = [chord.name for chord in progression(known.facts.chords)]
    more = " and so on" if len(names) > FIRST_CHORDS else ""
    return f"They follow each other as {' - '.join(names[:FIRST_CHORDS])}{more}." if names else None


def _rule(name: str) -> Step:
    """A sentence that says how something is judged, whatever the song."""
    return lambda known, words: RULES[f"step_{name}"].strip()


STEPS: Mapping[str, Step] = {
    "tempo_than": lambda known, words: _compared(known.facts.tempo.bpm, float(words["bpm"])),
    "tempo_is": lambda known, words: _compared(known.facts.tempo.bpm, float(words["bpm"])),
    "pace": _rule("pace"),
    "tempo_octaves": _rule("tempo_octaves"),
    "tempo_changes": _rule("tempo_changes"),
    "chord_nth": _order_of_chords,
    "chord_after": _order_of_chords,
    "key_is": _key_beside,
    "key_relative": _rule("key_relative"),
    "key_mixing": _rule("key_mixing"),
    "mixing": _rule("key_mixing"),
    "key_signature": _rule("key_signature"),
    "key_scale": _rule("key_scale"),
    "section_at": _at_time,
    "section_nth": _nth_section,
    "section_start": _of_letter,
    "section_back": _of_letter,
    "named_section": _rule("named_section"),
    "loudness_than": lambda known, words: _compared(known.facts.loudness.integrated_lufs, -abs(float(words["lufs"]))),
    "volume": _rule("volume"),
    "dynamics": _rule("dynamics"),
    "clipping": _rule("clipping"),
    "duration_than": lambda known, words: f"{clock(known.sound.duration_s)} is held against {clock(seconds(words['time']))}.",
}
"""What is concluded from the evidence, by the kinds of questions of `questions.KINDS` that need a step of their own."""
