"""Captions: what each style tells, in which order, and how the sentences of a song are chosen.

The words of a song are drawn by its facts: the same facts give the same caption, today and tomorrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from random import Random

from mflamingo_cli.grounding.prose.grammar import Composer, Sayable
from mflamingo_cli.grounding.prose.phrases import RULES
from mflamingo_cli.grounding.prose.slots import TELLS, Slots, slots_of
from mflamingo_cli.measure import Facts

FULL_SENTENCES = 8  # of a full caption at most,
EVIDENCE = ("tempo", "meter", "key", "keys", "chords", "sections", "vocals", "sound", "loudness", "dynamics", "duration")
LEAST_MOMENTS = 2  # but for moments of the song, so many of which are always told


def write_caption(style: str, facts: Facts, duration_s: float | None = None, seed: int = 0) -> str:
    """A caption of one of `STYLES` that tells what is known of a song and nothing else; other seeds give other words."""
    return caption_of(style, slots_of(facts, duration_s), seed)


def caption_of(style: str, slots: Slots, seed: int = 0) -> str:
    """The same of slots."""
    drawn = hashlib.sha256(repr((style, seed, sorted(slots.values.items()))).encode()).digest()
    composer = Composer(RULES, Random(int.from_bytes(drawn[:8], "big")))
    return " ".join(STYLES[style](composer, slots))


def tell(fact: str, facts: Facts) -> str | None:
    """One plain sentence that tells a fact by its name, as answers do; None where it is not known, or where facts of its kind have none."""
    rule = f"fact_{fact}"
    return Composer(RULES, Random(0)).sentence(rule, sayable(slots_of(facts))) if rule in RULES else None


def sayable(slots: Slots) -> Sayable:
    """What the grammar may say of a song as a whole."""
    return Sayable(slots.values, slots.conditions, TELLS)


def evidence_of(slots: Slots) -> list[str]:
    """What was measured, a sentence for each fact: the reasoning before a caption."""
    return list(_each(Composer(RULES, Random(0)), slots, *(f"evidence_{fact}" for fact in EVIDENCE)))


def _each(composer: Composer, slots: Slots, *rules: str) -> Iterator[str]:
    """The sentences of rules, those that can be said."""
    for rule in rules:
        if said := composer.sentence(rule, sayable(slots)):
            yield said


def _full(composer: Composer, slots: Slots) -> Iterator[str]:
    """What it is; what the opening left out; its sound; harmony; the song in time; production."""
    before = [*_each(composer, slots, "opening", "rest", "rest", "rest", "rest", "sound", "sound", "harmony", "shape")]
    after = [*_each(composer, slots, "production", "edge")]
    yield from before
    yield from _moments(composer, slots, max(LEAST_MOMENTS, FULL_SENTENCES - len(before) - len(after)))
    yield from after


def _moments(composer: Composer, slots: Slots, count: int) -> Iterator[str]:
    """The moments at which most changes, in their order."""
    telling = sorted(slots.scenes, key=lambda scene: -scene.weight)[:count]
    for scene in sorted(telling, key=lambda scene: scene.start_s):
        if said := composer.sentence(scene.rule, sayable(slots).with_slots(scene.values, scene.conditions)):
            yield said


def _short(composer: Composer, slots: Slots) -> Iterator[str]:
    yield from _each(composer, slots, "short")


def _technical(composer: Composer, slots: Slots) -> Iterator[str]:
    parts = ("pulse", "key", "harmony", "form", "sound", "sound", "voice", "level", "detail", "detail")
    yield from _each(composer, slots, *(f"technical_{part}" for part in parts))


def _critic(composer: Composer, slots: Slots) -> Iterator[str]:
    yield from _each(composer, slots, "opening", "critic_form", "critic_harmony", "critic_voice", "critic_level", "critic_edge")


STYLES: Mapping[str, Callable[[Composer, Slots], Iterator[str]]] = {
    "full": _full,
    "short": _short,
    "technical": _technical,
    "critic": _critic,
}
"""Every style that the grammar writes, by its name in `styles.CAPTION_STYLES`."""
