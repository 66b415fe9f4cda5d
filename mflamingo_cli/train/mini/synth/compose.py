"""Song plans: key, tempo, sections that repeat and contrast, their chords and their MMA source. Times are MMA beats unless named otherwise.

Everything is drawn from one `numpy` generator, so that a plan is a pure function of its seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.train.mini.synth.grooves import Groove
from mflamingo_cli.train.mini.synth.harmony import CHORDS, FLAVOURS, Bar, draw_flavour, key_flats, pitch_name, progression

FORMS = ("A", "AB", "AB", "AAB", "AABB", "ABAB", "AABA", "ABAC", "ABABCB", "ABCB", "AABC", "ABCD", "ABACA")
SECTION_BARS = (4, 8, 8, 16)  # a loop is repeated until it is about as long
LONG_SECTION_S = 32.0  # sections of 16 bars only where they stay below
SHIFTS = (2, 3, 5, 7, 9, 1, 10)  # semitones by which a third section may stand higher
SHIFTED = 0.3  # share of third sections in another key
FILLS = 0.6  # share of sections that end with a fill
ANOTHER_FLAVOUR = 0.3  # share of contrasting sections that use the key in another way


@dataclass(frozen=True)
class Chord:
    """A chord on the bar grid; `root` and `bass` are pitch classes, `name` is a Harte name, `start` and `length` are MMA beats."""

    start: float
    length: float
    root: int
    name: str
    bass: int

    @property
    def quality(self) -> str:
        """Nearest class of the chord heads."""
        return CHORDS[self.name].quality

    @property
    def tones(self) -> tuple[int, ...]:
        """Its pitch classes, the root first."""
        return tuple((self.root + tone) % 12 for tone in CHORDS[self.name].tones)


@dataclass(frozen=True)
class Section:
    """A part of the form: groove, harmony, and how it differs from the others. `quiet` parts (by number) do not play in it."""

    name: str
    groove: str
    fill: str | None  # groove of its last bar
    bars: tuple[Bar, ...]
    shift: int  # semitones above the key of the song
    flavour: str
    energy: float  # scales velocities
    quiet: tuple[int, ...]


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
        return self.groove.beats

    @property
    def n_bars(self) -> int:
        """Bars of the whole form."""
        return sum(len(self.sections[i].bars) for i in self.form)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_bars * self.beats * 60 / self.mma_tempo

    def occurrences(self) -> Iterator[tuple[Section, float]]:
        """Sections in order, with the beat on which each begins."""
        bar = 0
        for index in self.form:
            yield self.sections[index], float(bar * self.beats)
            bar += len(self.sections[index].bars)

    def chords(self) -> list[Chord]:
        """All chords in order, on the beat grid."""
        return [chord for section, start in self.occurrences() for chord in section_chords(section, self.beats, start)]


def section_chords(section: Section, beats: int, start: float = 0.0) -> list[Chord]:
    """Chords of one section that begins at a beat; the first of two in a bar is not shorter than the second."""
    found = []
    for number, bar in enumerate(section.bars):
        at = start + number * beats
        first = -(-beats // len(bar))
        for k, (root, name, bass) in enumerate(bar):
            begin, end = at + k * first, min(at + (k + 1) * first, at + beats)
            found.append(Chord(begin, end - begin, root, name, bass))
    return found


def draw_groove(rng: np.random.Generator, grooves: Sequence[Groove]) -> Groove:
    """Style first, then file, then groove, so that large libraries do not rule."""
    styles = sorted({g.style for g in grooves})
    style = styles[rng.integers(len(styles))]
    files = sorted({g.file for g in grooves if g.style == style})
    file = files[rng.integers(len(files))]
    candidates = [g for g in grooves if g.file == file and g.style == style]
    return candidates[rng.integers(len(candidates))]


def plan_song(rng: np.random.Generator, groove: Groove, seconds: float) -> Plan:
    """Draw a song of at least so many seconds; uniform over the 24 keys, log-uniform over the tempi of the groove."""
    tonic, mode = int(rng.integers(12)), ("major", "minor")[rng.integers(2)]
    tempo = round(float(np.exp(rng.uniform(np.log(groove.slow), np.log(groove.fast)))), 1)
    bar_s = groove.beats * 60 / (tempo * groove.felt)
    letters = FORMS[rng.integers(len(FORMS))]
    flavour = draw_flavour(rng, mode, groove.style)
    sections = [_section(rng, name, groove, tonic, mode, flavour, bar_s) for name in sorted(set(letters))]
    form: list[int] = []
    while sum(len(sections[i].bars) for i in form) * bar_s < seconds:
        form.append(sorted(set(letters)).index(letters[len(form) % len(letters)]))
    return Plan(groove, tonic, mode, tempo, tempo * groove.felt, tuple(sections), tuple(form))


def _section(rng: np.random.Generator, name: str, groove: Groove, tonic: int, mode: str, flavour: str, bar_s: float) -> Section:
    first = name == "A"
    variant = groove.name if first or not groove.variants else groove.variants[rng.integers(len(groove.variants))]
    shift = int(rng.choice(SHIFTS)) if name == "C" and rng.random() < SHIFTED else 0
    if not first and rng.random() < ANOTHER_FLAVOUR:
        flavour = draw_flavour(rng, mode, groove.style)
    loop = progression(rng, (tonic + shift) % 12, flavour, groove.style, groove.beats)
    fitting = [bars for bars in SECTION_BARS if bars < 16 or bars * bar_s < LONG_SECTION_S]
    wanted = int(rng.choice(fitting)) if len(loop) <= 8 else len(loop)
    bars = loop * max(1, wanted // len(loop))
    fill = groove.fills[rng.integers(len(groove.fills))] if groove.fills and rng.random() < FILLS else None
    quiet = tuple(int(part) for part in range(1, 8) if not first and rng.random() < 0.2)
    return Section(name, variant, fill, bars, shift, flavour, 1.0 if first else round(float(rng.uniform(0.75, 1.2)), 2), quiet)


def local_scale(plan: Plan, section: Section) -> frozenset[int]:
    """Pitch classes of the scale that melodies of a section use."""
    return frozenset((plan.tonic + section.shift + step) % 12 for step in FLAVOURS[section.flavour].scale)


def mma_text(plan: Plan, seed: int) -> str:
    """The song as an MMA source file; chords are written `Bbm7`, `C/E`."""
    lines, bar = [f"RndSeed {seed}", f"Tempo {plan.mma_tempo:g}"], 1
    for section, _ in plan.occurrences():
        lines.append(f"Groove {section.groove}")
        flats = key_flats((plan.tonic + section.shift) % 12, plan.mode)
        for number, chords in enumerate(section.bars, 1):
            if section.fill and number == len(section.bars):
                lines.append(f"Groove {section.fill}")
            first = -(-plan.beats // len(chords))
            basses = ["" if bass == root else "/" + pitch_name(bass, flats) for root, _, bass in chords]
            names = [pitch_name(root, flats) + CHORDS[name].mma + bass for (root, name, _), bass in zip(chords, basses, strict=True)]
            slashes = [first - 1] * (len(names) - 1) + [plan.beats - first * (len(names) - 1) - 1]
            lines.append(f"{bar} " + " ".join(name + " /" * count for name, count in zip(names, slashes, strict=True)))
            bar += 1
    return "\n".join(lines) + "\n"
