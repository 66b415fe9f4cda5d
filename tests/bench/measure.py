"""This program and others side by side: tempo, key, meter, chords, sections, voice, tags, and their cost; not a test, run by hand.

    python -m tests.bench.measure                                     40 songs of the test split of songs.py
    python -m tests.bench.measure --sets recordings noise --music F   excerpts of clips.tsv, speech and noise; F: unpacked Debian packages
    python -m tests.bench.measure --midi FOLDER                       MIDI files that keep one tempo
    python -m tests.bench.measure --only ours --sets …                one program; what the others said is read from --work

Needs librosa and mir_eval; for the songs of Debian mma, fluidsynth, fluid-soundfont-gm and timgm6mb-soundfont. Other programs join in
where they are installed (`pip install --target`, never into this project), each in a run of its own if their packages exclude each other:
what was said is kept below --work and every run prints the table of all. What this program said is kept by the state of its code.
Prints tables with 95 % bootstrap intervals, how often values are right by how sure they are, and one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

import mflamingo_cli.measure
from mflamingo_cli.measure.compare import compare_keys, compare_tempi
from mflamingo_cli.parsers import parse_key
from tests.bench import clips
from tests.bench.estimators import ESTIMATORS, JUDGES, LIMIT_S, Estimator, Guess, installed
from tests.bench.scores import Said, bootstrap, known, scores, song_key, voice_auc
from tests.bench.songs import FONTS, Song, missing, render

BINS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COUNT = 40  # rendered songs
TEMPORARY = Path(tempfile.gettempdir())
Heard = dict[str, tuple[Guess, float]]  # program: what it says, seconds of processor for a minute


def rendered(music: Path, work: Path) -> Iterator[Song]:
    """Songs of the test split, whose grooves and soundfont are not used in tuning."""
    if missing():
        raise SystemExit(f"needs the Debian packages {' '.join(missing())}")
    return (render(seed, "test", work) for seed in range(COUNT))


def speech_and_noise(music: Path, work: Path) -> Iterator[Song]:
    """What has no tempo and no key."""
    yield from clips.speech(music, work)
    yield from clips.noise(music, work)


SETS: dict[str, Callable[[Path, Path], Iterator[Song]]] = {
    "rendered": rendered,
    "recordings": clips.recordings,
    "noise": speech_and_noise,
}


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


# --- what was said, kept ---------------------------------------------------------------------------------------------------------


def state_of_code() -> str:
    """Changes when a module or a weight of `measure` does."""
    digest = hashlib.sha256()
    for path in sorted(Path(mflamingo_cli.measure.__file__).parent.rglob("*.[np][py]*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Answers:
    """What every program says of every excerpt, in files: one folder for each program, and for each state of this one's code."""

    def __init__(self, work: Path) -> None:
        self._folders = {name: work / "said" / name for name in ESTIMATORS | JUDGES}
        self._folders["ours"] = work / "said" / f"ours-{state_of_code()}"

    def of(self, name: str, song: Song) -> tuple[Guess, float] | None:
        """What is kept, with seconds of processor for a minute of audio."""
        path = self._path(name, song)
        if not path.exists():
            return None
        row = json.loads(path.read_text(encoding="utf-8"))
        return Guess(**row["guess"]), row["seconds"]

    def ask(self, name: str, estimator: Estimator, song: Song) -> None:
        """Run a program on an excerpt that it has not heard."""
        path = self._path(name, song)
        if path.exists():
            return
        start = time.process_time()
        guess = estimator.run(song.path)
        spent = time.process_time() - start
        minutes = min(soundfile.info(song.path).duration, LIMIT_S) / 60
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"guess": asdict(guess), "seconds": spent / minutes}), encoding="utf-8")
        part.replace(path)

    def _path(self, name: str, song: Song) -> Path:
        return self._folders[name] / f"{song.name}.json"


# --- tables ----------------------------------------------------------------------------------------------------------------------


