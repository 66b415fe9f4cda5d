"""Excerpts with what is true of them: recordings of free packages with weak labels, speech, and noise that has nothing to tell.

`clips.tsv` lists the recordings: package, file, first second, BPM or "-", key or "-". None of them is in `recordings.tsv`, on which the
confidence is fitted. A tempo stands there where two networks of TempoCNN agree within 4 %, a key where Mixxx's detector (Queen Mary) and
libsonare name the same: none of these programs is compared, and nobody listened. Whether a recording is sung and its genre are what
its tags, artist and title say (`ears.LABELS`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from mflamingo_cli.parsers import parse_key
from tests.bench.ears import labels
from tests.bench.songs import Song

LISTED = Path(__file__).with_name("clips.tsv")
CLIP_S = 40
SPEECH = tuple(f"asterisk-core-sounds-{language}-wav" for language in ("en", "es", "fr", "it", "ru"))  # spoken announcements
SPEECH_CLIPS = 2  # of each language
NOISE_RATE = 44_100


@dataclass(frozen=True)
class Listed:
    """A row of `clips.tsv`."""

    package: str
    file: str
    start_s: int
    bpm: float | None
    key: str | None

    @property
    def name(self) -> str:
        """Short, the same everywhere."""
        return hashlib.sha256(f"{self.package}/{self.file}".encode()).hexdigest()[:12]


def listed() -> list[Listed]:
    """All rows, mixed, so that the first ones are of every kind."""
    rows = [line.split("\t") for line in LISTED.read_text(encoding="utf-8").splitlines()]
    found = [Listed(p, f, int(at), None if bpm == "-" else float(bpm), None if key == "-" else key) for p, f, at, bpm, key in rows]
    return sorted(found, key=lambda row: row.name)


def recordings(music: Path, work: Path) -> Iterator[Song]:
    """The excerpts of `clips.tsv` whose packages are unpacked below `music`, a folder each."""
    for row in listed():
        source, path = music / row.package / row.file, work / f"{row.name}.wav"
        if not source.exists():
            continue
        if not path.exists():
            _cut(source, row.start_s, path)
        key = parse_key(row.key or "")
        with soundfile.SoundFile(source) as file:
            known = labels(Path(row.package) / row.file, file.copy_metadata().get("genre"))
        yield Song(row.name, path, row.bpm, key=(key.tonic, key.mode) if key else None, package=row.package, labels=known)


def _cut(source: Path, start_s: int, path: Path) -> None:
    with soundfile.SoundFile(source) as file:
        file.seek(start_s * file.samplerate)
        _write(path, file.read(CLIP_S * file.samplerate, dtype="float32", always_2d=True).mean(axis=1), file.samplerate)


def _write(path: Path, samples: np.ndarray, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    soundfile.write(part, samples, rate, format="WAV", subtype="PCM_16")
    part.replace(path)


# --- what has no tempo and no key ------------------------------------------------------------------------------------------------


def speech(music: Path, work: Path) -> Iterator[Song]:
    """Announcements one after the other, half a second apart."""
    for package in SPEECH:
        files = sorted(file for file in (music / package).rglob("*.wav") if file.stat().st_size > 40_000)
        for index in range(SPEECH_CLIPS if files else 0):
            path = work / f"speech-{package}-{index}.wav"
            if not path.exists():
                read = [soundfile.read(file, dtype="float32") for file in files[index::SPEECH_CLIPS]]
                rate = read[0][1]
                spoken = np.concatenate([part for samples, _ in read for part in (samples, np.zeros(rate // 2, np.float32))])
                _write(path, spoken[: CLIP_S * rate], rate)
            yield Song(path.stem, path, package=package, labels=frozenset({"unsung", "nothing"}))


def _coloured(rng: np.random.Generator, slope: float) -> np.ndarray:
    count = CLIP_S * NOISE_RATE
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.maximum(np.arange(len(spectrum)), 20) ** slope
    return np.asarray(np.fft.irfft(spectrum, count))


def _sweep(rng: np.random.Generator, slope: float) -> np.ndarray:
    time = np.arange(CLIP_S * NOISE_RATE) / NOISE_RATE
    low, high = 60 * 2 ** rng.uniform(0, 2), 2000 * 2 ** rng.uniform(0, 2)
    rate = np.log(high / low) / CLIP_S
    return np.asarray(np.sin(2 * np.pi * low * (np.exp(rate * time) - 1) / rate))


def _rain(rng: np.random.Generator, slope: float) -> np.ndarray:
    drops = np.zeros(CLIP_S * NOISE_RATE)
    drops[rng.integers(0, len(drops), 40 * CLIP_S)] = rng.exponential(1.0, 40 * CLIP_S)
    decay = np.exp(-np.arange(2000) / 300) * rng.standard_normal(2000)
    return np.convolve(drops, decay)[: len(drops)]


def _surf(rng: np.random.Generator, slope: float) -> np.ndarray:
    time = np.arange(CLIP_S * NOISE_RATE) / NOISE_RATE
    swell = sum(np.sin(2 * np.pi * rate * time + rng.uniform(0, 6)) for rate in rng.uniform(0.05, 0.3, 4))
    return _coloured(rng, slope) * np.exp(swell)


NOISES: dict[str, tuple[Callable[[np.random.Generator, float], np.ndarray], float]] = {
    "white": (_coloured, 0.0), "pink": (_coloured, 0.5), "brown": (_coloured, 1.0), "sweep": (_sweep, 0.0), "rain": (_rain, 0.0),
    "surf": (_surf, 0.5),
}  # fmt: skip


def noise(music: Path, work: Path) -> Iterator[Song]:
    """Noises of several kinds, two of each."""
    for name, (make, slope) in NOISES.items():
        for seed in range(2):
            path = work / f"noise-{name}-{seed}.wav"
            if not path.exists():
                made = make(np.random.default_rng([seed, *name.encode()]), slope)
                _write(path, 0.5 * made / np.abs(made).max(), NOISE_RATE)
            yield Song(path.stem, path, labels=frozenset({"unsung", "nothing"}))
