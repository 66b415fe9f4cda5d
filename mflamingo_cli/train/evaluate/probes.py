"""Accuracy of the encoder's linear probes, on whole excerpts; only for checkpoints that carry them.

Labels and logits are per audio token; unknown labels are not counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.train.evaluate import bootstrap, ground_truth, music
from mflamingo_cli.train.evaluate.bootstrap import Score, Scoring, auc_scores, scored
from mflamingo_cli.train.evaluate.ground_truth import NAMED_FAMILIES, Item, labels_of
from mflamingo_cli.train.evaluate.inference import SongBatch, Update
from mflamingo_cli.train.evaluate.question_accuracy import meter_scores, style_scores
from mflamingo_cli.train.mini.frames import NO_CHORD, TOKEN_S
from mflamingo_cli.train.mini.probes import METERS, STYLES, UNKNOWN_FLAG, ProbedEncoder
from mflamingo_cli.train.mini.synth.harmony import QUALITIES

SMOOTH_TOKENS = 5  # 0.4 s: a chord shorter than that is a passing tone
TAG_YES, TAG_NO = 0.3, 0.1  # a tag's mean probability over an excerpt that counts as there, as not there; between, nothing is known
BINS = 200  # of probabilities of singing
TAG_COUNT = 5  # a tag is scored where at least so many excerpts have it
INSTRUMENT_TAGS = ("guitar", "strings", "drums", "piano", "violin", "synth", "harpsichord", "flute", "sitar", "harp", "cello")


def smoothed(logits: np.ndarray, width: int = SMOOTH_TOKENS) -> np.ndarray:
    """Log-probabilities averaged over `width` neighbours: (T, classes) -> same."""
    logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    padded = np.pad(logits, ((width // 2, width // 2), (0, 0)), mode="edge")
    sums = np.cumsum(np.vstack([np.zeros((1, padded.shape[1])), padded]), axis=0)
    return (sums[width:] - sums[:-width]) / width


def decoded_chords(root: np.ndarray, quality: np.ndarray) -> list[music.Span]:
    """Chords read from two heads: logits (T, 13), (T, qualities) -> spans from 0."""
    roots, kinds = smoothed(root).argmax(-1), smoothed(quality).argmax(-1)
    names = [music.harte(-1 if r == NO_CHORD else int(r), QUALITIES[k]) for r, k in zip(roots, kinds, strict=True)]
    return music.runs(names, TOKEN_S)


SCORINGS: dict[str, Scoring] = {  # what is claimed of whole excerpts
    "chords": music.chord_sequence_scores, "key": music.key_scores, "meter": meter_scores, "style": style_scores, "vocals": auc_scores,
}  # fmt: skip


@dataclass
class ProbeAccuracy:
    """Logits of every probe, collected excerpt by excerpt."""

    encoder: ProbedEncoder
    pairs: dict[str, list[tuple[Any, Any]]] = field(default_factory=lambda: defaultdict(list))  # (truth, claim), where known

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """Read the excerpts; nothing is asked."""
        for item in items:
            self._read(item, self.encoder.logits(item.samples()))
        yield from ()

    def _read(self, item: Item, logits: dict[str, np.ndarray]) -> None:
        labels, mean = labels_of(item, len(logits["key"])), {name: value.mean(axis=0) for name, value in logits.items()}
        best = int(mean["key"].argmax())
        claims = {
            "chords": (ground_truth.chord_sequence(item), decoded_chords(logits["root"], logits["quality"])),
            "key": (ground_truth.key_truth(item), (best % 12, "major" if best < 12 else "minor")),
            "meter": (item.clip_labels.get("meter"), METERS[int(mean["meter"].argmax())]),
            "style": (None if item.recording else ground_truth.names_truth("genre")(item), [STYLES[int(mean["style"].argmax())]]),
            "vocals": (ground_truth.vocals_truth(item), float(mean["vocals"][0])),
        }
        for name, (true, claim) in claims.items():
            if true is not None:
                self.pairs[name].append((true, claim))
        chances = {name: (1 / (1 + np.exp(-logits[name]))).mean(axis=0) for name in ("families", "tags")}
        if (known := ground_truth.families_truth(item)) is not None:
            there = np.array([1.0 if f in known[0] else 0.0 if f in known[1] else np.nan for f in NAMED_FAMILIES])
            self.pairs["played"].append((there, chances["families"]))  # families of whole excerpts
        if "families" in labels:
            self.pairs["families"].append(family_counts(labels["families"], logits["families"]))
        if "vocals" in labels:
            self.pairs["singing"].append((voice_counts(labels["vocals"], logits["vocals"]), None))
        if "tags" in labels:
            self.pairs["tags"].append((tag_truth(labels["tags"]), chances["tags"]))

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figures."""
        where = {**where, "system": "encoder head"}
        for name, scoring in SCORINGS.items():
            yield from scored(scoring, name, self.pairs[name], **where)
        if self.pairs["families"]:
            yield self._families(where)
        if counts := [row for row, _ in self.pairs["singing"]]:
            yield bootstrap.resampled("singing per token, AUC", np.stack(counts), bootstrap.binned_auc, 0.5, 0.5, **where)
        if played := self.pairs["played"]:
            yield _ranked("instruments, mAP", played, np.ones(len(NAMED_FAMILIES), dtype=bool), where)
        if tags := self.pairs["tags"]:
            often = (np.stack([true for true, _ in tags]) == 1).sum(axis=0) >= TAG_COUNT
            instruments = np.array([name.partition(":")[2] in INSTRUMENT_TAGS for name in TAG_NAMES])
            for name, chosen in (("instrument tags, mAP", often & instruments), ("tags, mAP", often)):
                if chosen.any():
                    yield _ranked(name, tags, chosen, where)

    def _families(self, where: dict[str, Any]) -> Score:
        rows, known = (np.stack(part) for part in zip(*self.pairs["families"], strict=True))
        order = np.argsort(-known[:, :, 0].sum(axis=0))
        constants = []
        for size in range(1, len(order) + 1):  # the best fixed set: some of the commonest
            said = np.isin(np.arange(len(order)), order[:size])
            yes, no = known[:, :, 0], known[:, :, 1]
            constants.append(np.stack([(yes * said).sum(1), (no * said).sum(1), (yes * ~said).sum(1)], axis=1))
        best = max(constants, key=bootstrap.micro_f1)
        return bootstrap.resampled("instruments per token, micro F1", rows.sum(axis=1), bootstrap.micro_f1, best, **where)


