"""Roman-numeral analysis: measured chords and a key -> degrees, loops, borrowed chords, where a phrase comes home from.

Degrees count from the tonic of the key: those of a minor key from its natural minor scale, so that VI of E minor is C. Upper case is major,
lower case minor; chords are compared by root and third, whatever sevenths lie on top. Times are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mflamingo_cli.measure.facts import Key, Mode, pitch_class
from mflamingo_cli.parsers import short_chord
from mflamingo_cli.schema import Segment

SCALES: dict[Mode, tuple[int, ...]] = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}  # semitones
NUMERALS: dict[Mode, tuple[str, ...]] = {  # by semitones above the tonic, as theory books spell what is not in the scale
    "major": ("I", "bII", "II", "bIII", "III", "IV", "#IV", "V", "bVI", "VI", "bVII", "VII"),
    "minor": ("I", "bII", "II", "III", "#III", "IV", "#IV", "V", "VI", "#VI", "VII", "#VII"),
}
LETTERS = "CDEFGAB"
LEADING_TONE = 11  # semitones above the tonic; its diminished chord is vii° in minor too
THIRDS = {  # of a quality in Harte's notation
    "maj": "maj", "": "maj", "maj7": "maj", "7": "maj", "maj6": "maj", "9": "maj", "maj9": "maj", "11": "maj", "13": "maj",
    "min": "min", "min7": "min", "min6": "min", "minmaj7": "min", "min9": "min", "min11": "min",
    "dim": "dim", "dim7": "dim", "hdim7": "dim", "aug": "aug", "sus2": "sus2", "sus4": "sus4", "5": "5", "1": "5",
}  # fmt: skip
DIATONIC: dict[Mode, frozenset[tuple[int, str]]] = {  # (semitones above the tonic, third); in minor with the raised leading tone
    "major": frozenset({(0, "maj"), (2, "min"), (4, "min"), (5, "maj"), (7, "maj"), (9, "min"), (11, "dim")}),
    "minor": frozenset({(0, "min"), (2, "dim"), (3, "maj"), (5, "min"), (7, "min"), (7, "maj"), (8, "maj"), (10, "maj"), (11, "dim")}),
}
PARALLEL: dict[Mode, Mode] = {"major": "minor", "minor": "major"}
PERIODS = range(2, 9)  # chords of a loop
LEAST_OF_EQUAL = 0.3  # each chord of a loop sounds at least this share of what it would if all were equally long
BEGINS_S = 1.0  # a chord this near to the start of a section begins it
PASSING_S = 0.8  # a chord shorter than this is a passing one: the loop goes on over it


@dataclass(frozen=True)
class PlayedChord:
    """A chord as long as it sounds: pitch class of its root, its third, and the name musicians write."""

    start: float
    end: float
    root: int
    third: str
    name: str

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return self.end - self.start

    @property
    def triad(self) -> tuple[int, str]:
        """What chords are compared by."""
        return self.root, self.third


def played(segment: Segment) -> PlayedChord | None:
    """The chord of a segment; None for a pause, or a quality that has no third."""
    root, _, quality = segment.label.partition("/")[0].partition(":")
    name = short_chord(segment.label)
    if name is None or quality not in THIRDS:
        return None
    return PlayedChord(segment.start, segment.end, pitch_class(root), THIRDS[quality], name)


def progression(segments: Sequence[Segment]) -> list[PlayedChord]:
    """The chords in their order, pauses left out, neighbours of one root and third joined under the name that sounds longest."""
    found: list[list[PlayedChord]] = []
    for segment in segments:
        chord = played(segment)
        if chord is None:
            continue
        if found and found[-1][-1].triad == chord.triad:
            found[-1].append(chord)
        else:
            found.append([chord])
    return [_joined(group) for group in found]


def seconds_of(chords: Sequence[PlayedChord]) -> dict[tuple[int, str], float]:
    """How long each triad sounds in all."""
    found: dict[tuple[int, str], float] = {}
    for chord in chords:
        found[chord.triad] = found.get(chord.triad, 0.0) + chord.seconds
    return found


def longest(chords: Sequence[PlayedChord]) -> tuple[str, float]:
    """The name of the chord that sounds longest, of at least one, and its share of all, 0 to 1."""
    lasting = seconds_of(chords)
    triad = max(lasting, key=lambda triad: lasting[triad])
    names: dict[str, float] = {}
    for chord in chords:
        if chord.triad == triad:
            names[chord.name] = names.get(chord.name, 0.0) + chord.seconds
    return max(names, key=lambda name: names[name]), lasting[triad] / sum(lasting.values())


def _joined(group: Sequence[PlayedChord]) -> PlayedChord:
    longest = max(group, key=lambda chord: chord.seconds)
    return PlayedChord(group[0].start, group[-1].end, longest.root, longest.third, longest.name)


# --- degrees -----------------------------------------------------------------------------------------------------------------


def degree(root: int, third: str, key: Key) -> str:
    """The Roman numeral of a chord in a key: (0, "maj") in E minor -> "VI", (10, "maj") in C major -> "bVII"."""
    above = (root - key.pitch) % 12
    numeral = NUMERALS[key.mode][above]
    if third == "dim" and key.mode == "minor" and above in (LEADING_TONE - 1, LEADING_TONE):
        numeral = "VII" if above == LEADING_TONE else "bVII"
    if third in ("min", "dim"):
        numeral = numeral.lower()
    return numeral + {"dim": "°", "aug": "+", "sus2": "sus2", "sus4": "sus4"}.get(third, "")


def spell(name: str, key: Key) -> str:
    """A chord name with the letter that its degree has in the key: F# in D flat major is Gb. Names of two accidentals are left alone."""
    root = name[:2] if name[1:2] in ("#", "b") else name[:1]
    above = (pitch_class(root) - key.pitch) % 12
    step = NUMERALS["major"].index(NUMERALS[key.mode][above].lstrip("#b"))  # of the major scale: 0, 2, 4 …
    letter = LETTERS[(LETTERS.index(key.tonic[0]) + SCALES["major"].index(step)) % 7]
    off = (pitch_class(root) - pitch_class(letter) + 6) % 12 - 6
    return name if abs(off) > 1 else letter + ("", "#", "b")[off] + name[len(root) :]


