"""What may be asked of an excerpt: exact truth of synthetic clips, and of recordings only what their labels are sure of."""

import numpy as np
import pytest

from mflamingo_cli.train.mini.dialogue.clip_labels import (
    GENRE_TAGS,
    INSTRUMENT_TAGS,
    INSTRUMENTS,
    KIN,
    MOOD_TAGS,
    STYLES,
    excerpt_labels,
    triad,
)
from mflamingo_cli.train.mini.frames import TAG_NAMES

TOKENS = 500  # 20 s
CHORDS = [[0, 1, 9, "min7"], [1, 4, 5, "maj"], [4, 5, 0, "7"], [5, 8, 9, "min"]]


def synth(played: dict[str, float], *, doubtful: str = "", sung: slice | None = None, **row):
    """A synthetic clip of 20 s: instruments with their levels (dB), one too quiet to be claimed, and where somebody sings."""
    families = np.zeros((TOKENS, len(INSTRUMENTS)), np.uint8)
    for name in played:
        families[:, INSTRUMENTS.index(name)] = 1
    if doubtful:
        families[:, INSTRUMENTS.index(doubtful)] = 255
    vocals = np.zeros(TOKENS, np.uint8)
    vocals[sung or slice(0)] = 1
    return {"kind": "synth", "tonic": 9, "mode": "minor", "chords": CHORDS, "instruments": played, **row}, {
        "families": families,
        "vocals": vocals,
    }


def recording(row=None, **tags):
    """A recording of 20 s with the probabilities of some tags (`mtt_guitar`); all others are 0."""
    values = np.zeros((TOKENS, len(TAG_NAMES)), np.uint8)
    for name, probability in tags.items():
        values[:, TAG_NAMES.index(name.replace("mtt_", "mtt:").replace("msd_", "msd:").replace("_", " "))] = round(255 * probability)
    return {"kind": "recording", **(row or {})}, {"tags": values, "vocals": np.full(TOKENS, 255, np.uint8)}


def test_chords_are_the_longest_as_triads_in_order_of_first_sound():
    row, labels = synth({"piano": 0})
    heard = excerpt_labels(row, labels, 0.5, 8.0)
    assert (heard["key"], heard["chords"]) == ("A minor", "Am F C")


@pytest.mark.parametrize(
    ("quality", "name"), [("maj7", ""), ("min7", "m"), ("dim7", "dim"), ("hdim7", "dim"), ("sus4", ""), ("aug", "aug")]
)
def test_labels_claim_triads(quality, name):
    assert triad(quality) == name


def test_instruments_are_listed_loudest_first_and_doubtful_ones_not_at_all():
    row, labels = synth({"drums": -3.0, "piano": 0.0, "bass": -8.0}, doubtful="organ")
    heard = excerpt_labels(row, labels, 0, 20)
    assert heard["instruments"] == "piano drums bass"
    assert heard["louder"] == "piano bass"
    assert set(heard["absent"].split()) == set(INSTRUMENTS) - {"piano", "drums", "bass", "organ"}


def test_only_the_excerpt_counts():
    row, labels = synth({"piano": 0.0, "sax": -2.0}, sung=slice(0, 100))
    labels["families"][:250, INSTRUMENTS.index("sax")] = 0
    first, second = excerpt_labels(row, labels, 0, 10), excerpt_labels(row, labels, 10, 20)
    assert (first["instruments"], second["instruments"]) == ("piano", "piano sax")
    assert (first["vocals"], second["vocals"]) == ("yes", "no")


def test_a_sampled_choir_is_neither_singing_nor_instrumental():
    row, labels = synth({"choir": 0.0})
    assert "vocals" not in excerpt_labels(row, labels, 0, 20)


def test_a_style_is_denied_only_where_styles_are_apart():
    row, labels = synth({"piano": 0.0}, style="rock", meter="4/4")
    heard = excerpt_labels(row, labels, 0, 20)
    assert (heard["genre"], heard["meter"]) == ("rock", "4/4")
    assert "jazz" in heard["not_genre"].split(", ")
    assert not {"rock", "metal", "blues", "pop"} & set(heard["not_genre"].split(", "))
    assert set().union(*KIN) <= set(STYLES)


def test_labels_of_recordings_count_only_where_they_are_sure():
    unsure = recording(mtt_guitar=INSTRUMENT_TAGS["guitar"][1] - 0.02, mtt_piano=INSTRUMENT_TAGS["piano"][1] + 0.02)
    heard = excerpt_labels(*unsure, 0, 20)
    assert heard["instruments"] == "piano"
    assert "guitar" not in heard["absent"].split()
    assert "choir" in heard["absent"].split()
    assert {"key", "chords", "vocals", "mood", "genre"}.isdisjoint(heard)


def test_a_key_that_the_second_estimator_denies_is_not_asked():
    labels = recording()[1]
    same = {"kind": "recording", "tonic": 9, "mode": "minor", "key2": [9, "minor"]}
    assert excerpt_labels(same, labels, 0, 20)["key"] == "A minor"
    assert "key" not in excerpt_labels({**same, "key2": [0, "major"]}, labels, 0, 20)


def test_an_excerpt_with_a_change_of_key_has_none():
    row, labels = synth({"piano": 0.0}, keys=[[0, 10, 9, "minor"], [10, 20, 11, "minor"]])
    assert excerpt_labels(row, labels, 0, 10.5)["key"] == "A minor"
    assert excerpt_labels(row, labels, 10, 20)["key"] == "B minor"
    assert "key" not in excerpt_labels(row, labels, 5, 15)


def test_noise_is_nothing():
    row, labels = synth({"piano": 0.0}, music=False)
    assert excerpt_labels(row, labels, 0, 20) == {}


def test_nothing_known_is_an_empty_answer():
    assert (
        excerpt_labels({"kind": "synth"}, {"families": np.full((TOKENS, 12), 255, np.uint8), "vocals": np.full(TOKENS, 255)}, 0, 20) == {}
    )


@pytest.mark.parametrize("table", [INSTRUMENT_TAGS, GENRE_TAGS, MOOD_TAGS])
def test_tags_are_known_and_thresholds_apart(table):
    for tags, sure, none in table.values():
        assert set(tags) <= set(TAG_NAMES)
        assert 0 < none < sure < 1
