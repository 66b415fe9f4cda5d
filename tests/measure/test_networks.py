"""The NumPy layers equal torch's, layer by layer and as whole networks."""

from __future__ import annotations

import numpy as np
import pytest

from mflamingo_cli.measure import networks
from mflamingo_cli.measure.networks import activate, convolve, load_weights, lstm, moments, pool

torch = pytest.importorskip("torch")

FLOAT32 = 2e-5  # sums of up to a thousand float32 products in another order
NETWORK = 2e-3  # the same through ten layers with norms
RNG = np.random.default_rng(1)


def _torch_lstm(x: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, bias: np.ndarray) -> np.ndarray:
    layer = torch.nn.LSTM(w_x.shape[0], w_h.shape[0], batch_first=True)
    parts = {"weight_ih_l0": w_x.T, "weight_hh_l0": w_h.T, "bias_ih_l0": bias, "bias_hh_l0": 0 * bias}
    layer.load_state_dict({name: torch.tensor(np.ascontiguousarray(value)) for name, value in parts.items()})
    with torch.no_grad():
        return layer(torch.tensor(np.ascontiguousarray(x))[None])[0][0].numpy()


def test_lstm_equals_torch() -> None:
    x = RNG.standard_normal((40, 9)).astype(np.float32)
    weights = [RNG.standard_normal(shape).astype(np.float32) for shape in ((9, 20), (5, 20), (20,))]
    assert np.abs(lstm(x, *weights) - _torch_lstm(x, *weights)).max() < FLOAT32


@pytest.mark.parametrize(("bins", "channels", "pad"), [(252, 1, 1), (28, 4, 1), (7, 6, 0), (9, 3, 1)])
@pytest.mark.parametrize("frames", [1, 2, 16, 37])
def test_convolution_equals_torch(frames: int, bins: int, channels: int, pad: int) -> None:
    x = RNG.standard_normal((frames, bins, channels)).astype(np.float32)
    kernel = RNG.standard_normal((8, channels, 3, 3)).astype(np.float32)
    got = convolve(x, np.ascontiguousarray(kernel.transpose(3, 2, 1, 0).reshape(-1, 8)), pad)
    want = torch.nn.functional.conv2d(torch.tensor(x.transpose(2, 0, 1))[None], torch.tensor(kernel), padding=(1, pad))[0].numpy()
    assert np.abs(got - want.transpose(1, 2, 0)).max() < FLOAT32 * 10


def test_norm_and_activation_equal_torch_up_to_selus_scale() -> None:
    x = (RNG.standard_normal((50, 12, 4)) * 3 + 1).astype(np.float32)
    want = torch.selu(torch.nn.functional.instance_norm(torch.tensor(x.transpose(2, 0, 1))[None]))[0].numpy().transpose(1, 2, 0)
    assert np.abs(activate(x, *moments(x)) * networks.SELU_SCALE - want).max() < FLOAT32
    assert np.array_equal(pool(x, 3), x.reshape(50, 4, 3, 4).max(axis=2))


def test_chord_network_equals_torch() -> None:
    weights = load_weights("chordia")
    spectrogram = np.abs(RNG.standard_normal((60, 252))).astype(np.float32)
    x = torch.tensor(spectrogram)[None, None]
    for name, size in networks.LAYERS:
        kernel = weights[f"conv{name}"].reshape(3, 3, -1, weights[f"conv{name}"].shape[1]).transpose(3, 2, 1, 0)
        x = torch.nn.functional.conv2d(x, torch.tensor(np.ascontiguousarray(kernel)), padding=(1, 0 if name[0] == "4" else 1))
        x = torch.selu(torch.nn.functional.instance_norm(x))
        x = torch.nn.functional.max_pool2d(x, (1, size)) if size else x
    hidden = x[0].permute(1, 0, 2).reshape(60, -1).numpy()
    assert np.abs(networks.convolutions(spectrogram, weights) - hidden).max() < NETWORK
    forward = _torch_lstm(hidden, *(weights[f"forward_{part}"] for part in "xhb"))
    backward = _torch_lstm(hidden[::-1], *(weights[f"backward_{part}"] for part in "xhb"))[::-1]
    logits = np.concatenate([forward, backward], axis=1) @ weights["head"] + weights["head_b"]
    triad = torch.softmax(torch.tensor(logits[:, : networks.HEADS[0]]), 1).numpy()
    assert np.abs(networks.chord_evidence(spectrogram).triad - triad).max() < NETWORK


def test_beat_network_equals_torch() -> None:
    weights = load_weights("beatnet")
    bands = np.abs(RNG.standard_normal((80, 272))).astype(np.float32) * 0.3
    x = torch.nn.functional.conv1d(torch.tensor(bands)[:, None], torch.tensor(weights["conv"])[:, None], torch.tensor(weights["conv_b"]))
    x = torch.nn.functional.max_pool1d(torch.relu(x), 2).reshape(80, -1).numpy() @ weights["dense"] + weights["dense_b"]
    for layer in range(2):
        x = _torch_lstm(x, *(weights[f"lstm{layer}_{part}"] for part in "xhb"))
    want = torch.softmax(torch.tensor(x @ weights["head"] + weights["head_b"]), 1).numpy()
    assert np.abs(networks.beat_evidence(bands) - want).max() < NETWORK
