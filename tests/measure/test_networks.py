"""The NumPy layers equal torch's, layer by layer and as whole networks."""

from __future__ import annotations

import numpy as np
import pytest

from mflamingo_cli.measure import networks
from mflamingo_cli.measure.layers import OFFSET, SELU_SCALE, STEPS, Activation, Convolution, InstanceNorm, Recurrence
from mflamingo_cli.measure.networks import load_weights

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


def test_cells_that_step_together_equal_torchs_alone() -> None:
    lanes = [[RNG.standard_normal(shape).astype(np.float32) for shape in ((n_in, 20), (5, 20), (20,))] for n_in in (9, 4)]
    long, short = (RNG.standard_normal((steps, n_in)).astype(np.float32) for steps, n_in in ((STEPS + 40, 9), (30, 4)))
    both = Recurrence(*map(tuple, lanes)).run(long, short)
    for lane, x in enumerate((long, short)):
        assert np.abs(both[: len(x), lane] - _torch_lstm(x, *lanes[lane])).max() < FLOAT32


def test_cells_go_on_where_they_were_unless_restarted() -> None:
    weights = tuple(RNG.standard_normal(shape).astype(np.float32) for shape in ((9, 20), (5, 20), (20,)))
    x, cells = RNG.standard_normal((40, 9)).astype(np.float32), Recurrence(weights)
    whole = _torch_lstm(x, *weights)
    assert np.abs(np.concatenate([cells.run(x[:17]), cells.run(x[17:])])[:, 0] - whole).max() < FLOAT32
    cells.restart(0)
    assert np.abs(cells.run(x)[:, 0] - whole).max() < FLOAT32


def _image(frames: int, bins: int, channels: int) -> np.ndarray:
    return (RNG.standard_normal((frames, bins, channels)) * 3 + 1).astype(np.float32)


def _torch_image(image: np.ndarray) -> torch.Tensor:
    return torch.tensor(image.transpose(2, 0, 1))[None]


@pytest.mark.parametrize(("bins", "channels", "pad", "pool"), [(252, 1, 1, 1), (252, 2, 1, 3), (28, 4, 1, 4), (7, 6, 0, 1), (9, 3, 1, 1)])
@pytest.mark.parametrize("frames", [1, 2, 33, 150])
def test_convolution_and_its_norm_equal_torch(frames: int, bins: int, channels: int, pad: int, pool: int) -> None:
    x, kernel = _image(frames, bins, channels), RNG.standard_normal((8, channels, 3, 3)).astype(np.float32)
    convolution = Convolution(np.ascontiguousarray(kernel.transpose(3, 2, 1, 0).reshape(-1, 8)), bins, pad, pool)
    got = np.empty(convolution.shape(frames), np.float32)
    norm = convolution.over(x, got)
    want = torch.nn.functional.conv2d(_torch_image(x), torch.tensor(kernel), padding=(1, pad))
    pooled = torch.nn.functional.max_pool2d(want, (1, pool))
    assert np.abs(got - pooled[0].numpy().transpose(1, 2, 0)).max() < FLOAT32 * 10
    normed = torch.nn.functional.instance_norm(pooled if pool == 1 else want)
    pooled_norm = torch.nn.functional.max_pool2d(normed, (1, pool))[0].numpy().transpose(1, 2, 0)
    assert np.abs(got * norm.scale + norm.shift - pooled_norm).max() < FLOAT32


def test_what_is_activated_first_equals_torch_at_the_edges_too() -> None:
    x, kernel = _image(70, 12, 4), RNG.standard_normal((8, 4, 3, 3)).astype(np.float32)
    mean, square = x.mean(axis=(0, 1)), np.square(x, dtype=np.float64).mean(axis=(0, 1))
    convolution = Convolution(np.ascontiguousarray(kernel.transpose(3, 2, 1, 0).reshape(-1, 8)), 12, 1)
    got = np.empty(convolution.shape(70), np.float32)
    norm = convolution.over(x, got, InstanceNorm.of(mean, square, 1))
    before = torch.selu(torch.nn.functional.instance_norm(_torch_image(x)))
    want = torch.nn.functional.instance_norm(torch.nn.functional.conv2d(before, torch.tensor(kernel), padding=1))[0].numpy()
    assert np.abs(got * norm.scale + norm.shift - want.transpose(1, 2, 0)).max() < FLOAT32


def test_norm_and_activation_equal_torch_up_to_a_constant_and_selus_scale() -> None:
    x = _image(50, 12, 4)
    norm = InstanceNorm.of(x.mean(axis=(0, 1)), np.square(x, dtype=np.float64).mean(axis=(0, 1)), 1)
    got = np.empty((50, 48), np.float32)
    Activation(norm, 12, 50).write(x.reshape(50, -1), got)
    want = torch.selu(torch.nn.functional.instance_norm(_torch_image(x)))[0].numpy().transpose(1, 2, 0)
    assert np.abs((got.reshape(x.shape) - OFFSET) * SELU_SCALE - want).max() < FLOAT32


def test_chord_network_equals_torch() -> None:
    weights = load_weights("chordia")
    spectrogram = np.abs(RNG.standard_normal((60, 252))).astype(np.float32)
    x = torch.tensor(spectrogram)[None, None]
    for name, _, pad, size in networks.LAYERS:
        kernel = weights[f"conv{name}"].reshape(3, 3, -1, weights[f"conv{name}"].shape[1]).transpose(3, 2, 1, 0)
        x = torch.nn.functional.conv2d(x, torch.tensor(np.ascontiguousarray(kernel)), padding=(1, pad))
        x = torch.nn.functional.max_pool2d(torch.selu(torch.nn.functional.instance_norm(x)), (1, size))
    hidden = x[0].permute(1, 0, 2).reshape(60, -1).numpy()
    assert np.abs(networks.Convolutions(weights, 60).over(spectrogram) - hidden).max() < NETWORK
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
