"""FP8 weights: how a checkpoint says they are scaled, and their decoding.

A weight is its 8-bit float times the scale of the block it lies in, rounded to BF16: the format such checkpoints were made from, and
in which transformers and compressed-tensors give them back. Layouts: `FineGrainedFP8Config` of transformers 5.23 (`weight_scale_inv`,
which despite its name multiplies) and its forerunners without blocks (`weight_scale`); compressed-tensors 0.20, as by llm-compressor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from quant.arrays import Bytes, Floats
from quant.errors import QuantError
from quant.layout import some

DTYPE = "F8_E4M3"  # safetensors' name of torch.float8_e4m3fn
SCALES = ("_scale_inv", "_scale")  # after the name of a weight
# Of activations and of a KV cache in FP8: both stay in the compute dtype here, which is closer to the model that was quantised
UNUSED_SCALES = (".input_scale", ".activation_scale", ".output_scale", ".k_scale", ".v_scale")
FORMATS = frozenset({"float-quantized", "naive-quantized"})  # of compressed-tensors: one byte per weight, nothing packed


@dataclass(frozen=True)
class Scheme:
    """How the FP8 weights of a checkpoint are scaled: `rows` x `columns` of a matrix share a number; 0 means all of them."""

    method: str  # config.json's quant_method
    rows: int
    columns: int

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Number of blocks in a matrix of `shape`, down and across; the last ones may be smaller."""
        n_rows, n_columns = shape
        return -(-n_rows // (self.rows or n_rows)), -(-n_columns // (self.columns or n_columns))

    def __str__(self) -> str:
        blocks = {(0, 0): "matrix", (1, 0): "row"}
        return f"FP8 (E4M3) with a scale per {blocks.get((self.rows, self.columns), f'{self.rows} x {self.columns} block')}"


def read(directory: Path, settings: Any) -> Scheme | None:
    """How a `quantization_config` says weights are quantised; None where there is none. Raises QuantError for any other way than FP8."""
    if not settings:
        return None
    method = str(settings.get("quant_method")) if isinstance(settings, dict) else "?"
    if method not in METHODS:
        raise QuantError(f"{directory}: quantised by {method!r}, which cannot be read; use the original, or one made by {some(METHODS)}")
    try:
        return METHODS[method](settings)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise QuantError(f"{directory}: the quantization_config of config.json is damaged; download it again") from error
    except QuantError as error:
        raise QuantError(f"{directory}: {error}") from None


def _fine_grained(settings: Mapping[str, Any]) -> Scheme:
    block = settings.get("weight_block_size")
    rows, columns = (int(size) for size in block) if block else (0, 0)
    if block and min(rows, columns) < 1:
        raise ValueError
    return Scheme("fp8", rows, columns)


def _compressed(settings: Mapping[str, Any]) -> Scheme:
    for name in ("sparsity_config", "transform_config"):
        if settings.get(name):
            raise QuantError(f"a {name} was also applied to its weights, which cannot be undone here")
    found = {_group(group, settings) for group in settings["config_groups"].values() if group.get("weights")}
    if len(found) != 1:
        raise QuantError(f"its quantization_config has {len(found)} different weight schemes; only one is supported")
    return found.pop()


# Blocks that share a scale, by `strategy`
STRATEGIES: Mapping[str, Callable[[Mapping[str, Any]], tuple[int, int]]] = {
    "tensor": lambda weights: (0, 0),
    "channel": lambda weights: (1, 0),
    "group": lambda weights: (1, int(weights["group_size"])),
    "block": lambda weights: (int(weights["block_structure"][0]), int(weights["block_structure"][1])),
}


def _group(group: Mapping[str, Any], settings: Mapping[str, Any]) -> Scheme:
    weights = group["weights"]
    packing, number = group.get("format") or settings.get("format"), f"{weights.get('num_bits')} bit {weights.get('type')}"
    if number != "8 bit float" or packing not in FORMATS or weights.get("symmetric") is False:
        raise QuantError(f"its weights are {number}, {packing}; of compressed-tensors only symmetric FP8 can be read")
    strategy = weights.get("strategy")
    if strategy not in STRATEGIES:
        raise QuantError(f"its weights are scaled per {strategy}; only {', '.join(STRATEGIES)} can be read")
    return Scheme("compressed-tensors", *STRATEGIES[strategy](weights))


METHODS: Mapping[str, Callable[[Mapping[str, Any]], Scheme]] = {"fp8": _fine_grained, "compressed-tensors": _compressed}


def from_f8(codes: Bytes) -> Floats:
    """Decode E4M3 numbers without their scales: (n,) uint8 -> (n,) float32."""
    return np.take(_values(), codes)  # five times as fast as an index


@lru_cache(maxsize=1)
def _values() -> Floats:
    """All 256 numbers: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, all ones are NaN (arXiv 2209.05433, table 1)."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    size = np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(1 + mantissa / 8, exponent - 7))
    size[code & 127 == 127] = np.nan
    values: Floats = np.where(code < 128, size, -size).astype(np.float32)
    return values


def scale(values: Floats, scales: Floats, columns: int) -> Floats:
    """Multiply rows by their scales, in place, and round to BF16: (n, row), (n, blocks across) -> (n, row)."""
    values *= scales if scales.shape[1] == 1 else np.repeat(scales, columns, axis=1)[:, : values.shape[1]]
    bits = values.view(np.uint32)
    bits += np.uint32(0x7FFF) + (bits >> 16 & 1)  # half to even
    bits &= np.uint32(0xFFFF0000)
    return values
