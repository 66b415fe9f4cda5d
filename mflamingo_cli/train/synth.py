"""Synthetic music with exact truth: MMA + edits + fluidsynth -> 16 kHz FLAC, MIDI and one JSON line per clip. Times are seconds.

A clip is a pure function of (seed, index); a run that was stopped continues where the manifest ends.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mido
import numpy as np
import soundfile

from mflamingo_cli.errors import ModelError
from mflamingo_cli.train import compose, grooves

SAMPLE_RATE = 16_000
DRUMS = 9  # General MIDI channel 10
MELODIC_PROGRAMS = (
    0, 2, 4, 5, 6, 11, 12, 16, 19, 21, 22, 24, 25, 26, 27, 29, 40, 42, 46, 48, 49, 50, 52, 56, 57, 60,
    61, 62, 64, 65, 66, 68, 71, 73, 75, 79, 80, 81, 87, 88, 89, 90,
)  # fmt: skip
BASS_PROGRAMS = (32, 33, 34, 35, 36, 38, 39)
FAMILIES = ("piano", "mallets", "organ", "guitar", "bass", "strings", "choir", "brass", "sax", "woodwind", "synth")  # by program // 8
FAMILY_OF_GROUP = (0, 1, 2, 3, 4, 5, 5, 7, 8, 9, 10, 10, 10, 3, 1, 10)
BEND_CENTS = 200 / 8192  # cents of one pitch-wheel step at the default range of two semitones
SOUNDFONTS = {  # name: (path of its Debian package, licence); `test` ones are never trained on
    "FluidR3_GM": ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "MIT"),
    "TimGM6mb": ("/usr/share/sounds/sf2/TimGM6mb.sf2", "GPL-2+"),
    "FluidR3Mono": ("/usr/share/sounds/sf3/FluidR3Mono_GM.sf3", "MIT"),
    "OPL-3": ("/usr/share/sounds/sf2/OPL-3_FM_128M.sf2", "CC-BY-SA-4.0"),
    "sf_GMbank": ("/usr/share/sounds/sf2/sf_GMbank.sf2", "public domain"),
}
TRAIN_FONTS = (("FluidR3_GM", 0.4), ("TimGM6mb", 0.3), ("FluidR3Mono", 0.15), ("OPL-3", 0.15))
TEST_FONT = "sf_GMbank"
SPLITS = ("train", "dev", "test")  # dev: unseen grooves; test: unseen grooves played with an unseen soundfont


@dataclass(frozen=True)
class SynthConfig:
    """What to generate: `count` clips of `min_s`-`max_s`, of which a share `long` lasts up to `long_s`."""

    out: Path
    mma_home: Path
    count: int
    split: str = "train"
    seed: int = 1
    min_s: float = 20.0
    max_s: float = 31.0
    long: float = 0.08
    long_s: float = 66.0


class Rejected(Exception):
    """A drawn song that cannot be rendered faithfully; the next attempt draws another."""


def generate(config: SynthConfig, jobs: int = 1) -> Iterator[dict[str, Any]]:
    """Render all clips that the manifest lacks, yielding each new row as it is written."""
    check_tools(config)
    done = {row["index"] for row in read_manifest(config.out / config.split)}
    todo = [index for index in range(config.count) if index not in done]
    folder = config.out / config.split
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
        rows = map(_clip, todo, [config] * len(todo)) if jobs == 1 else None
        pool = None if jobs == 1 else ProcessPoolExecutor(jobs)
        try:
            for row in rows if pool is None else pool.map(_clip, todo, [config] * len(todo)):
                manifest.write(json.dumps(row) + "\n")
                manifest.flush()
                yield row
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Rows written so far; a last line cut off by a crash is ignored."""
    path = folder / "manifest.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def check_tools(config: SynthConfig) -> None:
    """Say what is missing before anything is drawn."""
    if shutil.which("fluidsynth") is None:
        raise ModelError("fluidsynth is not installed; try `apt-get install fluidsynth`")
    fonts = [TEST_FONT] if config.split == "test" else [name for name, _ in TRAIN_FONTS]
    missing = [SOUNDFONTS[name][0] for name in fonts if not Path(SOUNDFONTS[name][0]).exists()]
    if missing:
        raise ModelError(f"soundfonts missing: {', '.join(missing)}; install the Debian packages that carry them")
    if config.split not in SPLITS:
        raise ModelError(f"unknown split {config.split!r}; one of {', '.join(SPLITS)}")
    grooves.install_mma(config.mma_home)


_GROOVES: dict[Path, list[grooves.Groove]] = {}


def split_grooves(home: Path, split: str) -> list[grooves.Groove]:
    """Grooves of a split; scanned once per process."""
    if home not in _GROOVES:
        _GROOVES[home] = grooves.scan(home)
    return [g for g in _GROOVES[home] if g.held_out == (split != "train")]


