"""What captions may tell by ear: only what readings of the tokens confirm."""

from __future__ import annotations

import numpy as np
import pytest

from mflamingo_cli.train.mini.dialogue.captions import parse_caption
from mflamingo_cli.train.mini.dialogue.clip_labels import INSTRUMENTS, confident_labels, main_triads
from mflamingo_cli.train.mini.dialogue.exchanges import audio_turns
from mflamingo_cli.train.mini.probes import HEAD_SIZES, METERS, STYLES
from mflamingo_cli.train.mini.synth.harmony import QUALITIES, chord_set

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
    logits["style"][:, STYLES.index("waltz")] = 9.0
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
    for _ in range(60):
        for turn in audio_turns(rng, HEARD, 6, 0.0, {"instruments": "bass"}):
            if "Measured facts" not in turn.question:
                (told if parse_caption(turn.answer) else asked).append(turn)
    claims = [parse_caption(turn.answer) for turn in told]
    assert {"instruments": "bass"} in claims
    assert all(set(claim) == {"instruments"} for claim in claims)
    assert any(turn.answer == "A minor" for turn in asked)
