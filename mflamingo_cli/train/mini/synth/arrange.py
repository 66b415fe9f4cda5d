"""Arrangements: which parts play a plan, with which instruments. Parts come from MMA, are composed, or are left out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np

from mflamingo_cli.train.mini.synth import compose, parts
from mflamingo_cli.train.mini.synth.parts import DRUMS, FAMILIES, SUNG, Part

LEADS = {"none": 0.3, "played": 0.48, "sung": 0.22}  # of bands; `song` is always sung
LEAD_FAMILIES = (*(f for f in FAMILIES if f != "bass"), "sax", "woodwind", "woodwind")  # those that seldom accompany lead more often
EXCHANGED = (*parts.CHORDAL, "sax", "woodwind")  # families that stand in for others in an accompaniment
SWAPPED = 0.45  # share of grooves that are played with some other instruments
STYLED = 1 / 2  # a style is named while no more of the accompaniment has other instruments than its groove


class Rejected(Exception):
    """A drawn song that cannot be rendered faithfully; the next attempt draws another."""


def choose(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    """One of the names by their shares."""
    weights = np.array(list(shares.values()))
    return list(shares)[rng.choice(len(shares), p=weights / weights.sum())]


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
    tempos = {m.tempo for track in midi.tracks for m in track if m.type == "set_tempo"}
    ticks = max((sum(m.time for m in track) for track in midi.tracks), default=0)
    seconds = ticks / midi.ticks_per_beat * 60 / plan.mma_tempo
    if len(tempos) > 1 or abs(seconds - plan.duration_s) > 0.1 * plan.duration_s + 2:
        raise Rejected("tempo or length differs from the plan")
    return midi


def assemble(rng: np.random.Generator, kind: str, plan: compose.Plan, home: Path) -> tuple[list[tuple[int, Part]], bool]:
    """Parts with their channels (a sung one last), and whether the groove's style is recognisable."""
    styled, found = False, []
    if plan.groove.name:
        found = parts.from_midi(run_mma(plan, int(rng.integers(1 << 30)), home))
    if kind == "drums":
        found = [p for p in found if p.role == "drums"][:1] or [drums(rng, plan)]
    elif plan.groove.name:
        found, styled = rearrange(rng, plan, found)
    else:
        found = ENSEMBLES[kind](rng, plan)
    lead = {"band": choose(rng, LEADS), "own": choose(rng, LEADS), "song": "sung"}.get(kind, "none")
    if lead == "played":
        found.append(melody(rng, plan))
    elif lead == "sung":
        found.append(Part("melody", SUNG, tuple(parts.melody(rng, plan, int(rng.integers(48, 65)), 14))))
    if kind in ("band", "own"):
        found = [parts.shape(plan, part, number) for number, part in enumerate(found)]
    found = [part for part in found if part.notes]
    played = [part for part in found if part.role != "drums" and part.program != SUNG]
    if (not played and kind != "drums") or not found or len(played) > 15:
        raise Rejected("no part or too many parts")
    return on_channels(found), styled


def on_channels(found: Sequence[Part]) -> list[tuple[int, Part]]:
    """Each part on a channel of its own; what is sung has none."""
    channels = iter([channel for channel in range(16) if channel != DRUMS])
    return [(DRUMS if p.role == "drums" else SUNG if p.program == SUNG else next(channels), p) for p in found]


def rearrange(rng: np.random.Generator, plan: compose.Plan, found: list[Part]) -> tuple[list[Part], bool]:
    """An accompaniment with other instruments or fewer parts; drums of several kits become one part. Also whether it keeps its style."""
    beats = [n for p in found if p.role == "drums" for n in p.notes]
    kit = next((p.program for p in found if p.role == "drums"), 0) if rng.random() < 0.6 else int(rng.choice(parts.KITS))
    bass, chords = [p for p in found if p.role == "bass"], [p for p in found if p.role == "chords"]
    if not chords:
        chords = [comping(rng, plan)]
    if len(chords) > 1 and rng.random() < 0.3:
        chords.pop(int(rng.integers(len(chords))))
    if rng.random() < 0.12:
        bass = [Part("bass", parts.draw_program(rng, ("bass",)), tuple(parts.bass_line(rng, plan)))]
    swapped = 0
    if rng.random() < SWAPPED:
        share = float(rng.uniform(0.2, 1.0))
        exchange = [rng.random() < share for _ in chords]
        chords = [replace(p, program=parts.draw_program(rng, EXCHANGED)) if swap else p for p, swap in zip(chords, exchange, strict=True)]
        bass = [replace(p, program=parts.draw_program(rng, ("bass",))) if rng.random() < share else p for p in bass]
        swapped = sum(exchange)
    keep_drums, keep_bass = rng.random() > 0.14, rng.random() > 0.1
    rhythm = [Part("drums", kit, tuple(sorted(beats, key=lambda n: n.start)))] if beats and keep_drums else []
    return [*chords, *(bass if keep_bass else []), *rhythm], swapped <= STYLED * len(chords) and (keep_drums or not beats)


