"""Clips as the encoder trains on them: cached log-mel frames (20 ms) and dense labels (40 ms, two per audio token).

The front end is `core.mel`, the one of inference. Caches lie beside the clips and are made once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import mido
import numpy as np
import soundfile

from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.files import write_atomic
from mflamingo_cli.train.mini.manifest import read_manifest
from mflamingo_cli.train.mini.synth.harmony import QUALITIES
from mflamingo_cli.train.mini.synth.parts import DRUMS, FAMILIES, FAMILY_OF_PROGRAM, SUNG, events
from mflamingo_cli.train.mini.synth.render import SILENT_DB
from quant.geometry import MelConfig

# An FFT of 2048 resolves semitones down to the bass, 400 samples do not; frames of 20 ms halve the positions of the published 10 ms
MINI_MEL = MelConfig(n_fft=2048, hop_length=320, n_mels=256)
FRAMES_PER_TOKEN = 4  # the encoder halves the time twice
TOKEN_S = FRAMES_PER_TOKEN * MINI_MEL.hop_length / MINI_MEL.sample_rate
WINDOW_TOKENS = MINI_MEL.n_frames // FRAMES_PER_TOKEN
LABEL_S = 0.04
LABELS_PER_TOKEN = round(TOKEN_S / LABEL_S)
NO_CHORD = 12  # class of root and bass where nothing pitched sounds
RELEASE_S = 0.06  # a note sounds a little longer than it is held
DRUM_S = 0.3  # so long sounds a struck drum
ONSETS = ("pitched", "kick", "snare", "hat")  # what begins: meter and instruments show in it
STRUCK = {35: 1, 36: 1, 37: 2, 38: 2, 39: 2, 40: 2, 42: 3, 44: 3, 46: 3, 51: 3, 53: 3, 59: 3}  # General MIDI drum -> its onset
LABEL_VERSION = 4  # labels of another version are made again
UNKNOWN = 255  # of unsigned labels, -1 of signed ones: no loss looks there
AUDIBLE_DB = -20.0  # level of a part beside the mix around it from which it is claimed
ABSENT_DB = -45.0  # and up to which it is not there; between the two nothing is claimed
NOISE_MARGIN_DB = 6.0  # what is claimed stands so far above added noise
MOMENTS = frozenset(("beat", "onsets"))  # labels of moments: a row that is left out must not lose them
REACH = 4  # tokens to either side over which a struck or plucked part is taken to go on


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
        """Dense labels, one row per LABEL_S."""
        with np.load(f"{self.stem}.labels.npz") as file:
            return {name: file[name] for name in file.files if name != "version"}

    def token_labels(self) -> dict[str, np.ndarray]:
        """Dense labels, one row per audio token: those of its middle, and every beat and onset."""
        labels = self.labels()
        count = min((len(values) for values in labels.values()), default=0) // LABELS_PER_TOKEN
        of_token = np.arange(count * LABELS_PER_TOKEN) // LABELS_PER_TOKEN
        return resample(labels, LABELS_PER_TOKEN // 2 + LABELS_PER_TOKEN * np.arange(count), of_token)

    def samples(self, start: float = 0.0, end: float = 1e6) -> np.ndarray:
        """The audio between two times (s), (n,) float32 at 16 kHz."""
        span = slice(round(start * MINI_MEL.sample_rate), round(end * MINI_MEL.sample_rate))
        return soundfile.read(self.folder / self.row["audio"], dtype="float32")[0][span]


def resample(labels: dict[str, np.ndarray], at: np.ndarray, to: np.ndarray) -> dict[str, np.ndarray]:
    """Labels at other times: rows `at` of each, and of beats and onsets the strongest of all old rows i that come `to[i]`."""
    found = {name: values[at] for name, values in labels.items() if name not in MOMENTS}
    for name in MOMENTS & labels.keys():
        values = labels[name][: len(to)]
        rank = np.where(values == UNKNOWN, 1, np.where(values > 0, values.astype(np.int16) + 1, 0))  # a sure one outranks an unknown one
        best = np.zeros((len(at), *values.shape[1:]), np.int16)
        np.maximum.at(best, to, rank)
        found[name] = np.where(best == 1, UNKNOWN, np.maximum(best - 1, 0)).astype(values.dtype)
    return found


front_end = cache(partial(LogMel, MINI_MEL))  # of the embedded model


def prepare(folder: Path) -> Iterator[Clip]:
    """Make the caches that are missing or outdated, yielding each clip when it is ready."""
    for row in read_manifest(folder):
        yield make_caches(Clip(row, folder))


def make_caches(clip: Clip) -> Clip:
    """Mel frames and labels of one clip; those of recordings are written by who made them."""
    mel, labels = Path(f"{clip.stem}.mel.npy"), Path(f"{clip.stem}.labels.npz")
    mel.parent.mkdir(parents=True, exist_ok=True)
    if not mel.exists():
        with write_atomic(mel) as file:
            np.save(file, window_frames(clip.samples()))
    if clip.row.get("kind") != "recording" and not _current(labels):
        with write_atomic(labels) as file:
            np.savez_compressed(file, version=LABEL_VERSION, **exact_labels(clip))  # type: ignore[arg-type]
    return clip


def _current(path: Path) -> bool:
    if not path.exists():
        return False
    with np.load(path) as file:
        return "version" in file.files and int(file["version"]) == LABEL_VERSION


def prepared(folder: Path, limit: int | None = None) -> list[Clip]:
    """Clips whose caches exist, in the order of their index."""
    rows = sorted(read_manifest(folder), key=lambda row: row["index"])
    clips = [Clip(row, folder) for row in rows[:limit]]
    return [clip for clip in clips if Path(f"{clip.stem}.labels.npz").exists()]


def window_frames(samples: np.ndarray) -> np.ndarray:
    """Log-mel of every 30 s window, padding dropped: (n,) -> (n_frames, n_mels) float16."""
    size, hop = MINI_MEL.window_samples, MINI_MEL.hop_length
    parts = [samples[at : at + size] for at in range(0, len(samples), size)]
    frames = [front_end()(part)[:, : len(part) // hop].T for part in parts if len(part) >= 4 * hop]
    return np.concatenate(frames).astype(np.float16)


# --- labels of what was synthesised --------------------------------------------------------------------------------------


class SoundingNote(NamedTuple):
    """A note as it sounds: seconds of the clip, MIDI pitch, channel, program, loudness in dB by velocity and channel volume."""

    start: float
    end: float
    pitch: int
    channel: int
    program: int
    db: float


@dataclass(frozen=True)
class Levels:
    """How loud each part is beside the mix around it, in dB per token, (parts, T); channels and programs of the parts."""

    channel: np.ndarray
    program: np.ndarray
    db: np.ndarray

    def of_parts(self) -> dict[tuple[int, int], np.ndarray]:
        """Levels (T,) by channel and program."""
        return {(int(c), int(p)): db for c, p, db in zip(self.channel, self.program, self.db, strict=True)}


def notes(midi: mido.MidiFile, offset: float = 0.0, speed: float = 1.0) -> list[SoundingNote]:
    """All notes of a file of one tempo that is played from `offset` at a speed."""
    beat_s = next((m.tempo for track in midi.tracks for m in track if m.type == "set_tempo"), 500_000) / 1e6
    found = []
    for event in events(midi):
        start, end = event.start * beat_s, (event.start + event.length) * beat_s
        db = 40 * float(np.log10(event.velocity * max(event.volume, 1) / 127**2))  # General MIDI: amplitude as the square
        found.append(SoundingNote((start - offset) / speed, (end - offset) / speed, event.pitch, event.channel, event.program, db))
    return [note for note in found if note.end > 0]


def _span(start: float, end: float) -> slice:
    """Tokens of a time; at least one."""
    first = max(0, round(start / LABEL_S))
    return slice(first, max(round(end / LABEL_S), first + 1))


def note_levels(sounding: Sequence[SoundingNote], count: int) -> Levels:
    """Levels by the notes themselves, for clips without stems."""
    parts = sorted({(n.channel, n.program) for n in sounding})
    db = np.full((len(parts), count), float(SILENT_DB))
    for note in sounding:
        row = db[parts.index((note.channel, note.program))]
        span = _span(note.start, note.start + DRUM_S if note.channel == DRUMS else note.end + RELEASE_S)
        row[span] = np.maximum(row[span], note.db)
    loudest = db.max(0, initial=SILENT_DB)
    beside = np.where(db > SILENT_DB, db - loudest, SILENT_DB)
    return Levels(np.array([c for c, _ in parts]), np.array([p for _, p in parts]), beside)


def read_levels(path: Path, count: int) -> Levels:
    """Levels as the generator measured them, a little prolonged."""
    with np.load(path) as file:
        db = np.pad(file["db"].astype(np.float32), ((0, 0), (0, max(0, count - file["db"].shape[1]))), mode="edge")[:, :count]
        around = np.lib.stride_tricks.sliding_window_view(np.pad(db, ((0, 0), (REACH, REACH)), mode="edge"), 2 * REACH + 1, axis=1)
        return Levels(file["channel"], file["program"], around.max(-1))


def exact_labels(clip: Clip) -> dict[str, np.ndarray]:
    """Labels of a synthesised clip from its row, its MIDI file and, where there are some, its levels."""
    row, count = clip.row, int(clip.row["duration"] / LABEL_S)
    if "midi" not in row:
        return frame_labels(row, [], note_levels([], count))
    sounding = notes(mido.MidiFile(clip.folder / row["midi"]), row.get("offset", 0.0), row.get("speed", 1.0))
    sounding += [SoundingNote(start, end, pitch, SUNG, SUNG, 0.0) for start, end, pitch in row.get("sung", [])]
    levels = read_levels(clip.folder / row["levels"], count) if "levels" in row else note_levels(sounding, count)
    return frame_labels(row, sounding, levels)


def claims(db: np.ndarray, threshold: float) -> np.ndarray:
    """Levels -> 1 audible, 0 absent, 255 not to be claimed."""
    return np.where(db >= threshold, 1, np.where(db > ABSENT_DB, UNKNOWN, 0)).astype(np.uint8)


def combined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two claims about one thing: present where either says so."""
    return np.where((first == 1) | (second == 1), 1, np.maximum(first, second)).astype(np.uint8)


