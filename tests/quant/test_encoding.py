"""Encoded blocks are libggml's own, and what cannot be encoded is refused."""

from __future__ import annotations

import ctypes

import gguf
import numpy as np
import pytest

from quant import encoding
from quant.errors import QuantError
from quant.providers import libraries
from quant.types import STORAGES, Storage

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


@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_are_libggmls_own_bit_by_bit(name: str) -> None:
    values, storage = rows(), BY_NAME[name]
    expected = np.empty(storage.n_bytes(values.size), np.uint8)
    pointer = ctypes.c_void_p
    [encoder] = libraries().bind({ENCODERS[name]: (None, [pointer, pointer, ctypes.c_int64])}).values()
    encoder(values.ctypes.data, expected.ctypes.data, values.size)
    np.testing.assert_array_equal(encoding.encode(values, storage), expected)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=lambda storage: storage.name)
def test_gguf_py_decodes_what_we_encode_as_we_do(storage: Storage) -> None:
    values = rows()
    encoded = encoding.encode(values, storage)
    theirs = gguf.quants.dequantize(encoded.reshape(len(values), -1), gguf.GGMLQuantizationType(storage.number))
    ours = encoding.decode(encoded, storage).reshape(values.shape)
    np.testing.assert_allclose(ours, theirs.reshape(values.shape), rtol=DECODE_TOLERANCE, atol=1e-12)
    assert not ours[36:40].any()  # zeros stay zeros
    if storage.name == "F32":
        np.testing.assert_array_equal(ours, values)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=lambda storage: storage.name)
def test_rows_encode_alone_as_together(storage: Storage) -> None:
    values = rows()
    parts = [encoding.encode(values[start : start + 5], storage) for start in range(0, len(values), 5)]
    np.testing.assert_array_equal(np.concatenate(parts), encoding.encode(values, storage))


def test_importance_moves_the_error_to_unimportant_columns() -> None:
    values = np.random.default_rng(1).standard_normal((32, ROW)).astype(np.float32)
    importance = np.ones(ROW, np.float32)
    importance[::2] = 100.0
    storage = BY_NAME["Q4_K"]
    plain = encoding.decode(encoding.encode(values, storage), storage).reshape(values.shape)
    weighted = encoding.decode(encoding.encode(values, storage, importance), storage).reshape(values.shape)

    def error(decoded: np.ndarray) -> float:
        return float(np.square(decoded - values)[:, ::2].mean())

    assert error(weighted) < error(plain)


def test_weights_that_do_not_fit_are_refused() -> None:
    values = rows()
    values[3, 3] = 1e6
    with pytest.raises(QuantError, match="do not fit F16; choose BF16"):
        encoding.encode(values, BY_NAME["F16"])
    encoding.encode(values, BY_NAME["BF16"])
    values[3, 3] = np.nan
    for storage in STORAGES.values():
        with pytest.raises(QuantError, match="NaN"):
            encoding.encode(values, storage)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=lambda storage: storage.name)
def test_a_block_is_finite_where_all_its_decoded_weights_are(storage: Storage) -> None:
    """Whichever two bytes are those of NaN: in a scale all weights of the block are none, elsewhere they are other weights."""
    whole = encoding.encode(rows(), storage)
    assert encoding.is_finite(whole, storage)
    for last in (0, 1):  # the first block, and the last one
        for place in range(0, storage.block_bytes, 2):
            broken = whole.copy()
            at = place + last * (whole.nbytes - storage.block_bytes)
            broken[at : at + 2] = (0xFF, 0x7F)
            assert encoding.is_finite(broken, storage) == bool(np.isfinite(encoding.decode(broken, storage)).all()), (place, last)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=lambda storage: storage.name)
def test_infinity_is_not_finite_and_the_largest_number_is(storage: Storage) -> None:
    number, infinity, (place, *_) = encoding.INFINITY[storage.name]
    block = np.zeros(storage.block_bytes, np.uint8)
    for bits, finite in ((infinity, False), (infinity - 1, True), (infinity | 1 << 8 * np.dtype(number).itemsize - 1, False)):
        block[place : place + np.dtype(number).itemsize] = np.array([bits], number).view(np.uint8)
        assert encoding.is_finite(block, storage) is finite
