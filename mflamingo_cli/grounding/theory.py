"""Answers by the theory of music: chords of a key, notes of a chord, church modes, how far two keys lie apart.

As in `replies`: facts and the words of the question in, a sentence out; what was not measured is said to be unknown.
"""

from __future__ import annotations

from mflamingo_cli.grounding import NO_ANSWER, likely, listed, sure
from mflamingo_cli.grounding.prose.harmony import LETTERS, progression
from mflamingo_cli.grounding.replies import (
    SCALES,
    FactAnswer,
    Known,
    Words,
    chord_nth,
    key,
    key_scale,
    named_key,
    place_of,
    scale,
    spelled,
    unknown,
    yes_or_no,
)
from mflamingo_cli.parsers import find_chords, parse_key, sounding

TRIADS = {(4, 7): "", (3, 7): "m", (3, 6): "dim"}  # semitones of third and fifth above the root
NOTES = {  # of a chord, in semitones above its root; their letters are every second one but for those of UNEVEN
    "": (0, 4, 7), "m": (0, 3, 7), "dim": (0, 3, 6), "aug": (0, 4, 8), "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "m7": (0, 3, 7, 10),
    "m7b5": (0, 3, 6, 10), "dim7": (0, 3, 6, 9), "sus2": (0, 2, 7), "sus4": (0, 5, 7), "6": (0, 4, 7, 9), "m6": (0, 3, 7, 9),
}  # fmt: skip
UNEVEN = {"sus2": (0, 1, 4), "sus4": (0, 3, 4), "6": (0, 2, 4, 5), "m6": (0, 2, 4, 5)}
NUMERALS = ("i", "ii", "iii", "iv", "v", "vi", "vii")
MODES = {"ionian": "major", "aeolian": "minor"}


def triads(tonic: str, kind: str) -> list[str]:
    """The chords on the seven degrees of a scale: C, minor -> Cm, Ddim, Eb, Fm, Gm, Ab, Bb."""
    steps = SCALES[kind]
    above = [tuple((steps[(at + further) % 7] - step) % 12 for further in (2, 4)) for at, step in enumerate(steps)]
    return [note + TRIADS[intervals[0], intervals[1]] for note, intervals in zip(scale(tonic, kind), above, strict=True)]


def key_chords(known: Known, words: Words) -> FactAnswer:
    """The chords of the song's key or church mode or of a key that is named, or the one on a degree by its Roman numeral."""
    asked = named_key(words)
    own = asked or known.facts.key
    if own is None:
        return unknown("The key")
    tonic, _, kind = ("" if asked else known.facts.scale or "").partition(" ")
    song = key(known).text[:-1]
    if kind in SCALES:
        song += f", and its scale is {tonic} {kind}"
    else:
        tonic, kind = own.tonic, own.mode
    found, numeral = triads(tonic, kind), words.get("numeral")
    raised = f", often {found[4].removesuffix('m')} instead of {found[4]}" if kind == "minor" else ""
    if numeral:
        at = NUMERALS.index(numeral.lower())
        chord = f"{found[at]}{raised if at == NUMERALS.index('v') else ''}"
        return FactAnswer(f"The {numeral} of {own.name} is {chord}." if asked else f"{song}; its {numeral} is {chord}.")
    begun = f"The chords of {own.name} are" if asked else f"{song}, whose chords are"
    return FactAnswer(f"{begun} {listed(found)}{raised}.")


def chord_notes(known: Known, words: Words) -> FactAnswer:
    """The notes of a chord, whatever the song."""
    asked = find_chords(words["chord"])
    if not asked or (quality := sounding(asked[0].value)[1]) not in NOTES:
        return FactAnswer(NO_ANSWER, answers=False)
    name, root = asked[0].value, sounding(asked[0].value)[0]
    letters = [LETTERS[(LETTERS.index(name[0]) + step) % 7] for step in UNEVEN.get(quality, (0, 2, 4, 6))]
    notes = [spelled(letter, root + step) for letter, step in zip(letters, NOTES[quality], strict=False)]
    bass = f", with {words['bass']} in the bass" if "bass" in words else ""
    return FactAnswer(f"{name}{bass and '/' + words['bass']} has the notes {' '.join(notes)}{bass}.")


def nth_chord_notes(known: Known, words: Words) -> FactAnswer:
    """The notes of the first, second, last chord."""
    found, word = progression(known.facts.chords), words["nth"].lower()
    if not found:
        return unknown("Chords")
    index = place_of(word, len(found))
    return chord_notes(known, {**words, "chord": found[index].name}) if index < len(found) else chord_nth(known, words)


def scale_notes(known: Known, words: Words) -> FactAnswer:
    """The notes of a key that is named, whatever the song; "a minor scale" names none."""
    asked = named_key(words)
    return FactAnswer(f"{asked.name} has the notes {' '.join(scale(asked.tonic, asked.mode))}.") if asked else key_scale(known, words)


def scale_is(known: Known, words: Words) -> FactAnswer:
    """Whether the scale is a church mode."""
    own = known.facts.key
    if own is None:
        return unknown("The key")
    tonic, _, mode = (known.facts.scale or f"{own.tonic} {own.mode}").partition(" ")
    asked = words["mode"].lower()
    because = f"its scale is {known.facts.scale}" if known.facts.scale else f"it is in {own.name}"
    named = parse_key(f"{words.get('note', tonic)} major")
    is_so = MODES.get(asked, asked) == mode and named is not None and named.pitch == own.pitch
    return yes_or_no(is_so, known.facts.confidence.key, because)


def key_distance(known: Known, words: Words) -> FactAnswer:
    """By how many semitones it has to be moved to be in another key."""
    own, asked = known.facts.key, named_key(words)
    if own is None or asked is None:
        return unknown("The key") if own is None else FactAnswer(NO_ANSWER, answers=False)
    up = (asked.pitch - own.pitch) % 12
    doubt = "" if sure(known.facts.confidence.key) else " The key of this song is not sure."
    if not up:
        return FactAnswer(f"The tonic is {asked.tonic} already: it is {likely(known.facts.confidence.key)}in {own.name}.")
    return FactAnswer(f"Moved up {up} or down {12 - up} semitones, {own.name} becomes {asked.tonic} {own.mode}.{doubt}")


def ends_home(known: Known, words: Words) -> FactAnswer:
    """Whether it begins or ends on the chord of the tonic."""
    own, found = known.facts.key, progression(known.facts.chords)
    if own is None or not found:
        return unknown("The key" if own is None else "Chords")
    last = words["ends"].lower().startswith(("end", "clos", "finish", "last", "final"))
    chord, word = (found[-1], "last") if last else (found[0], "first")
    home = chord.triad == (own.pitch, own.mode[:3])
    return yes_or_no(home, known.facts.confidence.key, f"its {word} chord is {chord.name}, and it is in {own.name}")
