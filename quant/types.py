"""Storage types, and which tensor gets which. Sizes are bytes.

The mixes are llama-quantize's: a file of ours and a file of llama.cpp hold the same types, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

from quant.errors import QuantError

if TYPE_CHECKING:  # the command line reads the table of types
    from quant.layout import Part, Role, Tensor


@dataclass(frozen=True)
class Storage:
    """A ggml type: its number in files, `block` weights in `block_bytes` bytes, and the largest relative error that is still rounding."""

    name: str
    number: int
    block: int
    block_bytes: int
    max_error: float

    def n_bytes(self, n_weights: int) -> int:
        """Size of whole rows that hold `n_weights` together."""
        assert n_weights % self.block == 0
        return n_weights // self.block * self.block_bytes


# Sizes as the sums of what a block holds (ggml-common.h): scales, minima, high bits, low bits. Not from gguf.GGML_QUANT_SIZES, which a test
# compares: opening a pair reads them, and importing gguf takes 0.06 s.
# Errors about twice those of normally distributed weights (measured: F16 .0002, BF16 .0017, Q8_0 .0054, Q6_K .018, Q5_K .036, Q5_1 .038,
# Q5_0 .043, Q4_K .071, Q4_1 .078, Q4_0 .086, Q3_K .15, Q2_K .30)
F32 = Storage("F32", 0, 1, 4, 0.0)
F16 = Storage("F16", 1, 1, 2, 5e-4)
BF16 = Storage("BF16", 30, 1, 2, 4e-3)
Q8_0 = Storage("Q8_0", 8, 32, 2 + 32, 0.012)
Q4_0 = Storage("Q4_0", 2, 32, 2 + 16, 0.18)
Q4_1 = Storage("Q4_1", 3, 32, 2 + 2 + 16, 0.16)
Q5_0 = Storage("Q5_0", 6, 32, 2 + 4 + 16, 0.1)
Q5_1 = Storage("Q5_1", 7, 32, 2 + 2 + 4 + 16, 0.09)
Q2_K = Storage("Q2_K", 10, 256, 2 + 2 + 16 + 64, 0.6)
Q3_K = Storage("Q3_K", 11, 256, 2 + 12 + 32 + 64, 0.3)
Q4_K = Storage("Q4_K", 12, 256, 2 + 2 + 12 + 128, 0.15)
Q5_K = Storage("Q5_K", 13, 256, 2 + 2 + 12 + 32 + 128, 0.08)
Q6_K = Storage("Q6_K", 14, 256, 128 + 64 + 16 + 2, 0.04)
STORAGES: Mapping[int, Storage] = {
    storage.number: storage for storage in (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K)
}
FLOATS = (F32, F16, BF16)
# Types that are not written here and stand in other makers' files: of weights, and of what is multiplied by none
FOREIGN: Mapping[int, Storage] = {
    number: Storage(name, number, block, block_bytes, inf)
    for name, number, block, block_bytes in (
        ("IQ2_XXS", 16, 256, 66), ("IQ2_XS", 17, 256, 74), ("IQ3_XXS", 18, 256, 98), ("IQ1_S", 19, 256, 50), ("IQ4_NL", 20, 32, 18),
        ("IQ3_S", 21, 256, 110), ("IQ2_S", 22, 256, 82), ("IQ4_XS", 23, 256, 136), ("IQ1_M", 29, 256, 56), ("TQ1_0", 34, 256, 54),
        ("TQ2_0", 35, 256, 66), ("MXFP4", 39, 32, 17), ("NVFP4", 40, 64, 36), ("Q1_0", 41, 128, 18),
        ("Q8_1", 9, 32, 40), ("Q8_K", 15, 256, 292), ("F64", 28, 1, 8),
        ("I8", 24, 1, 1), ("I16", 25, 1, 2), ("I32", 26, 1, 4), ("I64", 27, 1, 8),
    )
}  # fmt: skip
NOT_WEIGHTS = frozenset({"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"})

# Rows that are not whole blocks of 256 take the type of about the same size with blocks of 32, like llama-quantize; else F16
FALLBACKS: Mapping[Storage, Storage] = {Q2_K: Q4_0, Q3_K: Q4_0, Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0}

# What rounds by importance where it is known; the others round to the nearest anyway
WEIGHED = frozenset({Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K})

GROUPED = 4  # query heads that share one V matrix, from which that matrix is small enough to be stored in Q4_K always

Layers: TypeAlias = Callable[[int, int], bool]  # (layer, number of layers) -> whether an upgrade holds there


def everywhere(layer: int, n_layers: int) -> bool:
    """All layers."""
    return True


def first(count: int) -> Layers:
    """The first few layers: what they get wrong passes through all others."""
    return lambda layer, n_layers: layer < count


def first_part(parts: int) -> Layers:
    """The first eighth, or another part, of all layers."""
    return lambda layer, n_layers: layer < n_layers // parts


def spread(layer: int, n_layers: int) -> bool:
    """About half of the layers: the first and last eighth, and every third between, so that errors do not add up unchecked."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


@dataclass(frozen=True)
class Traits:
    """What the choice of types depends on besides the tensor itself."""

    n_layers: int
    n_grouped: int = 1  # query heads for each key and value head
    tied: bool = False  # the embedding is the output matrix too
    has_imatrix: bool = False


