"""What may be asked of an excerpt: exact truth of synthetic clips, and of recordings only what their labels are sure of."""

import numpy as np
import pytest

from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.train.evaluate.caption_metrics import parse_caption
from mflamingo_cli.train.mini.dialogue.clip_labels import (
    GENRE_TAGS,
    INSTRUMENT_TAGS,
    INSTRUMENTS,
    KIN,
    MOOD_TAGS,
    STYLES,
    confident_labels,
    excerpt_labels,
    main_triads,
    triad,
)
from mflamingo_cli.train.mini.dialogue.exchanges import audio_turns
from mflamingo_cli.train.mini.dialogue.questions import CAPTION_PROMPTS
from mflamingo_cli.train.mini.probes import HEAD_SIZES, METERS
from mflamingo_cli.train.mini.probes import STYLES as PROBED_STYLES
from mflamingo_cli.train.mini.synth.harmony import QUALITIES, chord_set

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


@pytest.mark.parametrize(("tokens", "said"), [(0, "no"), (0.02, "no"), (0.1, ""), (0.4, "yes")])
def test_a_recording_is_sung_where_much_of_it_is(tokens: float, said: str) -> None:
    row, labels = recording()
    labels["vocals"] = (np.arange(TOKENS) < tokens * TOKENS).astype(np.uint8)
    assert excerpt_labels(row, labels, 0, 20).get("vocals", "") == said


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


# --- confident labels ---

T = 20


@pytest.fixture
def logits():
    """Readings that are sure of nothing."""
    return {name: np.full((T, size), -6.0 if name == "tags" else -1.0) for name, size in HEAD_SIZES.items()}


HEARD = {
    "key": "A minor", "meter": "3/4", "chords": "Am F", "instruments": "piano bass drums", "absent": "sax", "genre": "waltz",
    "vocals": "no",
}  # fmt: skip


def test_nothing_is_certain_where_the_readings_are_not(logits):
    assert confident_labels(HEARD, logits) == {}


def test_labels_that_the_probes_confirm_are_confident_and_nothing_else(logits):
    logits["key"][:, 9 + 12] = 9.0
    logits["meter"][:, METERS.index("4/4")] = 9.0  # another meter than the true one
    logits["style"][:, PROBED_STYLES.index("waltz")] = 9.0
    logits["families"][: T // 2, INSTRUMENTS.index("bass")] = 3.0  # heard for half of the time
    logits["families"][:2, INSTRUMENTS.index("drums")] = 9.0  # for a moment only
    logits["families"][:, INSTRUMENTS.index("sax")] = 9.0  # and one that is not there
    logits["vocals"][:] = -4.0
    assert confident_labels(HEARD, logits) == {"key": "A minor", "genre": "waltz", "instruments": "bass", "vocals": "no"}
    assert confident_labels({}, logits) == {}


def test_chords_are_certain_when_all_of_them_are_read(logits):
    for number in range(T):
        logits["root"][number, 9 if number < 12 else 5] = 9.0
        logits["quality"][number, QUALITIES.index("min7" if number < 12 else "maj")] = 9.0
    assert main_triads(logits, 2) == chord_set(["Am", "F"])
    assert confident_labels(HEARD, logits) == {"chords": "Am F"}
    assert confident_labels({**HEARD, "chords": "Am F C"}, logits) == {}


def test_captions_mention_confident_labels_and_questions_ask_for_all():
    rng, told, asked = np.random.default_rng(0), [], []
    prompts = {prompt for several in CAPTION_PROMPTS.values() for prompt in several}
    for _ in range(60):
        for turn in audio_turns(rng, HEARD, 6, 0.0, {"instruments": "bass"}):
            (told if turn.question in prompts else asked).append(turn)
    claims = [parse_caption(turn.answer) for turn in told]
    assert {"instruments": "bass"} in claims
    assert all(set(claim) <= {"instruments"} for claim in claims)
    assert any(turn.answer == "It is in A minor." for turn in asked)
