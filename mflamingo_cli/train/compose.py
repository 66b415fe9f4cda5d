"""Song plans: key, form, chords, and parts (melody, comping, bass) written on top of a groove. Times are MMA beats.

Everything is drawn from one `numpy` generator, so that a plan is a pure function of its seed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.train.grooves import BEATS, Groove

SHARP_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FLAT_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
FLAT_MAJORS = frozenset({5, 10, 3, 8, 1})  # F Bb Eb Ab Db; a minor key is written like its relative major
QUALITIES = ("maj", "min", "7", "maj7", "min7", "dim", "sus4")  # classes of the chord heads; Harte names
MMA_SUFFIX = {"maj": "", "min": "m", "7": "7", "maj7": "M7", "min7": "m7", "dim": "dim", "sus4": "sus4"}
CHORD_TONES = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "dim": (0, 3, 6),
    "sus4": (0, 5, 7),
}
NUMERALS = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}

# One item a bar, "a,b" two in a bar. The tonic opens most of them: loops that start elsewhere name no key of their own.
MAJOR_FORMS = (
    "I V vi IV", "I vi IV V", "I IV V I", "I IV I V", "I ii IV V", "I iii IV V", "I V IV IV", "I bVII IV I", "I IV vi V", "I vi ii V7",
    "Imaj7 vi7 ii7 V7", "ii7 V7 Imaj7 Imaj7", "Imaj7 ii7 V7 Imaj7", "Imaj7 IVmaj7 ii7 V7", "I I7 IV iv", "I III7 vi IV", "I II7 V7 I",
    "I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7", "I I V V ii V7 I I", "I V vi iii IV I IV V", "I I IV IV V V I I", "I,V vi,iii IV,I ii,V",
    "I IV ii V", "I Isus4 I V", "I viio vi V", "Imaj7 VI7 ii7 V7", "I I I V V V V I", "I IV I,V I", "IV V I I", "vi IV I V",
    "I,IV I,V I,IV V",
)  # fmt: skip
MINOR_FORMS = (
    "i bVI bIII bVII", "i iv V7 i", "i bVII bVI V", "i bVI iv V", "i iv i V", "i iv bVII bIII", "i V i V7", "i bVI bVII i",
    "i bIII bVII iv", "i7 iv7 bVII7 bIIImaj7", "i iio V7 i", "i v iv i", "i i iv iv V7 V7 i i", "i7 i7 i7 i7 iv7 iv7 i7 i7 bVI7 V7 i7 V7",
    "i bVII iv i", "i,bVII bVI,V i,bVII bVI,V", "i V bVI iv", "i iv bVI V7", "i7 iv7 i7 V7", "i i bVI V", "i iv v i", "i Vsus4 V7 i",
)  # fmt: skip


def key_flats(tonic: int, mode: str) -> bool:
    """Whether a key is written with flats: by its major, or its relative major."""
    return (tonic + (3 if mode == "minor" else 0)) % 12 in FLAT_MAJORS


def pitch_name(pitch_class: int, flats: bool) -> str:
    """Name of a pitch class (0 = C)."""
    return (FLAT_NAMES if flats else SHARP_NAMES)[pitch_class % 12]


def roman(text: str) -> tuple[int, str]:
    """Roman numeral -> (semitones above the tonic, quality): `bVII` -> (10, "maj")."""
    match = re.fullmatch(r"(b?)([iIvV]+)(o|maj7|sus4|7)?", text)
    assert match, text
    flat, numeral, extra = match.groups()
    triad = "min" if numeral.islower() else "maj"
    quality = {None: triad, "o": "dim", "maj7": "maj7", "sus4": "sus4", "7": "min7" if triad == "min" else "7"}[extra]
    return (NUMERALS[numeral.lower()] - (1 if flat else 0)) % 12, quality


@dataclass(frozen=True)
class Chord:
    """A chord on the bar grid; `root` is a pitch class, `start` and `length` are MMA beats."""

    start: float
    length: float
    root: int
    quality: str


@dataclass(frozen=True)
class Section:
    """A part of the form with the groove it is played with."""

    name: str
    groove: str
    bars: tuple[tuple[tuple[int, str], ...], ...]  # per bar one or two (pitch class, quality)


@dataclass(frozen=True)
class Plan:
    """A whole song before it is played; `mma_tempo` counts MMA beats, `tempo` felt ones."""

    groove: Groove
    tonic: int
    mode: str
    tempo: float
    mma_tempo: float
    sections: tuple[Section, ...]
    form: tuple[int, ...]  # indices into sections

    @property
    def beats(self) -> int:
        """MMA beats in a bar."""
        return BEATS[self.groove.meter]

    @property
    def flats(self) -> bool:
        """Whether names are written with flats."""
        return key_flats(self.tonic, self.mode)

    @property
    def n_bars(self) -> int:
        """Bars of the whole form."""
        return sum(len(self.sections[i].bars) for i in self.form)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_bars * self.beats * 60 / self.mma_tempo

    def chords(self) -> list[Chord]:
        """All chords in order, on the beat grid."""
        found, bar = [], 0
        for index in self.form:
            for chords in self.sections[index].bars:
                length = self.beats / len(chords)
                found += [Chord(bar * self.beats + k * length, length, root, quality) for k, (root, quality) in enumerate(chords)]
                bar += 1
        return found


def _progression(rng: np.random.Generator, tonic: int, mode: str, beats: int) -> tuple[tuple[tuple[int, str], ...], ...]:
    forms = MAJOR_FORMS if mode == "major" else MINOR_FORMS
    bars = []
    for bar in forms[rng.integers(len(forms))].split():
        names = bar.split(",") if beats % 2 == 0 else bar.split(",")[:1]
        chords = [((tonic + offset) % 12, quality) for offset, quality in map(roman, names)]
        bars.append(tuple(chords))
    return tuple(bars)


def plan_song(rng: np.random.Generator, grooves: Sequence[Groove], min_s: float, max_s: float) -> Plan:
    """Draw a song: style first, then file, then groove, so that large libraries do not rule; uniform over the 24 keys."""
    styles = sorted({g.style for g in grooves})
    style = styles[rng.integers(len(styles))]
    files = sorted({g.file for g in grooves if g.style == style})
    file = files[rng.integers(len(files))]
    candidates = [g for g in grooves if g.file == file]
    groove = candidates[rng.integers(len(candidates))]
    tonic, mode = int(rng.integers(12)), ("major", "minor")[rng.integers(2)]
    felt = round(float(np.exp(rng.uniform(np.log(groove.slow), np.log(groove.fast)))), 1)
    tempo = round(felt / 3 * 2, 1) if groove.meter == "6/8" else felt  # 6/8 counted in slow dotted quarters
    mma_tempo = tempo * 3 if groove.meter == "6/8" else tempo
    beats = BEATS[groove.meter]
    names = ("A", "B") if rng.random() < 0.4 else ("A",)
    sections = []
    for name in names:
        variant = groove.variants[rng.integers(len(groove.variants))] if name == "B" and groove.variants else groove.name
        sections.append(Section(name, variant, _progression(rng, tonic, mode, beats)))
    return Plan(groove, tonic, mode, tempo, mma_tempo, tuple(sections), _form(rng, sections, beats * 60 / mma_tempo, min_s, max_s))


def _form(rng: np.random.Generator, sections: Sequence[Section], bar_s: float, min_s: float, max_s: float) -> tuple[int, ...]:
    """Repeat sections (AA BB …) until the drawn duration is reached."""
    target = rng.uniform(min_s, max_s)
    form: list[int] = []
    while sum(len(sections[i].bars) for i in form) * bar_s < target:
        form.append(0 if len(sections) == 1 else (len(form) // 2) % 2)
    return tuple(form)


@dataclass(frozen=True)
class Note:
    """A note of an added part; beats, MIDI pitch, velocity."""

    start: float
    length: float
    pitch: int
    velocity: int


RHYTHMS = (
    (1, 1, 1, 1),
    (2, 1, 1),
    (1.5, 0.5, 1, 1),
    (2, 2),
    (0.5, 0.5, 1, 0.5, 0.5, 1),
    (1, 0.5, 0.5, 2),
    (3, 1),
    (0.5, 0.5, 0.5, 0.5, 1, 1),
)


def melody(rng: np.random.Generator, plan: Plan) -> list[Note]:
    """A singable line: chord tones on chord changes, steps of the scale between them, rests."""
    scale = sorted((plan.tonic + step) % 12 for step in SCALES[plan.mode])
    low = int(rng.integers(58, 70))
    pitch, notes = low + 7, []
    for chord in plan.chords():
        rhythm = RHYTHMS[rng.integers(len(RHYTHMS))]
        position, index = 0.0, 0
        while position < chord.length:
            length = min(rhythm[index % len(rhythm)], chord.length - position)
            allowed = {(chord.root + tone) % 12 for tone in CHORD_TONES[chord.quality]} if index == 0 or rng.random() < 0.4 else set(scale)
            steps = [p for p in range(pitch - 5, pitch + 6) if p % 12 in allowed and low - 2 <= p <= low + 19 and p != pitch]
            if steps:
                weights = np.array([1 / (1 + abs(p - pitch)) for p in steps])
                pitch = int(rng.choice(steps, p=weights / weights.sum()))
            if rng.random() > 0.12:
                notes.append(Note(chord.start + position, length * 0.95, pitch, int(rng.integers(78, 112))))
            position, index = position + length, index + 1
    return notes


def comping(rng: np.random.Generator, plan: Plan) -> list[Note]:
    """Chords in close position near middle C, held, on every beat, off the beat or broken."""
    style, centre, notes = int(rng.integers(4)), int(rng.integers(52, 62)), []
    velocity = int(rng.integers(62, 96))
    for chord in plan.chords():
        tones = sorted(centre + (chord.root + tone - centre) % 12 for tone in CHORD_TONES[chord.quality])
        if style == 0:
            notes += [Note(chord.start, chord.length * 0.97, tone, velocity) for tone in tones]
            continue
        for beat in np.arange(0, chord.length, 0.5 if style == 3 else 1):
            at = chord.start + float(beat) + (0.5 if style == 2 and plan.groove.meter != "6/8" else 0)
            played = [tones[int(beat * 2) % len(tones)]] if style == 3 else tones
            notes += [Note(at, 0.45 if style > 1 else 0.85, tone, velocity) for tone in played]
    return notes


def bass_line(rng: np.random.Generator, plan: Plan) -> list[Note]:
    """Roots, with fifths or octaves between them."""
    style, notes = int(rng.integers(3)), []
    for chord in plan.chords():
        root = 33 + (chord.root - 33) % 12
        fifth = root + (6 if chord.quality == "dim" else 7)
        if style == 0:
            notes.append(Note(chord.start, chord.length * 0.95, root, 96))
            continue
        for beat in range(max(1, int(chord.length))):
            pitch = root if beat % 2 == 0 else (fifth if style == 1 else root + 12)
            notes.append(Note(chord.start + beat, 0.9, pitch, 96 if beat == 0 else 84))
    return notes


def mma_text(plan: Plan, seed: int) -> str:
    """The song as an MMA source file."""
    lines = [f"RndSeed {seed}", f"Tempo {plan.mma_tempo:g}"]
    bar = 1
    for index in plan.form:
        section = plan.sections[index]
        lines.append(f"Groove {section.groove}")
        for chords in section.bars:
            names = [pitch_name(root, plan.flats) + MMA_SUFFIX[quality] for root, quality in chords]
            filler = " /" * (plan.beats // len(chords) - 1)
            lines.append(f"{bar} " + " ".join(name + filler for name in names))
            bar += 1
    return "\n".join(lines) + "\n"