def comping(rng: np.random.Generator, plan: compose.Plan, program: int | None = None, with_bass: bool = False) -> Part:
    """A composed part of chords."""
    program = parts.draw_program(rng, parts.CHORDAL) if program is None else program
    notes = parts.comping(rng, plan, int(rng.integers(54, 68)), with_bass)
    return Part("chords", program, parts.humanise(rng, plan, notes, 0.008))


def melody(rng: np.random.Generator, plan: compose.Plan, program: int | None = None) -> Part:
    """A composed melody, in the range of its instrument."""
    program = parts.draw_program(rng, LEAD_FAMILIES) if program is None else program
    low = {"bass": 40, "sax": 52, "brass": 53, "guitar": 52, "woodwind": 64, "mallets": 62}.get(
        FAMILIES[parts.FAMILY_OF_PROGRAM[program]], 58
    )
    notes = parts.melody(rng, plan, low + int(rng.integers(0, 9)))
    return Part("melody", program, parts.humanise(rng, plan, notes, 0.012))


def bass(rng: np.random.Generator, plan: compose.Plan) -> Part:
    """A composed bass line."""
    return Part("bass", parts.draw_program(rng, ("bass",)), parts.humanise(rng, plan, parts.bass_line(rng, plan), 0.008))


def drums(rng: np.random.Generator, plan: compose.Plan) -> Part:
    """A composed drum part."""
    return Part("drums", int(rng.choice(parts.KITS)), parts.humanise(rng, plan, parts.drum_part(rng, plan), 0.004))


def own(rng: np.random.Generator, plan: compose.Plan) -> list[Part]:
    """A band that plays without a groove."""
    found = [comping(rng, plan) for _ in range(int(rng.choice([1, 2, 3], p=[0.4, 0.45, 0.15])))]
    return found + [make(rng, plan) for make, share in ((bass, 0.82), (drums, 0.75)) if rng.random() < share]


def solo(rng: np.random.Generator, plan: compose.Plan) -> list[Part]:
    """One instrument: a melody, chords, or both."""
    family = str(rng.choice(FAMILIES))
    program = parts.draw_program(rng, (family,))
    if family == "bass" and rng.random() < 0.6:
        return [replace(bass(rng, plan), program=program)]
    if family not in parts.CHORDAL or rng.random() < 0.2:
        return [melody(rng, plan, program)]
    chords = comping(rng, plan, program, with_bass=bool(rng.random() < 0.7))
    return [chords] if rng.random() < 0.45 else [chords, melody(rng, plan, program)]


def duo(rng: np.random.Generator, plan: compose.Plan) -> list[Part]:
    """Chords and a melody, or chords and a bass."""
    chords = comping(rng, plan, with_bass=bool(rng.random() < 0.5))
    return [chords, melody(rng, plan) if rng.random() < 0.75 else bass(rng, plan)]


def trio(rng: np.random.Generator, plan: compose.Plan) -> list[Part]:
    """Chords, bass, and a melody or drums."""
    return [comping(rng, plan), bass(rng, plan), melody(rng, plan) if rng.random() < 0.5 else drums(rng, plan)]


def song(rng: np.random.Generator, plan: compose.Plan) -> list[Part]:
    """What a singer is accompanied by: one instrument."""
    return [comping(rng, plan, parts.draw_program(rng, ("piano", "guitar", "organ", "synth", "strings")), bool(rng.random() < 0.6))]


ENSEMBLES = {"band": own, "own": own, "solo": solo, "duo": duo, "trio": trio, "song": song}
