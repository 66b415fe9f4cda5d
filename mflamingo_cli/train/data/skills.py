"""Questions that sure facts answer: how each is asked, its value in a record, wrong values that are near it, what it is known by.

The skills are those of MF-Skills (arXiv 2511.10289, figure 22) that this program measures with a confidence: attributes (tempo, key,
meter), the voice, and the words where a file of them lies beside the song. Chords and sections have no confidence and are not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.grounding import main_chords, sure
from mflamingo_cli.measure import Facts
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.parsers import parse_key
from mflamingo_cli.render.lyrics import Lyrics
from mflamingo_cli.schema import Analysis
from mflamingo_cli.tasks import TASKS
from mflamingo_cli.text import clock, number

SUNG: Mapping[bool | None, str] = {True: "Yes.", False: "No."}
METERS = ("2/4", "3/4", "4/4", "6/8")
LEAST_LINE = 3  # words of a line of lyrics that is asked for


@dataclass(frozen=True)
class Skill:
    """A fact that is asked for."""

    questions: tuple[str, ...]  # the first is the program's own
    value: Callable[[Analysis], str | None]
    confidence: Callable[[Analysis], float | None]
    near: Callable[[str], list[str]]
    reasons: Callable[[Analysis, str], str]  # of a record and its value: by what it is known, in sentences that claim nothing else


# --- values near a right one -------------------------------------------------------------------------------------------------


def _near_tempi(value: str) -> list[str]:
    """The tempi that are most often mistaken for one, as exact as it is."""
    bpm = float(value)
    digits = 0 if bpm.is_integer() else 1
    return [number(round(bpm * ratio, digits)) for ratio in (0.5, 2.0, 2 / 3, 1.25, 0.8)]


def _near_keys(value: str) -> list[str]:
    """The relative, the parallel and the two neighbours in fifths."""
    key = parse_key(value)
    if key is None:
        return []
    other = "minor" if key.mode == "major" else "major"
    relative = Key.of(key.pitch + (9 if key.mode == "major" else 3), other)
    found = (relative, Key.of(key.pitch, other), Key.of(key.pitch + 7, key.mode), Key.of(key.pitch + 5, key.mode))
    return [near.name for near in found]


# --- reasons -----------------------------------------------------------------------------------------------------------------


def _tempo_reasons(record: Analysis, value: str) -> str:
    beat_s = 60 / float(value)
    found = f"I tap along with the pulse: the taps are {beat_s:.2f} seconds apart."
    if record.meter.value and sure(record.meter.confidence):
        found += f" Bars are in {record.meter.value}."
    return f"{found} Sixty seconds hold {value} of them, so the tempo is {value} BPM."


def _key_reasons(record: Analysis, value: str) -> str:
    key = parse_key(value)
    chords = main_chords(Facts(chords=record.chords))
    assert key is not None
    tonic = f"{key.tonic}{'m' * (key.mode == 'minor')}"
    found = f"The chords that sound longest are {', '.join(chords)}." if chords else "I listen for the note on which phrases come to rest."
    if tonic in chords:
        found += f" Among them is {tonic}, the chord on the tonic."
    return f"{found} The notes and where they come to rest make it {value}."


def _meter_reasons(record: Analysis, value: str) -> str:
    return f"I count from one strong beat to the next: {value.partition('/')[0]} to a bar. It is in {value}."


def _vocals_reasons(record: Analysis, value: str) -> str:
    spans = [f"from {clock(span.start)} to {clock(span.end)}" for span in record.vocals.spans if span.label == "singing"][:3]
    if value == "No.":
        return "I listen for a voice from the beginning to the end and hear instruments alone. Nobody sings."
    return f"I listen for a voice above the instruments and hear one{', ' if spans else ''}{', '.join(spans)}. Somebody sings."


# --- the table ---------------------------------------------------------------------------------------------------------------

SKILLS: Mapping[str, Skill] = {
    "tempo": Skill(
        (TASKS["tempo"].prompt, "How fast is this track, in beats per minute?", "What tempo does this piece have, in BPM?"),
        lambda r: number(round(r.tempo.bpm, 1)) if r.tempo.bpm and r.tempo.source == "measured" else None,
        lambda r: r.tempo.confidence,
        _near_tempi,
        _tempo_reasons,
    ),
    "key": Skill(
        (TASKS["key"].prompt, "Which key is this music in?", "Name the tonic and the mode of this track."),
        lambda r: r.key.name if r.key.source == "measured" else None,
        lambda r: r.key.confidence,
        _near_keys,
        _key_reasons,
    ),
    "meter": Skill(
        (TASKS["meter"].prompt, "What meter is this track in?", "How many beats does a bar of this piece have? Give the time signature."),
        lambda r: r.meter.value if r.meter.source == "measured" else None,
        lambda r: r.meter.confidence,
        lambda value: [meter for meter in METERS if meter != value],
        _meter_reasons,
    ),
    "vocals": Skill(
        ("Does anybody sing in this song?", "Is there singing in this track?", "Is this piece sung? Answer with yes or no."),
        lambda r: SUNG.get(r.vocals.present) if r.vocals.source == "measured" else None,
        lambda r: r.vocals.confidence,
        lambda value: ["No." if value == "Yes." else "Yes."],
        _vocals_reasons,
    ),
}


# --- words with times --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LyricQuestion:
    """A question about words beside a song, its answer, and wrong answers from the same song."""

    task: str
    question: str
    answer: str
    others: tuple[str, ...]


def lyric_questions(lyrics: Lyrics, rng: np.random.Generator) -> Iterator[LyricQuestion]:
    """Yield which line follows one, and where times are known when one is sung; a line that returns is not asked for."""
    lines = [(time, words) for time, words in lyrics.timed if words] or [
        (0.0, words) for words in lyrics.plain.splitlines() if words.strip()
    ]
    texts = [words for _, words in lines]
    once = [at for at, words in enumerate(texts) if texts.count(words) == 1 and len(words.split()) >= LEAST_LINE]
    followed = [at for at in once if at + 1 < len(texts)]
    if followed:
        at = int(rng.choice(followed))
        others = tuple(dict.fromkeys(words for words in texts if words not in (texts[at], texts[at + 1])))
        yield LyricQuestion("lyrics-next", f"Which line is sung after “{texts[at]}”?", texts[at + 1], others)
    if lyrics.timed and once:
        at = int(rng.choice(once))
        others = tuple(dict.fromkeys(clock(time) for time, _ in lines if abs(time - lines[at][0]) >= 5.0))
        yield LyricQuestion("lyrics-when", f"When is the line “{texts[at]}” sung?", clock(lines[at][0]), others)
