"""LoRA adapters in PEFT's format, merged into the weights of their base as rows are read: W + scale * B A.

Format of peft 0.21: adapter_config.json, and adapter_model.safetensors with an A (r, in) and a B (out, r) for every changed matrix, a
magnitude (out,) more with DoRA, and whole tensors that take the place of the base's: biases, and modules that were trained whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from reprlib import repr
from typing import Any

from quant.arrays import Bytes, Floats
from quant.checkpoint import Checkpoint, StoredTensor, read_header
from quant.errors import QuantError
from quant.json_files import expect, read_json, section
from quant.layout import ADAPTER_CONFIG, canonical, some

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of PEFT's own wrapper
HALVES = (".lora_A.weight", ".lora_B.weight")
MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight")
# Patterns that repeat what repeats may be searched for longer than anybody waits
ENDLESS = re.compile(r"\)[*+{]|([*+{].*){3}", re.DOTALL)
WRAPPED = ".base_layer"  # a layer beside which low-rank matrices stand

# Settings that change more than the two halves say: what they must be, and are by default
FIXED: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "fan_in_fan_out": (False,),
    "lora_bias": (False,),
    "layer_replication": (None,),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),  # the others change the base too
}


@dataclass(frozen=True)
class LoraDelta:
    """What is added to one matrix: scale * b @ a; with a magnitude, every row of the sum is then given that length (DoRA, Liu 2024)."""

    a: StoredTensor  # (r, in)
    b: StoredTensor  # (out, r)
    scale: float
    magnitude: StoredTensor | None = None  # (out,)


class Adapted(Checkpoint):
    """A checkpoint with an adapter merged into it."""

    def __init__(self, directory: Path, adapter: Path) -> None:
        super().__init__(directory)
        found = _stored(adapter)
        self.deltas = dict(_deltas(adapter, found, self.entries))
        for name, tensor in _replaced(adapter, found, self.entries):
            self.entries[name] = tensor
            self._scales.pop(name, None)

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
        if change.magnitude is None:
            return merged
        import numpy as np

        rows = merged.reshape(-1, columns)
        lengths = self._read(change.magnitude, first // columns, len(rows)) / np.linalg.norm(rows, axis=1)
        scaled: Floats = (rows * lengths[:, None]).astype("f4").ravel()
        return scaled

    def stored_fp8(self, name: str) -> tuple[Bytes, Floats, int, int] | None:
        """As for a checkpoint; what is changed is no longer what is stored."""
        return None if name in self.deltas else super().stored_fp8(name)


def base_name(adapter: Path) -> str:
    """The model that an adapter belongs to: a directory or a hub id."""
    name = read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise QuantError(f"{adapter / ADAPTER_CONFIG}: names no base_model_name_or_path")
    return name


@dataclass(frozen=True)
class _Stored:
    """The settings of an adapter, and its tensors by their names in the file, without PEFT's prefix."""

    settings: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


def _stored(adapter: Path) -> _Stored:
    settings = read_json(adapter / ADAPTER_CONFIG)
    for name, allowed in FIXED.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise QuantError(f"{adapter / ADAPTER_CONFIG}: {name} is {repr(settings[name])}; only {repr(allowed[0])} can be merged")
    path = adapter / WEIGHTS
    if not path.is_file():
        raise QuantError(f"{adapter}: {WEIGHTS} is missing")
    found = {entry.name: entry for entry in read_header(path)}
    if wrong := [name for name in found if not name.startswith(PREFIX)]:
        raise QuantError(f"{path}: {some(wrong)} is not a tensor of a PEFT adapter")
    return _Stored(settings, {name.removeprefix(PREFIX): entry for name, entry in found.items()})


def _deltas(adapter: Path, found: _Stored, entries: Mapping[str, StoredTensor]) -> Iterator[tuple[str, LoraDelta]]:
    path = adapter / WEIGHTS
    stems = dict.fromkeys(name[: -len(HALVES[0])] for name in found.tensors if name.endswith(HALVES))
    if not stems:
        raise QuantError(f"{path}: contains no LoRA matrices")
    names: set[str] = set()
    for stem in stems:
        name = canonical(stem + ".weight")
        if name in names:
            raise QuantError(f"{path}: {name} is changed twice, under an old and a new name")
        names.add(name)
        yield name, _delta(path, stem, found, entries.get(name))


def _delta(path: Path, stem: str, found: _Stored, weight: StoredTensor | None) -> LoraDelta:
    name, (a, b) = canonical(stem + ".weight"), (found.tensors.get(stem + half) for half in HALVES)
    magnitude = next((found.tensors[stem + ending] for ending in MAGNITUDES if stem + ending in found.tensors), None)
    if a is None or b is None:
        raise QuantError(f"{path}: {name} has only one half of its LoRA matrix")
    if weight is None:
        raise QuantError(f"{path}: changes {name}, which its base model does not have")
    if len(weight.shape) != 2 or a.shape[1:] != weight.shape[1:] or b.shape != (weight.shape[0], a.shape[0]):
        shapes = f"{list(b.shape)} x {list(a.shape)}"
        raise QuantError(f"{path}: changes {name} by {shapes}, which does not match its shape {list(weight.shape)}")
    if (magnitude is not None) != bool(found.settings.get("use_dora")) or (magnitude and magnitude.shape != weight.shape[:1]):
        raise QuantError(f"{path}: {name} does not have one magnitude per row, as DoRA needs")
    rank, alpha = a.shape[0], _alpha(path, stem, found.settings)
    return LoraDelta(a, b, alpha / (sqrt(rank) if found.settings.get("use_rslora") else rank), magnitude)


def _alpha(path: Path, stem: str, settings: Mapping[str, Any]) -> float:
    """The alpha of a module: that of the first pattern that ends its name, as PEFT looks for it, or the common one."""
    where = path.parent / ADAPTER_CONFIG
    patterns = section(where, settings, "alpha_pattern")
    for pattern in patterns:
        if ENDLESS.search(pattern):
            raise QuantError(f"{where}: alpha_pattern holds {pattern!r}, which could search without an end")
    try:
        alpha = next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", stem)), settings.get("lora_alpha"))
    except (re.error, RecursionError, OverflowError) as error:
        raise QuantError(f"{where}: alpha_pattern is not a table of patterns ({error})") from error
    return expect(where, "lora_alpha", alpha, float)


def _replaced(adapter: Path, found: _Stored, entries: Mapping[str, StoredTensor]) -> Iterator[tuple[str, StoredTensor]]:
    """Whole tensors of an adapter, by the names of those whose place they take."""
    for stem, tensor in found.tensors.items():
        if stem.endswith((*HALVES, *MAGNITUDES)):
            continue
        name = canonical(stem.replace(WRAPPED, ""))
        if name not in entries or entries[name].shape != tensor.shape:
            shape = list(tensor.shape)
            raise QuantError(f"{adapter / WEIGHTS}: {name} {shape} is neither half of a LoRA matrix nor a tensor of its base model")
        yield name, replace(tensor, name=name)
