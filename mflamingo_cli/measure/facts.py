"""What facts are made of: pitch classes, Key, Tempo and Voices.

Times are seconds from the start of the file, tempi are quarter-note beats per minute, levels are LUFS, LU and dBTP (ITU-R BS.1770).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mflamingo_cli.schema import Segment

Mode = Literal["major", "minor"]

TONICS: dict[Mode, tuple[str, ...]] = {  # the spelling with fewer accidentals; six sharps or flats as DJ software writes them
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def pitch_class(note: str) -> int:
    """Semitones above C of a spelled note: "Bb" -> 10."""
    return (_LETTERS[note[0]] + note.count("#") - note[1:].count("b")) % 12


@dataclass(frozen=True)
class Tempo:
    """Beats per minute, with the other octaves it may be felt at."""

    bpm: float | None = None
    alternatives: tuple[float, ...] = ()

    def within(self, low: float, high: float) -> Tempo:
        """The octave of this tempo that lies in a range of beats per minute, all others beside it; unchanged where none does."""
        octaves = [self.bpm * 2.0**power for power in (0, 1, -1, 2, -2, 3, -3)] if self.bpm else []
        found = next((round(bpm, 2) for bpm in octaves if low <= bpm <= high), self.bpm)
        if self.bpm is None or found == self.bpm:
            return self
        return Tempo(found, tuple(sorted({self.bpm, *self.alternatives} - {found})))


@dataclass(frozen=True)
class Voices:
    """Whether somebody sings (None: not clear), and where: segments called "singing" and "speech"."""

    present: bool | None = None
    spans: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class Key:
    """A major or minor key and the notations musicians, DJs and tags use for it."""

    tonic: str
    mode: Mode

    @classmethod
    def of(cls, pitch: int, mode: Mode) -> Key:
        """The key on a pitch class 0..11 in its usual spelling."""
        return cls(TONICS[mode][pitch % 12], mode)

    @property
    def usual(self) -> Key:
        """The same key in its usual spelling."""
        return Key.of(self.pitch, self.mode)

    @property
    def pitch(self) -> int:
        """Pitch class of the tonic, 0 = C."""
        return pitch_class(self.tonic)

    @property
    def neighbours(self) -> dict[str, Key]:
        """The keys that mix with it, one step away on the Camelot wheel: a fifth down and up, and the relative key."""
        other: Mode = "major" if self.mode == "minor" else "minor"
        relative = self.pitch + (3 if self.mode == "minor" else 9)
        return {
            "a fifth down": Key.of(self.pitch + 5, self.mode),
            "a fifth up": Key.of(self.pitch + 7, self.mode),
            "relative key": Key.of(relative, other),
        }

    @property
    def name(self) -> str:
        """As spoken: "A minor"."""
        return f"{self.tonic} {self.mode}"

    @property
    def fifths(self) -> int:
        """Steps up the circle of fifths from C major or A minor, 0..11."""
        major = self.pitch if self.mode == "major" else self.pitch + 3
        return major * 7 % 12

    @property
    def camelot(self) -> str:
        """Camelot wheel: "8A" is A minor, "8B" is C major."""
        return f"{(self.fifths + 7) % 12 + 1}{'B' if self.mode == 'major' else 'A'}"

    @property
    def openkey(self) -> str:
        """Open Key notation: "1m" is A minor, "1d" is C major."""
        return f"{self.fifths + 1}{'d' if self.mode == 'major' else 'm'}"

    @property
    def id3(self) -> str:
        """Value of the ID3v2 TKEY frame, at most three characters: "Am", "Bbm", "F#"."""
        return self.tonic + ("m" if self.mode == "minor" else "")