def _clip(index: int, config: SynthConfig) -> dict[str, Any]:
    """Draw until a song renders faithfully (about one in eight does not)."""
    for attempt in range(20):
        rng = np.random.default_rng([config.seed, SPLITS.index(config.split), index, attempt])
        try:
            return render_clip(rng, index, config)
        except Rejected:
            continue
    raise ModelError(f"clip {index}: 20 drawn songs were rejected; is MMA complete?")


def draw_plan(rng: np.random.Generator, config: SynthConfig) -> compose.Plan:
    """A song of the split: meters other than 4/4 are drawn more often than there are grooves for them."""
    usable = split_grooves(config.mma_home, config.split)
    meter = rng.choice(["4/4", "3/4", "6/8"], p=[0.72, 0.18, 0.10])
    pool = [g for g in usable if g.meter == meter] or usable
    max_s = config.long_s if rng.random() < config.long else config.max_s
    return compose.plan_song(rng, pool, config.min_s if max_s == config.max_s else 60.0, max_s)


def render_clip(rng: np.random.Generator, index: int, config: SynthConfig) -> dict[str, Any]:
    """One clip: plan, MMA, edits, audio, files and the manifest row."""
    plan = draw_plan(rng, config)
    folder, name = config.out / config.split, f"{index:06d}"
    midi, edits = arrange(rng, plan, run_mma(plan, int(rng.integers(1 << 30)), config.mma_home))
    font = TEST_FONT if config.split == "test" else str(rng.choice([n for n, _ in TRAIN_FONTS], p=[p for _, p in TRAIN_FONTS]))
    samples = render(midi, font, rng)[: int(plan.duration_s * SAMPLE_RATE)]
    if len(samples) < 5 * SAMPLE_RATE or float(np.abs(samples).max()) < 1e-3:
        raise Rejected("silent")
    for sub in ("audio", "midi"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "audio" / f"{name}.flac", samples, SAMPLE_RATE, subtype="PCM_16")
    midi.save(folder / "midi" / f"{name}.mid")
    return {
        "index": index,
        "audio": f"audio/{name}.flac",
        "midi": f"midi/{name}.mid",
        "soundfont": font,
        **truth(plan, len(samples) / SAMPLE_RATE),
        **edits,
    }


def truth(plan: compose.Plan, duration: float) -> dict[str, Any]:
    """What is known exactly about a plan, in seconds."""
    beat_s, felt = 60 / plan.mma_tempo, 3 if plan.groove.meter == "6/8" else 1
    sections, bar = [], 0
    for position in plan.form:
        section = plan.sections[position]
        end = bar + len(section.bars)
        sections.append([round(bar * plan.beats * beat_s, 4), round(end * plan.beats * beat_s, 4), section.name])
        bar = end
    return {
        "groove": plan.groove.name, "groove_file": plan.groove.file, "style": plan.groove.style, "meter": plan.groove.meter,
        "tempo": plan.tempo, "beat_s": round(beat_s * felt, 6), "bar_s": round(beat_s * plan.beats, 6),
        "tonic": plan.tonic, "mode": plan.mode, "duration": round(duration, 3), "sections": sections,
        "chords": [[round(c.start * beat_s, 4), round((c.start + c.length) * beat_s, 4), c.root, c.quality] for c in plan.chords()],
    }  # fmt: skip


