"""Tables of the two GGUF files: names and shapes of tensors, names of files.

Shapes are in the order of the checkpoint (rows first), as `Geometry.extents` names them.
The text part has llama.cpp's names of its architecture, a key of TEXT_FAMILIES; the audio part those that its `clip` loader expects of a
Music Flamingo encoder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quant.errors import QuantError
from quant.families import FAMILIES, TEXT_FAMILIES
from quant.geometry import Geometry, TextSizes

Part = Literal["text", "audio"]
PARTS: tuple[Part, ...] = ("text", "audio")
AUDIO_ARCHITECTURE = "clip"  # general.architecture; the text part's is a key of TEXT_FAMILIES
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # weights of a checkpoint: in one file, or in shards
ADAPTER_CONFIG = "adapter_config.json"  # of a LoRA
AUDIO_PREFIX = "mmproj-"  # of the audio part's file name

# The encoder is a tenth of the weights and all audio passes it: never below Q8_0 unless asked for by name
DEFAULT_AUDIO_TYPE = "Q8_0"
AUDIO_TYPES_KEPT = frozenset({"F32", "F16", "BF16", "Q8_0"})

# What a weight is, as far as its storage type depends on it; see `types.py`
Role = Literal["vector", "kernel", "positions", "matrix", "attn_v", "attn_output", "ffn_down", "embedding", "output"]


@dataclass(frozen=True)
class Rule:
    """One tensor, or one per layer where the names hold `{}`: its name in a checkpoint and in GGUF, its shape, its role."""

    hf: str
    gguf: str
    shape: tuple[str | int, ...]
    role: Role = "vector"
    gguf_shape: tuple[str | int, ...] | None = None  # where it differs
    rotated: bool = False  # its rows are channels that rotary positions turn


def _both(hf: str, gguf: str, shape: tuple[str, ...], role: Role = "vector", *, rotated: bool = False) -> tuple[Rule, Rule]:
    """A weight and its bias, which has the weight's first extent."""
    return Rule(f"{hf}.weight", f"{gguf}.weight", shape, role, None, rotated), Rule(f"{hf}.bias", f"{gguf}.bias", shape[:1])


AUDIO, AUDIO_LAYER, AUDIO_BLOCK = "audio_tower", "audio_tower.layers.{}", "a.blk.{}"
TEXT, TEXT_LAYER, HEAD = "language_model.model", "language_model.model.layers.{}", "language_model.lm_head"
D_AUDIO, D_TEXT = ("d_audio",), ("d_text",)

