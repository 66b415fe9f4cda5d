"""Synthetic music with exact truth: plan -> parts (MMA, composed, sung) -> stems -> mix: 16 kHz FLAC, MIDI, levels, one JSON line a clip.

A clip is a pure function of (seed, split, index); a run that was stopped continues where the manifest ends. Times are seconds of the
clip, which may begin anywhere in its song: a time t of the MIDI file is at (t - offset) / speed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mflamingo_cli.errors import ModelError
from mflamingo_cli.files import write_atomic
from mflamingo_cli.train.mini.manifest import append_row, in_processes, missing
from mflamingo_cli.train.mini.synth import compose, grooves, mixing, parts, player, voice
from mflamingo_cli.train.mini.synth.arrange import Rejected, assemble, choose
from mflamingo_cli.train.mini.synth.parts import SUNG, Part

SAMPLE_RATE = 16_000
TOKEN_SAMPLES = 640  # levels are kept per label of 40 ms
SILENT_DB = -100  # level of a part that does not sound
SOUNDFONTS = {  # name: (path of its Debian package, licence); `test` ones are never trained on
    "FluidR3_GM": ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "MIT"),
    "TimGM6mb": ("/usr/share/sounds/sf2/TimGM6mb.sf2", "GPL-2+"),
    "FluidR3Mono": ("/usr/share/sounds/sf3/FluidR3Mono_GM.sf3", "MIT"),
    "OPL-3": ("/usr/share/sounds/sf2/OPL-3_FM_128M.sf2", "CC-BY-SA-4.0"),
    "MuseScore_General_Lite": ("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3", "MIT"),
    "sf_GMbank": ("/usr/share/sounds/sf2/sf_GMbank.sf2", "public domain"),
}
TRAIN_FONTS = (("FluidR3_GM", 0.38), ("TimGM6mb", 0.26), ("FluidR3Mono", 0.14), ("OPL-3", 0.12), ("MuseScore_General_Lite", 0.1))
TEST_FONT = "sf_GMbank"
SPLITS = ("train", "dev", "test")  # dev: unseen grooves; test: unseen grooves played with an unseen soundfont
METER_SHARES = {"4/4": 0.5, "3/4": 0.3, "6/8": 0.2}
GROOVE_SHARES = {"4/4": 0.95, "3/4": 0.7, "6/8": 0.35}  # of bands; there are few grooves in 6/8, so most of those are composed here
KINDS = {"band": 0.54, "own": 0.12, "solo": 0.12, "duo": 0.06, "trio": 0.06, "song": 0.05, "drums": 0.03, "nothing": 0.02}
LENGTHS = ((0.88, 20.0, 32.0), (0.08, 60.0, 75.0), (0.04, 90.0, 185.0))  # share, shortest, longest; seconds
LEAD_IN_S = 10.0  # at most so much of the song is dropped before a clip begins
HIDDEN = 0.25  # share of clips in which one part is too quiet
QUIET_LEAD = 0.08  # share of leads that stand behind the others
AUDIBLE_DB = -25.0  # drums whose level over the whole clip is lower do not count
NO_MUSIC = ("silence", "white", "pink", "brown", "hum", "tone")


@dataclass(frozen=True)
class SynthConfig:
    """What to generate: `count` clips of a split."""

    out: Path
    mma_home: Path
    count: int
    split: str = "train"
    seed: int = 1


@dataclass(frozen=True)
class ClipWindow:
    """The part of a song that a clip holds: from `offset` (song seconds), at a speed, for so long (clip seconds)."""

    offset: float
    speed: float
    duration: float

    def at(self, seconds: float) -> float:
        """Song seconds -> clip seconds."""
        return (seconds - self.offset) / self.speed

    def spans(self, spans: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """[[start, end, ...]] of a song -> those of the clip."""
        found = []
        for start, end, *rest in spans:
            begin, stop = max(0.0, self.at(start)), min(self.duration, self.at(end))
            if stop - begin > 0.02:
                found.append([round(begin, 4), round(stop, 4), *rest])
        return found


def generate(config: SynthConfig, jobs: int = 1) -> Iterator[dict[str, Any]]:
    """Render all clips that the manifest lacks, yielding each new row as it is written."""
    check_tools(config)
    folder = config.out / config.split
    for row in in_processes(_clip, missing(folder, config.count), config, jobs):
        append_row(folder, row)
        yield row


def check_tools(config: SynthConfig) -> None:
    """Say what is missing before anything is drawn."""
    if config.split not in SPLITS:
        raise ModelError(f"unknown split {config.split!r}; one of {', '.join(SPLITS)}")
    player.library()
    fonts = [TEST_FONT] if config.split == "test" else [name for name, _ in TRAIN_FONTS]
    absent = [SOUNDFONTS[name][0] for name in fonts if not Path(SOUNDFONTS[name][0]).exists()]
    if absent:
        raise ModelError(f"soundfonts missing: {', '.join(absent)}; install the Debian packages that contain them")
    grooves.install_mma(config.mma_home)


def _clip(index: int, config: SynthConfig) -> dict[str, Any]:
    """Draw until a song renders faithfully."""
    for attempt in range(20):
        rng = np.random.default_rng([config.seed, SPLITS.index(config.split), index, attempt])
        try:
            return render_clip(rng, index, config)
        except Rejected:
            continue
    raise ModelError(f"clip {index}: 20 drawn songs were rejected; is MMA complete?")


def render_clip(rng: np.random.Generator, index: int, config: SynthConfig) -> dict[str, Any]:
    """One clip: plan, parts, stems, mix, files and the manifest row."""
    kind, meter, window = choose(rng, KINDS), choose(rng, METER_SHARES), draw_window(rng)
    common = {"index": index, "audio": f"audio/{index:06d}.flac", "kind": "synth", "ensemble": kind}
    if kind == "nothing":
        samples, what = no_music(rng, window.duration)
        write(config.out / config.split, index, samples)
        return {**common, "duration": round(len(samples) / SAMPLE_RATE, 3), **what}
    groove = grooves.own(meter)
    if kind in ("band", "drums") and rng.random() < GROOVE_SHARES[meter]:
        pool = [g for g in grooves.scan(config.mma_home) if g.meter == meter and g.held_out == (config.split != "train")]
        groove = compose.draw_groove(rng, pool) if pool else groove
    plan = compose.plan_song(rng, groove, window.offset + window.duration * window.speed + 0.5)
    played, styled = assemble(rng, kind, plan, config.mma_home)
    font = TEST_FONT if config.split == "test" else choose(rng, dict(TRAIN_FONTS))
    singer = voice.draw_singer(rng) if any(part.program == SUNG for _, part in played) else None
    midi = midi_bytes(played, plan.mma_tempo)
    samples, mixed = mix(rng, played, stems(rng, plan, played, midi, font, window, singer))
    write(config.out / config.split, index, samples, midi, mixed.pop("levels"))
    facts = supported_facts(exact_facts(plan, window), [part for _, part in played], styled)
    if singer:
        facts["singer"] = {"kind": singer.kind, "words": singer.words}
        pitched = [part for _, part in played if part.program == SUNG and singer.words != "spoken"]
        facts["sung"] = [span for part in pitched for span in window.spans(_seconds(plan, part.notes))]
    return {**common, "midi": f"midi/{index:06d}.mid", "levels": f"levels/{index:06d}.npz", "soundfont": font, **facts, **mixed}


def supported_facts(facts: dict[str, Any], played: Sequence[Part], styled: bool) -> dict[str, Any]:
    """Facts without those that the parts do not support: the style of another band, chords of a lone melody, the key of drums."""
    roles = {part.role for part in played}
    absent = set() if styled else {"style"}
    if roles == {"drums"}:
        absent |= {"tonic", "mode", "keys", "style"}
        facts = {**facts, "chords": [], "chord_names": []}
    elif "chords" not in roles:
        absent |= {"chords", "chord_names"}
    return {name: value for name, value in facts.items() if name not in absent}


def write(folder: Path, index: int, samples: np.ndarray, midi: bytes | None = None, levels: dict[str, np.ndarray] | None = None) -> None:
    """Files of one clip."""
    for sub in ("audio", "midi", "levels"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    with write_atomic(folder / "audio" / f"{index:06d}.flac") as file:
        soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    if midi is not None and levels is not None:
        with write_atomic(folder / "midi" / f"{index:06d}.mid") as file:
            file.write(midi)
        with write_atomic(folder / "levels" / f"{index:06d}.npz") as file:
            np.savez_compressed(file, **levels)  # type: ignore[arg-type]


def draw_window(rng: np.random.Generator) -> ClipWindow:
    """Where a clip begins, how long it lasts, and how far its tuning (and with it the speed) is off: at most 50 cents."""
    shares = [share for share, _, _ in LENGTHS]
    _, low, high = LENGTHS[rng.choice(len(LENGTHS), p=shares)]
    duration = round(float(rng.uniform(low, high)), 2)
    offset = 0.0 if rng.random() < 0.3 else float(rng.uniform(0, LEAD_IN_S))
    tuned = rng.random()
    cents = 0.0 if tuned < 0.4 else float(np.clip(rng.normal(0, 12), -50, 50)) if tuned < 0.85 else float(rng.uniform(-50, 50))
    return ClipWindow(offset, 2 ** (cents / 1200), duration)


def exact_facts(plan: compose.Plan, window: ClipWindow) -> dict[str, Any]:
    """What is known exactly about the part of a plan that the clip holds."""
    beat_s = 60 / plan.mma_tempo
    bar_s, felt_s = beat_s * plan.beats, beat_s * plan.groove.felt
    sections = [
        [at * beat_s, (at + len(s.bars) * plan.beats) * beat_s, s.name, (plan.tonic + s.shift) % 12] for s, at in plan.occurrences()
    ]
    chords = window.spans([[c.start * beat_s, (c.start + c.length) * beat_s, c.root, c.quality, c.name] for c in plan.chords()])
    keys = joined([[start, end, tonic, plan.mode] for start, end, _, tonic in window.spans(sections)])
    first = {
        name: round(float(window.at(np.ceil(window.offset / s - 1e-6) * s)), 4) for name, s in (("beat_at", felt_s), ("bar_at", bar_s))
    }
    return {
        "groove": plan.groove.name, "groove_file": plan.groove.file, "style": plan.groove.style, "meter": plan.groove.meter,
        "tempo": round(plan.tempo * window.speed, 2), "beat_s": round(felt_s / window.speed, 6), "bar_s": round(bar_s / window.speed, 6),
        **first, "tonic": plan.tonic, "mode": plan.mode, "keys": keys, "duration": window.duration,
        "sections": [span[:3] for span in window.spans(sections)], "chords": [c[:4] for c in chords], "chord_names": [c[4] for c in chords],
        "offset": round(window.offset, 6), "speed": round(window.speed, 8), "cents": round(1200 * float(np.log2(window.speed)), 1),
    }  # fmt: skip


def joined(spans: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Spans of chords or keys, those of one in succession as one: inversions are no other chord."""
    found = [list(spans[0])] if spans else []
    for before, after in pairwise(spans):
        if before[2:] == after[2:] and abs(after[0] - found[-1][1]) < 1e-3:
            found[-1][1] = after[1]
        else:
            found.append(list(after))
    return found


