"""How sure measured values are: fits and checks the weights of `mflamingo_cli/measure/confidence.py`; not a test, run by hand.

    python -m tests.bench.confidence W/data/train dev --check W/data/dev test

Sources are folders of clips by `mflamingo train data synth`, hard ones; "dev" and "test", the more usual songs of tests/bench/songs.py;
"fifths", the power chords of tests/bench/fifths.py;
"real" and "clips", the recordings of recordings.tsv and clips.tsv below --music, a folder with the unpacked Debian packages. Prints the
weights fitted on the first sources; then, for these by fits that did not see the clip, and for those to check, how well the probabilities
are calibrated (expected calibration error, with a 95 % bootstrap interval), and which share of the values (coverage) is right how often
(precision) from a confidence on; at the end the same of all clips that no fit has seen, and one JSON line.
Signs of the clips are kept in --cache, as measuring takes most of a second for each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile

from mflamingo_cli.core.audio import load
from mflamingo_cli.measure import Facts, confidence, measure
from mflamingo_cli.measure.compare import compare_tempi
from mflamingo_cli.measure.facts import Key, pitch_class
from mflamingo_cli.parsers import parse_key
from tests.bench import fifths
from tests.bench.estimators import Clip, samples
from tests.bench.songs import Song, render

NAMES = ("tempo", "key", "meter")
RIDGE = 5.0  # on weights of signs with unit variance
FOLDS = 8
BINS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FROM = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
RECORDINGS = {  # package, file, second, BPM or "-", key or "-": weak labels, see clips.py; those of "clips" are never fitted
    "real": Path(__file__).with_name("recordings.tsv"), "clips": Path(__file__).with_name("clips.tsv"),
}  # fmt: skip
CLIP_S = 40  # of a recording
Judged = tuple[str, dict[str, float], bool]  # which value, its signs, whether it is right


@dataclass(frozen=True)
class Truth:
    """What is true of a clip: tempi that are right, keys that sound, the meter, and which of these are known."""

    tempi: tuple[float, ...]
    keys: frozenset[tuple[int, str]]
    meter: str | None
    known: frozenset[str] = frozenset({"tempo", "key", "meter"})


def truth_of(row: dict[str, Any]) -> Truth:
    """Of a row of a manifest; in 6/8 both the felt beats and the quarter notes are a tempo."""
    tempo = row.get("tempo")
    tempi = () if tempo is None else (tempo, 1.5 * tempo) if row["meter"] == "6/8" else (tempo,)
    return Truth(tempi, frozenset((tonic, mode) for _, _, tonic, mode in row.get("keys", ())), row.get("meter"))


def judge(samples: np.ndarray, truth: Truth) -> list[Judged]:
    """Every value that is measured and can be judged, with its signs; keys only of clips that keep theirs or have none."""
    signs: dict[str, dict[str, float]] = {}

    def note(name: str, told: dict[str, float]) -> float:
        signs[name] = dict(told)
        return 0.5

    with mock.patch.object(confidence, "probability", note):
        facts = measure(Clip(samples), only=NAMES)  # type: ignore[arg-type]
    known = truth.known - ({"key"} if len(truth.keys) > 1 else set())
    return [(name, told, _is_right(name, facts, truth)) for name, told in signs.items() if name in known]


def _is_right(name: str, facts: Facts, truth: Truth) -> bool:
    key = facts.key or Key("C", "major")
    return {
        "tempo": any(bool(compare_tempi(tempo, facts.tempo.bpm).agrees) for tempo in truth.tempi),
        "key": (key.pitch, key.mode) in truth.keys,
        "meter": facts.meter == truth.meter,
    }[name]


def clips(source: str, count: int, work: Path, music: Path) -> Iterator[tuple[str, Any]]:
    """Names of clips, and what makes their samples and truth: of a folder with a manifest, of the songs of a split, or recordings."""
    if source in RECORDINGS:
        for line in RECORDINGS[source].read_text().splitlines()[:count]:
            package, file, second, bpm, key = line.split("\t")
            name = hashlib.sha256(line.encode()).hexdigest()[:16]
            yield name, lambda path=music / package / file, at=second, bpm=bpm, key=key: _of_recording(path, float(at), bpm, key)
        return
    if source in ("dev", "test", "fifths"):
        for seed in range(count):
            yield (
                f"{source}-{seed}",
                lambda seed=seed: _of_song(fifths.render(seed, work) if source == "fifths" else render(seed, source, work)),
            )
        return
    rows = [json.loads(line) for line in (Path(source) / "manifest.jsonl").read_text().splitlines()]
    for row in rows[:count]:
        path = Path(source) / row["audio"]
        name = hashlib.sha256(f"{path.resolve()} {path.stat().st_mtime_ns}".encode()).hexdigest()[:16]
        yield name, lambda path=path, row=row: (soundfile.read(path, dtype="float32")[0], truth_of(row))


def _of_recording(path: Path, start_s: float, bpm: str, key: str) -> tuple[np.ndarray, Truth]:
    found = parse_key(key)
    keys = frozenset({(found.pitch, found.mode)} if found else ())
    known = frozenset(name for name, label in (("tempo", bpm), ("key", key)) if label != "-")
    truth = Truth(() if bpm == "-" else (float(bpm),), keys, None, known)
    return load(path, start_s=start_s, end_s=start_s + CLIP_S).samples, truth


def _of_song(song: Song) -> tuple[np.ndarray, Truth]:
    assert song.key is not None and song.bpm is not None  # noqa: PT018
    return samples(song.path, 16_000), Truth((song.bpm,), frozenset({(pitch_class(song.key[0]), song.key[1])}), f"{song.meter}/4")


def collect(source: str, count: int, cache: Path, music: Path) -> list[Judged]:
    """Judged values of all clips of a source, each measured once."""
    judged: list[Judged] = []
    for name, make in clips(source, count, cache, music):
        path = cache / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(judge(*make())))
        judged += [(value, signs, right) for value, signs, right in json.loads(path.read_text())]
    return judged


def table(judged: list[Judged], name: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the signs of a value, its signs (n, signs) and whether it is right (n,)."""
    rows = [(signs, right) for value, signs, right in judged if value == name]
    names = [sign for sign in confidence.WEIGHTS[name] if sign != confidence.ALWAYS]
    return names, np.array([[signs[sign] for sign in names] for signs, _ in rows]), np.array([float(right) for _, right in rows])