def degrees(chords: Sequence[PlayedChord], key: Key) -> tuple[str, ...]:
    """Roman numerals of chords in their order."""
    return tuple(degree(chord.root, chord.third, key) for chord in chords)


def spelled(numerals: Sequence[str]) -> str:
    """`i-VI-III-VII`."""
    return "-".join(numerals)


# --- loops -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChordLoop:
    """Chords that come round again and again, from the one that begins a phrase, and the share of the music that they carry, 0 to 1."""

    chords: tuple[PlayedChord, ...]
    share: float


def find_loop(chords: Sequence[PlayedChord], starts: Sequence[float] = ()) -> ChordLoop | None:
    """The loop of two to eight chords that carries most of the music, two rounds of it at least; `starts` of sections choose its first.

    Passing chords are heard as part of the chord before them. Of equally long ones the shortest loop is taken.
    """
    steady = _without_passing(chords)
    total = sum(chord.seconds for chord in steady)
    best: tuple[float, Sequence[PlayedChord], int, list[tuple[int, int]]] | None = None
    for period in PERIODS:
        for pattern, runs in _runs(steady, period).items():
            if any(pattern == pattern[n:] + pattern[:n] for n in range(1, period)):
                continue  # two rounds of a shorter loop
            covered = sum(chord.seconds for first, last in runs for chord in steady[first:last])
            least = min(seconds_of([chord for first, last in runs for chord in steady[first:last]]).values())
            if least * period < LEAST_OF_EQUAL * covered:
                continue  # one chord that others interrupt
            if best is None or covered > best[0] * 1.02:
                best = covered, steady, period, runs
    if best is None or not total:
        return None
    covered, _, period, runs = best
    first = _first_of(steady, period, runs, starts)
    return ChordLoop(tuple(steady[first : first + period]), covered / total)


def _without_passing(chords: Sequence[PlayedChord]) -> list[PlayedChord]:
    """The chords, what is shorter than PASSING_S given to the one before it."""
    kept: list[PlayedChord] = []
    for chord in chords:
        if kept and (chord.seconds < PASSING_S or kept[-1].triad == chord.triad):
            kept[-1] = PlayedChord(kept[-1].start, chord.end, kept[-1].root, kept[-1].third, kept[-1].name)
        else:
            kept.append(chord)
    return kept


def _runs(chords: Sequence[PlayedChord], period: int) -> dict[tuple[tuple[int, str], ...], list[tuple[int, int]]]:
    """Where chords repeat with a period, at least once: cyclic pattern, rotated to its least form -> [first, last + 1) of each run."""
    found: dict[tuple[tuple[int, str], ...], list[tuple[int, int]]] = {}
    at = 0
    while at + period < len(chords):
        end = at + period
        while end < len(chords) and chords[end].triad == chords[end - period].triad:
            end += 1
        if end - at >= 2 * period:
            pattern = tuple(chord.triad for chord in chords[at : at + period])
            least = min(pattern[n:] + pattern[:n] for n in range(period))
            found.setdefault(least, []).append((at, end))
            at = end
        else:
            at += 1
    return found


def _first_of(chords: Sequence[PlayedChord], period: int, runs: Sequence[tuple[int, int]], starts: Sequence[float]) -> int:
    """The chord with which a loop begins: where most sections do, else the first that is heard."""
    opening = chords[runs[0][0] : runs[0][0] + period]
    votes = Counter[tuple[int, str]]()
    for first, last in runs:
        for chord in chords[first:last]:
            votes[chord.triad] += any(abs(chord.start - start) <= BEGINS_S for start in starts)
    return runs[0][0] + max(range(period), key=lambda n: (votes[opening[n].triad], -n))


# --- what a key makes of them --------------------------------------------------------------------------------------------------


def is_diatonic(chord: PlayedChord, key: Key) -> bool:
    """Whether a chord is made of the notes of a key; suspended and bare ones are asked for their root only."""
    above = (chord.root - key.pitch) % 12
    if chord.third in ("maj", "min", "dim"):
        return (above, chord.third) in DIATONIC[key.mode]
    return above in SCALES[key.mode]


def borrowed(chords: Sequence[PlayedChord], key: Key, least_s: float = 4.0) -> list[PlayedChord]:
    """Chords that come from the parallel key, in the order of their first sound, if they sound `least_s` in all; each once."""
    parallel = Key(key.tonic, PARALLEL[key.mode])
    foreign = [chord for chord in chords if not is_diatonic(chord, key) and is_diatonic(chord, parallel)]
    first = {chord.triad: chord for chord in reversed(foreign)}
    return sorted((first[triad] for triad, lasts in seconds_of(foreign).items() if lasts >= least_s), key=lambda chord: chord.start)


def comes_home(chords: Sequence[PlayedChord], key: Key, least: int = 3) -> PlayedChord | None:
    """The chord from which the tonic is reached most of the time, where that happens `least` times or more; None where there is none."""
    tonic = (key.pitch, "maj" if key.mode == "major" else "min")
    before = Counter(first.triad for first, second in pairwise(chords) if second.triad == tonic)
    if not before:
        return None
    triad, count = before.most_common(1)[0]
    if count < least or 2 * count <= before.total():
        return None
    return next(chord for chord in chords if chord.triad == triad)