# --- sound ---------------------------------------------------------------------------------------------------------------


def midi_bytes(played: Sequence[tuple[int, Part]], mma_tempo: float) -> bytes:
    """The parts as a MIDI file."""
    buffer = io.BytesIO()
    parts.to_midi(played, mma_tempo).save(file=buffer)
    return buffer.getvalue()


def stems(
    rng: np.random.Generator,
    plan: compose.Plan,
    played: Sequence[tuple[int, Part]],
    midi: bytes,
    font: str,
    window: ClipWindow,
    singer: voice.Singer | None = None,
) -> np.ndarray:
    """One row per part, (parts, n) float32: rendered at another rate and played at 16 kHz, a song is off in speed and tuning."""
    skip, count = round(window.offset / window.speed * SAMPLE_RATE), round(window.duration * SAMPLE_RATE)
    rows = player.stems(midi, SOUNDFONTS[font][0], SAMPLE_RATE / window.speed, skip + count)
    return np.stack([sing(rng, plan, part, window, singer) if part.program == SUNG else rows[channel, skip:] for channel, part in played])


def _seconds(plan: compose.Plan, notes: Sequence[parts.Note]) -> list[list[float]]:
    beat_s = 60 / plan.mma_tempo
    return [[n.start * beat_s, (n.start + n.length) * beat_s, n.pitch] for n in notes]