def run_mma(plan: compose.Plan, seed: int, home: Path) -> mido.MidiFile:
    """Play a plan with MMA; its MIDI must be as long as the plan says."""
    with tempfile.TemporaryDirectory(prefix="mflamingo-") as folder:
        source, target = Path(folder) / "song.mma", Path(folder) / "song.mid"
        source.write_text(compose.mma_text(plan, seed), encoding="utf-8")
        command = [sys.executable, str(home / "mma.py"), "-f", str(target), str(source)]
        result = subprocess.run(
            command, env={**os.environ, "MMA_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, timeout=60, check=False
        )
        if result.returncode or not target.exists():
            raise Rejected(result.stdout.decode(errors="replace")[-300:])
        midi = mido.MidiFile(target)
    tempos = [m.tempo for track in midi.tracks for m in track if m.type == "set_tempo"]
    if len(set(tempos)) > 1 or abs(midi.length - plan.duration_s) > 0.1 * plan.duration_s + 2:
        raise Rejected("tempo or length differs from the plan")
    return midi


def arrange(rng: np.random.Generator, plan: compose.Plan, midi: mido.MidiFile) -> tuple[mido.MidiFile, dict[str, Any]]:
    """Edit an accompaniment: other instruments, fewer or more parts, melody, tuning. Returns the song and what was done."""
    used = sorted({m.channel for t in midi.tracks for m in t if m.type == "note_on"})
    pitched = [c for c in used if c != DRUMS]
    muted: set[int] = set()
    if rng.random() < 0.15:
        muted.add(DRUMS)
    if len(pitched) >= 3 and rng.random() < 0.25:
        muted.add(int(rng.choice(pitched)))
    comp = not pitched or rng.random() < 0.15
    if comp and pitched and rng.random() < 0.5:
        muted |= set(pitched)
    programs: dict[int, int] = {}
    if rng.random() < 0.5:
        programs = {c: int(rng.choice(MELODIC_PROGRAMS)) for c in pitched if rng.random() < 0.5 and c not in muted}
    edited = _edit_tracks(midi, muted, programs)
    free = [c for c in range(16) if c != DRUMS and c not in used]
    added = []
    if comp and len(free) >= 3:
        _add_part(edited, plan, compose.comping(rng, plan), free.pop(), int(rng.choice(MELODIC_PROGRAMS)))
        _add_part(edited, plan, compose.bass_line(rng, plan), free.pop(), int(rng.choice(BASS_PROGRAMS)))
        added.append("comping")
    tune = bool(free) and rng.random() < 0.5
    if tune:
        _add_part(edited, plan, compose.melody(rng, plan), free.pop(), int(rng.choice(MELODIC_PROGRAMS)))
    if not added and not [c for c in pitched if c not in muted]:
        raise Rejected("nothing pitched is left")
    cents = float(rng.normal(0, 12)) if rng.random() < 0.4 else 0.0
    if cents:
        _detune(edited, cents)
    return edited, {"melody": tune, "comping": bool(added), "drums": DRUMS in used and DRUMS not in muted, "cents": round(cents, 1)}


def _edit_tracks(midi: mido.MidiFile, muted: set[int], programs: dict[int, int]) -> mido.MidiFile:
    """Copy a file without the notes of muted channels and with programs exchanged (times are kept)."""
    result = mido.MidiFile(type=1, ticks_per_beat=midi.ticks_per_beat)
    for track in midi.tracks:
        copy, waiting = mido.MidiTrack(), 0
        for message in track:
            waiting += message.time
            if message.type in ("note_on", "note_off") and message.channel in muted:
                continue
            if message.type == "program_change" and message.channel in programs:
                message = message.copy(program=programs[message.channel])
            copy.append(message.copy(time=waiting))
            waiting = 0
        result.tracks.append(copy)
    return result


def _add_part(midi: mido.MidiFile, plan: compose.Plan, notes: Sequence[compose.Note], channel: int, program: int) -> None:
    """Append a track; MMA beats are quarter notes of the file."""
    events = []
    for note in notes:
        start, end = round(note.start * midi.ticks_per_beat), round((note.start + note.length) * midi.ticks_per_beat)
        events += [(start, 1, note.pitch, note.velocity), (max(end, start + 1), 0, note.pitch, 0)]
    track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=program)])
    now = 0
    for tick, on, pitch, velocity in sorted(events):
        track.append(mido.Message("note_on" if on else "note_off", channel=channel, note=pitch, velocity=velocity, time=tick - now))
        now = tick
    midi.tracks.append(track)


def _detune(midi: mido.MidiFile, cents: float) -> None:
    """Shift the tuning of all pitched channels by a pitch-wheel message at the start."""
    pitch = int(np.clip(cents / BEND_CENTS, -8192, 8191))
    track = mido.MidiTrack([mido.Message("pitchwheel", channel=c, pitch=pitch) for c in range(16) if c != DRUMS])
    midi.tracks.insert(1, track)


def render(midi: mido.MidiFile, font: str, rng: np.random.Generator) -> np.ndarray:
    """Play a file: -> (n,) float32 mono at 16 kHz, with room, level and noise drawn."""
    reverb, chorus = int(rng.random() < 0.7), int(rng.random() < 0.5)
    peak, noise = 10 ** (rng.uniform(-14, -0.5) / 20), 10 ** (rng.uniform(-80, -45) / 20)
    with tempfile.TemporaryDirectory(prefix="mflamingo-") as folder:
        source, target = Path(folder) / "song.mid", Path(folder) / "song.wav"
        midi.save(source)
        command = ["fluidsynth", "-ni", "-q", "-r", str(SAMPLE_RATE), "-O", "s16", "-g", "0.4", "-R", str(reverb), "-C", str(chorus),
                   "-o", "synth.dynamic-sample-loading=1", "-F", str(target), SOUNDFONTS[font][0], str(source)]  # fmt: skip
        result = subprocess.run(command, capture_output=True, timeout=120, check=False)
        if result.returncode or not target.exists():
            raise Rejected(result.stderr.decode(errors="replace")[-300:])
        samples = soundfile.read(target, dtype="float32", always_2d=True)[0].mean(axis=1)
    top = float(np.abs(samples).max()) if len(samples) else 0.0
    if top < 1e-4:
        raise Rejected("silent")
    return (samples * (peak / top) + rng.standard_normal(len(samples)) * noise * peak).clip(-1, 1).astype(np.float32)
