"""Sizes of the storage types, and the choice among them."""

from __future__ import annotations

import gguf
import pytest

from quant import types
from quant.errors import QuantError
from quant.layout import Tensor
from quant.types import STORAGES, TYPES, Storage


def tensor(role: str, row: int, layer: int | None = None) -> Tensor:
    return Tensor("text", "hf", "gguf", (4, row), (4, row), role, layer)  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", STORAGES.values(), ids=lambda storage: storage.name)
def test_sizes_are_those_of_the_format(storage: Storage) -> None:
    kind = gguf.GGMLQuantizationType(storage.number)
    assert kind.name == storage.name
    assert gguf.GGML_QUANT_SIZES[kind] == (storage.block, storage.block_bytes)


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
