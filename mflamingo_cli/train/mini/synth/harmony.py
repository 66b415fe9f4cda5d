"""Chord vocabulary, keys, progressions: templates by flavour, walks over a functional grammar, colours. Roots are pitch classes (0 = C)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.measure.facts import pitch_class

SHARP_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FLAT_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
FLAT_MAJORS = frozenset({5, 10, 3, 8, 1})  # F Bb Eb Ab Db; a minor key is written like its relative major
QUALITIES = ("maj", "min", "7", "maj7", "min7", "dim", "sus4")  # classes of the chord heads; Harte names


@dataclass(frozen=True)
class ChordType:
    """How MMA writes a chord type, its tones above the root, and the class of the chord heads that is nearest."""

    mma: str
    tones: tuple[int, ...]
    quality: str


CHORDS: dict[str, ChordType] = {  # by Harte name
    "maj": ChordType("", (0, 4, 7), "maj"),
    "min": ChordType("m", (0, 3, 7), "min"),
    "7": ChordType("7", (0, 4, 7, 10), "7"),
    "maj7": ChordType("M7", (0, 4, 7, 11), "maj7"),
    "min7": ChordType("m7", (0, 3, 7, 10), "min7"),
    "dim": ChordType("dim", (0, 3, 6), "dim"),
    "sus4": ChordType("sus4", (0, 5, 7), "sus4"),
    "sus2": ChordType("sus2", (0, 2, 7), "sus4"),
    "aug": ChordType("aug", (0, 4, 8), "maj"),
    "dim7": ChordType("dim7", (0, 3, 6, 9), "dim"),
    "hdim7": ChordType("m7b5", (0, 3, 6, 10), "dim"),
    "maj6": ChordType("6", (0, 4, 7, 9), "maj"),
    "min6": ChordType("m6", (0, 3, 7, 9), "min"),
    "minmaj7": ChordType("mM7", (0, 3, 7, 11), "min"),
    "9": ChordType("9", (0, 4, 7, 10, 14), "7"),
    "maj9": ChordType("M9", (0, 4, 7, 11, 14), "maj7"),
    "min9": ChordType("m9", (0, 3, 7, 10, 14), "min7"),
    "add9": ChordType("add9", (0, 4, 7, 14), "maj"),
    "7sus4": ChordType("7sus4", (0, 5, 7, 10), "sus4"),
    "7b9": ChordType("7b9", (0, 4, 7, 10, 13), "7"),
}
NUMERALS = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}
SUFFIXES = {  # of a Roman numeral: (of a capital one, of a small one)
    "": ("maj", "min"), "7": ("7", "min7"), "maj7": ("maj7", "minmaj7"), "9": ("9", "min9"), "maj9": ("maj9", "min9"),
    "6": ("maj6", "min6"), "sus4": ("sus4", "sus4"), "sus2": ("sus2", "sus2"), "7sus4": ("7sus4", "7sus4"), "add9": ("add9", "min9"),
    "7b9": ("7b9", "7b9"), "+": ("aug", "aug"), "o": ("dim", "dim"), "o7": ("dim7", "dim7"), "h7": ("hdim7", "hdim7"),
}  # fmt: skip
NUMERAL = re.compile(r"([b#]?)([iIvV]+)(" + "|".join(sorted(map(re.escape, SUFFIXES), key=len, reverse=True)) + r")(?:/([b#]?)([iIvV]+))?")


@dataclass(frozen=True)
class Flavour:
    """A way of using a key: its mode in name, the scale of its melodies, its weight, and loops.

    A loop has one item a bar, "a,b" two in a bar; most open on the tonic, because those that do not name no key of their own.
    """

    mode: str
    scale: tuple[int, ...]
    weight: float
    loops: tuple[str, ...]


IONIAN, MIXOLYDIAN, LYDIAN = (0, 2, 4, 5, 7, 9, 11), (0, 2, 4, 5, 7, 9, 10), (0, 2, 4, 6, 7, 9, 11)
AEOLIAN, DORIAN, PHRYGIAN, HARMONIC = (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 1, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 8, 11)
FLAVOURS: dict[str, Flavour] = {
    "major": Flavour("major", IONIAN, 3, (
        "I V vi IV", "I vi IV V", "I IV V I", "I IV I V", "I ii IV V", "I iii IV V", "I V IV IV", "I IV vi V", "I vi ii V7",
        "I I V V ii V7 I I", "I V vi iii IV I IV V", "I I IV IV V V I I", "I IV ii V", "I Isus4 I V", "I viio vi V", "I I I V V V V I",
        "I IV V IV", "I V I V", "I I IV I V IV I V", "I ii iii IV", "I iii vi IV", "I vi iii V", "I IV I,V I", "I,IV I,V I,IV V",
        "I,V vi,iii IV,I ii,V", "I Isus2 IV V", "Iadd9 V vi7 IVmaj7", "I vi7 IV Vsus4,V", "I IV,V I IV,V", "I V ii IV", "I IV iii ii",
        "I I IV V", "I V V I", "I IV IV I V V I I", "I vi V IV", "I iii ii V",
    )),
    "major, from elsewhere": Flavour("major", IONIAN, 0.5, (
        "IV V I I", "vi IV I V", "IV I V vi", "ii V I vi", "V IV I I", "IV V iii vi ii V I I", "IV I V I", "vi V IV I", "ii IV I V",
        "V I V I", "IV V vi I", "iii vi ii V I I I I",
    )),
    "major, sevenths": Flavour("major", IONIAN, 1.6, (
        "Imaj7 vi7 ii7 V7", "ii7 V7 Imaj7 Imaj7", "Imaj7 ii7 V7 Imaj7", "Imaj7 IVmaj7 ii7 V7", "Imaj7 VI7 ii7 V7", "Imaj7 iii7 vi7 ii7,V7",
        "Imaj9 vi9 ii9 V9", "I6 vi7 ii7 V7", "Imaj7,vi7 ii7,V7 Imaj7,vi7 ii7,V7", "iii7 VI7 ii7 V7 Imaj7 IVmaj7 ii7,V7 I6",
        "Imaj7 #io7 ii7 V7", "Imaj7 bIIImaj7 bVImaj7 bII7", "ii9 V7sus4,V7 Imaj9 VI7b9", "Imaj7 II7 ii7 V7", "Imaj7 IV9 Imaj7 V9",
        "Imaj7 viih7,III7 vi7 v7,I7 IVmaj7 iv6 iii7,VI7 ii7,V7", "IVmaj7 iii7 ii7 Imaj7", "Imaj7 ii7 iii7 IVmaj7",
    )),
    "major, secondary": Flavour("major", IONIAN, 1.3, (
        "I III7 vi IV", "I II7 V7 I", "I I7 IV iv", "I V7/vi vi V7/V", "I V7/ii ii V7", "I V7/IV IV V7", "I V7/vi vi V7/IV IV V7/V V V7",
        "I,V7/ii ii,V7 I V", "I #io7 ii V", "I V IV iv", "I iv I V", "I bVI bVII I", "I I+ I6 I7 IV iv I V7", "I iiio ii V7",
        "I V7/V V7 I", "I IV #ivo7 V", "I iih7 V7 I", "I bIII IV iv", "I V,V7/vi vi IV,V",
    )),
    "mixolydian": Flavour("major", MIXOLYDIAN, 0.9, (
        "I bVII IV I", "I bVII IV IV", "I I bVII IV", "I bVII I bVII", "I IV bVII IV", "I v IV I", "I bVII v IV", "I7 bVII IV I7",
        "I I bVII bVII IV IV I I", "I bIII IV I", "I,bVII IV I,bVII IV",
    )),
    "lydian": Flavour("major", LYDIAN, 0.2, ("I II I II", "Imaj7 II Imaj7 II", "I II IV I", "I I II II")),
    "blues": Flavour("major", MIXOLYDIAN, 0.8, (
        "I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7", "I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7", "I7 I7 IV7 I7", "I7 IV7 I7 V7",
        "I7 IV7 I7 I7 IV7 #ivo7 I7 VI7 ii7 V7 I7,VI7 ii7,V7", "I I I I7 IV IV I I V7 V7 I I", "I9 I9 IV9 I9",
    )),
    "minor": Flavour("minor", AEOLIAN, 2.2, (
        "i bVI bIII bVII", "i bVII bVI bVII", "i bVI iv v", "i iv bVII bIII", "i bVI bVII i", "i bIII bVII iv", "i v iv i", "i bVII iv i",
        "i bVII bVI v", "i iv v i", "i bIII bVI bVII", "i v bVI bVII", "i i bVI bVII", "i bVI i bVII", "i iv i v", "i bVII bIII bVI",
        "i,bVII bVI,bVII i bVI,bVII", "i bVI bIII iv", "i7 bVImaj7 bVII i7", "isus2 i bVI bVII", "i iv bVI bVII", "i bIII iv bVI",
    )),
    "minor, from elsewhere": Flavour("minor", AEOLIAN, 0.5, ("bVI bVII i i", "iv v i i", "bVI bIII bVII i", "iv i bVII i", "bVII bVI i i")),
    "harmonic minor": Flavour("minor", HARMONIC, 2, (
        "i iv V7 i", "i bVII bVI V", "i iv i V", "i V i V7", "i iio V7 i", "i i iv iv V7 V7 i i", "i V bVI iv", "i iv bVI V7", "i i bVI V",
        "i Vsus4 V7 i", "i,bVII bVI,V i,bVII bVI,V", "i bVI iv V", "i V V i", "i iv V V", "i V7/iv iv V7", "i bIII V7/V V7", "i iv bII V7",
        "i viio7 i V7", "i iih7 V7 i", "i bVI bII V", "i iv,V i iv,V", "i V7 bVI bIII iv i V7 i", "i+ i iv V",
    )),
    "minor, sevenths": Flavour("minor", DORIAN, 1.2, (
        "i7 iv7 bVII7 bIIImaj7", "i7 iv7 i7 V7", "iih7 V7 i7 i7", "i7 iih7 V7 i6", "i7,bVImaj7 iih7,V7 i7,bVImaj7 iih7,V7",
        "i9 iv9 bVII9 bIIImaj9", "i7 bVI7 V7 i7", "i6 bVI7 iih7 V7b9", "iv7 bVII7 bIIImaj7 bVImaj7 iih7 V7 i7 i7", "imaj7 iv7 iih7 V7",
        "i7 bIII7 bVImaj7 V7", "i7 i7 iv7 V7sus4,V7",
    )),
    "dorian": Flavour("minor", DORIAN, 0.9, (
        "i IV i IV", "i7 IV7 i7 IV7", "i bIII IV i", "i ii bIII IV", "i bVII IV i", "i7 ii7 i7 ii7", "i v IV i", "i i IV bVII",
        "i9 IV9 i9 IV9", "i bIII bVII IV",
    )),
    "phrygian": Flavour("minor", PHRYGIAN, 0.3, ("i bII i bII", "i bII bIII bII", "i bVII bII i", "i i bII bVII")),
    "minor blues": Flavour("minor", AEOLIAN, 0.4, (
        "i7 i7 i7 i7 iv7 iv7 i7 i7 bVI7 V7 i7 V7", "i iv i i iv iv i i V7 iv i V7", "i7 iv7 i7 i7",
    )),
}  # fmt: skip
GRAMMAR = {  # what may follow a chord, by mode; repeated items weigh more
    "major": {
        "I": "IV IV V V vi vi ii iii V7/ii V7/vi bVII iv", "ii": "V V V7 IV viio I", "iii": "vi vi IV ii", "IV": "I I V V ii iv viio",
        "V": "I I I vi IV", "V7": "I I vi", "vi": "IV IV ii ii V iii V7/V", "viio": "I vi", "V7/ii": "ii", "V7/vi": "vi", "V7/V": "V V7",
        "bVII": "IV I", "iv": "I V",
    },
    "minor": {
        "i": "iv iv bVI bVI bVII bVII V v bIII iio", "iio": "V V7", "bIII": "bVI bVII iv V", "iv": "i V V7 bVII bVI", "V": "i i bVI",
        "V7": "i i bVI", "v": "i iv bVI", "bVI": "bVII bVII bIII iv V iio", "bVII": "i i bIII bVI",
    },
}  # fmt: skip
CADENCES = {"major": ("V", "V7", "I", "IV", "V7sus4"), "minor": ("V", "V7", "i", "bVII", "iv")}
COLOURS = {  # what a plain numeral may be replaced by where the harmony is rich
    "I": ("Imaj7", "Iadd9", "I6", "Isus2", "Imaj9"), "ii": ("ii7", "ii7", "ii9"), "iii": ("iii7",), "IV": ("IVmaj7", "IVadd9", "IVsus2"),
    "V": ("V7", "V7", "V7sus4", "Vsus4", "V9"), "vi": ("vi7", "vi7", "vi9"), "i": ("i7", "i7", "i9", "iadd9"), "iv": ("iv7", "iv6"),
    "v": ("v7",), "bVI": ("bVImaj7",), "bIII": ("bIIImaj7",), "bVII": ("bVII7", "bVIIsus2"), "viio": ("viih7",), "iio": ("iih7",),
}  # fmt: skip
RICHNESS = {"jazz": 0.6, "latin": 0.3, "soul": 0.4, "funk": 0.5, "blues": 0.3, "ambient": 0.3, "ballad": 0.25, "waltz": 0.25}
PLAIN = 0.1  # richness of the other styles
SEVENTH_STYLES = ("jazz", "funk", "latin", "soul")  # their flavours with sevenths and blues weigh three times as much
WALKS = 0.22  # share of progressions from the grammar
TWO_BARS = 0.3  # share of sections whose bars may be split by an added dominant or suspension

Harmony = tuple[int, str, int]  # root, Harte name of the type, bass; pitch classes
Bar = tuple[Harmony, ...]


def key_flats(tonic: int, mode: str) -> bool:
    """Whether a key is written with flats: by its major, or its relative major."""
    return (tonic + (3 if mode == "minor" else 0)) % 12 in FLAT_MAJORS


def pitch_name(pitch_class: int, flats: bool) -> str:
    """Name of a pitch class (0 = C)."""
    return (FLAT_NAMES if flats else SHARP_NAMES)[pitch_class % 12]


def chord_set(names: Iterable[str]) -> set[tuple[int, str]]:
    """Chords by pitch class of the root and kind, without their spelling: ("C", "F#dim") -> {(0, ""), (6, "dim")}."""
    matches = (re.fullmatch(r"([A-G][#b]?)(.*)", name) for name in names)
    return {(pitch_class(match[1]), match[2]) for match in matches if match}


def roman(text: str) -> tuple[int, str]:
    """Roman numeral -> (semitones above the tonic, Harte name): `bVII` -> (10, "maj"), `V7/V` -> (2, "7")."""
    match = NUMERAL.fullmatch(text)
    assert match, text
    accidental, numeral, suffix, target_accidental, target = match.groups()
    altered = {"": 0, "b": -1, "#": 1}
    above = NUMERALS[target.lower()] + altered[target_accidental] if target else 0
    return (NUMERALS[numeral.lower()] + altered[accidental] + above) % 12, SUFFIXES[suffix][numeral.islower()]


def draw_flavour(rng: np.random.Generator, mode: str, style: str) -> str:
    """A flavour of a mode, sevenths and blues more often where the style has them."""
    names = [name for name, flavour in FLAVOURS.items() if flavour.mode == mode]
    rich = [3.0 if (style in SEVENTH_STYLES and "sevenths" in name) or (style == "blues" and "blues" in name) else 1.0 for name in names]
    weights = np.array([FLAVOURS[name].weight for name in names]) * rich
    return names[rng.choice(len(names), p=weights / weights.sum())]


def walk(rng: np.random.Generator, mode: str, bars: int) -> list[str]:
    """A random walk over the functional grammar, from the tonic to a cadence."""
    now, found = "I" if mode == "major" else "i", []
    for _ in range(bars - 1):
        found.append(now)
        now = str(rng.choice(GRAMMAR[mode][now].split()))
    cadence = str(rng.choice(CADENCES[mode]))
    return [*found, cadence] if bars > 1 else [now]


def _split_bars(rng: np.random.Generator, bars: list[str]) -> list[str]:
    """Some bars get a second chord: a suspension before a dominant, or the dominant of what follows."""
    found = []
    for now, after in zip(bars, bars[1:] + bars[:1], strict=True):
        if "," not in now and rng.random() < 0.3:
            plain = after.split(",")[0]
            if now == "V":
                now = "Vsus4,V"
            elif plain in ("ii", "vi", "V", "IV", "iv", "iii") and now != plain:
                now = f"{now},V7/{plain}"
        found.append(now)
    return found


def progression(rng: np.random.Generator, tonic: int, flavour: str, style: str, beats: int) -> tuple[Bar, ...]:
    """Bars of a loop of a flavour, or of a walk, coloured by the style; two chords a bar where a bar can be split."""
    kind = FLAVOURS[flavour]
    bars = walk(rng, kind.mode, int(rng.choice([4, 8]))) if rng.random() < WALKS else kind.loops[rng.integers(len(kind.loops))].split()
    if rng.random() < TWO_BARS:
        bars = _split_bars(rng, bars)
    rich = RICHNESS.get(style, PLAIN)
    inverted = 0.25 if rng.random() < 0.3 else 0.0
    found = []
    for bar in bars:
        names = bar.split(",") if beats >= 2 else bar.split(",")[:1]
        coloured = [str(rng.choice(COLOURS[n])) if n in COLOURS and rng.random() < rich else n for n in names]
        found.append(tuple(_sounding(rng, tonic, name, inverted) for name in coloured))
    return tuple(found)


def _sounding(rng: np.random.Generator, tonic: int, name: str, inverted: float) -> Harmony:
    offset, kind = roman(name)
    root = (tonic + offset) % 12
    upper = CHORDS[kind].tones[1:3] if kind in ("maj", "min") and rng.random() < inverted else (0,)
    return root, kind, (root + int(rng.choice(upper))) % 12
