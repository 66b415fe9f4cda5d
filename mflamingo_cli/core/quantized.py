"""Linear layers whose weights take 8 or 4 bits: quantised as they are loaded, unpacked where they are used.

They save memory, not time; only FP8 is multiplied as it is, on GPUs with FP8 units. Written here because the libraries do not cover it:
bitsandbytes has no FP8 and no MPS, torchao does not keep the FP8 numbers of a checkpoint, and CPU tests cannot reach their kernels.
Shapes are those of `torch.nn.Linear`: (out, in).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from quant.checkpoint import Checkpoint

BLOCK_WEIGHTS = 1 << 22  # quantised at once
NF4_BLOCK = 64  # weights that share a number (QLoRA, arXiv 2305.14314, sec. 3)
NF4 = (  # its appendix E: quantiles of the normal distribution, scaled to -1..1
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434,
    0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
F8 = torch.float8_e4m3fn
F8_MAX = torch.finfo(F8).max
F8_SHAPE = 16  # cuBLAS multiplies FP8 matrices of multiples of this
TINY = torch.finfo(torch.float32).tiny  # scale of weights that are all zero


class Quantized(nn.Module):
    """A linear layer with packed weights in the buffer `weight` and their scales in `scale`, one per row where its class says no other."""

    weight: torch.Tensor
    scale: torch.Tensor
    number: torch.dtype  # of a packed weight
    largest: float  # of these numbers

    def __init__(self, shape: tuple[int, int], bias: Any, device: torch.device) -> None:
        super().__init__()
        self.out_features, self.in_features = shape
        self.bias, self.native = bias, False
        self.allocate(device)

    def allocate(self, device: torch.device) -> None:
        """Register the buffers, uninitialised: a number per weight, a scale per row."""
        self.register_buffer("weight", torch.empty(self.out_features, self.in_features, dtype=self.number, device=device))
        self.register_buffer("scale", torch.empty(self.out_features, 1, device=device))

    def put(self, rows: torch.Tensor, first: int) -> None:
        """Quantise rows of the matrix, (n, in) float32, from row `first` on: round to the nearest."""
        scale = rows.abs().amax(1, keepdim=True).clamp(min=TINY) / self.largest
        part, values = slice(first, first + len(rows)), rows / scale
        self.weight[part], self.scale[part] = (values if self.number.is_floating_point else values.round()).to(self.number), scale

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the dequantised matrix, (out, in)."""
        raise NotImplementedError

    def fill(self, weights: Checkpoint, name: str) -> None:
        """Quantise a matrix of a checkpoint, block by block."""
        first = 0
        for rows in weights.blocks(name, BLOCK_WEIGHTS):
            self.put(torch.tensor(rows, device=self.weight.device), first)
            first += len(rows)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x, self.dense(x.dtype), self.bias)


class Int8(Quantized):
    """Integers from -127 to 127, one scale per row: an error of at most 1/254 of the largest weight of the row."""

    number, largest = torch.int8, 127

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """Multiplied in float32, rounded once."""
        return torch.mul(self.weight, self.scale, out=torch.empty_like(self.weight, dtype=dtype))


class Nf4(Quantized):
    """4-bit normal floats, two in a byte, one scale per 64 weights of a row: about a tenth of a weight's size off."""

    table: torch.Tensor

    def allocate(self, device: torch.device) -> None:
        """Half a byte per weight; rows are filled up to whole blocks."""
        self._n_blocks = -(-self.in_features // NF4_BLOCK)
        half = self._n_blocks * NF4_BLOCK // 2
        self.register_buffer("weight", torch.empty(self.out_features, half, dtype=torch.uint8, device=device))
        self.register_buffer("scale", torch.empty(self.out_features, self._n_blocks, 1, device=device))
        values = torch.tensor(NF4, device=device)
        self.register_buffer("table", torch.stack([values.repeat_interleave(16), values.repeat(16)], 1))  # byte -> its two weights

    def put(self, rows: torch.Tensor, first: int) -> None:
        """Take the nearest of the sixteen."""
        blocks = F.pad(rows, (0, self._n_blocks * NF4_BLOCK - self.in_features)).unflatten(1, (self._n_blocks, NF4_BLOCK))
        scale = blocks.abs().amax(2, keepdim=True).clamp(min=TINY)
        values = torch.tensor(NF4, device=rows.device)
        codes = torch.bucketize(blocks / scale, (values[1:] + values[:-1]) / 2).to(torch.uint8).flatten(1)
        part = slice(first, first + len(rows))
        self.weight[part], self.scale[part] = codes[:, ::2] << 4 | codes[:, 1::2], scale

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """Looked up by pairs."""
        values = F.embedding(self.weight.int(), self.table).view(*self.scale.shape[:2], NF4_BLOCK)
        scaled = torch.mul(values, self.scale, out=torch.empty_like(values, dtype=dtype))
        return scaled.flatten(1)[:, : self.in_features]


class Fp8(Quantized):
    """8-bit floats (E4M3), one scale per row, or the numbers and the scales of an FP8 checkpoint as they are."""

    number, largest = F8, F8_MAX

    def allocate(self, device: torch.device) -> None:
        """A scale per row, as long as no checkpoint brings others."""
        super().allocate(device)
        self.rows, self.columns = 1, self.in_features  # that share a scale

    def fill(self, weights: Checkpoint, name: str) -> None:
        """Keep what is FP8 already."""
        stored = weights.stored_fp8(name)
        if stored is None:
            super().fill(weights, name)
        else:
            numbers, scales, self.rows, self.columns = stored
            self.weight.copy_(torch.tensor(numbers).view(F8))
            self.scale = torch.tensor(scales, device=self.weight.device)
            if self.scale.numel() == 1:
                self.scale, self.rows = self.scale.repeat(self.out_features, 1), 1
        by_row = self.rows == 1 and self.columns >= self.in_features
        whole = self.in_features % F8_SHAPE == self.out_features % F8_SHAPE == 0
        self.native = by_row and whole and multiplies_fp8(self.weight.device)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """Rounded to bf16 in between, as `quant.fp8` decodes them."""
        scale = self.scale
        if self.rows > 1:
            scale = scale.repeat_interleave(self.rows, 0)[: self.out_features]
        if scale.shape[1] > 1:
            scale = scale.repeat_interleave(self.columns, 1)[:, : self.in_features]
        values = self.weight.to(torch.bfloat16)
        return torch.mul(values, scale, out=values).to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        return self.multiply(x) if self.native else super().forward(x)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """The product in FP8, what comes in rounded to it too, with a scale per row."""
        rows = x.reshape(-1, self.in_features)
        scale = rows.abs().amax(1, keepdim=True).float().clamp(min=TINY) / F8_MAX
        product = torch._scaled_mm((rows / scale).to(F8), self.weight.t(), scale, self.scale.t(), out_dtype=torch.bfloat16).to(x.dtype)
        product = product if self.bias is None else product + self.bias
        return product.view(*x.shape[:-1], self.out_features)


KINDS: dict[str, type[Quantized]] = {"int8": Int8, "nf4": Nf4, "fp8": Fp8}


def multiplies_fp8(device: torch.device) -> bool:
    """Return whether a device has FP8 units: NVIDIA's from Ada on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)
