"""LoRA adapters in PEFT's format, merged into the weights of their base as rows are read: W + scale * B A.

Format of peft 0.21: adapter_config.json, and adapter_model.safetensors with an A (r, in) and a B (out, r) for every changed matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from quant.arrays import Bytes, Floats
from quant.checkpoint import Checkpoint, StoredTensor, read_header, read_json
from quant.errors import QuantError
from quant.layout import ADAPTER_CONFIG, canonical, some

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of PEFT's own wrapper
HALVES = (".lora_A.weight", ".lora_B.weight")

# Settings that change more than the two halves say: what they must be, and are by default
FIXED: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False,),
    "fan_in_fan_out": (False,),
    "lora_bias": (False,),
    "alpha_pattern": ({}, None),
    "layer_replication": (None,),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),  # the others change the base too
}


@dataclass(frozen=True)
class LoraDelta:
    """What is added to one matrix: scale * b @ a."""

    a: StoredTensor  # (r, in)
    b: StoredTensor  # (out, r)
    scale: float


class Adapted(Checkpoint):
    """A checkpoint with an adapter merged into it."""

    def __init__(self, directory: Path, adapter: Path) -> None:
        super().__init__(directory)
        self.deltas = dict(_deltas(adapter, self.entries))

    def weights(self, name: str, first: int, count: int) -> Floats:
        """Read whole rows with what the adapter adds to them: (count,) float32."""
        values = super().weights(name, first, count)
        change = self.deltas.get(name)
        if change is None:
            return values
        columns, rank = self.entries[name].shape[-1], change.a.shape[0]
        assert first % columns == count % columns == 0
        a = self._read(change.a, 0, rank * columns).reshape(rank, columns)
        b = self._read(change.b, first // columns * rank, count // columns * rank).reshape(-1, rank)
        merged: Floats = values + (change.scale * (b @ a)).astype("f4").ravel()
        return merged

    def stored_fp8(self, name: str) -> tuple[Bytes, Floats, int, int] | None:
        """As for a checkpoint; what is changed is no longer what is stored."""
        return None if name in self.deltas else super().stored_fp8(name)


def base_name(adapter: Path) -> str:
    """The model that an adapter belongs to: a directory or a hub id."""
    name = read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise QuantError(f"{adapter / ADAPTER_CONFIG}: names no base_model_name_or_path")
    return name


def _deltas(adapter: Path, entries: Mapping[str, StoredTensor]) -> Iterator[tuple[str, LoraDelta]]:
    settings = read_json(adapter / ADAPTER_CONFIG)
    for name, allowed in FIXED.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise QuantError(f"{adapter / ADAPTER_CONFIG}: {name} is {settings[name]!r}; only {allowed[0]!r} can be merged")
    path = adapter / WEIGHTS
    if not path.is_file():
        raise QuantError(f"{adapter}: {WEIGHTS} is missing")
    found = {entry.name: entry for entry in read_header(path)}
    if wrong := [name for name in found if not name.startswith(PREFIX) or not name.endswith(HALVES)]:
        raise QuantError(f"{path}: {some(wrong)} is not half of a LoRA matrix; only LoRA matrices can be merged")
    stems = dict.fromkeys(name[: -len(HALVES[0])] for name in found)
    if not stems:
        raise QuantError(f"{path}: contains no LoRA matrices")
    for stem in stems:
        name = canonical(stem.removeprefix(PREFIX) + ".weight")
        yield name, _delta(path, name, [found.get(stem + half) for half in HALVES], entries.get(name), settings)


def _delta(path: Path, name: str, halves: list[StoredTensor | None], weight: StoredTensor | None, settings: Mapping[str, Any]) -> LoraDelta:
    a, b = halves
    if a is None or b is None:
        raise QuantError(f"{path}: {name} has only one half of its LoRA matrix")
    if weight is None:
        raise QuantError(f"{path}: changes {name}, which its base model does not have")
    if len(weight.shape) != 2 or a.shape[1:] != weight.shape[1:] or b.shape != (weight.shape[0], a.shape[0]):
        shapes = f"{list(b.shape)} x {list(a.shape)}"
        raise QuantError(f"{path}: changes {name} by {shapes}, which does not make its shape {list(weight.shape)}")
    rank, alpha = a.shape[0], settings.get("lora_alpha")
    if not isinstance(alpha, int | float):
        raise QuantError(f"{path.parent / ADAPTER_CONFIG}: lora_alpha is {alpha!r}, not a number")
    return LoraDelta(a, b, alpha / (sqrt(rank) if settings.get("use_rslora") else rank))
