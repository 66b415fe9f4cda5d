"""Songs with exact labels for the benchmarks: written as MMA chord charts, rendered by fluidsynth; both are Debian packages.

A seed makes the same song everywhere. The DEV grooves and sound font may be used for tuning, the TEST ones only for reporting.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

FONTS = {"dev": "/usr/share/sounds/sf2/TimGM6mb.sf2", "test": "/usr/share/sounds/sf2/FluidR3_GM.sf2"}
GROOVES = {  # groove: (beats in a bar, slowest, fastest usual tempo)
    "dev": {
        "8Beat": (4, 90, 130), "BasicRock": (4, 100, 140), "BossaNova": (4, 110, 150), "Swing": (4, 120, 180), "Ballad": (4, 60, 85),
        "FolkRock": (4, 95, 130), "Waltz": (3, 90, 160), "Polka": (4, 110, 130), "Rhumba": (4, 100, 125), "Ska": (4, 120, 150),
        "ChaCha": (4, 110, 130), "PopBallad": (4, 65, 90), "FrenchWaltz": (3, 120, 170), "Samba": (4, 95, 120), "DSoul": (4, 80, 110),
        "CountrySwing": (4, 110, 150), "Trance": (4, 130, 145), "Bluegrass": (4, 100, 140), "JazzWaltz": (3, 110, 170),
        "Folk": (4, 90, 130),
    },
    "test": {
        "50sRock": (4, 110, 160), "60sRock": (4, 110, 140), "Beguine": (4, 100, 130), "BigBand": (4, 120, 170), "Bolero": (4, 75, 100),
        "Calypso": (4, 110, 140), "Charleston": (4, 160, 200), "Dixie": (4, 120, 180), "EasySwing": (4, 90, 130),
        "FastBlues": (4, 130, 170), "Foxtrot": (4, 110, 140), "GypsyJazz": (4, 140, 200), "Hymn": (4, 70, 100),
        "LatinWaltz": (3, 100, 150), "Mambo": (4, 100, 130), "March": (4, 100, 125), "Merengue": (4, 115, 135),
        "ModernJazz": (4, 110, 160), "NiteJazz": (4, 80, 120), "PianoBallad": (4, 60, 85), "Quickstep": (4, 180, 205),
        "Ragtime": (4, 80, 110), "RockBallad": (4, 65, 90), "Salsa": (4, 90, 110), "ShowTune": (4, 100, 140), "SlowCountry": (4, 70, 95),
        "SoftRock": (4, 85, 115), "SoftShoe": (4, 90, 120), "Son": (4, 90, 120), "StringBallad": (4, 65, 85), "Tango": (4, 110, 130),
        "Twist": (4, 140, 170), "VieneseWaltz": (3, 150, 180), "WesternSwing": (4, 120, 170), "Zydeco": (4, 110, 140),
        "CountryWaltz": (3, 90, 130), "RockWaltz": (3, 90, 140), "BoneyM": (4, 110, 130), "HillCountry": (4, 100, 140),
        "SlowJazz": (4, 65, 100),
    },
}  # fmt: skip
PROGRESSIONS = {  # semitones above the tonic and quality, a bar each
    "major": (
        "0 9m 5 7", "0 7 9m 5", "0 5 7 0", "0 5 0 7", "2m7 7_7 0M7 9m7", "0 4m 5 7", "0 10 5 0", "5 7 4m 9m", "0 2m 5 7", "9m 5 0 7",
        "0M7 5M7 2m7 7_7", "0 0_7 5 5m", "0_7 5_7 0_7 7_7",
    ),
    "minor": (
        "0m 8 3 10", "0m 5m 7 0m", "0m 10 8 7", "0m 5m 10 3", "0m 8 5m 7_7", "0m7 5m7 7_7 0m7", "0m 3 10 5m", "8 10 0m 0m", "0m 0m 5m 7_7",
        "2dim 7_7 0m 0m", "5m7 10_7 3M7 8M7",
    ),
}  # fmt: skip
QUALITIES = {"": "maj", "m": "min", "_7": "7", "7": "7", "M7": "maj7", "m7": "min7", "dim": "dim"}
NOTES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
FORMS = ("ABAB", "AABA", "ABABCB", "ABCAB", "AABB")


@dataclass(frozen=True)
class Song:
    """A rendered clip and what is true of it; spans are (start s, end s, label)."""

    name: str
    path: Path
    bpm: float | None = None
    meter: int | None = None
    key: tuple[str, str] | None = None
    chords: list[tuple[float, float, str]] = field(default_factory=list)
    sections: list[tuple[float, float, str]] = field(default_factory=list)
    package: str | None = None
    labels: frozenset[str] = frozenset()  # words of `ears.LABELS`; "nothing": it has neither tempo nor key

    @property
    def beats(self) -> list[float]:
        """Times of all beats: the tempo is constant and the first one is at zero."""
        assert self.bpm is not None
        return [i * 60 / self.bpm for i in range(int(self.chords[-1][1] * self.bpm / 60 + 1e-6))]


def missing() -> list[str]:
    """Names of the Debian packages that are needed and not here."""
    wanted = {"mma": shutil.which("mma"), "fluidsynth": shutil.which("fluidsynth")}
    wanted |= {"timgm6mb-soundfont": Path(FONTS["dev"]).exists(), "fluid-soundfont-gm": Path(FONTS["test"]).exists()}
    return [name for name, found in wanted.items() if not found]


def _chord(token: str, tonic: int) -> tuple[str, str]:
    """A token of PROGRESSIONS on a tonic: what MMA reads, and Harte's label."""
    digits = token[: 2 if token[:2].isdigit() else 1]
    quality = token[len(digits) :]
    root = NOTES[(tonic + int(digits)) % 12]
    return root + quality.replace("_", ""), f"{root}:{QUALITIES[quality]}"


