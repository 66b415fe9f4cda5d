"""Encoding of blocks, and the choice of types."""

from __future__ import annotations

import ctypes

import gguf
import numpy as np
import pytest

from quant import types
from quant.errors import QuantError
from quant.layout import Tensor
from quant.types import STORAGES, TYPES, Storage

ROW = 512
# libggml's own encoders of whole rows, which need no set-up: (float source, block target, count)
ENCODERS = {
    "F16": "ggml_fp32_to_fp16_row", "BF16": "ggml_fp32_to_bf16_row_ref", "Q8_0": "quantize_row_q8_0_ref", "Q4_0": "quantize_row_q4_0_ref",
    "Q4_1": "quantize_row_q4_1_ref", "Q5_0": "quantize_row_q5_0_ref", "Q5_1": "quantize_row_q5_1_ref", "Q2_K": "quantize_row_q2_K_ref",
    "Q3_K": "quantize_row_q3_K_ref", "Q4_K": "quantize_row_q4_K_ref", "Q5_K": "quantize_row_q5_K_ref", "Q6_K": "quantize_row_q6_K_ref",
}  # fmt: skip
DECODE_TOLERANCE = 2e-6  # relative: K-quants multiply scales in another order than gguf-py
BY_NAME = {storage.name: storage for storage in STORAGES.values()}


def rows() -> np.ndarray:
    """(64, 512) float32: ordinary, tiny, huge, one-sided, constant and all-zero blocks."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((64, ROW)).astype(np.float32)
    values[8:16] *= np.float32(1e-6)
    values[16:24] *= np.float32(1e3)
    values[24:32] = np.abs(values[24:32])
    values[32:36] = np.float32(0.25)
    values[36:40] = 0
    values[40, :256] = 0  # zero blocks beside others
    values[41, 7] = 50.0  # an outlier
    return values


def tensor(role: str, row: int, layer: int | None = None) -> Tensor:
    return Tensor("text", "hf", "gguf", (4, row), (4, row), role, layer)  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", STORAGES.values(), ids=lambda storage: storage.name)
def test_sizes_are_those_of_the_format(storage: Storage) -> None:
    kind = gguf.GGMLQuantizationType(storage.number)
    assert kind.name == storage.name
    assert gguf.GGML_QUANT_SIZES[kind] == (storage.block, storage.block_bytes)


@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_are_libggmls_own_bit_by_bit(name: str) -> None:
    values, storage = rows(), BY_NAME[name]
    expected = np.empty(storage.n_bytes(values.size), np.uint8)
    encoder = getattr(types.ggml(), ENCODERS[name])
    encoder(values.ctypes.data_as(ctypes.c_void_p), expected.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values.size))
    np.testing.assert_array_equal(types.encode(values, storage), expected)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=lambda storage: storage.name)
def test_gguf_py_decodes_what_we_encode_as_we_do(storage: Storage) -> None:
    values = rows()
    encoded = types.encode(values, storage)
    theirs = gguf.quants.dequantize(encoded.reshape(len(values), -1), gguf.GGMLQuantizationType(storage.number))
    ours = types.decode(encoded, storage).reshape(values.shape)
    np.testing.assert_allclose(ours, theirs.reshape(values.shape), rtol=DECODE_TOLERANCE, atol=1e-12)
    assert not ours[36:40].any()  # zeros stay zeros
    if storage.name == "F32":
        np.testing.assert_array_equal(ours, values)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=lambda storage: storage.name)
def test_rows_encode_alone_as_together(storage: Storage) -> None:
    values = rows()
    parts = [types.encode(values[start : start + 5], storage) for start in range(0, len(values), 5)]
    np.testing.assert_array_equal(np.concatenate(parts), types.encode(values, storage))


def test_importance_moves_the_error_to_unimportant_columns() -> None:
    values = np.random.default_rng(1).standard_normal((32, ROW)).astype(np.float32)
    importance = np.ones(ROW, np.float32)
    importance[::2] = 100.0
    storage = BY_NAME["Q4_K"]
    plain = types.decode(types.encode(values, storage), storage).reshape(values.shape)
    weighted = types.decode(types.encode(values, storage, importance), storage).reshape(values.shape)

    def error(decoded: np.ndarray) -> float:
        return float(np.square(decoded - values)[:, ::2].mean())

    assert error(weighted) < error(plain)


def test_weights_that_do_not_fit_are_refused() -> None:
    values = rows()
    values[3, 3] = 1e6
    with pytest.raises(QuantError, match="do not fit F16; choose BF16"):
        types.encode(values, BY_NAME["F16"])
    types.encode(values, BY_NAME["BF16"])
    values[3, 3] = np.nan
    for storage in STORAGES.values():
        with pytest.raises(QuantError, match="NaN"):
            types.encode(values, storage)


@pytest.mark.parametrize(
    ("mix", "role", "row", "expected"),
    [
        ("Q4_K_M", "matrix", 256, "Q4_K"), ("Q4_K_M", "matrix", 96, "Q5_0"), ("Q4_K_M", "matrix", 80, "F16"),
        ("Q5_K_M", "matrix", 96, "Q5_1"), ("Q6_K", "matrix", 96, "Q8_0"), ("Q8_0", "matrix", 80, "F16"),
        ("Q4_K_M", "output", 256, "Q6_K"), ("Q4_K_M", "output", 96, "Q8_0"), ("Q4_K_M", "output", 80, "F16"),
        ("Q4_K_M", "embedding", 256, "Q4_K"), ("Q4_K_M", "embedding", 96, "Q5_0"),
        ("Q4_K_M", "vector", 256, "F32"), ("F16", "positions", 256, "F32"), ("Q8_0", "kernel", 3, "F32"), ("BF16", "matrix", 7, "BF16"),
    ],
)  # fmt: skip
def test_type_follows_role_and_row_length(mix: str, role: str, row: int, expected: str) -> None:
    assert types.storage_for(tensor(role, row), TYPES[mix], types.Traits(8)).name == expected


def test_tied_embeddings_are_stored_like_the_output_they_are() -> None:
    assert types.storage_for(tensor("embedding", 256), TYPES["Q4_K_M"], types.Traits(8, tied=True)).name == "Q6_K"
    assert types.storage_for(tensor("embedding", 96), TYPES["Q4_K_M"], types.Traits(8, tied=True)).name == "Q8_0"


def test_half_of_the_sensitive_layers_get_more_bits() -> None:
    stored = [types.storage_for(tensor("ffn_down", 256, layer), TYPES["Q4_K_M"], types.Traits(28)).name for layer in range(28)]
    assert [layer for layer, name in enumerate(stored) if name == "Q6_K"] == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27]


def test_unknown_types_are_refused_with_the_choice() -> None:
    assert types.mix("q8_0") is TYPES["Q8_0"]
    with pytest.raises(QuantError, match="'Q3' of the audio part; choose one of F32, F16"):
        types.mix("Q3", "audio")
