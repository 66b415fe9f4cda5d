"""Weights in 8 and 4 bits: as exact as their numbers allow, loaded so, and FP8 checkpoints bit by bit as they are."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from mflamingo_cli.core.model import load, open_weights
from mflamingo_cli.core.quantized import F8_MAX, KINDS, NF4, NF4_BLOCK, Fp8, Quantized
from quant.lora import Adapted
from tests import checkpoints

CPU = torch.device("cpu")
SHAPE = (48, 200)  # three whole blocks of 64 and a part of one


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("hf") / "tiny", "musicflamingo", seed=3)


@pytest.fixture
def weights() -> torch.Tensor:
    """Rows of different sizes, one of them zero."""
    rows = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * torch.logspace(-4, 2, SHAPE[0])[:, None]
    rows[7] = 0.0
    return rows


def packed(kind: str, weights: torch.Tensor, bias: torch.Tensor | None = None) -> Quantized:
    layer = KINDS[kind](tuple(weights.shape), bias, CPU)
    for first in range(0, len(weights), 20):
        layer.put(weights[first : first + 20], first)
    return layer


def largest_errors(kind: str, weights: torch.Tensor) -> torch.Tensor:
    """How far a weight may be from what it was, by the distance of the numbers there are; float32 rounding on top."""
    by_row = weights.abs().amax(1, keepdim=True)
    blocks = nn.functional.pad(weights, (0, -weights.shape[1] % NF4_BLOCK)).unflatten(1, (-1, NF4_BLOCK)).abs().amax(2)
    gap = max(after - before for before, after in pairwise(NF4))
    return (
        1.0001
        * {
            "int8": by_row / 254,  # half of a step, 127 of which make the largest weight of the row
            "nf4": (gap / 2 * blocks).repeat_interleave(NF4_BLOCK, 1)[:, : weights.shape[1]],  # half of the widest gap
            # half of the last of three bits, or half of the smallest number, 2 ** -9, where exponents end; bf16 rounds once more
            "fp8": torch.maximum(weights.abs() * (2**-4 + 2**-8), by_row / F8_MAX * 2**-10),
        }[kind]
        + torch.zeros_like(weights)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_is_farther_off_than_its_numbers_allow(kind: str, weights: torch.Tensor) -> None:
    error = (packed(kind, weights).dense(torch.float32) - weights).abs()
    assert (error <= largest_errors(kind, weights)).all()
    assert not error[7].any(), "zeros stay zeros"


# of normally distributed weights, rms of error over rms of weights: measured, and near what is known of each (uniform steps of
# 2 * 2.9 sigma / 254; 4-bit normal floats; three bits of mantissa)
@pytest.mark.parametrize(("kind", "expected"), [("int8", 0.0065), ("nf4", 0.093), ("fp8", 0.026)])
def test_errors_are_as_small_as_known(kind: str, expected: float) -> None:
    weights = torch.randn(256, 256, generator=torch.Generator().manual_seed(2))
    error = (packed(kind, weights).dense(torch.float32) - weights).square().mean().sqrt().item()
    assert error == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_is_its_matrix(kind: str, dtype: torch.dtype) -> None:
    weights, bias = torch.randn(SHAPE), nn.Parameter(torch.randn(SHAPE[0]).to(dtype), requires_grad=False)
    layer, x = packed(kind, weights, bias), torch.randn(2, 5, SHAPE[1]).to(dtype)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.dense(dtype), bias))
    assert layer(x).dtype == dtype


def test_the_fp8_product_is_that_of_rounded_inputs() -> None:
    weights, x = torch.randn(32, 64), torch.randn(3, 5, 64).bfloat16()
    layer = packed("fp8", weights)
    assert isinstance(layer, Fp8)
    scale = x.float().abs().amax(-1, keepdim=True) / F8_MAX
    rounded = (x / scale).to(torch.float8_e4m3fn).float() * scale
    exact = rounded @ (layer.weight.float() * layer.scale).T
    product = layer.multiply(x).float()
    torch.testing.assert_close(product, exact, rtol=2**-8, atol=2**-8)  # bf16 comes out
    assert (product - x.float() @ weights.T).std() / product.std() < 0.05, "two roundings to three bits, each of 2.6 per cent"


@pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9), reason="no FP8 units")
def test_fp8_units_give_the_same_product() -> None:
    layer, x = packed("fp8", torch.randn(256, 512)), torch.randn(33, 512).bfloat16()
    assert isinstance(layer, Fp8)
    expected = layer.multiply(x)
    torch.testing.assert_close(layer.to("cuda").multiply(x.cuda()).cpu(), expected, rtol=2**-7, atol=2**-5)


def test_what_an_adapter_changes_is_not_what_is_stored(checkpoint: Path, tmp_path: Path) -> None:
    directory, _ = checkpoints.write_fp8(checkpoint, tmp_path, "channel")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    adapted = Adapted.__new__(Adapted)
    adapted.__dict__ |= open_weights(directory).__dict__ | {"deltas": {name: None}}
    assert adapted.stored_fp8(name) is None
    assert adapted.stored_fp8(name.replace("up_proj", "gate_proj")) is not None


def test_a_model_filled_by_us_is_transformers_own(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The road of computed weights, on weights that need no computing."""
    from mflamingo_cli.core import model

    filled = model._load_tensors(open_weights(checkpoint), model.read_json(checkpoint / "config.json"), torch.float32, CPU, "none", False)
    ours, theirs = filled.state_dict(), load(checkpoint).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    buffers = dict(load(checkpoint).named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in filled.named_buffers())