def _ranked(name: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]], chosen: np.ndarray, where: dict[str, Any]) -> Score:
    """Mean average precision of some columns of (truth, probability) pairs, beside the base rate."""
    known, said = (np.stack(part)[:, chosen] for part in zip(*pairs, strict=True))
    rows = np.hstack([known, said])
    rate, count = bootstrap.base_rate(rows), int((known == 1).any(axis=0).sum())
    return bootstrap.resampled(name, rows, bootstrap.mean_average_precision, rate, rate, note=f"{count} names", **where)


def family_counts(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (T, families) and logits -> hits, false claims, misses (families, 3); tokens that have each and that lack it (families, 2)."""
    count = min(len(labels), len(logits))
    labels, said = labels[:count], logits[:count] > 0
    yes, no = labels == 1, labels == 0
    assert set(np.unique(labels)) <= {0, 1, UNKNOWN_FLAG}
    marks = np.stack([(yes & said).sum(axis=0), (no & said).sum(axis=0), (yes & ~said).sum(axis=0)], axis=1)
    return marks, np.stack([yes.sum(axis=0), no.sum(axis=0)], axis=1)


def voice_counts(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """How many tokens without and with singing, where that is sure, have which probability: (T,), (T, 1) -> (2 * BINS,)."""
    count = min(len(labels), len(logits))
    bins = np.minimum((BINS / (1 + np.exp(-logits[:count, 0].astype(np.float64)))).astype(int), BINS - 1)
    return np.concatenate([np.bincount(bins[labels[:count] == sung], minlength=BINS) for sung in (0, 1)])


def tag_truth(labels: np.ndarray) -> np.ndarray:
    """Tag probabilities (T, tags) uint8 / 255 -> 1 there, 0 not there, NaN in between or unknown: (tags,)."""
    known = (labels != UNKNOWN_FLAG).any(axis=0)
    mean = np.where(labels == UNKNOWN_FLAG, np.nan, labels / UNKNOWN_FLAG)
    mean = np.array([np.nanmean(column) if ok else np.nan for column, ok in zip(mean.T, known, strict=True)])
    return np.where(mean >= TAG_YES, 1.0, np.where(mean < TAG_NO, 0.0, np.nan))
