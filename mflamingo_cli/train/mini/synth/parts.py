"""Parts written for a plan: melody, comping, bass, drums; and those read from an accompaniment. Times are MMA beats.

A section keeps its melody, its figures and its drum pattern each time it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import mido
import numpy as np

from mflamingo_cli.train.mini.synth.compose import Chord, Plan, Section, local_scale, section_chords

DRUMS = 9  # General MIDI channel 10
FAMILIES = ("piano", "mallets", "organ", "guitar", "bass", "strings", "choir", "brass", "sax", "woodwind", "synth")
FAMILY_PROGRAMS = {  # General MIDI programs; those of a family that one would call by its name
    "piano": range(8), "mallets": (*range(8, 16), 108, 112, 114), "organ": range(16, 24), "guitar": (*range(24, 32), 104, 105, 106, 107),
    "bass": range(32, 40), "strings": (*range(40, 47), *range(48, 52), 110), "choir": range(52, 55), "brass": range(56, 64),
    "sax": range(64, 68), "woodwind": (*range(68, 80), 109, 111), "synth": range(80, 104),
}  # fmt: skip
FAMILY_OF_PROGRAM = {program: FAMILIES.index(name) for name, programs in FAMILY_PROGRAMS.items() for program in programs}
UNPLAYED = (44, 55, 47, 113, *range(115, 128))  # tremolo, hits, timpani, percussion and effects are never drawn
CHORDAL = ("piano", "mallets", "organ", "guitar", "strings", "choir", "brass", "synth")  # families that can play chords
SUNG = -1  # program of a sung line


@dataclass(frozen=True)
class Note:
    """A note; start and length in beats, MIDI pitch, velocity."""

    start: float
    length: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """One instrument: its role (drums, bass, chords, melody), General MIDI program (of drums: the kit) and notes."""

    role: str
    program: int
    notes: tuple[Note, ...]

    @property
    def family(self) -> str | None:
        """Family of the instrument, `drums` or `vocals`; None for sounds without one."""
        if self.role == "drums" or self.program == SUNG:
            return "drums" if self.role == "drums" else "vocals"
        return FAMILIES[FAMILY_OF_PROGRAM[self.program]] if self.program in FAMILY_OF_PROGRAM else None


def draw_program(rng: np.random.Generator, families: Sequence[str]) -> int:
    """A program: uniform over the families, then over their programs."""
    programs = [p for p in FAMILY_PROGRAMS[families[rng.integers(len(families))]] if p not in UNPLAYED]
    return int(programs[rng.integers(len(programs))])


class Event(NamedTuple):
    """A note of a MIDI file; start and length in beats (quarter notes)."""

    start: float
    length: float
    pitch: int
    velocity: int
    channel: int
    program: int
    volume: int  # of its channel


def events(midi: mido.MidiFile) -> list[Event]:
    """All notes of a file whose tracks set the programs and volumes of their own channels."""
    found = []
    for track in midi.tracks:
        now, program, volume, held = 0, [0] * 16, [100] * 16, {}
        for message in track:
            now += message.time
            if message.type == "program_change":
                program[message.channel] = message.program
            elif message.type == "control_change" and message.control == 7:
                volume[message.channel] = message.value
            elif message.type == "note_on" and message.velocity:
                channel = message.channel
                held[channel, message.note] = (now, message.velocity, program[channel], volume[channel])
            elif message.type in ("note_on", "note_off") and (message.channel, message.note) in held:
                start, velocity, voice, level = held.pop((message.channel, message.note))
                beat, length = start / midi.ticks_per_beat, (now - start) / midi.ticks_per_beat
                found.append(Event(beat, length, message.note, velocity, message.channel, voice, level))
    return found


def from_midi(midi: mido.MidiFile) -> list[Part]:
    """Parts of an accompaniment, one for each channel and program; its channel volumes become velocities."""
    found: dict[tuple[int, int], list[Note]] = {}
    for event in events(midi):
        velocity = min(127, max(1, round(event.velocity * event.volume / 100)))
        found.setdefault((event.channel, event.program), []).append(Note(event.start, event.length, event.pitch, velocity))
    parts = []
    for (channel, program), notes in found.items():
        role = "drums" if channel == DRUMS else "bass" if program in FAMILY_PROGRAMS["bass"] else "chords"
        parts.append(Part(role, program, tuple(sorted(notes, key=lambda n: n.start))))
    return sorted(parts, key=lambda part: (part.role, part.program, -len(part.notes)))


def _repeated(plan: Plan, write: Callable[[Section], list[Note]]) -> list[Note]:
    """Notes of `write(section)` (from beat 0) wherever the section stands in the form."""
    known: dict[str, list[Note]] = {}
    found = []
    for section, start in plan.occurrences():
        if section.name not in known:
            known[section.name] = write(section)
        found += [replace(note, start=note.start + start) for note in known[section.name]]
    return found


# --- melody --------------------------------------------------------------------------------------------------------------

RHYTHMS: dict[int, tuple[tuple[float, ...], ...]] = {  # of a bar, by its MMA beats; a negative length is a rest
    2: ((1, 1), (2 / 3, 1 / 3, 1), (1 / 3, 1 / 3, 1 / 3, 1), (2,), (2 / 3, 1 / 3, 2 / 3, 1 / 3), (1, -1)),
    3: ((1, 1, 1), (2, 1), (1.5, 0.5, 1), (3,), (0.5, 0.5, 1, 1), (1, 0.5, 0.5, 1), (0.5,) * 6, (1, 2), (2, 0.5, 0.5), (-1, 1, 1)),
    4: ((1, 1, 1, 1), (2, 1, 1), (1.5, 0.5, 1, 1), (2, 2), (0.5, 0.5, 1, 0.5, 0.5, 1), (1, 0.5, 0.5, 2), (3, 1), (0.5, 0.5, 0.5, 0.5, 1, 1),
        (1.5, 1.5, 1), (-1, 1, 1, 1), (0.5,) * 8, (-0.5, 0.5, 0.5, 0.5, 1, 1), (4,), (1.5, 0.5, 2), (0.75, 0.25, 1, 2),
        (1, 0.25, 0.25, 0.5, 1, 1), (-2, 0.5, 0.5, 0.5, 0.5), (0.5, 1, 0.5, 2), (0.25,) * 8 + (2,)),
    6: ((3, 3), (2, 1, 2, 1), (1,) * 6, (3, 1, 1, 1), (6,), (1, 1, 1, 3), (2, 1, 3), (1.5, 0.5, 1, 3), (-1, 1, 1, 3), (3, 2, 1)),
}  # fmt: skip


def melody(rng: np.random.Generator, plan: Plan, low: int, span: int = 17) -> list[Note]:
    """A singable line above pitch `low`: a motif of two bars, chord tones on chord changes, steps of the scale, phrases that rest."""
    table, state = RHYTHMS[plan.beats], {"pitch": low + span // 2}

    def write(section: Section) -> list[Note]:
        chords, scale = section_chords(section, plan.beats), local_scale(plan, section)
        motif = [table[i] for i in rng.integers(len(table), size=2)]
        legato, notes = float(rng.uniform(0.6, 1.0)), []
        for bar in range(len(section.bars)):
            rhythm = table[rng.integers(len(table))] if rng.random() < 0.25 else motif[bar % 2]
            last = bar % 4 == 3
            position = float(bar * plan.beats)
            for index, length in enumerate(rhythm):
                if length > 0 and not (last and index and rng.random() < 0.5):
                    chord = next(c for c in reversed(chords) if c.start <= position + 1e-6)
                    pitch = state["pitch"] = _next_pitch(rng, state["pitch"], chord, scale, low, span, index == 0)
                    notes.append(Note(position, length * legato, pitch, int(rng.integers(74, 112))))
                position += abs(length)
        return notes

    return _repeated(plan, write)


def _next_pitch(rng: np.random.Generator, pitch: int, chord: Chord, scale: frozenset[int], low: int, span: int, strong: bool) -> int:
    """A near pitch: chord tones where the bar begins, else the scale without what rubs against altered chord tones."""
    tones = set(chord.tones)
    altered = tones - scale
    allowed = tones if strong or rng.random() < 0.35 else tones | {p for p in scale if not {(p + 1) % 12, (p - 1) % 12} & altered}
    steps = [p for p in range(low, low + span + 1) if p % 12 in allowed and abs(p - pitch) <= 7]
    weights = np.array([0.5 if p == pitch else 1 / abs(p - pitch) for p in steps])
    return int(rng.choice(steps, p=weights / weights.sum()))


# --- chords --------------------------------------------------------------------------------------------------------------

FIGURES = ("held", "beats", "offbeat", "rhythm", "up", "alberti", "broken")


def comping(rng: np.random.Generator, plan: Plan, centre: int, with_bass: bool = False) -> list[Note]:
    """Chords in close position around pitch `centre`, held, struck or broken, one figure a section; `with_bass`: a left hand below."""
    velocity, legato = int(rng.integers(58, 98)), float(rng.uniform(0.5, 1.0))

    def write(section: Section) -> list[Note]:
        figure = FIGURES[rng.integers(len(FIGURES))]
        grid = _grid(rng, plan.beats)
        order = rng.permutation(8)
        notes = []
        for chord in section_chords(section, plan.beats):
            voiced = sorted(centre - 6 + (tone - centre + 6) % 12 for tone in chord.tones)
            if with_bass:
                notes.append(Note(chord.start, chord.length * 0.95, 36 + chord.bass, velocity))
            notes += _figure(figure, chord, voiced, velocity, legato, grid, order, plan.groove.felt)
        return notes

    return _repeated(plan, write)


def _grid(rng: np.random.Generator, beats: int) -> tuple[float, ...]:
    """Strokes of a rhythm within a bar: the first beat and some of the others."""
    step = 1 / 3 if beats == 2 else 1.0 if beats == 6 else 0.5
    return (0.0, *(float(at) for at in np.arange(step, beats - 1e-6, step) if rng.random() < (0.5 if at % 1 == 0 else 0.3)))


def _figure(
    figure: str, chord: Chord, voiced: Sequence[int], loud: int, legato: float, grid: Sequence[float], order: np.ndarray, felt: int
) -> list[Note]:
    """Notes of one chord."""
    if figure == "held":
        return [Note(chord.start, chord.length * 0.97, pitch, loud) for pitch in voiced]
    if figure in ("up", "alberti", "broken"):
        step = 1.0 if felt == 3 else 0.5
        sequence = {"up": [*voiced, voiced[0] + 12], "alberti": [voiced[0], voiced[-1], voiced[1], voiced[-1]]}.get(
            figure, [voiced[i % len(voiced)] for i in order]
        )
        return [
            Note(chord.start + float(at), step * (1 + legato), sequence[k % len(sequence)], loud)
            for k, at in enumerate(np.arange(0, chord.length - 1e-6, step))
        ]
    if figure == "rhythm":
        strokes = [at for at in grid if at < chord.length - 1e-6] or [0.0]
    else:
        shift = 0.5 if figure == "offbeat" and felt == 1 else 0.0
        strokes = [float(at) + shift for at in np.arange(0, chord.length - 1e-6, 1.0 if felt == 1 else 1.5 if figure == "beats" else 3.0)]
    ends = [*strokes[1:], chord.length]
    return [
        Note(chord.start + at, max(0.1, (end - at) * legato), pitch, loud)
        for at, end in zip(strokes, ends, strict=True)
        for pitch in voiced
    ]


def bass_line(rng: np.random.Generator, plan: Plan) -> list[Note]:
    """Roots (or the written bass) with fifths, octaves, chord tones or steps towards the next root."""

    def write(section: Section) -> list[Note]:
        style, notes = int(rng.integers(5)), []
        grid = _grid(rng, plan.beats)
        chords = section_chords(section, plan.beats)
        for chord, after in zip(chords, [*chords[1:], chords[0]], strict=True):
            low = 28 + (chord.bass - 28) % 12
            tones = [low + (tone - chord.bass) % 12 for tone in chord.tones]
            if style == 0:
                notes.append(Note(chord.start, chord.length * 0.95, low, 96))
                continue
            strokes = [at for at in grid if at < chord.length - 1e-6] if style == 4 else np.arange(0, chord.length - 1e-6, plan.groove.felt)
            for k, at in enumerate(strokes or [0.0] if style == 4 else strokes):
                choice = {1: (low, tones[min(2, len(tones) - 1)]), 2: (low, low + 12), 3: (low, *rng.permutation(tones)), 4: (low,)}[style]
                pitch = int(choice[k % len(choice)])
                if style == 3 and k and at + plan.groove.felt >= chord.length:
                    pitch = 28 + (after.bass - 28) % 12 + int(rng.choice([-1, 1, -2, 2]))
                notes.append(Note(chord.start + float(at), 0.9 * plan.groove.felt if style < 4 else 0.45, pitch, 96 if k == 0 else 84))
        return notes

    return _repeated(plan, write)


# --- drums ---------------------------------------------------------------------------------------------------------------

KICK, SNARE, RIM, CLAP, CLOSED, OPEN, RIDE, CRASH, SHAKER = 36, 38, 37, 39, 42, 46, 51, 49, 70
TOMS = (50, 48, 47, 45, 43)
KITS = (0, 0, 0, 8, 16, 24, 25, 32, 40)
BACKBEATS = {2: (1.0,), 3: (1.0, 2.0), 4: (1.0, 3.0), 6: (3.0,)}  # beats of the snare


def drum_part(rng: np.random.Generator, plan: Plan) -> list[Note]:
    """Kick, backbeat and cymbals, a pattern for each section, with fills at its end."""

    def write(section: Section) -> list[Note]:
        beats, triple = plan.beats, plan.groove.felt == 3 or plan.beats == 2
        step = 1 / 3 if beats == 2 else 1.0 if beats == 6 else float(rng.choice([0.5, 0.5, 0.25, 1.0]))
        back, hat = int(rng.choice([SNARE, SNARE, RIM, CLAP])), int(rng.choice([CLOSED, CLOSED, RIDE, SHAKER]))
        kicks = (0.0, *(k for k in np.arange(0.5, beats, 0.5 if not triple else 1.0) if k not in BACKBEATS[beats] and rng.random() < 0.25))
        notes = []
        for bar in range(len(section.bars)):
            at = float(bar * beats)
            fill = bar == len(section.bars) - 1 and rng.random() < 0.6
            pattern = [(k, KICK, 108) for k in kicks] + [(b, back, 100) for b in BACKBEATS[beats]]
            pattern += [(float(h), hat, 84 if h % 1 == 0 else 64) for h in np.arange(0, beats - 1e-6, step)]
            if fill:
                begin = beats * float(rng.choice([0.5, 2 / 3 if beats == 3 else 0.75]))
                pattern = [p for p in pattern if p[0] < begin]
                pattern += [
                    (float(f), TOMS[min(4, int(5 * (f - begin) / (beats - begin)))], 100)
                    for f in np.arange(begin, beats - 1e-6, 0.5 if not triple else step)
                ]
            if bar == 0 and rng.random() < 0.4:
                pattern.append((0.0, CRASH, 100))
            notes += [Note(at + t, 0.2, pitch, v) for t, pitch, v in pattern]
        return notes

    return _repeated(plan, write)


# --- parts of a song -------------------------------------------------------------------------------------------------------


def shape(plan: Plan, part: Part, number: int) -> Part:
    """A part as loud as each section is, and without those in which it rests; the first part (0) always plays."""
    spans = [(start, start + len(s.bars) * plan.beats, s) for s, start in plan.occurrences()]
    kept = []
    for note in part.notes:
        section = next((s for start, end, s in spans if start - 0.1 <= note.start < end - 0.1), spans[-1][2])
        if number not in section.quiet:
            kept.append(replace(note, velocity=int(np.clip(note.velocity * section.energy, 1, 127))))
    return replace(part, notes=tuple(kept))


def humanise(rng: np.random.Generator, plan: Plan, notes: Sequence[Note], seconds: float) -> tuple[Note, ...]:
    """Move notes by about so many seconds, and their velocities a little; those on one beat stay together."""
    moved: dict[float, float] = {}
    found = []
    for note in notes:
        shift = moved.setdefault(note.start, float(rng.normal(0, seconds)) * plan.mma_tempo / 60)
        velocity = int(np.clip(note.velocity + rng.normal(0, 5), 1, 127))
        found.append(Note(max(0.0, note.start + shift), note.length, note.pitch, velocity))
    return tuple(sorted(found, key=lambda n: n.start))


def to_midi(parts: Sequence[tuple[int, Part]], mma_tempo: float, ticks: int = 960) -> mido.MidiFile:
    """A file of (channel, part), one track each but for what is sung; MMA beats are quarter notes."""
    midi = mido.MidiFile(type=1, ticks_per_beat=ticks)
    midi.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(mma_tempo))]))
    for channel, part in parts:
        if part.program == SUNG:
            continue
        events = []
        for note in part.notes:
            start = round(note.start * ticks)
            events += [(start, 1, note.pitch, note.velocity), (max(round((note.start + note.length) * ticks), start + 1), 0, note.pitch, 0)]
        track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=part.program)])
        now = 0
        for tick, on, pitch, velocity in sorted(events):
            track.append(mido.Message("note_on" if on else "note_off", channel=channel, note=pitch, velocity=velocity, time=tick - now))
            now = tick
        midi.tracks.append(track)
    return midi