def compose(seed: int, split: str) -> tuple[str, dict]:
    """A chart for MMA and its labels, all from the seed."""
    rng = random.Random(f"{split}-{seed}")
    groove = list(GROOVES[split])[seed % len(GROOVES[split])]
    meter, slow, fast = GROOVES[split][groove]
    bpm, tonic, mode = rng.randint(slow, fast), rng.randrange(12), rng.choice(["major", "major", "minor"])
    first, *others = rng.sample(PROGRESSIONS[mode], 3)
    letters = dict(zip("ABC", (first, *others), strict=True))
    bars = {letter: rng.choice([4, 8, 8]) for letter in "ABC"}
    lines = [f"Tempo {bpm}", f"Time {meter}", f"Groove {groove}"]
    chords, sections, bar, bar_s = [], [], 0, meter * 60 / bpm
    form = rng.choice(FORMS)
    for letter in form:
        sections.append((bar * bar_s, (bar + bars[letter]) * bar_s, letter))
        for i in range(bars[letter]):
            tokens = letters[letter].split()
            chart, label = _chord(tokens[i % len(tokens)], tonic)
            bar += 1
            lines.append(f"{bar} {chart}")
            chords.append(((bar - 1) * bar_s, bar * bar_s, label))
    for _ in range(2):  # ends at home
        chart, label = _chord("0" if mode == "major" else "0m", tonic)
        bar += 1
        lines.append(f"{bar} {chart}")
        chords.append(((bar - 1) * bar_s, bar * bar_s, label))
    sections[-1] = (sections[-1][0], bar * bar_s, sections[-1][2])
    truth = {"bpm": float(bpm), "meter": meter, "key": (NOTES[tonic], mode), "chords": chords, "sections": sections}
    return "\n".join(lines) + "\n", {"name": f"{split}-{seed:03d}-{groove}", **truth}


def render(seed: int, split: str, folder: Path) -> Song:
    """The song of a seed as a 44.1 kHz stereo WAV file, made once."""
    chart, truth = compose(seed, split)
    path = folder / f"{truth['name']}.wav"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source, midi = path.with_suffix(".mma"), path.with_suffix(".mid")
        source.write_text(chart)
        subprocess.run(["mma", "-f", str(midi), str(source)], check=True, capture_output=True)
        part = path.with_suffix(".part")
        options = ["-ni", "-q", "-g", "0.5", "-r", "44100", "-T", "wav", "-F", str(part)]
        subprocess.run(["fluidsynth", *options, FONTS[split], str(midi)], check=True, capture_output=True)
        part.replace(path)
    return Song(path=path, **truth)