def sing(rng: np.random.Generator, plan: compose.Plan, sung: Part, window: ClipWindow, singer: voice.Singer | None) -> np.ndarray:
    """The voice over the whole clip, (n,) float32, in tune with the rest."""
    cents = 12 * float(np.log2(window.speed))
    notes = [(start, end, pitch + cents) for start, end, pitch in window.spans(_seconds(plan, sung.notes))]
    if not notes:
        raise Rejected("nothing is sung")
    return voice.sing(rng, notes, window.duration, SAMPLE_RATE, singer)


def token_rms(samples: np.ndarray) -> np.ndarray:
    """RMS per audio token: (..., n) -> (..., n // 640)."""
    count = samples.shape[-1] // TOKEN_SAMPLES
    return np.sqrt((samples[..., : count * TOKEN_SAMPLES].reshape(*samples.shape[:-1], count, TOKEN_SAMPLES) ** 2).mean(-1))


def active_rms(samples: np.ndarray) -> float:
    """RMS where it sounds: of the tokens within 30 dB of the loudest."""
    levels = token_rms(samples)
    return float(np.sqrt((levels[levels >= levels.max() * 10**-1.5] ** 2).mean())) if len(levels) else 0.0


def mix(rng: np.random.Generator, played: Sequence[tuple[int, Part]], rows: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Stems, one for each part, -> mix; levels are drawn, those of a lead beside all others."""
    gains = 10 ** (rng.normal(0, 3, len(rows)) / 20)
    roles = [part.role for _, part in played]
    spare = [i for i, role in enumerate(roles) if role != "chords" or roles.count("chords") > 1]  # someone must play the chords
    if len(rows) > 2 and rng.random() < HIDDEN:
        gains[spare[rng.integers(len(spare))]] *= 10 ** (rng.uniform(-30, -12) / 20)
    leads = np.array([part.role == "melody" and len(played) > 1 for _, part in played])
    rest = active_rms((rows[~leads] * gains[~leads, None]).sum(0))
    for i in np.flatnonzero(leads):
        above_db = rng.uniform(-18, -9) if rng.random() < QUIET_LEAD else rng.uniform(-5, 5)
        gains[i] = rest / max(active_rms(rows[i]), 1e-6) * 10 ** (above_db / 20)
    return blend(rng, played, rows * gains[:, None].astype(np.float32))


def blend(rng: np.random.Generator, played: Sequence[tuple[int, Part]], rows: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Stems at their levels -> mix, and what is audible in it."""
    total = rows.sum(0)
    if float(np.abs(total).max()) < 1e-3:
        raise Rejected("silent")
    samples, done = mixing.master(rng, total)
    families = family_levels([part.family for _, part in played], rows)
    facts: dict[str, Any] = {"vocals": "vocals" in families, "vocals_db": families.pop("vocals", SILENT_DB)}
    channels, programs = np.array([channel for channel, _ in played]), np.array([part.program for _, part in played])
    levels = {"channel": channels, "program": programs, "db": relative_levels(rows, total)}
    facts = {"instruments": families, "drums": families.get("drums", SILENT_DB) > AUDIBLE_DB, **facts, "mix": done}
    return samples, {**facts, "levels": levels}


def family_levels(families: Sequence[str | None], rows: np.ndarray) -> dict[str, float]:
    """Level of each family over the whole clip, in dB relative to the loudest one; nothing below -60 dB."""
    power: dict[str, float] = {}
    for name, row in zip(families, rows, strict=True):
        if name:
            power[name] = power.get(name, 0.0) + float((row.astype(np.float64) ** 2).mean())
    top = max([power[name] for name in power if name != "vocals"], default=1.0)
    return {name: round(10 * float(np.log10(value / top)), 1) for name, value in power.items() if value > top * 1e-6}


def relative_levels(rows: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Level of each stem in dB relative to the mix around each token (0.2 s to either side): (parts, n) -> (parts, tokens) int8."""
    own_rms, mixed = token_rms(rows), token_rms(total)
    reach = np.lib.stride_tricks.sliding_window_view(np.pad(mixed, 5), 11).max(-1)
    floor = max(float(reach.max()) * 1e-3, 1e-9)  # what is 60 dB below the loudest moment is silence
    return np.clip(20 * np.log10(own_rms / np.maximum(reach, floor) + 1e-9), SILENT_DB, 20).astype(np.int8)


def no_music(rng: np.random.Generator, duration: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Silence, noise, hum or single tones: nothing of it has a key, chords or instruments."""
    what, count = str(rng.choice(NO_MUSIC)), round(duration * SAMPLE_RATE)
    if what == "silence":
        found = rng.standard_normal(count) * 1e-4
    elif what == "tone":
        t = np.arange(count) / SAMPLE_RATE
        found = np.sin(2 * np.pi * np.exp(rng.uniform(np.log(60), np.log(4000))) * t) + 0.003 * rng.standard_normal(count)
    else:
        found = mixing.noise(rng, what, count)
        knots = rng.uniform(-12, 0, 8)
        found = found * 10 ** (np.interp(np.linspace(0, 7, count), np.arange(8), knots) / 20)
    level = 10 ** (rng.uniform(-30, -3) / 20) / (np.abs(found).max() if what != "silence" else 1.0)
    return (found * level).astype(np.float32), {
        "music": False, "sound": what, "sections": [], "chords": [], "chord_names": [], "instruments": {}, "drums": False, "vocals": False,
    }  # fmt: skip
