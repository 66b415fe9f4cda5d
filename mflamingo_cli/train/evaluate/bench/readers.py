"""Published benchmarks in the layouts in which their makers give them; the table says where each is described."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli.errors import UsageError
from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.train.data.formats import Files, youtube_names
from mflamingo_cli.train.evaluate.bench.items import BenchItem

# --- files -------------------------------------------------------------------------------------------------------------------


def _text(folder: Path, *names: str) -> str:
    """Return the text of the first file of these names. Raises UsageError that names where they were looked for."""
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error


def _csv(folder: Path, *names: str) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(folder, *names).splitlines(keepends=True)))


def _json(folder: Path, *names: str) -> Any:
    try:
        text = _text(folder, *names)
        return [json.loads(line) for line in text.splitlines() if line.strip()] if names[0].endswith(".jsonl") else json.loads(text)
    except ValueError as error:
        raise UsageError(f"{folder / names[0]}: not JSON ({error})") from error


def _find(folder: Path, places: Sequence[str], names: Sequence[str]) -> Path:
    """Return the first recording of these names in some places of a folder; one that is not there is what a run says is missing."""
    try:
        return Files(tuple(folder / place for place in places)).find(names)
    except ValueError:
        return folder / places[0] / names[0]


def _shuffled(choices: Sequence[str], number: int) -> tuple[str, ...]:
    """Options in an order that the number of the item draws, so that no place is right more often."""
    return tuple(choices[at] for at in np.random.default_rng(number).permutation(len(choices)))


def _readable(read: Callable[[Path], Iterator[BenchItem]]) -> Callable[[Path], Iterator[BenchItem]]:
    """Make a record of another shape than the published one an error that names the folder."""

    def reader(folder: Path) -> Iterator[BenchItem]:
        try:
            yield from read(folder)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise UsageError(f"{folder}: a record does not have the published format ({type(error).__name__}: {error})") from error

    return reader


# --- questions with options --------------------------------------------------------------------------------------------------


@_readable
def mmau(folder: Path) -> Iterator[BenchItem]:
    """Music questions of mmau-test-mini.json, whose audio_id is a path from its folder."""
    for entry in _json(folder, "mmau-test-mini.json"):
        if entry["task"] == "music":
            yield _question(folder, entry["id"], entry["audio_id"], entry, entry.get("sub-category") or entry.get("category") or "")


@_readable
def mmar(folder: Path) -> Iterator[BenchItem]:
    """Music questions of MMAR-meta.jsonl."""
    for entry in _json(folder, "MMAR-meta.jsonl"):
        if entry["modality"] == "music":
            yield _question(folder, entry["id"], entry["audio_path"], entry, entry.get("sub-category") or entry.get("category") or "")


@_readable
def mmau_pro(folder: Path) -> Iterator[BenchItem]:
    """Music questions with options about one recording, of test.parquet, or of the same records as test.jsonl."""
    for entry in _parquet(folder / "test.parquet") if (folder / "test.parquet").is_file() else _json(folder, "test.jsonl"):
        paths, choices = list(entry["audio_path"]), list(entry["choices"] or ())
        if entry["category"] == "music" and len(paths) == 1 and len(choices) > 1:
            skill = next((name for key in ("perceptual_skills", "reasoning_skills") for name in entry.get(key) or ()), "")
            yield _question(folder, entry["id"], paths[0], {**entry, "choices": choices}, skill)


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError(f"{path}: reading this file needs pyarrow: pip install pyarrow; or store its records as test.jsonl") from error
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def _question(folder: Path, name: Any, audio: str, entry: Mapping[str, Any], skill: str) -> BenchItem:
    choices = tuple(map(str, entry["choices"]))
    return BenchItem(str(name), folder / audio, entry["question"], (str(entry["answer"]),), choices, str(skill))


@_readable
def muchomusic(folder: Path) -> Iterator[BenchItem]:
    """Questions of muchomusic.csv; the number of the row draws the order of its options, which the official script draws anew each time."""
    for number, row in enumerate(_csv(folder, "muchomusic.csv")):
        options = [row["correct_answer"], *(row[f"distractor_{k}_answer"] for k in (1, 2, 3))]
        skill = next((name for name in ("music_knowledge", "music_reasoning") if row.get(name)), "")
        audio = _muchomusic_audio(folder, row)
        yield BenchItem(str(number), audio, row["question"], (row["correct_answer"],), _shuffled(options, number), skill)


def _muchomusic_audio(folder: Path, row: Mapping[str, str]) -> Path:
    """Where the evaluation script has a recording: Song Describer's in MTG-Jamendo's folders, MusicCaps' by address and times."""
    name = row["dataset_identifier"].removesuffix(".json")
    if row["dataset"] == "sdd":
        return folder / "data" / "sdd" / "audio" / f"{int(name) % 100:02d}" / f"{name}.2min.mp3"
    clips, address = folder / "data" / "musiccaps" / "audio", name.rpartition("_")[0]
    found = sorted(path for path in clips.glob("*.wav") if path.name.startswith(f"[{address}]-"))
    return found[0] if found else clips / f"[{address}].wav"


