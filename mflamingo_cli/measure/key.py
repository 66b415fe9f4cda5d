"""Key from a constant-Q chroma and, where there are chords, from their functions: major or minor, or None."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mflamingo_cli.measure.facts import Key, Mode, pitch_class
from mflamingo_cli.measure.spectra import BINS_PER_OCTAVE, CQT_FPS
from mflamingo_cli.schema import Segment

MODES: tuple[Mode, Mode] = ("major", "minor")
PROFILES = np.array([  # D. Temperley's statistics of the Kostka-Payne corpus, "Music and Probability", MIT Press 2007
    [0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400],
    [0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330],
])  # fmt: skip
FUNCTIONS: dict[str, dict[tuple[int, str], float]] = {  # how well a chord (semitones above the tonic, third) belongs to a key
    "major": {(0, "maj"): 1.0, (7, "maj"): 0.8, (5, "maj"): 0.75, (9, "min"): 0.6, (2, "min"): 0.6, (4, "min"): 0.4, (11, "dim"): 0.4,
              (10, "maj"): 0.3, (2, "maj"): 0.2, (4, "maj"): 0.15, (9, "maj"): 0.15, (5, "min"): 0.2, (8, "maj"): 0.15, (7, "min"): 0.15},
    "minor": {(0, "min"): 1.0, (7, "maj"): 0.75, (5, "min"): 0.75, (8, "maj"): 0.65, (10, "maj"): 0.6, (3, "maj"): 0.6, (7, "min"): 0.5,
              (2, "dim"): 0.5, (11, "dim"): 0.4, (5, "maj"): 0.3, (1, "maj"): 0.25, (2, "min"): 0.2, (0, "maj"): 0.15},
}  # fmt: skip
THIRDS = {"maj": "maj", "maj7": "maj", "7": "maj", "maj6": "maj", "aug": "maj", "min": "min", "min7": "min", "min6": "min", "dim": "dim",
          "dim7": "dim", "hdim7": "dim"}  # fmt: skip
CHORD_WEIGHT = 2.0  # of the chords' vote beside the correlation
HOME = 0.1  # for the key whose tonic chord both opens and ends the song; one of them says little, least in an excerpt
MINOR = 0.1  # for minor keys, which share most of their chords with a major one
OCTAVES = slice(1, 6)  # C2 to C7
LEAST = 0.4  # of the best correlation, whichever key is chosen: noise, sweeps and most speech reach 0.36, music has 0.48 and more
STILL = 0.95  # mean likeness of all moments: drones have 0.99, coloured noise 0.94, music up to 0.85


def pitch_energy(spectrogram: np.ndarray) -> np.ndarray:
    """How much each pitch class sounds in each second, loud and quiet passages alike: (frames, 252) -> (seconds, 12), in silence 0."""
    semitones = spectrogram.reshape(len(spectrogram), -1, BINS_PER_OCTAVE)[:, OCTAVES].sum(axis=1)  # (frames, 36), bin 0 = C
    folded = np.roll(semitones, 1, axis=1).reshape(len(semitones), 12, 3).sum(axis=2)
    level = folded.sum(axis=1, keepdims=True)
    seconds = (np.arange(len(folded)) / CQT_FPS).astype(int)
    edges = np.flatnonzero(np.diff(seconds, prepend=-1))
    return np.asarray(np.add.reduceat(folded / np.sqrt(np.maximum(level, 1e-9)), edges, dtype=np.float64))


def normalised(pitches: np.ndarray) -> np.ndarray:
    """The share of each pitch class: (12,) -> (12,), the sum 1 or (in silence) 0."""
    return np.asarray(pitches / max(float(pitches.sum()), 1e-12))


def chroma(spectrogram: np.ndarray) -> np.ndarray:
    """Mean pitch-class energy: (frames, 252) -> (12,), the sum 1 or (in silence) 0."""
    return normalised(pitch_energy(spectrogram).sum(axis=0))


def correlations(pitches: np.ndarray) -> np.ndarray:
    """Pearson correlation with each key's profile: (12,) -> (2 modes, 12 tonics)."""
    x = (pitches - pitches.mean()) / (pitches.std() + 1e-12)
    profiles = (PROFILES - PROFILES.mean(axis=1, keepdims=True)) / PROFILES.std(axis=1, keepdims=True)
    return np.array([[float(np.roll(profile, tonic) @ x) / 12 for tonic in range(12)] for profile in profiles])


