"""The tag networks equal the published graph, and their weights know music from noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mflamingo_cli.core.audio import load
from mflamingo_cli.measure.networks import load_weights
from mflamingo_cli.measure.tagging import NETWORKS, PATCH_SAMPLES, TAG_NAMES, TagNetwork, mel_patch, tag_evidence
from tests.measure.convert_musicnn import BATCH_NORM_EPS, CONVS, NORMS, state_of, variable

RNG = np.random.default_rng(7)
RATE = 16_000
SONG = Path(__file__).with_name("sung.opus")
FLOAT32 = 1e-5  # rounding of sums of a few thousand float32 products near 1


def variables(classes: int = 5) -> dict[str, np.ndarray]:
    """Variables of a whole network, named as TensorFlow names them."""
    found: dict[str, np.ndarray] = {}
    for number, shape in enumerate([(7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51),
                                    (7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)]):  # fmt: skip
        name = variable("conv2d", number)
        found[f"{name}/kernel"] = RNG.normal(0, 0.05, shape).astype(np.float32)
        found[f"{name}/bias"] = RNG.normal(0, 0.1, shape[-1]).astype(np.float32)
    for number, size in enumerate([1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200]):
        name = variable("batch_normalization", number)
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
        p = variable("batch_normalization", number)
        scale = v[f"{p}/gamma"] / np.sqrt(v[f"{p}/moving_variance"] + 1e-3)
        return (x - v[f"{p}/moving_mean"]) * scale + v[f"{p}/beta"]

    def conv(x: np.ndarray, number: int, pad: tuple[int, int]) -> np.ndarray:
        p = variable("conv2d", number)
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


def test_the_network_follows_the_published_graph() -> None:
    tensors = variables()
    network = TagNetwork({f"n/{name}": value.astype(np.float32) for name, value in state_of(tensors).items()}, "n")
    for patch in RNG.gamma(0.5, 1.0, (2, 140, 96)).astype(np.float32):
        np.testing.assert_allclose(network(patch), reference(tensors, patch), atol=FLOAT32)


def published(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `state_of`: a network's arrays as the variables of a checkpoint."""
    tensors = {}
    for number, norm in enumerate(NORMS):
        name, scale = variable("batch_normalization", number), state[f"{norm}.scale"]
        tensors |= {f"{name}/gamma": scale, f"{name}/beta": state[f"{norm}.shift"], f"{name}/moving_mean": 0 * scale}
        tensors[f"{name}/moving_variance"] = np.full_like(scale, 1 - BATCH_NORM_EPS)
    for number, conv in enumerate(CONVS):
        weight = state[f"{conv}.weight"]
        kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.transpose(2, 1, 0)[:, :, None]
        tensors[f"{variable('conv2d', number)}/kernel"] = kernel
        tensors[f"{variable('conv2d', number)}/bias"] = state[f"{conv}.bias"]
    for name, layer in (("dense", "dense"), ("dense_1", "head")):
        tensors |= {f"{name}/kernel": state[f"{layer}.weight"].T, f"{name}/bias": state[f"{layer}.bias"]}
    return tensors


def test_the_shipped_networks_follow_it_on_a_real_song() -> None:
    samples = load(SONG).samples[12 * RATE :][:PATCH_SAMPLES]
    weights = load_weights("musicnn")
    for name in NETWORKS:
        own = {key.partition("/")[2]: value for key, value in weights.items() if key.startswith(f"{name}/")}
        patch = mel_patch(samples)
        np.testing.assert_allclose(TagNetwork(weights, name)(patch), reference(published(own), patch), atol=FLOAT32)


def test_patches_are_spread_evenly_and_short_songs_are_padded() -> None:
    times, tags = tag_evidence(RNG.normal(0, 0.1, 16 * RATE).astype(np.float32), 2)
    assert tags.shape == (2, len(TAG_NAMES))
    np.testing.assert_allclose(times, [4, 12], atol=0.01)
    assert len(tag_evidence(np.zeros(7 * RATE, np.float32), 12)[0]) == 2
    assert tag_evidence(np.zeros(1000, np.float32), 12)[1].shape == (1, len(TAG_NAMES))


def test_the_shipped_weights_know_a_plucked_string_from_noise() -> None:
    seconds = np.arange(4 * RATE) / RATE
    plucked = sum(np.sin(2 * np.pi * 196 * k * seconds) * np.exp(-3 * k * (seconds % 0.5)) / k for k in range(1, 9)).astype(np.float32)
    noise = RNG.normal(0, 0.3, len(seconds)).astype(np.float32)
    guitar = TAG_NAMES.index("mtt:guitar")
    one, other = (tag_evidence(samples, 1)[1][:, guitar].mean() for samples in (0.3 * plucked, noise))
    assert one > 2 * other