def report(title: str, songs: Sequence[Song], answers: Answers) -> dict[str, object]:
    """Print the table of a set; its numbers."""
    print(f"\n== {title}: {len(songs)} excerpts")
    numbers: dict[str, object] = {}
    for name, estimator in ESTIMATORS.items():
        heard = [(song, *found) for song in songs if (found := answers.of(name, song))]
        if not heard:
            continue
        said = [(song, guess) for song, guess, _ in heard]
        seconds = float(np.median([spent for *_, spent in heard]))
        print(f"\n{name}: {len(heard)} heard, {seconds:.2f} s of processor for a minute")
        found = means(said, estimator.tells)
        if (voices := voice_auc(said)) is not None:
            found["voice AUC"] = voices
        for key, (mean, low, high, count) in found.items():
            print(f"  {key:28} {mean:.3f}  ({low:.3f} to {high:.3f}, n = {count})")
        curves = {kind: calibration(kind, said) for kind in ("tempo", "key", "meter") if name == "ours"}
        rounded = {key: [round(float(value), 4) for value in row] for key, row in found.items()}
        numbers[name] = {"seconds": round(seconds, 3), "means": rounded, "calibration": curves}
    return numbers


def means(said: Said, tells: Sequence[str]) -> dict[str, tuple[float, float, float, int]]:
    """Of every score its mean, 95 % interval, and number."""
    values: dict[str, list[float]] = {}
    for song, guess in said:
        for key, value in scores(song, guess, tells).items():
            values.setdefault(key, []).append(value)
    table = {key: np.array(row) for key, row in values.items()}
    return {
        key: (float(row.mean()), *bootstrap(lambda at, row=row: float(row[at].mean()), len(row)), len(row)) for key, row in table.items()
    }


def is_right(kind: str, song: Song, guess: Guess) -> bool | None:
    """Whether a value is right; None where it is not told, or the truth is not known."""
    if kind == "tempo" and song.bpm and guess.bpm:
        return bool(compare_tempi(song.bpm, guess.bpm).agrees)
    if kind == "key" and song.key and guess.key:
        return bool(compare_keys(song_key(song), parse_key(guess.key)).agrees)
    if kind == "meter" and song.meter and guess.meter:
        return song.meter == guess.meter
    return None


def calibration(kind: str, said: Said) -> list[list[float]]:
    """Print how sure it is of values and how often they are right, in bins: from, number, told, right."""
    known = [(guess.sure[kind], right) for song, guess in said if kind in guess.sure and (right := is_right(kind, song, guess)) is not None]
    if not known:
        return []
    told, right = np.array([sure for sure, _ in known]), np.array([float(one) for _, one in known])
    inside = [(low, (told >= low) & ((told < high) | (high == 1.0))) for low, high in pairwise(BINS)]

    def error(at: np.ndarray) -> float:
        return float(sum(abs((told[at] - right[at])[here[at]].sum()) for _, here in inside) / len(at))

    low, high = bootstrap(error, len(told))
    rows = [[start, int(here.sum()), float(told[here].mean()), float(right[here].mean())] for start, here in inside if here.any()]
    curve = ", ".join(f"{told_:.2f}: {right_:.2f} of {count}" for _, count, told_, right_ in rows)
    print(f"  {kind} told: right of n, {curve}; calibration error {error(np.arange(len(told))):.3f} ({low:.3f} to {high:.3f})")
    return [[round(float(value), 4) for value in row] for row in rows]


def main() -> None:
    """Ask who is there, print what all have said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", choices=sorted(SETS), default=["rendered"])
    parser.add_argument("--midi", type=Path)
    parser.add_argument(
        "--music", type=Path, default=Path(tempfile.gettempdir()) / "mflamingo-music", help="unpacked packages, a folder each"
    )
    parser.add_argument("--only", nargs="*", choices=[*ESTIMATORS, *JUDGES], default=list(ESTIMATORS), metavar="PROGRAM")
    parser.add_argument("--first", type=int, help="ask only about so many excerpts of each set, which are mixed")
    parser.add_argument("--work", type=Path, default=TEMPORARY / "mflamingo-bench")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    songs = {name: list(SETS[name](options.music, options.work)) for name in options.sets}
    if options.midi:
        songs = {str(options.midi): list(from_midi(options.midi, options.work))}
    answers, every = Answers(options.work), ESTIMATORS | JUDGES
    for name in options.only:
        if installed(every[name].needs):
            for song in (song for part in songs.values() for song in part[: options.first]):
                if name in JUDGES or known(song) & set(every[name].tells):
                    answers.ask(name, every[name], song)
    print(json.dumps({title: report(title, part, answers) for title, part in songs.items()}))


if __name__ == "__main__":
    main()