TENSORS: Mapping[Part, tuple[Rule, ...]] = {  # the audio part's without the projector, which the family has
    "audio": (
        Rule(f"{AUDIO}.conv1.weight", "a.conv1d.1.weight", ("d_audio", "n_mels", 3), "kernel"),
        Rule(f"{AUDIO}.conv1.bias", "a.conv1d.1.bias", D_AUDIO, gguf_shape=("d_audio", 1)),  # added to (time, channels)
        Rule(f"{AUDIO}.conv2.weight", "a.conv1d.2.weight", ("d_audio", "d_audio", 3), "kernel"),
        Rule(f"{AUDIO}.conv2.bias", "a.conv1d.2.bias", D_AUDIO, gguf_shape=("d_audio", 1)),
        Rule(f"{AUDIO}.embed_positions.weight", "a.position_embd.weight", ("n_positions", "d_audio"), "positions"),
        *_both(f"{AUDIO_LAYER}.self_attn_layer_norm", f"{AUDIO_BLOCK}.ln1", D_AUDIO),
        *_both(f"{AUDIO_LAYER}.self_attn.q_proj", f"{AUDIO_BLOCK}.attn_q", ("d_audio", "d_audio"), "matrix"),
        Rule(f"{AUDIO_LAYER}.self_attn.k_proj.weight", f"{AUDIO_BLOCK}.attn_k.weight", ("d_audio", "d_audio"), "matrix"),  # has no bias
        *_both(f"{AUDIO_LAYER}.self_attn.v_proj", f"{AUDIO_BLOCK}.attn_v", ("d_audio", "d_audio"), "attn_v"),
        *_both(f"{AUDIO_LAYER}.self_attn.out_proj", f"{AUDIO_BLOCK}.attn_out", ("d_audio", "d_audio"), "attn_output"),
        *_both(f"{AUDIO_LAYER}.final_layer_norm", f"{AUDIO_BLOCK}.ln2", D_AUDIO),
        *_both(f"{AUDIO_LAYER}.fc1", f"{AUDIO_BLOCK}.ffn_up", ("ffn_audio", "d_audio"), "matrix"),
        *_both(f"{AUDIO_LAYER}.fc2", f"{AUDIO_BLOCK}.ffn_down", ("d_audio", "ffn_audio"), "ffn_down"),
        *_both(f"{AUDIO}.layer_norm", "a.post_ln", D_AUDIO),
    ),
    "text": (
        Rule(f"{TEXT}.embed_tokens.weight", "token_embd.weight", ("n_vocab", "d_text"), "embedding"),
        Rule(f"{TEXT_LAYER}.input_layernorm.weight", "blk.{}.attn_norm.weight", D_TEXT),
        *_both(f"{TEXT_LAYER}.self_attn.q_proj", "blk.{}.attn_q", ("d_text", "d_text"), "matrix", rotated=True),
        *_both(f"{TEXT_LAYER}.self_attn.k_proj", "blk.{}.attn_k", ("d_kv", "d_text"), "matrix", rotated=True),
        *_both(f"{TEXT_LAYER}.self_attn.v_proj", "blk.{}.attn_v", ("d_kv", "d_text"), "attn_v"),
        Rule(f"{TEXT_LAYER}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", ("d_text", "d_text"), "attn_output"),
        Rule(f"{TEXT_LAYER}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", D_TEXT),
        Rule(f"{TEXT_LAYER}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", ("ffn_text", "d_text"), "matrix"),
        Rule(f"{TEXT_LAYER}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", ("ffn_text", "d_text"), "matrix"),
        Rule(f"{TEXT_LAYER}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", ("d_text", "ffn_text"), "ffn_down"),
        Rule(f"{TEXT}.norm.weight", "output_norm.weight", D_TEXT),
        Rule(f"{HEAD}.weight", "output.weight", ("n_vocab", "d_text"), "output"),  # absent when tied to the embedding
    ),
}