# --- classes -----------------------------------------------------------------------------------------------------------------

NSYNTH = {  # the classes of Audio Flamingo (its foundation/data/data.py), which are those of the set
    "source": ("What is the source of this note?", ("acoustic", "electronic", "synthetic")),
    "family": (
        "Which instrument plays this note?",
        ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal"),
    ),
}
GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
SOLOISTS = (  # instrument_id is the place in this list
    "clarinet", "distorted electric guitar", "female singer", "flute", "piano", "tenor saxophone", "trumpet", "violin",
)  # fmt: skip


@_readable
def nsynth(folder: Path) -> Iterator[BenchItem]:
    """Source and instrument of every note of the test set: examples.json beside audio/."""
    inner = "nsynth-test" if (folder / "nsynth-test").is_dir() else "."
    for number, (note, entry) in enumerate(sorted(_json(folder / inner, "examples.json").items())):
        for kind, (question, classes) in NSYNTH.items():
            answer, audio = entry[f"instrument_{kind}_str"], folder / inner / "audio" / f"{note}.wav"
            yield BenchItem(f"{note}/{kind}", audio, question, (answer,), _shuffled(classes, number), kind)


@_readable
def gtzan(folder: Path) -> Iterator[BenchItem]:
    """Genres of the 290 recordings of the fault-filtered test set, without repeated, distorted and wrongly labelled ones."""
    for number, line in enumerate(_text(folder, "test_filtered.txt").split()):
        genre, stem = line.split("/")[0], line.rpartition(".")[0]
        audio = _find(folder, (".", "genres", "genres_original", "Data/genres_original"), (line, f"{stem}.au", f"{stem}.mp3"))
        yield BenchItem(line, audio, "What is the genre of this music?", (genre,), _shuffled(GENRES, number), genre)


@_readable
def medley_solos_db(folder: Path) -> Iterator[BenchItem]:
    """Instruments of the solo recordings of the test set."""
    for number, row in enumerate(_csv(folder, "Medley-solos-DB_metadata.csv", "annotation/Medley-solos-DB_metadata.csv")):
        if row["subset"] == "test":
            kind = int(row["instrument_id"])
            audio = _find(folder, ("audio", ".", "Medley-solos-DB"), (f"Medley-solos-DB_test-{kind}_{row['uuid4']}.wav",))
            question = "Which instrument is playing?"
            yield BenchItem(row["uuid4"], audio, question, (SOLOISTS[kind],), _shuffled(SOLOISTS, number), SOLOISTS[kind])


# --- captions and long answers -----------------------------------------------------------------------------------------------

CLIPS = (".", "audio", "wav", "MusicCaps_audio")


@_readable
def musiccaps(folder: Path) -> Iterator[BenchItem]:
    """Captions of the clips that AudioSet evaluates on, of musiccaps-public.csv."""
    for row in _csv(folder, "musiccaps-public.csv"):
        if row["is_audioset_eval"].lower() in ("true", "1"):
            audio = _find(folder, CLIPS, youtube_names(row))
            yield BenchItem(row["ytid"], audio, CAPTION_STYLES["full"], (row["caption"],))