def fit(signs: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Logistic regression with a ridge, by Newton's method: (n, signs), (n,) -> (1 + signs,) weights, the constant first."""
    mean, std = signs.mean(axis=0), signs.std(axis=0) + 1e-9
    inputs = np.hstack([np.ones((len(signs), 1)), (signs - mean) / std])
    weights, ridge = np.zeros(inputs.shape[1]), np.diag([1e-9] + [RIDGE] * signs.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-inputs @ weights))
        curvature = (inputs * (p * (1 - p))[:, None]).T @ inputs + ridge
        weights -= np.linalg.solve(curvature, inputs.T @ (p - right) + ridge @ weights)
    slopes = weights[1:] / std
    return np.concatenate([[weights[0] - slopes @ mean], slopes])


def predict(signs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probabilities, (n,)."""
    return np.asarray(1 / (1 + np.exp(-(weights[0] + signs @ weights[1:]))))


def unseen(signs: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Probabilities of each by a fit to the other folds: (n, signs), (n,) -> (n,)."""
    fold = np.random.default_rng(0).permutation(len(right)) % FOLDS
    out = np.zeros(len(right))
    for at in range(FOLDS):
        out[fold == at] = predict(signs[fold == at], fit(signs[fold != at], right[fold != at]))
    return out


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """How far told and right lie apart in the bins, on average over the clips: (n,), (n,) -> 0..1."""
    inside = [(p >= low) & ((p < high) | (high == 1.0)) for low, high in pairwise(BINS)]
    return float(sum(abs((p[here] - right[here]).sum()) for here in inside) / len(p))


def report(title: str, p: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Calibration in bins, and precision over coverage."""
    better, worse = p[right == 1][:, None], p[right == 0]
    auc = float(((better > worse) + 0.5 * (better == worse)).mean()) if better.size and worse.size else float("nan")
    drawn = np.random.default_rng(0).integers(0, len(p), (1000, len(p)))
    error = calibration_error(p, right)
    low, high = np.percentile([calibration_error(p[i], right[i]) for i in drawn], [2.5, 97.5])
    brier = float(np.mean((p - right) ** 2))
    print(f"\n{title}: n = {len(p)}, right {right.mean():.3f}, AUC {auc:.3f}, Brier {brier:.3f}, ECE {error:.3f} ({low:.3f} to {high:.3f})")
    for least, most in pairwise(BINS):
        here = (p >= least) & ((p < most) | (most == 1.0))
        if here.any():
            print(f"  {least:.1f} to {most:.1f}: n = {here.sum():3d}, told {p[here].mean():.2f}, right {right[here].mean():.2f}")
    told = [(least, p >= least) for least in FROM]
    print("  from: " + ", ".join(f"{least} {right[part].mean():.3f} of {part.mean():.2f}" for least, part in told if part.any()))
    numbers = {"n": len(p), "right": right.mean(), "auc": auc, "brier": brier, "ece": error, "ece_low": low, "ece_high": high}
    return {name: round(float(value), 4) for name, value in numbers.items()}


def main() -> None:
    """Fit, print, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--check", nargs="*", default=[])
    parser.add_argument("--count", type=int, default=400, help="clips of each source, at most")
    music = Path(tempfile.gettempdir()) / "mflamingo-music"
    parser.add_argument("--music", type=Path, default=music, help="unpacked packages, a folder each")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "mflamingo-bench")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    judged = {source: collect(source, options.count, options.cache, options.music) for source in [*options.sources, *options.check]}
    summary = {}
    for name in NAMES:
        written = confidence.WEIGHTS[name]
        names, signs, right = table([row for source in options.sources for row in judged[source]], name)
        fitted = fit(signs, right)
        told = dict(zip([confidence.ALWAYS, *names], fitted.round(2).tolist(), strict=True))
        print(f"\n{name}: {json.dumps(told)}")
        most = confidence.MOST.get(name, 1.0)
        all_told, all_right = [np.minimum(unseen(signs, right), most)], [right]
        report(f"{name}, {' + '.join(options.sources)}, unseen", all_told[0], right)
        for source in options.check:
            _, signs, right = table(judged[source], name)
            if not len(right):
                continue
            all_told.append(np.minimum(predict(signs, fitted), most))
            all_right.append(right)
            report(f"{name}, {source}, fitted", all_told[-1], right)
            report(f"{name}, {source}, as written", np.minimum(predict(signs, np.array([written[sign] for sign in told])), most), right)
        summary[name] = report(f"{name}, all that no fit has seen", np.concatenate(all_told), np.concatenate(all_right))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