# Names in memory of transformers 5 -> names on the hub, which the tables above use; the first prefix that fits counts
CANONICAL_PREFIXES: tuple[tuple[str, str], ...] = (
    ("model.language_model.", "language_model.model."),
    ("model.audio_tower.", "audio_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("lm_head.", "language_model.lm_head."),
)
# Tables that some conversions store beside the weights; both runtimes compute them
IGNORED_SUFFIXES = ("pos_emb.freqs", "pos_emb.inv_freq", "pos_emb.position_angles", "rotary_emb.inv_freq")


@dataclass(frozen=True)
class Tensor:
    """A tensor that a model of given sizes must have."""

    part: Part
    hf: str
    gguf: str
    shape: tuple[int, ...]  # in the checkpoint, rows first
    gguf_shape: tuple[int, ...]  # in GGUF, rows first too (files store the reverse)
    role: Role
    layer: int | None
    d_head: int = 0  # channels of a head whose rows stand in pairs in GGUF; 0: they stand as in the checkpoint


def canonical(name: str) -> str:
    """Translate a tensor's name to the one the tables use (the hub's)."""
    for prefix, replacement in CANONICAL_PREFIXES:
        if name.startswith(prefix):
            return replacement + name[len(prefix) :]
    return name


def tensors(part: Part, geometry: Geometry, *, tied: bool = False) -> Iterator[Tensor]:
    """All tensors of a part in the order of its GGUF file, the encoder's before the projector's; `tied` models have no output matrix."""
    if part == "text":
        yield from text_tensors(geometry.text, tied=tied)
        return
    wanted, width = list(TENSORS["audio"]), "d_audio"
    for hf, gguf in FAMILIES[geometry.architecture].projector.layers:
        wanted += _both(hf, gguf, ("d_text", width), "matrix")
        width = "d_text"
    yield from expand("audio", wanted, geometry.extents, geometry.encoder.n_layers)


def text_tensors(sizes: TextSizes, *, tied: bool = False) -> Iterator[Tensor]:
    """All tensors of a text model in the order of its GGUF file."""
    wanted = [rule for rule in text_rules(sizes.model_type) if not (tied and rule.role == "output")]
    d_head = sizes.d_head if TEXT_FAMILIES[sizes.model_type].rotates_pairs else 0
    yield from expand("text", wanted, sizes.extents, sizes.n_layers, d_head)


def text_rules(model_type: str) -> list[Rule]:
    """The rules of a text model's tensors; its only biases are those of its attention."""
    return [rule for rule in TENSORS["text"] if TEXT_FAMILIES[model_type].attention_bias or not rule.hf.endswith(".bias")]


def expand(part: Part, wanted: Sequence[Rule], extents: Mapping[str, int], n_layers: int, d_head: int = 0) -> Iterator[Tensor]:
    """Yield the tensors of rules, those of layers after the others; `d_head` of those whose rows stand in pairs."""
    layers = [(rule, layer) for layer in range(n_layers) for rule in wanted if "{}" in rule.hf]
    for rule, layer in [*((rule, None) for rule in wanted if "{}" not in rule.hf), *layers]:
        shape = _numbers(rule.shape, extents)
        gguf_shape, head = _numbers(rule.gguf_shape, extents) if rule.gguf_shape else shape, d_head if rule.rotated else 0
        yield Tensor(part, rule.hf.format(layer), rule.gguf.format(layer), shape, gguf_shape, rule.role, layer, head)


def _numbers(shape: Iterable[str | int], extents: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else extents[size] for size in shape)


def file_name(part: Part, name: str, type_name: str) -> str:
    """Name of a part's file: each part carries its own type."""
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    return f"{AUDIO_PREFIX if part == 'audio' else ''}{stem}-{type_name}.gguf"


def audio_type(text_type: str) -> str:
    """Type of the audio part when none is asked for."""
    return text_type if text_type in AUDIO_TYPES_KEPT else DEFAULT_AUDIO_TYPE


def audio_file(text_file: Path) -> Path:
    """Find the audio part that belongs to a text part: the same name in front of the type, in the same directory.

    Among several the text part's own type is preferred, then the type that `convert` gives by default.
    Raises QuantError when there is none, or no telling which.
    """
    names = sorted(path.name for path in text_file.parent.glob(f"{AUDIO_PREFIX}*.gguf"))
    return text_file.with_name(audio_name(text_file.name, names, text_file))


def audio_name(text_name: str, names: Collection[str], where: object) -> str:
    """Choose among file names as `audio_file` does; an error begins with `where`."""
    text_stem = text_name.removesuffix(".gguf")
    stem, _, type_name = text_stem.rpartition("-")
    pattern = re.compile(rf"{AUDIO_PREFIX}{re.escape(stem or text_stem)}(-[^-]+)?\.gguf", re.IGNORECASE)
    found = [name for name in names if pattern.fullmatch(name)]
    for preferred in (AUDIO_PREFIX + text_name, file_name("audio", stem, audio_type(type_name.upper()))):
        if preferred in found:
            return preferred
    if len(found) == 1:
        return found[0]
    if found:
        raise QuantError(f"{where}: several audio parts beside it ({', '.join(found)}); keep one")
    raise QuantError(f"{where}: no audio part beside it; expected {AUDIO_PREFIX}{text_name}")


def hub_identity(directory: Path) -> tuple[str, str] | None:
    """Id and commit of a directory that is a snapshot in the Hugging Face cache, None for any other."""
    commit = directory.resolve()
    home = commit.parent.parent.name
    if commit.parent.name != "snapshots" or not home.startswith("models--"):
        return None
    return home.removeprefix("models--").replace("--", "/", 1), commit.name


def some(names: Collection[str], limit: int = 5) -> str:
    """Name a few, count the rest."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(sorted(names)[:limit]) + rest
