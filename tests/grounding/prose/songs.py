"""Made-up songs whose facts fit together, for texts that are written from facts: chords of a key, sections in order, voices within them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from mflamingo_cli.grounding.prose.harmony import degree
from mflamingo_cli.measure import Confidence, Facts, Key, Tempo, Voices
from mflamingo_cli.measure.chords import ROOTS
from mflamingo_cli.schema import Beat, Clipped, Dynamics, FormPart, KeySpan, Loudness, LoudPart, Segment, Tag

LOOPS = {
    "major": ("I V vi IV", "I vi IV V", "vi IV I V", "I IV", "I bVII IV", "ii V I", "I iv", "I iii IV V", "IV I V vi", "I IV bVI iv", "I"),
    "minor": ("i VI III VII", "i VII VI V", "i iv v", "i VII", "i iv VI V", "i III VII IV", "i VI", "i iv V", "i bII V", "i"),
}
TAGS = {
    "genre": ("rock", "metal", "classical", "electronic", "folk", "jazz"),
    "instruments": ("strings", "guitar", "drums", "piano"),
    "mood": ("energetic", "calm", "mellow"),
}


def chord(numeral: str, key: Key) -> str:
    """A chord of a key in Harte's notation: "vi" of C major -> "A:min"."""
    found = ((at, third) for at in range(12) for third in ("maj", "min", "dim") if degree(at, third, key) == numeral)
    root, third = next(found)
    return f"{ROOTS[root]}:{third}"


def made_up_song(seed: int) -> tuple[Facts, float]:
    """The facts of a song, each of them sometimes unknown or unsure, and its length in seconds."""
    rng = Random(seed)
    duration_s = rng.choice([35.0, 62.0, 128.4, 184.0, 213.4, 251.0, 402.0])
    bpm = rng.choice([round(rng.uniform(50, 190), 1), float(rng.choice([90, 100, 120, 128, 140, 172]))])
    key = Key.of(rng.randrange(12), rng.choice(["major", "minor"]))
    sections = _sections(rng, duration_s)
    sung = rng.choice([True, True, False, None])
    facts = Facts(
        tempo=Tempo(bpm, (round(bpm / 2, 1),)) if rng.random() < 0.9 else Tempo(),
        key=key if rng.random() < 0.9 else None,
        keys=_keys(rng, key, duration_s),
        scale=f"{key.tonic} dorian" if key.mode == "minor" and rng.random() < 0.2 else None,
        meter=rng.choice(["4/4", "4/4", "3/4", "6/8", None]),
        beats=_beats(bpm, duration_s) if rng.random() < 0.5 else (),
        chords=_chords(rng, key, sections, bpm, duration_s) if rng.random() < 0.9 else (),
        sections=sections,
        loudness=_loudness(rng),
        dynamics=_dynamics(rng, duration_s),
        vocals=Voices(sung, _voices(rng, sections, duration_s) if sung else ()),
        tags=tuple(
            Tag(kind, name, 0.84, "measured") for kind, names in TAGS.items() for name in rng.sample(names, rng.choice([0, 1, 1, 2]))
        ),  # type: ignore[arg-type]
        confidence=Confidence(*(rng.choice([0.95, 0.9, 0.85, 0.6]) for _ in range(4))),
    )
    return (replace(facts, keys=(), scale=None) if facts.key is None else facts), duration_s


def _sections(rng: Random, duration_s: float) -> tuple[FormPart, ...]:
    count = rng.choice([0, 1, 2, 3, 4, 5, 6, 8])
    letters = "A"
    while len(letters) < count:
        others = [letter for letter in sorted(set(letters)) if letter != letters[-1]]
        letters += chr(max(map(ord, letters)) + 1) if rng.random() < 0.45 or not others else rng.choice(others)
    edges = [0.0, *(float(at) for at in sorted(rng.sample(range(4, int(duration_s) - 4), max(count - 1, 0)))), duration_s]
    spans = zip(edges[:-1], edges[1:], letters, strict=True) if count else ()
    return tuple(FormPart(start, end, letter, lufs=round(rng.uniform(-20, -9), 1)) for start, end, letter in spans)


def _keys(rng: Random, key: Key, duration_s: float) -> tuple[KeySpan, ...]:
    if rng.random() < 0.8:
        return (KeySpan(0.0, duration_s, key.name, 0.9),)
    return (KeySpan(0.0, 0.6 * duration_s, key.name, 0.9), KeySpan(0.6 * duration_s, duration_s, Key.of(key.pitch + 2, key.mode).name, 0.9))


def _beats(bpm: float, duration_s: float) -> tuple[Beat, ...]:
    return tuple((round(at * 60 / bpm, 3), at % 4 + 1) for at in range(int(duration_s * bpm / 60)))


def _chords(rng: Random, key: Key, sections: tuple[FormPart, ...], bpm: float, duration_s: float) -> tuple[Segment, ...]:
    """One loop for all, or one for each letter."""
    common = rng.choice(LOOPS[key.mode]) if rng.random() < 0.6 else None
    bar_s, found, at, loops = 240 / bpm, list[Segment](), 0, dict[str, str]()
    while (start := at * bar_s) < duration_s:
        letter = next((section.label for section in sections if section.start <= start < section.end), "A")
        numerals = loops.setdefault(letter, common or rng.choice(LOOPS[key.mode])).split()
        found.append(Segment(start, min(start + bar_s, duration_s), chord(numerals[at % len(numerals)], key)))
        at += 1
    return tuple(found)


def _voices(rng: Random, sections: tuple[FormPart, ...], duration_s: float) -> tuple[Segment, ...]:
    spans = tuple(Segment(part.start + 1, part.end - 1, "singing") for part in sections if part.end - part.start > 3 and rng.random() < 0.6)
    return spans or (Segment(0.2 * duration_s, 0.7 * duration_s, "singing"),)


def _loudness(rng: Random) -> Loudness:
    if rng.random() < 0.05:
        return Loudness()
    clipped = rng.choice([None, Clipped(0, 0.0), Clipped(23, 0.0026), Clipped(1, 0.0001)])
    return Loudness(round(rng.uniform(-25, -6), 1), round(rng.uniform(1, 15), 1), round(rng.uniform(-3, 1), 1), clipped)


def _dynamics(rng: Random, duration_s: float) -> Dynamics:
    if rng.random() < 0.3:
        return Dynamics()
    loudest, quietest = (LoudPart(at, at + 3, level) for at, level in ((0.7 * duration_s, -8.0), (0.1 * duration_s, -20.0)))
    return Dynamics(loudest, quietest, round(rng.uniform(0.5, 9), 1), round(rng.uniform(300, 3000)))
