"""How a checkpoint is loaded in torch: device, dtype, quantisation, one GPU or several, and why. Sizes are bytes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from mflamingo_cli.backends import memory
from mflamingo_cli.backends.base import OpenOptions
from mflamingo_cli.core.model import load, open_weights
from mflamingo_cli.core.quantized import NF4_BLOCK, Quantized
from mflamingo_cli.errors import ModelError
from quant import vocabulary
from quant.checkpoint import Checkpoint
from quant.json_files import read_json

SPARE_BYTES = 2 << 30  # of a GPU, beside a model's weights: four minutes of music in windows, their KV cache, CUDA's libraries
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FP32_BYTES = 4  # of a weight
QUANTIZED_BYTES = {"int8": 1.0, "nf4": 0.5 + 4 / NF4_BLOCK, "fp8": 1.0}  # of a weight, a float32 scale per block included where it counts
IN_LANGUAGE_LAYER = re.compile(r"language_model\.model\.layers\.")


@dataclass(frozen=True)
class LoadedNetwork:
    """transformers' model, the device of its first layers, the dtype it computes in, that of its weights, and why."""

    network: Any
    device: torch.device
    dtype: str
    stored: str
    reason: str


def load_network(directory: Path, options: OpenOptions, adapter: Path | None = None) -> LoadedNetwork:
    """Load a checkpoint as the options ask, or as this machine allows. Raises ModelError where neither works."""
    device, why_device = choose_device(options.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs are made on the current one
    checkpoint = open_weights(directory, adapter)
    if options.quantize == "fp8" and device.type == "mps":
        raise ModelError("MPS does not support FP8; choose --quantize int8 or nf4")
    dtype, why_dtype = choose_dtype(options.dtype, device, checkpoint, options.quantize)
    if device.type == "cuda" and dtype == "fp32":
        torch.backends.cudnn.allow_tf32 = False  # convolutions too are computed in the format that was asked for
    keeps = checkpoint.scheme is not None and options.quantize == "fp8"
    if checkpoint.scheme and not keeps:
        why_dtype += f"; dequantised from {checkpoint.scheme}"
    if adapter:
        why_dtype += f"; {adapter} merged into {directory}"
    spread = is_spread(options.device, checkpoint, DTYPES[dtype].itemsize, options.quantize)
    if spread:
        why_device += f", spread over {torch.cuda.device_count()} GPUs"
    network = load(directory, dtype=DTYPES[dtype], device=device, adapter=adapter, quantize=options.quantize, spread=spread)
    if options.quantize != "none":
        why_dtype += f"; {options.quantize}: {_quantization_note(network, checkpoint if keeps else None)}"
    if spread and any(parameter.device.type != "cuda" for parameter in network.parameters()):
        raise ModelError(f"{directory}: does not fit on {torch.cuda.device_count()} GPUs; choose a smaller --quantize", code="oom")
    stored = dtype if options.quantize == "none" else f"{dtype}+{options.quantize}"
    return LoadedNetwork(network, device, dtype, stored, f"{why_device}; {why_dtype}")


def load_tokenizer(directory: Path) -> tuple[Tokenizer, str | None]:
    """Load a checkpoint's tokenizer, as it is read when it is converted, and its chat template. Raises QuantError, ModelError."""
    read = vocabulary.read(directory, read_json(directory / "config.json"))
    path = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(f"{path}: cannot be read as a tokenizer ({error}); download it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, read.chat_template


def choose_device(wanted: str) -> tuple[torch.device, str]:
    """Return the device to run on and why. Raises ModelError when it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        family = next(name for name, there in available.items() if there)
        return torch.device(family), f"{family}: the first available of {', '.join(available)}"
    family = wanted.partition(":")[0]
    if not available.get(family, False):
        raise ModelError(f"torch finds no device {wanted}; try --device auto")
    device = torch.device(wanted)
    if device.index is not None and family == "cuda" and device.index >= torch.cuda.device_count():
        raise ModelError(f"there is no {wanted}: {torch.cuda.device_count()} CUDA devices are visible")
    return device, f"{wanted}: asked for"


def is_spread(wanted: str, checkpoint: Checkpoint, bytes_per_weight: int, quantize: str) -> bool:
    """Return whether a model needs several GPUs: it is larger than what is free on the first, and no single one was asked for.

    Raises ModelError(code="oom") when it does not fit on all of them either.
    """
    needed = weight_bytes(checkpoint, bytes_per_weight, quantize)
    if wanted not in ("auto", "cuda") or not torch.cuda.is_available() or needed + SPARE_BYTES <= torch.cuda.mem_get_info(0)[0]:
        return False
    count = torch.cuda.device_count()
    left = sum(torch.cuda.mem_get_info(number)[0] for number in range(count))
    memory.require_bytes(f"the model on {count} GPU{'s' * (count > 1)}", needed, left, "choose a smaller --quantize, or --device cpu")
    return count > 1


def weight_bytes(checkpoint: Checkpoint, bytes_per_weight: int, quantize: str) -> int:
    """Return the size of the weights when they are loaded."""
    sizes = {name: prod(entry.shape) for name, entry in checkpoint.entries.items()}
    packed = sum(size for name, size in sizes.items() if IN_LANGUAGE_LAYER.match(name) and len(checkpoint.entries[name].shape) == 2)
    return int(bytes_per_weight * (sum(sizes.values()) - packed) + QUANTIZED_BYTES.get(quantize, bytes_per_weight) * packed)


def _quantization_note(model: Any, checkpoint: Checkpoint | None) -> str:
    """Say how the weights of a quantised model are stored and multiplied."""
    layers = [module for module in model.modules() if isinstance(module, Quantized)]
    kept = f"the checkpoint's own numbers, {checkpoint.scheme}, " if checkpoint else ""
    n_native = sum(module.native for module in layers)
    return f"{kept}{n_native} of {len(layers)} matrices multiplied in FP8" if n_native else f"{kept}unpacked where they are used"


def choose_dtype(wanted: str, device: torch.device, checkpoint: Checkpoint, quantize: str = "none") -> tuple[str, str]:
    """Return the name of the dtype to compute in and why."""
    if wanted != "auto":
        return wanted, f"{wanted}: asked for"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return ("bf16", f"bf16: SM {major}{minor}") if major >= 8 else ("fp16", f"fp16: SM {major}{minor} has no bf16")
    if device.type == "mps":
        new = torch.backends.mps.is_macos_or_newer(14, 0)
        return ("bf16", "bf16: MPS") if new else ("fp16", "fp16: MPS before macOS 14 has no bf16")
    n_bytes = weight_bytes(checkpoint, FP32_BYTES, quantize)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if total and n_bytes > total / 2:
        return "bf16", "bf16: fp32 weights would take more than half of the memory"
    return "fp32", "fp32: CPU"
