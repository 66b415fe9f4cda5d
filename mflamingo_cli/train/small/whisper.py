"""Whisper's encoder out of a CTranslate2 model.bin, under the names that a checkpoint's audio tower has.

The two are the same network (openai/whisper, arXiv 2212.04356): Music Flamingo's averages pairs of positions before the last normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quant import ctranslate2, layout
from quant.arrays import Floats
from quant.ctranslate2 import CTranslate2File
from quant.errors import QuantError
from quant.geometry import EncoderSizes

KIND = "WhisperSpec"
MAX_LAYERS = 128
NORM = {"gamma": "weight", "beta": "bias"}  # of a normalisation: CTranslate2's names -> the checkpoint's
LAYER_NORMS = {"self_attention/layer_norm": "self_attn_layer_norm", "ffn/layer_norm": "final_layer_norm"}
LAYER_MATRICES = {"self_attention/linear_1": "self_attn.out_proj", "ffn/linear_0": "fc1", "ffn/linear_1": "fc2"}
JOINED = "self_attention/linear_0"  # rows of queries, keys and values, one matrix after the other


@dataclass(frozen=True)
class WhisperEncoder:
    """An encoder's sizes, its mel bands, and its weights by the hub's names of an audio tower."""

    sizes: EncoderSizes
    n_mels: int
    weights: dict[str, Floats]


def read_encoder(path: Path) -> WhisperEncoder:
    """Read the encoder of a Whisper model. Raises QuantError that names what the file lacks or what is not as Whisper has it."""
    file = ctranslate2.read(path)
    if file.kind != KIND:
        raise QuantError(f"{path}: a model of kind {file.kind!r}, not {KIND}")
    sizes, n_mels = _sizes(file)
    weights = {f"{layout.AUDIO}.{name}": values for name, values in _weights(file, sizes)}
    for tensor in layout.expand("audio", layout.TENSORS["audio"], {**sizes.extents, "n_mels": n_mels}, sizes.n_layers):
        if weights[tensor.hf].shape != tensor.shape:
            raise QuantError(f"{path}: {tensor.hf} has shape {list(weights[tensor.hf].shape)}, not {list(tensor.shape)}")
    return WhisperEncoder(sizes, n_mels, weights)


def _sizes(file: CTranslate2File) -> tuple[EncoderSizes, int]:
    conv, ffn, positions = (
        file.floats(f"encoder/{name}").shape for name in ("conv1/weight", "layer_0/ffn/linear_0/weight", "position_encodings/encodings")
    )
    if (len(conv), len(ffn), len(positions)) != (3, 2, 2):
        raise QuantError(f"{file.path}: its encoder's matrices have other dimensions than Whisper's")
    n_layers = next((n for n in range(MAX_LAYERS + 1) if f"encoder/layer_{n}/ffn/linear_0/weight" not in file.variables), 0)
    n_heads = file.whole("encoder/num_heads")
    if not n_layers or n_heads < 1 or conv[0] % n_heads:
        raise QuantError(f"{file.path}: {n_heads} heads in {n_layers} layers of {conv[0]} channels are no Whisper encoder")
    return EncoderSizes(conv[0], n_layers, n_heads, ffn[0], positions[0]), conv[1]


def _weights(file: CTranslate2File, sizes: EncoderSizes) -> Iterator[tuple[str, Floats]]:
    for name in ("conv1", "conv2"):
        for leaf in ("weight", "bias"):
            yield f"{name}.{leaf}", file.floats(f"encoder/{name}/{leaf}")
    yield "embed_positions.weight", file.floats("encoder/position_encodings/encodings")
    for theirs, ours in NORM.items():
        yield f"layer_norm.{ours}", file.floats(f"encoder/layer_norm/{theirs}")
    for layer in range(sizes.n_layers):
        source, target = f"encoder/layer_{layer}", f"layers.{layer}"
        for name, named in LAYER_NORMS.items():
            for theirs, ours in NORM.items():
                yield f"{target}.{named}.{ours}", file.floats(f"{source}/{name}/{theirs}")
        for name, named in LAYER_MATRICES.items():
            for leaf in ("weight", "bias"):
                yield f"{target}.{named}.{leaf}", file.floats(f"{source}/{name}/{leaf}")
        yield from _attention(file, f"{source}/{JOINED}", f"{target}.self_attn", sizes.d_model)


def _attention(file: CTranslate2File, source: str, target: str, width: int) -> Iterator[tuple[str, Floats]]:
    """Queries, keys and values out of their joined matrix; keys have no bias in Whisper, which CTranslate2 stores as zeros."""
    for leaf in ("weight", "bias"):
        joined = file.floats(f"{source}/{leaf}")
        if len(joined) != 3 * width:
            raise QuantError(f"{file.path}: {source}/{leaf} has {len(joined)} rows, not {3 * width}")
        for part, rows in zip("qkv", (joined[:width], joined[width : 2 * width], joined[2 * width :]), strict=True):
            if (part, leaf) != ("k", "bias"):
                yield f"{target}.{part}_proj.{leaf}", rows
            elif rows.any():
                raise QuantError(f"{file.path}: {source}/{leaf} has a bias of keys, which Whisper's attention has not")
