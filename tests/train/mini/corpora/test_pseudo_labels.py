"""Pseudo-labels: what they may say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.core.audio import load
from mflamingo_cli.measure.beats import BeatTrack
from mflamingo_cli.measure.networks import ChordEvidence
from mflamingo_cli.measure.spectra import CQT_FPS
from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.schema import Segment
from mflamingo_cli.train.mini.corpora import pseudo_labels
from mflamingo_cli.train.mini.synth.harmony import QUALITIES


def test_there_are_six_patches_a_minute() -> None:
    times, tags = pseudo_labels.clip_tags(np.zeros(16 * pseudo_labels.RATE, np.float32))
    assert tags.shape == (2, len(TAG_NAMES))
    np.testing.assert_allclose(times, [4, 12], atol=0.01)


def test_a_tag_is_never_written_as_unknown():
    dense = pseudo_labels.spread(np.array([1.0, 3.0]), np.array([[0.0] * 100, [1.0] * 100]), 100)
    assert dense.max() < pseudo_labels.UNKNOWN
    assert dense[0, 0] == 0
    assert dense[50, 0] == pytest.approx(255 * 0.51, abs=1)  # half way, token 50 is centred at 2.02 s


def test_singing_is_labelled_only_where_it_is_sure():
    assert pseudo_labels.vocals(np.array([0, 75, 200], np.uint8)).tolist() == [0, pseudo_labels.UNKNOWN, 1]


def test_the_voice_network_hears_where_somebody_sings():
    samples = load(Path(__file__).parents[3] / "measure" / "sung.opus").samples  # from its tenth second on
    count = int(len(samples) / pseudo_labels.RATE / pseudo_labels.LABEL_S)
    dense = pseudo_labels.singing(samples, count)
    assert dense.shape == (count,)
    assert dense.max() < pseudo_labels.UNKNOWN
    known = pseudo_labels.vocals(dense)
    assert (known[: round(9 / pseudo_labels.LABEL_S)] != 1).all()
    assert (known[round(10 / pseudo_labels.LABEL_S) :] == 1).mean() > 0.5


def evidence(seconds: float, triads: list[tuple[float, int, float]]) -> ChordEvidence:
    """Evidence whose triad from each time on has a probability; the rest goes to silence."""
    n = int(seconds * CQT_FPS)
    triad, bass = np.zeros((n, 73), np.float32), np.zeros((n, 13), np.float32)
    for start, index, probability in triads:
        at = round(start * CQT_FPS)
        triad[at:], bass[at:] = 0, 0
        triad[at:, index] = probability
        triad[at:, 0] += 1 - probability
        bass[at:, 1 + (index - 1) % 12] = probability
    none = np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1))
    return ChordEvidence(triad, bass, none, none[:, :3], none[:, :3], none[:, :3])


def test_only_sure_chords_of_our_vocabulary_are_labelled():
    spans = [Segment(0, 4, "A:min"), Segment(4, 8, "F:aug"), Segment(8, 12, "C:maj")]
    heard = evidence(12, [(0, 1 + 12 + 9, 0.9), (4, 1 + 60 + 5, 0.9), (8, 1, 0.3)])
    row, labels = {}, {}
    pseudo_labels.harmony(row, labels, heard, spans, 300)
    assert row["chords"] == [[0, 4, 9, "min"]]
    assert labels["root"][[50, 150, 250]].tolist() == [9, 5, -1]
    assert labels["quality"][[50, 150, 250]].tolist() == [QUALITIES.index("min"), -1, -1]
    assert labels["bass"][[50, 150, 250]].tolist() == [9, 5, -1]


def test_beats_have_no_classes_without_a_meter():
    tempo = BeatTrack(120.0, np.arange(0, 8, 0.5), np.arange(0, 8, 2.0))
    row, labels = {}, {}
    pseudo_labels.rhythm(row, labels, tempo, None, 200)
    assert "meter" not in row
    assert not labels
    pseudo_labels.rhythm(row, labels, tempo, "4/4", 200)
    assert (labels["beat"] == 2).sum() == 4
    assert (labels["beat"] == 1).sum() == 12


def test_second_key_is_silent_between_two():
    spectrogram = np.zeros((10, 252), np.float32)
    spectrogram[:, 1 + 3 * 24] = 1  # one note alone: several keys fit it
    assert pseudo_labels.second_key(spectrogram) is None