@dataclass(frozen=True)
class Upgrade:
    """Matrices of one role that get another type than the mix's base, in the layers that `where` names, if the model is so."""

    role: Role
    storage: Storage
    where: Layers = everywhere
    when: Literal["always", "grouped", "imatrix"] = "always"

    def holds(self, role: Role, layer: int | None, traits: Traits) -> bool:
        """Whether this decides on a matrix."""
        met = {"always": True, "grouped": traits.n_grouped >= GROUPED, "imatrix": traits.has_imatrix}
        return role == self.role and layer is not None and met[self.when] and self.where(layer, traits.n_layers)


@dataclass(frozen=True)
class Mix:
    """What `--type NAME` means: `base` for every matrix but the output's and those of `upgrades`, of which the first that holds counts.

    `output` is the matrix in front of the softmax: its errors reach the choice of every token unfiltered.
    """

    name: str
    file_type: int  # `general.file_type`: enum llama_ftype of llama.cpp
    base: Storage
    output: Storage
    upgrades: tuple[Upgrade, ...] = ()

    def storage(self, role: Role, layer: int | None, traits: Traits) -> Storage:
        """Type for a matrix, before its row length is looked at."""
        if role == "output" or (role == "embedding" and traits.tied):
            return self.output
        return next((upgrade.storage for upgrade in self.upgrades if upgrade.holds(role, layer, traits)), self.base)


# The mixes of llama-quantize. Which matrices get more bits, and why:
#   attn_v       what it gets wrong is averaged into every result, where errors of Q and K only shift the weights of that average;
#                with grouped heads it is small and feeds several of them
#   ffn_down     reads the widest, spikiest activations, and adds straight to the residual stream
#   attn_output  adds straight to the residual stream; below 4 bits that shows
TYPES: Mapping[str, Mix] = {
    mix.name: mix
    for mix in (
        Mix("F32", 0, F32, F32),
        Mix("F16", 1, F16, F16),
        Mix("BF16", 32, BF16, BF16),
        Mix("Q8_0", 7, Q8_0, Q8_0),
        Mix("Q6_K", 18, Q6_K, Q6_K),
        Mix("Q5_K_M", 17, Q5_K, Q6_K, (Upgrade("attn_v", Q6_K, spread), Upgrade("ffn_down", Q6_K, spread))),
        Mix("Q5_K_S", 16, Q5_K, Q6_K),
        Mix("Q4_K_M", 15, Q4_K, Q6_K, (Upgrade("attn_v", Q6_K, spread), Upgrade("ffn_down", Q6_K, spread))),
        Mix("Q4_K_S", 14, Q4_K, Q6_K, (Upgrade("attn_v", Q5_K, first(4)), Upgrade("ffn_down", Q5_K, first_part(8)))),
        Mix("Q4_0", 2, Q4_0, Q6_K, (Upgrade("ffn_down", Q4_1, first_part(8), "imatrix"),)),  # Q4_0 has no minima
        Mix("Q3_K_L", 13, Q3_K, Q6_K, (Upgrade("attn_v", Q5_K), Upgrade("ffn_down", Q5_K), Upgrade("attn_output", Q5_K))),
        Mix(
            "Q3_K_M", 12, Q3_K, Q6_K,
            (
                Upgrade("attn_v", Q5_K, first(2)), Upgrade("attn_v", Q4_K),
                Upgrade("ffn_down", Q5_K, first_part(16)), Upgrade("ffn_down", Q4_K),
                Upgrade("attn_output", Q4_K),
            ),
        ),
        Mix("Q3_K_S", 11, Q3_K, Q6_K),
        Mix(
            "Q2_K", 10, Q2_K, Q6_K,
            (Upgrade("attn_v", Q4_K, when="grouped"), Upgrade("attn_v", Q3_K), Upgrade("ffn_down", Q3_K), Upgrade("attn_output", Q3_K)),
        ),
    )
}  # fmt: skip


def storage_for(tensor: Tensor, mix: Mix, traits: Traits) -> Storage:
    """Type in which a tensor is stored: vectors, positions and convolution kernels in F32, matrices by the mix."""
    if tensor.role in ("vector", "positions", "kernel"):
        return F32
    return fit(mix.storage(tensor.role, tensor.layer, traits), tensor, tied=traits.tied)


def fit(storage: Storage, tensor: Tensor, *, tied: bool = False) -> Storage:
    """Replace a type whose blocks do not divide the tensor's rows."""
    row = tensor.gguf_shape[-1]
    if row % storage.block == 0:
        return storage
    head = tensor.role == "output" or (tensor.role == "embedding" and tied)
    fallback = Q8_0 if head else FALLBACKS.get(storage, storage)
    return fallback if row % fallback.block == 0 else F16


def mix(name: str, part: Part = "text") -> Mix:
    """Look a type up by its name, in any case. Raises QuantError that lists the names."""
    found = TYPES.get(name.upper())
    if found is None:
        raise QuantError(f"unknown type {name!r} of the {part} part; choose one of {', '.join(TYPES)}")
    return found
