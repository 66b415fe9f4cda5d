"""Tags: names stand on evidence that musicnn has, a loud sung metal song has them, and what is weak names nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.core.audio import load
from mflamingo_cli.measure import measure
from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.measure.tags import RULES, TagMean, name_tags
from mflamingo_cli.schema import Tag

from .synth import RATE, audio

SUNG = Path(__file__).with_name("sung.opus")
LEAST_CONFIDENCE = 0.8  # lower 95 % bound of the precision of a name that is given


def evidence(**tags: float) -> np.ndarray:
    found = np.zeros(len(TAG_NAMES))
    for name, value in tags.items():
        found[TAG_NAMES.index(name.replace("_", ":"))] = value
    return found


def test_every_rule_reads_tags_that_there_are_and_is_sure_enough() -> None:
    assert {name for rule in RULES for name in rule.evidence} <= set(TAG_NAMES)
    assert all(LEAST_CONFIDENCE <= rule.confidence < 0.95 for rule in RULES)
    assert len({(rule.kind, rule.name) for rule in RULES}) == len(RULES)


def test_stretches_count_by_their_length() -> None:
    loud, still = TagMean(evidence(msd_metal=0.4), 30.0), TagMean(evidence(), 30.0)
    assert [tag.name for tag in name_tags([loud])] == ["metal"]
    assert [tag.name for tag in name_tags([loud, still])] == ["metal"]
    assert name_tags([loud, still, still]) == ()
    assert name_tags([]) == ()


@pytest.mark.parametrize(("tags", "names"), [({"mtt_fast": 0.2, "mtt_loud": 0.2}, ["energetic"]), ({"mtt_fast": 0.2}, [])])
def test_energy_is_speed_and_loudness_together(tags: dict[str, float], names: list[str]) -> None:
    assert [tag.name for tag in name_tags([TagMean(evidence(**tags), 10.0)])] == names


def test_a_metal_song_is_named_and_noise_and_silence_are_not() -> None:
    found = measure(audio(load(SUNG).samples), only=["tags"]).tags
    assert {Tag("genre", "rock", 0.83, "measured"), Tag("mood", "energetic", 0.88, "measured")} <= set(found)
    assert measure(audio(np.zeros(20 * RATE, np.float32)), only=["tags"]).tags == ()
    noise = np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    assert {tag.kind for tag in measure(audio(0.1 * noise), only=["tags"]).tags} <= {"mood"}
