"""Audio files of every container, broken at random: whole files are measured in full, and nothing that comes in ends the process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from mflamingo_cli.core import audio
from mflamingo_cli.errors import AudioError
from mflamingo_cli.measure import measure
from mflamingo_cli.measure.loudness import LoudnessMeter
from tests.fuzz.numbers import INTEGERS, scattered

RATE_HZ = 22_050
SECONDS = 1.5
WRITTEN = {  # by libsndfile: name of the file, its format and subtype
    "a.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "ex.wav": ("WAVEX", "PCM_24"),
    "a.rf64": ("RF64", "PCM_16"),
    "a.w64": ("W64", "PCM_16"),
    "a.aiff": ("AIFF", "PCM_16"),
    "a.au": ("AU", "PCM_16"),
    "a.caf": ("CAF", "PCM_16"),
    "alac.caf": ("CAF", "ALAC_16"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
}
CODED = {  # by ffmpeg: name of the file, and its options
    "a.m4a": ("-c:a", "aac"),
    "a.webm": ("-c:a", "libopus", "-ar", "48000"),
    "a.mka": ("-c:a", "flac"),
    "a.aac": ("-c:a", "aac"),
    "a.wma": ("-c:a", "wmav2"),
    "a.wv": ("-c:a", "wavpack"),
    "a.ac3": ("-c:a", "ac3", "-ar", "44100"),
    "flac.ogg": ("-c:a", "flac"),
    "bare.mp3": ("-c:a", "libmp3lame", "-write_xing", "0", "-id3v2_version", "0"),
    "a.mp2": ("-c:a", "mp2"),
}
BY_FFMPEG = 0.1  # of the cases: each starts two programs
MEASURED: set[tuple[str, float, bool, float]] = set()  # sounds that were, in this process
HEAD_BYTES = 256  # where most of what a header states lies


def sound() -> np.ndarray:
    """A tone and a click twice a second: (n, 2) float32."""
    t = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ
    click = np.random.default_rng(0).standard_normal(t.size) * (t % 0.5 < 0.02)
    return np.repeat((0.2 * np.sin(2 * np.pi * 220.0 * t) + 0.3 * click)[:, None], 2, axis=1).astype(np.float32)


def make_seeds(folder: Path) -> None:
    """Write one short file of every container."""
    for name, (form, subtype) in WRITTEN.items():
        rate = 24_000 if subtype == "OPUS" else RATE_HZ
        soundfile.write(folder / name, sound(), rate, format=form, subtype=subtype)
    if shutil.which("ffmpeg"):
        for name, options in CODED.items():
            command = ["ffmpeg", "-v", "error", "-i", folder / "a.wav", *options, folder / name]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def mutate(rng: Random, seeds: Path, folder: Path) -> Path:
    """Write a file with numbers of its header changed, bytes scattered, or another file joined to it."""
    names = sorted(path.name for path in seeds.iterdir())
    coded = [name for name in names if name in CODED]
    name = rng.choice(coded) if coded and rng.random() < BY_FFMPEG else rng.choice(sorted(WRITTEN))
    data = (seeds / name).read_bytes()
    match rng.randrange(5):
        case 0:
            data += rng.choice((data, (seeds / rng.choice(names)).read_bytes(), bytes(3000), b"TAG" + bytes(125)))
        case 1:
            data = rng.choice((bytes(3000), b"ID3\x04\0\0\0\0\x7f\x7f" + bytes(50), b"APETAGEX" + bytes(24), data[:100])) + data
        case _:
            pass
    found = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        size, order = rng.choice((1, 2, 3, 4, 8)), rng.choice(("little", "big"))
        at = rng.randrange(min(len(found), HEAD_BYTES))
        found[at : at + size] = (rng.choice(INTEGERS) % (1 << 8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    data = bytes(found)
    for _ in range(rng.choice((0, 1, 1, 2))):
        data = scattered(rng, data) or data
    path = folder / name
    path.write_bytes(data)
    return path


def run(path: Path) -> None:
    """Decode and measure it as `analyze` does; the same sound, as of a file whose tags are broken, is measured once by a process."""
    name, meter = audio.Fingerprint(), LoudnessMeter()
    try:
        sound = audio.load(path, listeners=(name, meter))
    except AudioError as error:
        if error.code == "not_found":  # it is there: what a file says led to a place that cannot be read
            raise AssertionError(str(error)) from error
        raise
    key = (name.result(), sound.start_s, sound.damaged, sound.share)
    if key not in MEASURED:
        measure(sound, meter)
        MEASURED.add(key)
