"""CTranslate2 files written for tests: any variables, a tiny Whisper, and the same cut and twisted."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

NUMBERS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<H", len(data) + 1) + data + b"\0"


def variable(name: str | bytes, values: np.ndarray) -> bytes:
    head = struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
    return text(name) + head + struct.pack("<BI", NUMBERS[values.dtype.name], values.nbytes) + values.tobytes()


def content(
    variables: Iterable[tuple[str, np.ndarray]], aliases: Iterable[tuple[str, str]] = (), *, kind: str = "WhisperSpec", version: int = 6
) -> bytes:
    written = [variable(name, values) for name, values in variables]
    named = [text(alias) + text(name) for alias, name in aliases]
    head = struct.pack("<I", version) + text(kind) + struct.pack("<II", 3, len(written))
    return head + b"".join(written) + struct.pack("<I", len(named)) + b"".join(named)


def whisper(weights: Mapping[str, np.ndarray], n_layers: int, n_heads: int) -> dict[str, np.ndarray]:
    """Variables of a Whisper encoder, from the state of transformers' own module, in float16."""
    found = {"encoder/num_heads": np.array(n_heads, np.int16)}
    for name in ("conv1", "conv2"):
        found |= {f"encoder/{name}/{leaf}": weights[f"{name}.{leaf}"] for leaf in ("weight", "bias")}
    found["encoder/position_encodings/encodings"] = weights["embed_positions.weight"]
    norms = {"gamma": "weight", "beta": "bias"}
    found |= {f"encoder/layer_norm/{theirs}": weights[f"layer_norm.{ours}"] for theirs, ours in norms.items()}
    for layer in range(n_layers):
        to, source = f"encoder/layer_{layer}", f"layers.{layer}"
        pairs = (("self_attention/layer_norm", "self_attn_layer_norm"), ("ffn/layer_norm", "final_layer_norm"))
        found |= {f"{to}/{a}/{theirs}": weights[f"{source}.{b}.{ours}"] for a, b in pairs for theirs, ours in norms.items()}
        matrices = (("self_attention/linear_1", "self_attn.out_proj"), ("ffn/linear_0", "fc1"), ("ffn/linear_1", "fc2"))
        found |= {f"{to}/{a}/{leaf}": weights[f"{source}.{b}.{leaf}"] for a, b in matrices for leaf in ("weight", "bias")}
        attention = {part: f"{source}.self_attn.{part}_proj" for part in "qkv"}
        found[f"{to}/self_attention/linear_0/weight"] = np.concatenate([weights[f"{name}.weight"] for name in attention.values()])
        no_bias = np.zeros(len(weights[f"{attention['k']}.weight"]), np.float32)
        biases = [no_bias if part == "k" else weights[f"{name}.bias"] for part, name in attention.items()]
        found[f"{to}/self_attention/linear_0/bias"] = np.concatenate(biases)
    return {name: values if values.dtype == np.int16 else values.astype(np.float16) for name, values in found.items()}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