def frame_labels(row: dict[str, Any], sounding: Sequence[SoundingNote], levels: Levels) -> dict[str, np.ndarray]:
    """All labels of a clip, one row per token; see `objectives.HEAD_SIZES` for their classes."""
    count = int(row["duration"] / LABEL_S)
    threshold = max(AUDIBLE_DB, row.get("mix", {}).get("noise_db", -100.0) + NOISE_MARGIN_DB)
    families, vocals = _family_labels(levels, threshold, count)
    chroma, bass = _pitch_labels(sounding, levels, threshold, count)
    if row.get("sound") == "tone":
        chroma[:], bass[:] = UNKNOWN, -1
    return {
        **_chord_labels(row, chroma), "bass": bass if row.get("chords") else np.where(bass < NO_CHORD, -1, bass).astype(np.int8),
        "chroma": chroma, "families": families, "vocals": vocals, **_beat_labels(row, count), "key": _key_labels(row, count),
        "onsets": _onset_labels(sounding, levels, threshold, count),
    }  # fmt: skip


def _family_labels(levels: Levels, threshold: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Families (T, 12), drums last, and voice (T,); a choir of samples may or may not count as a voice."""
    families, vocals = np.zeros((count, len(FAMILIES) + 1), np.uint8), np.zeros(count, np.uint8)
    for channel, program, db in zip(levels.channel, levels.program, levels.db, strict=True):
        claim = claims(db, threshold)
        if program == SUNG:
            vocals = combined(vocals, claim)
        elif channel == DRUMS or program in FAMILY_OF_PROGRAM:
            column = len(FAMILIES) if channel == DRUMS else FAMILY_OF_PROGRAM[program]
            families[:, column] = combined(families[:, column], claim)
    choir = families[:, FAMILIES.index("choir")] > 0
    return families, np.where(choir & (vocals == 0), UNKNOWN, vocals).astype(np.uint8)


def _pitch_labels(sounding: Sequence[SoundingNote], levels: Levels, threshold: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Chroma (T, 12), and the lowest audible pitch class (T,); pitches of parts that are too quiet are not claimed."""
    chroma, lowest = np.zeros((count, 12), np.uint8), np.full(count, 128, np.int16)
    rows = levels.of_parts()
    for note in sounding:
        if note.channel == DRUMS or (note.channel, note.program) not in rows:
            continue
        span = _span(note.start, note.end + RELEASE_S)
        claim = claims(rows[note.channel, note.program][span], threshold)
        chroma[span, note.pitch % 12] = combined(chroma[span, note.pitch % 12], claim)
        lowest[span] = np.where(claim == 1, np.minimum(lowest[span], note.pitch), lowest[span])
    bass = np.where(lowest < 128, lowest % 12, np.where((chroma > 0).any(1), -1, NO_CHORD))
    return chroma, bass.astype(np.int8)


def _onset_labels(sounding: Sequence[SoundingNote], levels: Levels, threshold: float, count: int) -> np.ndarray:
    """Where notes begin (T, 4), see ONSETS; those of parts that are too quiet are not claimed."""
    onsets = np.zeros((count, len(ONSETS)), np.uint8)
    rows = levels.of_parts()
    for note in sounding:
        kind, at = STRUCK.get(note.pitch) if note.channel == DRUMS else 0, round(note.start / LABEL_S)
        if kind is not None and 0 <= at < count and (note.channel, note.program) in rows:
            claim = claims(rows[note.channel, note.program][at : at + 1], threshold)
            onsets[at : at + 1, kind] = combined(onsets[at : at + 1, kind], claim)
    return onsets


def _chord_labels(row: dict[str, Any], chroma: np.ndarray) -> dict[str, np.ndarray]:
    """Root and quality (T,): no chord where nothing pitched sounds, unknown where it is too quiet or the clip names none."""
    root, quality = np.full(len(chroma), NO_CHORD, np.int8), np.full(len(chroma), -1, np.int8)
    for start, end, chord_root, name in row.get("chords", []):
        span = slice(round(start / LABEL_S), round(end / LABEL_S))
        root[span], quality[span] = chord_root, QUALITIES.index(name)
    root[(chroma == 0).all(1)] = NO_CHORD
    if "chords" not in row:
        root[:] = -1
    root[(chroma == UNKNOWN).any(1) & (chroma != 1).all(1)] = -1
    quality[(root < 0) | (root == NO_CHORD)] = -1
    return {"root": root, "quality": quality}


def _beat_labels(row: dict[str, Any], count: int) -> dict[str, np.ndarray]:
    """Beats (1) and downbeats (2), (T,); nothing where there is music whose bars are not known."""
    if row.get("music") is not False and "bar_s" not in row:
        return {}
    beat = np.zeros(count, np.uint8)
    for interval, first, value in (("beat_s", "beat_at", 1), ("bar_s", "bar_at", 2)):
        if interval in row:
            at = np.round(np.arange(row.get(first, 0.0), row["duration"], row[interval]) / LABEL_S).astype(int)
            beat[at[at < count]] = value
    return {"beat": beat}


def _key_labels(row: dict[str, Any], count: int) -> np.ndarray:
    """Keys of the moment (T,): 0-11 major by tonic, 12-23 minor, -1 none."""
    key = np.full(count, -1, np.int8)
    whole = [[0.0, row["duration"], row["tonic"], row["mode"]]] if "tonic" in row else []
    for start, end, tonic, mode in row.get("keys", whole):
        key[round(start / LABEL_S) : max(0, round(end / LABEL_S))] = tonic + 12 * (mode == "minor")
    return key
