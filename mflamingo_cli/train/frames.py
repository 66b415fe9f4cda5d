"""Clips as the encoder trains on them: cached log-mel frames (10 ms) and dense labels per audio token (40 ms).

The front end is `core.mel`, the one of inference. Caches lie beside the clips and are made once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mido
import numpy as np
import soundfile

from mflamingo_cli.core.mel import LogMel, MelConfig
from mflamingo_cli.train.compose import QUALITIES
from mflamingo_cli.train.synth import DRUMS, FAMILIES, FAMILY_OF_GROUP, read_manifest

MINI_MEL = MelConfig(n_fft=2048, hop_length=160, n_mels=256)  # hears semitones down to the bass; 400/128 cannot
TOKEN_S = 0.04
FRAMES_PER_TOKEN = 4
NO_CHORD = 12  # class of root and bass where nothing pitched sounds
RELEASE_S = 0.06  # a note is heard a little longer than it is held
TAG_NAMES = (  # what musicnn (ISC, arXiv 1909.06654) tells of recordings: MagnaTagATune's 50 tags, then the Million Song Dataset's
    "mtt:guitar", "mtt:classical", "mtt:slow", "mtt:techno", "mtt:strings", "mtt:drums", "mtt:electronic", "mtt:rock", "mtt:fast",
    "mtt:piano", "mtt:ambient", "mtt:beat", "mtt:violin", "mtt:vocal", "mtt:synth", "mtt:female", "mtt:indian", "mtt:opera", "mtt:male",
    "mtt:singing", "mtt:vocals", "mtt:no vocals", "mtt:harpsichord", "mtt:loud", "mtt:quiet", "mtt:flute", "mtt:woman", "mtt:male vocal",
    "mtt:no vocal", "mtt:pop", "mtt:soft", "mtt:sitar", "mtt:solo", "mtt:man", "mtt:classic", "mtt:choir", "mtt:voice", "mtt:new age",
    "mtt:dance", "mtt:male voice", "mtt:female vocal", "mtt:beats", "mtt:harp", "mtt:cello", "mtt:no voice", "mtt:weird", "mtt:country",
    "mtt:metal", "mtt:female voice", "mtt:choral",
    "msd:rock", "msd:pop", "msd:alternative", "msd:indie", "msd:electronic", "msd:female vocalists", "msd:dance", "msd:00s",
    "msd:alternative rock", "msd:jazz", "msd:beautiful", "msd:metal", "msd:chillout", "msd:male vocalists", "msd:classic rock",
    "msd:soul", "msd:indie rock", "msd:Mellow", "msd:electronica", "msd:80s", "msd:folk", "msd:90s", "msd:chill", "msd:instrumental",
    "msd:punk", "msd:oldies", "msd:blues", "msd:hard rock", "msd:ambient", "msd:acoustic", "msd:experimental", "msd:female vocalist",
    "msd:guitar", "msd:Hip-Hop", "msd:70s", "msd:party", "msd:country", "msd:easy listening", "msd:sexy", "msd:catchy", "msd:funk",
    "msd:electro", "msd:heavy metal", "msd:Progressive rock", "msd:60s", "msd:rnb", "msd:indie pop", "msd:sad", "msd:House", "msd:happy",
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """One prepared clip; arrays are read from disk when asked for."""

    row: dict[str, Any]
    folder: Path

    @property
    def stem(self) -> Path:
        """Path of its caches without suffix."""
        return self.folder / "cache" / f"{self.row['index']:06d}"

    def mel(self) -> np.ndarray:
        """Frames of all windows, (n_frames, n_mels) float16, memory-mapped."""
        return np.load(f"{self.stem}.mel.npy", mmap_mode="r")

    def labels(self) -> dict[str, np.ndarray]:
        """Dense labels, one row per audio token."""
        with np.load(f"{self.stem}.labels.npz") as file:
            return dict(file)

    def samples(self) -> np.ndarray:
        """The audio, (n,) float32 at 16 kHz."""
        return soundfile.read(self.folder / self.row["audio"], dtype="float32")[0]


def prepare(folder: Path, first: int = 0, step: int = 1) -> Iterator[Clip]:
    """Make the caches that are missing (of every `step`-th clip), yielding each clip when it is ready."""
    log_mel = LogMel(MINI_MEL)
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    for row in read_manifest(folder)[first::step]:
        clip = Clip(row, folder)
        if not Path(f"{clip.stem}.labels.npz").exists():
            np.save(f"{clip.stem}.mel.npy", window_frames(log_mel, clip.samples()))
            labels = dense_labels(row, mido.MidiFile(folder / row["midi"]))
            part = Path(f"{clip.stem}.part.npz")
            np.savez_compressed(part, **labels)
            part.replace(f"{clip.stem}.labels.npz")
        yield clip


def prepared(folder: Path, limit: int | None = None) -> list[Clip]:
    """Clips whose caches exist, in the order of their index."""
    rows = sorted(read_manifest(folder), key=lambda row: row["index"])
    clips = [Clip(row, folder) for row in rows[:limit]]
    return [clip for clip in clips if Path(f"{clip.stem}.labels.npz").exists()]


def window_frames(log_mel: LogMel, samples: np.ndarray) -> np.ndarray:
    """Log-mel of every 30 s window, padding dropped: (n,) -> (n_frames, n_mels) float16."""
    size, hop = log_mel.config.window_samples, log_mel.config.hop_length
    parts = [samples[at : at + size] for at in range(0, len(samples), size)]
    frames = [log_mel(part)[:, : len(part) // hop].T for part in parts if len(part) >= 4 * hop]
    return np.concatenate(frames).astype(np.float16)


def notes(midi: mido.MidiFile) -> list[tuple[float, float, int, int, int]]:
    """All notes of a file as (start s, end s, pitch, channel, program)."""
    now, programs, held, found = 0.0, [0] * 16, {}, []
    for message in midi:
        now += message.time
        if message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type == "note_on" and message.velocity:
            held[message.channel, message.note] = (now, programs[message.channel])
        elif message.type in ("note_on", "note_off") and (message.channel, message.note) in held:
            start, program = held.pop((message.channel, message.note))
            found.append((start, now, message.note, message.channel, program))
    return found


def dense_labels(row: dict[str, Any], midi: mido.MidiFile) -> dict[str, np.ndarray]:
    """Root, quality, bass, chroma, beat and family labels of a clip, one row per token."""
    count = int(row["duration"] / TOKEN_S)
    chroma, families = np.zeros((count, 12), np.uint8), np.zeros((count, len(FAMILIES) + 1), np.uint8)
    bass = np.full(count, 128, np.int16)
    for start, end, pitch, channel, program in notes(midi):
        span = slice(round(start / TOKEN_S), max(round((end + RELEASE_S) / TOKEN_S), round(start / TOKEN_S) + 1))
        if channel == DRUMS:
            families[round(start / TOKEN_S) : round((start + 0.3) / TOKEN_S), -1] = 1
            continue
        families[span, FAMILY_OF_GROUP[program // 8]] = 1
        chroma[span, pitch % 12] = 1
        bass[span] = np.minimum(bass[span], pitch)
    root, quality = np.full(count, NO_CHORD, np.int8), np.zeros(count, np.int8)
    for start, end, chord_root, name in row["chords"]:
        span = slice(round(start / TOKEN_S), round(end / TOKEN_S))
        root[span], quality[span] = chord_root, QUALITIES.index(name)
    root[chroma.sum(1) == 0] = NO_CHORD
    beat = np.zeros(count, np.uint8)
    for interval, value in ((row["beat_s"], 1), (row["bar_s"], 2)):
        at = np.round(np.arange(0, row["duration"], interval) / TOKEN_S).astype(int)
        beat[at[at < count]] = value
    lowest = np.where(bass < 128, bass % 12, NO_CHORD).astype(np.int8)
    return {"root": root, "quality": quality, "bass": lowest, "chroma": chroma, "beat": beat, "families": families}
