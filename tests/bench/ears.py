"""How right voices and tags are on free recordings with weak labels: fits the voices' weights, prints precision with its lower bound.

    apt-get download marsshooter-data …; dpkg-deb -x …; python -m tests.bench.ears FOLDER --cache EVIDENCE

FOLDER holds a folder for each unpacked Debian package. Nobody listened: a label is what a file's tags, its artist or its title say, see
LABELS; recordings without one count nowhere, and how many of them are named is printed. The first four minutes of each file are measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mflamingo_cli.core.audio import load
from mflamingo_cli.errors import AudioError
from mflamingo_cli.measure import confidence
from mflamingo_cli.measure.stretch import SoundStretch
from mflamingo_cli.measure.tags import RULES
from mflamingo_cli.measure.vocals import sung_signs

SUFFIXES = (".ogg", ".opus", ".mp3", ".flac", ".wav")
LEAST_BYTES, LONGEST_S = 200_000, 240.0
LABELS: tuple[tuple[str, str], ...] = (  # what stands in a path or in the file's genre, and what that says
    (r"/marsshooter-data/.*menu\.ogg", "unsung metal rock energetic"),
    (r"/marsshooter-data/.*/music/", "sung metal rock energetic"),  # Obsidian Shell; symphonic metal with a singer
    (r"/drascula-music/.*track31", "sung"),
    (r"/drascula-music/", ""),  # a comedy with songs: nobody knows which
    (r"/fretsonfire-songs-\w+/.*/song\.ogg", "metal rock energetic"),  # tagged Death Metal, or titled so
    (r"genre=romantic classical|genre=orchestral|/wesnoth-1\.16-music/", "unsung classical strings"),
    (r"genre=house|genre=electronic", "unsung electronic"),
    (r"genre=rock", "unsung rock"),
    (r"genre=reggae", "unsung reggae"),
    (r"genre=ambient|genre=ambiance", "unsung ambient"),
    (
        r"/(?:supertuxkart|supertux|lincity-ng|openarena-088|btanks|warmux|pushover|fillets-ng|colobot-common-sounds|singularity)[\w-]*/",
        "unsung",
    ),
)
MOODS = (
    (r"sad|love|calm|slow|lonel|peace|lament|transience|quiet|soft|dream|sleep|wind", "calm"),
    (r"_fast|battle|frantic|action|boss|fight|combat|attack|vengeful", "energetic"),
)
AMONG = {"genre": "metal rock classical electronic reggae ambient", "instruments": "strings metal electronic", "mood": "calm energetic"}
RIDGE = 10.0  # on the weights of the voices' signs: one artist sings most of the sung songs
LEAST = confidence.CLEAR_VOCALS


@dataclass(frozen=True)
class Recording:
    """A song with its labels and its evidence."""

    name: str
    labels: frozenset[str]
    signs: dict[str, float]
    tags: np.ndarray


def labels(path: Path, genre: str | None) -> frozenset[str]:
    """What is known of a file without hearing it."""
    text = f"/{path}/".lower() + f" genre={(genre or '').lower()}"
    known = next((words for pattern, words in LABELS if re.search(pattern, text)), "").split()
    mood = next((word for pattern, word in MOODS if re.search(pattern, path.name.lower())), "")
    return frozenset([*known, *([mood] if mood and "energetic" not in known else [])])


def recordings(folder: Path, cache: Path, longest_s: float) -> Iterator[Recording]:
    """Every file of a folder with its evidence, which is kept."""
    cache.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.stat().st_size >= LEAST_BYTES):
        kept = cache / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
        if not kept.exists():
            try:
                audio = load(path, end_s=longest_s)
            except AudioError:
                continue
            stretch = SoundStretch(audio.samples, 0.0)
            tags, found = stretch.tags, sung_signs([stretch.voices])
            row = {
                "genre": audio.source.tags and audio.source.tags.genre,
                "signs": found,
                "tags": [] if tags is None else tags.evidence.tolist(),
            }
            kept.write_text(json.dumps(row), encoding="utf-8")
        row = json.loads(kept.read_text(encoding="utf-8"))
        if row["tags"]:
            yield Recording(
                str(path.relative_to(folder)), labels(path.relative_to(folder), row["genre"]), row["signs"], np.array(row["tags"])
            )


def lower_bound(right: int, total: int) -> float:
    """Of a share, with 95 % confidence (Clopper and Pearson 1934, one-sided)."""
    low, high = 0.0, right / max(total, 1)
    for _ in range(50):
        share = (low + high) / 2
        tail = sum(math.comb(total, n) * share**n * (1 - share) ** (total - n) for n in range(right, total + 1))
        low, high = (share, high) if tail < 0.05 else (low, share)
    return low


def fit_voices(found: list[Recording]) -> np.ndarray:
    """Weights of `always` and the signs by logistic regression, as if half of the songs were sung."""
    known = [one for one in found if {"sung", "unsung"} & one.labels]
    truth = np.array([float("sung" in one.labels) for one in known])
    signs = np.array([[1.0, *one.signs.values()] for one in known])
    weigh = np.where(truth == 1, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
    ridge = RIDGE * np.diag([0.0, *np.ones(signs.shape[1] - 1)])
    weights = np.zeros(signs.shape[1])
    for _ in range(60):  # Newton's steps
        told = 1 / (1 + np.exp(-signs @ weights))
        hessian = signs.T @ (signs * (weigh * told * (1 - told))[:, None]) + ridge
        weights -= np.linalg.solve(hessian, signs.T @ (weigh * (told - truth)) + ridge @ weights)
    return np.asarray(weights)


def auc(evidence: np.ndarray, right: np.ndarray) -> float:
    """Probability that one which is right has more evidence than one which is not: (n,), (n,) -> 0..1, NaN where one kind is missing."""
    better, worse = evidence[right == 1][:, None], evidence[right == 0]
    return float(((better > worse) + 0.5 * (better == worse)).mean()) if better.size and worse.size else float("nan")


def held_out_voices(found: list[Recording], group: Callable[[Recording], str]) -> dict[str, float]:
    """How right voices are of songs that no fit has seen: those of a group are judged by weights fitted on all others."""
    known = [one for one in found if {"sung", "unsung"} & one.labels]
    right = np.array([float("sung" in one.labels) for one in known])
    groups = np.array([group(one) for one in known])
    signs = np.array([[1.0, *one.signs.values()] for one in known])
    sung = np.zeros(len(known))
    for left_out in np.unique(groups):
        fitted = fit_voices([one for one, of in zip(known, groups, strict=True) if of != left_out])
        sung[groups == left_out] = 1 / (1 + np.exp(-signs[groups == left_out] @ fitted))
    sure = np.maximum(sung, 1 - sung)
    clear, said = sure >= LEAST, sung > 0.5
    weigh = np.where(right == 1, 0.5 / right.mean(), 0.5 / (1 - right.mean()))  # as if half of the songs were sung
    told, was = (np.average(row[clear], weights=weigh[clear]) for row in (np.minimum(sure, confidence.MOST_VOCALS), said == right))
    counts = {
        f"{kind}, called {word}": int((clear & (said == value) & (right == label)).sum())
        for kind, label in (("sung", 1), ("unsung", 0))
        for word, value in (("sung", True), ("not sung", False))
    }
    return {"n": len(known), "sung": int(right.sum()), "auc": auc(sung, right), **counts, "told": float(told), "right": float(was)}


def package(one: Recording) -> str:
    """Of which package it is: mostly one artist."""
    return one.name.split("/")[0]


def report_voices(found: list[Recording]) -> dict[str, object]:
    """What is said of sung and of unsung songs, by the weights of the program."""
    rows: dict[str, object] = {"fitted": fit_voices(found).round(2).tolist()}
    for label in ("sung", "unsung", "unknown"):
        said = [confidence.of_vocals(one.signs)[0] for one in found if label in one.labels or (label == "unknown" and not one.labels)]
        rows[label] = {str(value): said.count(value) for value in (True, None, False)}
        print(f"{label:8s} of {len(said):3d}: sung {said.count(True)}, nothing said {said.count(None)}, not sung {said.count(False)}")
    for name, group in (("package", package), ("song", lambda one: one.name)):
        rows[f"{name} left out"] = row = held_out_voices(found, group)
        print(f"one {name} left out: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    return rows


def report_tags(found: list[Recording]) -> dict[str, object]:
    """Of each name: how often it was right among labelled recordings, with the lower bound, and how many unlabelled ones it names."""
    rows: dict[str, object] = {}
    for rule in RULES:
        among = set(AMONG[rule.kind].split())
        told = [one for one in found if rule.value(one.tags) >= rule.least]
        known = [one for one in told if among & one.labels]
        right = sum(rule.name in one.labels for one in known)
        there = sum(rule.name in one.labels for one in found)
        bound, unknown = round(lower_bound(right, len(known)), 3), len(told) - len(known)
        rows[rule.name] = {"right": right, "of": len(known), "bound": bound, "there": there, "unknown": unknown}
        print(f"{rule.name:10s} right {right} of {len(known)} (at least {bound}), {there} there, {unknown} unlabelled ones")
    return rows


def main() -> None:
    """Print both tables, then their figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=LONGEST_S, help="measured of each file")
    asked = parser.parse_args()
    found = list(recordings(asked.folder, asked.cache, asked.seconds))
    print(json.dumps({"songs": len(found), "voices": report_voices(found), "tags": report_tags(found)}))


if __name__ == "__main__":
    main()