def triads(chords: Sequence[Segment]) -> list[tuple[int, str, float]]:
    """Root, third and seconds of the chords that have a third: -> [(0, "maj", 2.5), ...]."""
    parts = [(*chord.label.partition(":")[::2], chord.end - chord.start) for chord in chords]
    return [(pitch_class(root), THIRDS[kind], seconds) for root, kind, seconds in parts if kind in THIRDS]


def moves(chords: Sequence[Segment]) -> bool:
    """Whether there are two different triads or more: one alone, as of a voice that keeps its pitch, is in many keys."""
    return len({(root, third) for root, third, _ in triads(chords)}) > 1


def functions_of(root: int, third: str) -> np.ndarray:
    """How well a chord belongs to each key: pitch class, "maj", "min" or "dim" -> (2 modes, 12 tonics), 0..1."""
    return np.array([[FUNCTIONS[mode].get(((root - tonic) % 12, third), 0.0) for tonic in range(12)] for mode in MODES])


def functions(chords: Sequence[Segment]) -> np.ndarray:
    """How well the chords belong to each key, weighted by their time: -> (2 modes, 12 tonics), 0..1 and a little more."""
    found = triads(chords)
    score = np.zeros((2, 12))
    if not found:
        return score
    for root, third, seconds in found:
        score += seconds * functions_of(root, third)
    score /= sum(seconds for *_, seconds in found)
    root, third, _ = found[0]
    if found[-1][:2] == (root, third) and third != "dim":
        score[0 if third == "maj" else 1, root] += HOME
    return score


def stillness(spectrogram: np.ndarray) -> float:
    """How alike all moments are, 1 for a drone: the length of the mean unit spectrum: (frames, 252) -> 0..1."""
    semitones = spectrogram.reshape(len(spectrogram), -1, 3).sum(axis=2)
    return float(np.linalg.norm((semitones / (np.linalg.norm(semitones, axis=1, keepdims=True) + 1e-9)).mean(axis=0)))


def weigh(fit: np.ndarray, chords: Sequence[Segment]) -> np.ndarray:
    """What speaks for each key: `correlations` (2 modes, 12 tonics), chords -> (2, 12)."""
    return np.asarray(fit + CHORD_WEIGHT * functions(chords) + [[0.0], [MINOR]])


def choose_key(fit: np.ndarray, weights: np.ndarray) -> Key | None:
    """The key for which most speaks, None where none fits: `correlations`, `weigh`, both (2, 12)."""
    mode, tonic = divmod(int(weights.argmax()), 12)
    return Key.of(tonic, MODES[mode]) if fit.max() >= LEAST else None


SCALES: dict[Mode, dict[str, tuple[int, int]]] = {  # mode: (its degree, the degree of the usual scale), in semitones above the tonic
    "major": {"mixolydian": (10, 11)},
    "minor": {"dorian": (9, 8), "phrygian": (1, 2)},
}
CHURCH = 1.45  # times as much as the usual degree the other one must sound: 133 songs in major and minor have up to 1.41


def scale_of(key: Key, pitches: np.ndarray) -> str | None:
    """ "D dorian" where the scale on the tonic is a church mode: shares of the pitch classes (12,) -> its name, or None."""
    degrees = np.roll(pitches, -key.pitch)
    for name, (own, usual) in SCALES[key.mode].items():
        if degrees[own] > CHURCH * degrees[usual]:
            return f"{key.tonic} {name}"
    return None


def measure_key(spectrogram: np.ndarray, chords: Sequence[Segment]) -> Key | None:
    """The likeliest key, None where nothing is harmony: constant-Q (frames, 252), chords -> Key."""
    fit = correlations(chroma(spectrogram))
    return choose_key(fit, weigh(fit, chords)) if moves(chords) else None
