"""Key: how much speaks for each of the 24, by the pitch classes that sound, the bass, and the chords and their functions.

The signs are combined in a conditional logit over the keys, whose few weights `python -m tests.bench.keys` fits: what speaks for a
key is a log of odds, whether of a moment, a passage or a song.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mflamingo_cli.measure.facts import Key, Mode, pitch_class
from mflamingo_cli.measure.spectra import BINS_PER_OCTAVE, CQT_FPS
from mflamingo_cli.schema import Segment

MODES: tuple[Mode, Mode] = ("major", "minor")
PROFILES = np.array([  # how well each pitch class fits: C. Krumhansl and E. Kessler, Psychological Review 89, 1982
    [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
    [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
])  # fmt: skip
FUNCTIONS: dict[str, dict[tuple[int, str], float]] = {  # how well a chord (semitones above the tonic, third) belongs to a key
    "major": {(0, "maj"): 1.0, (7, "maj"): 0.8, (5, "maj"): 0.75, (9, "min"): 0.6, (2, "min"): 0.6, (4, "min"): 0.4, (11, "dim"): 0.4,
              (10, "maj"): 0.3, (2, "maj"): 0.2, (4, "maj"): 0.15, (9, "maj"): 0.15, (5, "min"): 0.2, (8, "maj"): 0.15, (7, "min"): 0.15},
    "minor": {(0, "min"): 1.0, (7, "maj"): 0.75, (5, "min"): 0.75, (8, "maj"): 0.65, (10, "maj"): 0.6, (3, "maj"): 0.6, (7, "min"): 0.5,
              (2, "dim"): 0.5, (11, "dim"): 0.4, (2, "min"): 0.2,
              (0, "maj"): 1.0, (5, "maj"): 0.6, (1, "maj"): 0.4},  # a fifth without a third is heard as major, by its fifth partial
}  # fmt: skip
THIRDS = {"maj": "maj", "maj7": "maj", "7": "maj", "maj6": "maj", "aug": "maj", "min": "min", "min7": "min", "min6": "min", "dim": "dim",
          "dim7": "dim", "hdim7": "dim"}  # fmt: skip
QUALITIES = ("maj", "min", "dim")
WEIGHTS = {"profile": 5.9, "functions": 11.2, "tonic": 1.5, "bass": 2.1, "minor": 0.25, "home": 0.8}  # of `signs`, in log odds
NOWHERE = np.zeros(24)
OCTAVES = slice(1, 6)  # C2 to C7
BASS = slice(0, 2)  # C1 to B2
LEAST = 0.4  # of the best correlation, whichever key is chosen: noise and sweeps reach 0.33, of 129 clips of music one has less than 0.43
STILL = 0.95  # mean likeness of all moments: drones have 0.99, coloured noise 0.94, music up to 0.85


def pitch_energy(spectrogram: np.ndarray) -> np.ndarray:
    """How much each pitch class sounds in each second, loud and quiet passages alike: (frames, 252) -> (seconds, 24), in silence 0.

    The first twelve are those of all octaves but the lowest and the highest one, the last twelve those of the bass.
    """
    octaves = spectrogram.reshape(len(spectrogram), -1, BINS_PER_OCTAVE)  # bin 0 = C
    registers = (np.roll(octaves[:, part].sum(axis=1), 1, axis=1) for part in (OCTAVES, BASS))
    folded = np.concatenate([register.reshape(len(register), 12, 3).sum(axis=2) for register in registers], axis=1)
    level = folded[:, :12].sum(axis=1, keepdims=True)
    seconds = (np.arange(len(folded)) / CQT_FPS).astype(int)
    edges = np.flatnonzero(np.diff(seconds, prepend=-1))
    return np.asarray(np.add.reduceat(folded / np.sqrt(np.maximum(level, 1e-9)), edges, dtype=np.float64))


def shares(amounts: np.ndarray) -> np.ndarray:
    """Of the whole: (..., n) -> (..., n), the sum 1 or (of nothing) 0."""
    return np.asarray(amounts / np.maximum(amounts.sum(axis=-1, keepdims=True), 1e-12))


def chroma(spectrogram: np.ndarray) -> np.ndarray:
    """Mean pitch-class energy: (frames, 252) -> (12,), the sum 1 or (in silence) 0."""
    return shares(pitch_energy(spectrogram).sum(axis=0)[:12])


def correlations(pitches: np.ndarray) -> np.ndarray:
    """Pearson correlation with the profile of each key: (..., 12) -> (..., 24), major keys from C on, then minor ones."""
    centred = pitches - pitches.mean(axis=-1, keepdims=True)
    return np.asarray(centred @ _TEMPLATES.T / (np.linalg.norm(centred, axis=-1, keepdims=True) + 1e-12))


def _templates() -> np.ndarray:
    """The profile of each key, without its mean and of unit length: (24, 12)."""
    centred = PROFILES - PROFILES.mean(axis=1, keepdims=True)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return np.array([np.roll(unit, tonic) for unit in units for tonic in range(12)])


def _functions() -> np.ndarray:
    """How well each triad belongs to each key: (36 of `sounding`, 24), 0..1."""
    triads = [(third, root) for third in QUALITIES for root in range(12)]
    return np.array(
        [[FUNCTIONS[mode].get(((root - tonic) % 12, third), 0.0) for mode in MODES for tonic in range(12)] for third, root in triads]
    )


_TEMPLATES, _TRIADS = _templates(), _functions()


def triad_of(label: str) -> int | None:
    """The triad of a chord in Harte's notation, None without a third: "D:min7" -> 12 * 1 + 2, 0..35."""
    root, _, kind = label.partition(":")
    return 12 * QUALITIES.index(THIRDS[kind]) + pitch_class(root) if kind in THIRDS else None


