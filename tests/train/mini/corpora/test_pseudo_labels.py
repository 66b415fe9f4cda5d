"""Pseudo-labels: the tagging network against its own arithmetic, and what labels may say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mflamingo_cli.measure.beats import BeatTrack
from mflamingo_cli.measure.networks import ChordEvidence
from mflamingo_cli.measure.spectra import CQT_FPS
from mflamingo_cli.schema import Segment
from mflamingo_cli.train.mini.corpora import pseudo_labels
from mflamingo_cli.train.mini.frames import TAG_NAMES
from mflamingo_cli.train.mini.synth.harmony import QUALITIES
from tests.measure.convert_musicnn import state_of

RNG = np.random.default_rng(7)
FLOAT32 = 1e-5  # rounding of sums of a few thousand float32 products near 1


def variables(classes: int = 5) -> dict[str, np.ndarray]:
    """Variables of a whole network, named as TensorFlow names them."""
    found: dict[str, np.ndarray] = {}
    for number, shape in enumerate([(7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51),
                                    (7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)]):  # fmt: skip
        name = "conv2d" + (f"_{number}" if number else "")
        found[f"{name}/kernel"] = RNG.normal(0, 0.05, shape).astype(np.float32)
        found[f"{name}/bias"] = RNG.normal(0, 0.1, shape[-1]).astype(np.float32)
    for number, size in enumerate([1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200]):
        name = "batch_normalization" + (f"_{number}" if number else "")
        for part, mean in (("gamma", 0.3), ("beta", 0.0), ("moving_mean", 0.1)):
            found[f"{name}/{part}"] = RNG.normal(mean, 0.5, size).astype(np.float32)
        found[f"{name}/moving_variance"] = RNG.uniform(0.5, 2, size).astype(np.float32)
    for name, shape in (("dense", (1506, 200)), ("dense_1", (200, classes))):
        found[f"{name}/kernel"] = RNG.normal(0, 0.03, shape).astype(np.float32)
        found[f"{name}/bias"] = RNG.normal(0, 0.1, shape[1]).astype(np.float32)
    return found


# ---- the network ----


def reference(v: dict[str, np.ndarray], mel: np.ndarray) -> np.ndarray:
    """One patch through the published graph, channels last, every step as it is written there: (time, bands) -> (classes,)."""

    def norm(x: np.ndarray, number: int) -> np.ndarray:
        p = "batch_normalization" + (f"_{number}" if number else "")
        scale = v[f"{p}/gamma"] / np.sqrt(v[f"{p}/moving_variance"] + 1e-3)
        return (x - v[f"{p}/moving_mean"]) * scale + v[f"{p}/beta"]

    def conv(x: np.ndarray, number: int, pad: tuple[int, int]) -> np.ndarray:
        p = "conv2d" + (f"_{number}" if number else "")
        x = np.pad(x, (pad, (0, 0)))
        kernel = v[f"{p}/kernel"][:, :, 0]
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2])
        return np.maximum(np.einsum("tfij,ijc->tfc", windows, kernel, optimize=True) + v[f"{p}/bias"], 0)

    x = norm(mel[:, :, None], 0)[:, :, 0]
    pads = [(3, 3), (3, 3), (63, 64), (31, 32), (15, 16)]
    front = np.concatenate([norm(conv(x, i, pad), i + 1).max(axis=1) for i, pad in enumerate(pads)], axis=1)
    one = norm(conv(front, 5, (3, 3))[:, 0], 6)
    two = norm(conv(one, 6, (3, 3))[:, 0], 7) + one
    three = norm(conv(two, 7, (3, 3))[:, 0], 8) + two
    features = np.concatenate([front, one, two, three], axis=1)
    flat = norm(np.stack([features.max(axis=0), features.mean(axis=0)], axis=1).ravel(), 9)
    hidden = norm(np.maximum(flat @ v["dense/kernel"] + v["dense/bias"], 0), 10)
    return 1 / (1 + np.exp(-(hidden @ v["dense_1/kernel"] + v["dense_1/bias"])))


def test_network_follows_the_published_graph():
    tensors = variables()
    mel = RNG.gamma(0.5, 1.0, (2, 140, 96)).astype(np.float32)
    network = pseudo_labels.Musicnn(classes=5).eval()
    network.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state_of(tensors).items()})
    with torch.inference_mode():
        found = network(torch.from_numpy(mel)).numpy()
    for patch, probabilities in zip(mel, found, strict=True):
        np.testing.assert_allclose(probabilities, reference(tensors, patch), atol=FLOAT32)


def test_tags_are_spread_evenly_and_short_clips_are_padded():
    tagger = pseudo_labels.Tagger()
    times, tags = tagger(RNG.normal(0, 0.1, 16 * pseudo_labels.RATE).astype(np.float32))
    assert tags.shape == (2, len(TAG_NAMES))
    np.testing.assert_allclose(times, [4, 12], atol=0.01)
    assert tagger(np.zeros(1000, np.float32))[1].shape == (1, len(TAG_NAMES))


def test_the_shipped_weights_know_a_plucked_string_from_noise():
    seconds = np.arange(4 * pseudo_labels.RATE) / pseudo_labels.RATE
    plucked = sum(np.sin(2 * np.pi * 196 * k * seconds) * np.exp(-3 * k * (seconds % 0.5)) / k for k in range(1, 9)).astype(np.float32)
    noise = RNG.normal(0, 0.3, len(seconds)).astype(np.float32)
    guitar = TAG_NAMES.index("mtt:guitar")
    one, other = (pseudo_labels.Tagger()(samples)[1][:, guitar].mean() for samples in (0.3 * plucked, noise))
    assert one > 2 * other


# ---- labels ----


def test_a_tag_is_never_written_as_unknown():
    dense = pseudo_labels.spread(np.array([1.0, 3.0]), np.array([[0.0] * 100, [1.0] * 100]), 100)
    assert dense.max() < pseudo_labels.UNKNOWN
    assert dense[0, 0] == 0
    assert dense[50, 0] == pytest.approx(255 * 0.51, abs=1)  # half way, token 50 is centred at 2.02 s


def test_singing_is_labelled_only_where_it_is_sure():
    tags = np.zeros((3, len(TAG_NAMES)), np.uint8)
    tags[1, TAG_NAMES.index("mtt:singing")] = round(255 * (pseudo_labels.SUNG + pseudo_labels.NO_VOICE) / 2)
    tags[2, TAG_NAMES.index("mtt:female vocal")] = 200
    assert pseudo_labels.vocals(tags).tolist() == [0, pseudo_labels.UNKNOWN, 1]


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
