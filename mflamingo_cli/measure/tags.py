"""Genre, instruments and mood that are in the sound: musicnn's evidence, where what it names was right on real music.

A name is given where it was right on labelled recordings with a lower 95 % bound of 0.8 or more (`python -m tests.bench.ears`): its
confidence. The labels are weak: tags of files, artists, titles. Absence says nothing: a song without a tag may have what it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.measure.tagging import TAG_NAMES, tag_evidence
from mflamingo_cli.schema import Tag, TagKind

PATCH_EVERY_S = 20.0  # one patch of 3 s; half as many move a tag by 0.006 on average
PATCHES = (3, 12)  # of a stretch of sound, at least and at most


@dataclass(frozen=True)
class TagRule:
    """A name, the tags whose greatest evidence (`summed`: their sum) speaks for it, from where on it is given, and how sure it is then."""

    kind: TagKind
    name: str
    evidence: tuple[str, ...]
    least: float
    confidence: float
    summed: bool = False

    def value(self, evidence: np.ndarray) -> float:
        """Evidence for the name: mean probabilities of a song (100,) -> 0 to 1, or to the number of tags."""
        found = evidence[[TAG_NAMES.index(name) for name in self.evidence]]
        return float(found.sum() if self.summed else found.max())


RULES = (
    TagRule("genre", "metal", ("msd:metal",), 0.18, 0.83),
    TagRule("genre", "rock", ("mtt:rock", "msd:rock", "msd:hard rock"), 0.20, 0.83),
    TagRule("genre", "classical", ("mtt:classical", "mtt:classic"), 0.24, 0.84),
    TagRule("instruments", "strings", ("mtt:strings", "mtt:violin", "mtt:cello"), 0.22, 0.84),
    TagRule("mood", "energetic", ("mtt:fast", "mtt:loud"), 0.30, 0.88, summed=True),
)
"""What is named. Too few labelled recordings were found for electronic, ambient, guitar, synth, drums, piano and calm."""


@dataclass(frozen=True)
class TagMean:
    """Mean probabilities of one stretch of sound (100,), and its length in seconds."""

    evidence: np.ndarray
    seconds: float


def mean_tags(samples: np.ndarray, seconds: float) -> TagMean:
    """Tags of a stretch of sound: mono float32 at 16 kHz (n,) -> TagMean."""
    patches = min(max(round(seconds / PATCH_EVERY_S), PATCHES[0]), PATCHES[1])
    return TagMean(tag_evidence(samples, patches)[1].mean(axis=0), seconds)


def name_tags(found: Sequence[TagMean]) -> tuple[Tag, ...]:
    """What is named in a song of these stretches."""
    total = sum(one.seconds for one in found)
    if not total:
        return ()
    evidence = np.sum([one.evidence * (one.seconds / total) for one in found], axis=0)
    return tuple(Tag(rule.kind, rule.name, rule.confidence, "measured") for rule in RULES if rule.value(evidence) >= rule.least)