def sounding(chords: Sequence[Segment]) -> np.ndarray:
    """Seconds of each triad: (36,), the major ones from C on, then minor and diminished ones."""
    found = np.zeros(36)
    for chord in chords:
        if (triad := triad_of(chord.label)) is not None:
            found[triad] += chord.end - chord.start
    return found


def home(chords: Sequence[Segment]) -> np.ndarray:
    """1 for the key whose triad both opens and ends what sounds: (24,); one of them alone says little, least in an excerpt."""
    found, triads = np.zeros(24), [triad for chord in chords if (triad := triad_of(chord.label)) is not None]
    if triads and triads[0] == triads[-1] < len(found):
        found[triads[0]] = 1.0
    return found


def signs(pitches: np.ndarray, triads: np.ndarray, homes: np.ndarray) -> np.ndarray:
    """What may speak for each key: `pitch_energy` summed (..., 24), `sounding` (..., 36), `home` (..., 24) -> (..., 24, 6 as in WEIGHTS).

    `profile`: `correlations`; `functions`: how well the chords belong to it; `tonic`: share of the time of its own triad; `bass`: share of
    its tonic in the bass; `minor`: 1 for minor keys, which share most of their chords with a major one.
    """
    time, bass = shares(triads), shares(pitches[..., 12:])
    minor = np.repeat([0.0, 1.0], 12)
    seen = (correlations(pitches[..., :12]), time @ _TRIADS, time[..., :24], np.concatenate([bass, bass], axis=-1), minor, homes)
    return np.stack(np.broadcast_arrays(*seen), axis=-1)


def weigh(pitches: np.ndarray, triads: np.ndarray, homes: np.ndarray = NOWHERE) -> np.ndarray:
    """How much speaks for each key, in log odds: as `signs` -> (..., 24)."""
    return np.asarray(signs(pitches, triads, homes) @ np.array(list(WEIGHTS.values())))


def stillness(spectrogram: np.ndarray) -> float:
    """How alike all moments are, 1 for a drone: the length of the mean unit spectrum: (frames, 252) -> 0..1."""
    semitones = spectrogram.reshape(len(spectrogram), -1, 3).sum(axis=2)
    return float(np.linalg.norm((semitones / (np.linalg.norm(semitones, axis=1, keepdims=True) + 1e-9)).mean(axis=0)))


def choose_key(pitches: np.ndarray, triads: np.ndarray, homes: np.ndarray = NOWHERE) -> Key | None:
    """The key for which most speaks, None without a triad and where no profile fits: as `signs`, of one passage."""
    if not triads.any() or correlations(pitches[:12]).max() < LEAST:
        return None
    mode, tonic = divmod(int(weigh(pitches, triads, homes).argmax()), 12)
    return Key.of(tonic, MODES[mode])


SCALES: dict[Mode, dict[str, tuple[int, int]]] = {  # mode: (its degree, the degree of the usual scale), in semitones above the tonic
    "major": {"mixolydian": (10, 11)},
    "minor": {"dorian": (9, 8), "phrygian": (1, 2)},
}
CHURCH = 1.45  # times as much as the usual degree the other one must sound: 133 songs in major and minor have up to 1.41
FOREIGN = 0.2  # share of the time of chords with a note outside the mode up to which it is told: 75 of 99 recordings keep so to their key
DEGREES: dict[Mode, frozenset[int]] = {"major": frozenset({0, 2, 4, 5, 7, 9, 11}), "minor": frozenset({0, 2, 3, 5, 7, 8, 10})}
INTERVALS = np.array([(0, 4, 7), (0, 3, 7), (0, 3, 6)])  # of QUALITIES, in semitones above the root


def scale_of(key: Key, pitches: np.ndarray, triads: np.ndarray) -> str | None:
    """ "D dorian" where the scale on the tonic is a church mode that the chords bear out.

    Shares of the pitch classes (12,), seconds of each triad as of `sounding` (36,) -> its name, or None.
    """
    degrees = np.roll(pitches, -key.pitch)
    notes = (np.arange(12)[None, :, None] + INTERVALS[:, None, :] - key.pitch) % 12  # (3, 12, 3) semitones above the tonic
    for name, (own, usual) in SCALES[key.mode].items():
        foreign = ~np.isin(notes, sorted(DEGREES[key.mode] - {usual} | {own})).all(axis=2).ravel()
        if degrees[own] > CHURCH * degrees[usual] and shares(triads)[foreign].sum() <= FOREIGN:
            return f"{key.tonic} {name}"
    return None


def measure_key(spectrogram: np.ndarray, chords: Sequence[Segment]) -> Key | None:
    """The likeliest key, None where nothing is harmony: constant-Q (frames, 252), chords -> Key."""
    return choose_key(pitch_energy(spectrogram).sum(axis=0), sounding(chords), home(chords))
