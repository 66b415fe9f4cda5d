"""Rock songs of 30 s on power chords with exact labels: distorted guitars play roots and fifths, so only the scale and a lead have thirds.

A seed makes the same song everywhere. Needs fluidsynth and its soundfonts (Debian timgm6mb-soundfont, opl3-soundfont) and mido.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.songs import NOTES, Song

FONTS = ("/usr/share/sounds/sf2/TimGM6mb.sf2", "/usr/share/sounds/sf2/OPL-3_FM_128M.sf2")
ROOTS = {  # semitones above the tonic, a bar each
    "minor": ("0 8 10 0", "0 3 10 8", "0 0 5 7", "0 10 8 10", "0 8 3 10", "0 5 8 7", "0 1 0 10", "0 3 5 8", "0 0 3 10", "0 7 8 5"),
    "major": ("0 5 7 0", "0 7 9 5", "0 5 0 7", "0 9 5 7", "0 10 5 0", "0 2 5 7", "5 7 0 0", "0 4 5 7"),
}
SCALES = {"minor": (0, 2, 3, 5, 7, 8, 10), "major": (0, 2, 4, 5, 7, 9, 11)}
RIFFS = ((0, 1, 2, 3, 4, 5, 6, 7), (0, 3, 4, 6), (0,), (0, 2, 4, 6), (0, 3, 6))  # eighths on which the guitar begins
GUITARS, BASSES, LEADS = (29, 30, 30), (33, 34, 38), (29, 30, 81, 48, 0)  # General MIDI programs from 0
LED = 0.6  # share of songs with a lead
LENGTH_S = 30
TICKS = 480  # a beat
GUITAR, BASS, LEAD, DRUMS = 0, 1, 2, 9  # channels
LOWEST = 40  # E of the guitar
Note = tuple[int, int, int, int, int]  # tick, channel, pitch, ticks, velocity


def compose(seed: int) -> tuple[list[Note], tuple[int, int, int], dict[str, Any]]:
    """Notes, the programs of guitar, bass and lead, and what is true."""
    rng = random.Random(f"fifths-{seed}")
    mode, tonic, bpm = rng.choice(("minor", "minor", "major")), rng.randrange(12), rng.randint(75, 180)
    roots = [int(step) for step in rng.choice(ROOTS[mode]).split()]
    programs = (rng.choice(GUITARS), rng.choice(BASSES), rng.choice(LEADS))
    riff, led, tune = rng.choice(RIFFS), rng.random() < LED, [rng.choice(SCALES[mode]) for _ in range(8)]
    notes: list[Note] = []
    for bar in range(LENGTH_S * bpm // 240 + 1):
        root, at = LOWEST + (tonic + roots[bar % 4] - LOWEST) % 12, 4 * bar * TICKS
        for first, last in zip(riff, (*riff[1:], 8), strict=True):
            start, long = at + first * TICKS // 2, (last - first) * TICKS // 2 - 20
            notes += [(start, GUITAR, pitch, long, 100) for pitch in (root, root + 7, root + 12)] + [(start, BASS, root - 12, long, 100)]
        for beat in range(4):
            start = at + beat * TICKS
            notes += [(start, DRUMS, 38 if beat % 2 else 36, 60, 110), (start, DRUMS, 42, 60, 80), (start + TICKS // 2, DRUMS, 42, 60, 60)]
            notes += [(start, LEAD, 60 + tonic + tune[beat + 4 * (bar % 2)], TICKS - 20, 90)] if led else []
    return notes, programs, {"bpm": float(bpm), "meter": 4, "key": (NOTES[tonic], mode)}


def render(seed: int, folder: Path) -> Song:
    """The song of a seed as a 22.05 kHz WAV file, made once."""
    import mido

    notes, programs, truth = compose(seed)
    path = folder / f"fifths-{seed}.wav"
    if not path.exists():
        file, track = mido.MidiFile(ticks_per_beat=TICKS), mido.MidiTrack()
        file.tracks.append(track)
        track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(truth["bpm"])))
        track += [mido.Message("program_change", channel=channel, program=program) for channel, program in enumerate(programs)]
        events = [(tick, "note_on", channel, pitch, velocity) for tick, channel, pitch, _, velocity in notes]
        events += [(tick + long, "note_off", channel, pitch, 0) for tick, channel, pitch, long, _ in notes]
        now = 0
        for tick, kind, channel, pitch, velocity in sorted(events):
            track.append(mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=tick - now))
            now = tick
        file.save(path.with_suffix(".mid"))
        part = path.with_suffix(".part")
        options = ["-ni", "-q", "-g", "0.4", "-r", "22050", "-T", "wav", "-F", str(part)]
        subprocess.run(["fluidsynth", *options, FONTS[seed % len(FONTS)], str(path.with_suffix(".mid"))], check=True, capture_output=True)
        part.replace(path)
    return Song(path.stem, path, **truth)
