"""Confident labels: those labels of an excerpt that the encoder's linear probes confirm clearly.

A caption volunteers facts. Without measured ones it is trained to name these labels only: the language model reads the same tokens and
learns when to be silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mflamingo_cli.measure.facts import Key
from mflamingo_cli.train.mini.dialogue.clip_labels import GENRE_TAGS, INSTRUMENT_TAGS, INSTRUMENTS, MOOD_TAGS, Tagged, sorted_out, triad
from mflamingo_cli.train.mini.dialogue.prompt_facts import PromptFacts
from mflamingo_cli.train.mini.frames import NO_CHORD, TAG_NAMES
from mflamingo_cli.train.mini.probes import METERS, STYLES
from mflamingo_cli.train.mini.synth.harmony import QUALITIES, chord_set

KEYS = [Key.of(number % 12, "minor" if number >= 12 else "major").name for number in range(24)]  # the classes of the head
SURE = 0.7  # probability from which a probe counts as clear: of a key, meter, style, of an instrument while it sounds
SUNG, UNSUNG = 0.8, 0.1  # of a voice where it is clearest: from the first somebody sings, up to the second there is none
CLEAREST = 85  # percentile over the tokens of an excerpt: what sounds for a seventh of it counts


def confident_labels(labels: PromptFacts, logits: Mapping[str, np.ndarray]) -> PromptFacts:
    """Those labels, and of lists those items, that the probes confirm, in their order."""
    tags = dict(zip(TAG_NAMES, _chances(logits["tags"]).mean(axis=0), strict=True))
    played = np.percentile(_chances(logits["families"]), CLEAREST, axis=0)
    key, meter, style = (_clear(logits[name].mean(axis=0), names) for name, names in (("key", KEYS), ("meter", METERS), ("style", STYLES)))
    voice = float(np.percentile(_chances(logits["vocals"]), CLEAREST))
    read = {
        "key": {key},
        "meter": {meter},
        "instruments": {name for name, chance in zip(INSTRUMENTS, played, strict=True) if chance >= SURE} | _there(tags, INSTRUMENT_TAGS),
        "genre": {style} | _there(tags, GENRE_TAGS),
        "mood": _there(tags, MOOD_TAGS),
        "vocals": {"yes" if voice >= SUNG else "no" if voice <= UNSUNG else None},
    }
    confirmed = {}
    for name, sure in read.items():
        join = ", " if name in ("genre", "mood") else " "
        items = [] if name not in labels else [labels[name]] if name == "key" else labels[name].split(join)
        confirmed[name] = join.join(item for item in items if item in sure)
    if "chords" in labels and chord_set(labels["chords"].split()) == main_triads(logits, len(labels["chords"].split())):
        confirmed["chords"] = labels["chords"]
    return {name: value for name, value in confirmed.items() if value}


def _chances(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _clear(logits: np.ndarray, names: Sequence[str]) -> str | None:
    """The likeliest class where it is likely enough."""
    chances = np.exp(logits - logits.max())
    return names[int(chances.argmax())] if chances.max() >= SURE * chances.sum() else None


def _there(tags: Mapping[str, float], table: Tagged) -> set[str]:
    return set(sorted_out(tags, table)[0])


def main_triads(logits: Mapping[str, np.ndarray], count: int) -> set[tuple[int, str]]:
    """The triads that are read for most tokens."""
    roots, kinds = logits["root"].argmax(axis=-1), logits["quality"].argmax(axis=-1)
    read = Counter((int(root), triad(QUALITIES[kind])) for root, kind in zip(roots, kinds, strict=True) if root != NO_CHORD)
    return {chord for chord, _ in read.most_common(count)}