@_readable
def musicinstruct(folder: Path) -> Iterator[BenchItem]:
    """Questions about the clips that AudioSet evaluates on: short ones about tempo, instruments, genre, mood, and long ones."""
    for kind in ("long", "short"):
        for number, row in enumerate(_json(folder, f"music_instruct_{kind}.json")["QA"]):
            if row["is_audioset_eval"]:
                audio = _find(folder, CLIPS, youtube_names(row))
                yield BenchItem(f"{kind}/{number}", audio, row["question"], (row["answer"],), skill=kind)


@_readable
def song_describer(folder: Path) -> Iterator[BenchItem]:
    """Tracks with valid captions, each once with all of its captions, of song_describer.csv."""
    captions: dict[str, list[str]] = defaultdict(list)
    for row in _csv(folder, "song_describer.csv"):
        if row["is_valid_subset"].lower() in ("true", "1"):
            captions[row["path"]].append(row["caption"])
    for path, texts in captions.items():
        audio = _find(folder, ("audio", "."), (path, path.rpartition(".")[0]))
        yield BenchItem(path, audio, CAPTION_STYLES["full"], tuple(texts))


# --- lyrics ------------------------------------------------------------------------------------------------------------------

LYRICS = CAPTION_STYLES["lyrics"]


@_readable
def jamendo_lyrics(folder: Path) -> Iterator[BenchItem]:
    """Whole songs in four languages: JamendoLyrics.csv, mp3/, lyrics/."""
    for row in _csv(folder, "JamendoLyrics.csv"):
        name = row["Filepath"]
        words = _text(folder / "lyrics", f"{name.removesuffix('.mp3')}.txt")
        yield BenchItem(name, folder / "mp3" / name, LYRICS, (words,), skill=row["Language"])


@_readable
def opencpop(folder: Path) -> Iterator[BenchItem]:
    """Sung phrases in Mandarin of the five test songs: segments/test.txt, "NAME|WORDS|…", and segments/wavs/NAME.wav."""
    segments = "segments" if (folder / "segments").is_dir() else "."
    for line in _text(folder / segments, "test.txt").splitlines():
        if line.strip():
            name, words = line.split("|")[:2]
            yield BenchItem(name, folder / segments / "wavs" / f"{name}.wav", LYRICS, (words,))


MUSDB_LINE = re.compile(r"(?P<sure>\*?)\s*(?P<start>[\d:.]+)\s+(?P<end>[\d:.]+)\s+(?P<kind>[abcd])\b\s*(?P<words>.*)")


@_readable
def musdb_lyrics(folder: Path) -> Iterator[BenchItem]:
    """Sung lines of the test songs: test_lyrics/NAME.txt, "[*] 00:12 00:17 a WORDS", and MUSDB18-HQ's test/NAME/mixture.wav.

    A line with a star is one that the transcriber is not sure of, one of kind d is without singing; both are left out.
    """
    paths = sorted((folder / "test_lyrics").glob("*.txt"))
    if not paths:
        raise UsageError(f"{folder / 'test_lyrics'}: cannot be read (no file NAME.txt is there)")
    for path in paths:
        audio = _find(folder, ("test", "."), (f"{path.stem}/mixture.wav", f"{path.stem}.stem.mp4"))
        for number, line in enumerate(_text(path.parent, path.name).splitlines(), 1):
            if (found := MUSDB_LINE.match(line.strip())) and not found["sure"] and found["kind"] != "d" and found["words"].strip():
                start_s, end_s = (_seconds(found[name]) for name in ("start", "end"))
                yield BenchItem(f"{path.stem}/{number}", audio, LYRICS, (found["words"],), (), found["kind"], start_s, end_s)


def _seconds(time: str) -> float:
    """Return seconds of "01:23.5"."""
    return float(sum(float(part) * 60**power for power, part in enumerate(reversed(time.split(":")))))
