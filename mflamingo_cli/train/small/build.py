"""A checkpoint of pretrained parts: Whisper's encoder, a language model, and between them a projector that nobody trained yet.

Such a checkpoint is where training begins (arXiv 2511.10289, section 4); it cannot answer before its projector has learned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from transformers import MusicFlamingoConfig, MusicFlamingoForConditionalGeneration

from mflamingo_cli.core.model import Model, save
from mflamingo_cli.errors import UsageError
from mflamingo_cli.files import write_text
from mflamingo_cli.train.checkpoints import part_states
from mflamingo_cli.train.mini import tokens
from mflamingo_cli.train.mini.build import ROPE_THETA, ROTARY_SHARE, ModelSizes
from mflamingo_cli.train.small.whisper import WhisperEncoder
from quant import layout
from quant.arrays import Floats
from quant.families import FAMILIES, TEXT_FAMILIES
from quant.geometry import MelConfig, TextSizes
from quant.readback import TextModelFile

FAMILY = FAMILIES["musicflamingo"]
MAX_AUDIO_S = 60  # as much as it is taught with
HEAD_SIZE = 64  # of every language model that a stage trains
ROW_MULTIPLE = 32  # the embedding has whole blocks of Q8_0 in either direction
OWN = TextSizes(384, 6, 6, 6, 1024, context_length=16_384, rope_theta=1e6)  # a language model that is trained from nothing


@dataclass(frozen=True)
class LanguagePart:
    """A language model: its sizes without its vocabulary, its tokenizer, and its weights by the hub's names; none: random ones."""

    sizes: TextSizes
    tokenizer: Tokenizer
    weights: Mapping[str, Floats] | None = None


def own_language(texts: Iterable[str], n_vocab: int, sizes: TextSizes = OWN) -> LanguagePart:
    """Return a Qwen2 without training, with a tokenizer for the texts that it is to write."""
    return LanguagePart(sizes, tokens.train_tokenizer(texts, n_vocab))


def trained_language(work: Path, run: str) -> LanguagePart:
    """Return the language model of a run of stages, with the tokenizer of its work folder. Raises UsageError where the run has none."""
    states = part_states(work / "runs" / run)
    if not {"language_model", "lm_head"} <= states.keys():
        raise UsageError(f"{work / 'runs' / run}: this stage trained no language model; name one that did, such as words")
    tokenizer = Tokenizer.from_file(str(work / "base" / "tokenizer.json"))
    weights = {f"{layout.TEXT}.{name}": values.numpy() for name, values in states["language_model"].items()}
    weights |= {f"{layout.HEAD}.{name}": values.numpy() for name, values in states["lm_head"].items()}
    named = ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj")
    shapes = [weights[f"{layout.TEXT}.layers.0.{name}.weight"].shape for name in named]
    (rows, width), (shared, _), (ffn, _) = shapes
    n_layers = sum(name.endswith("gate_proj.weight") for name in weights)
    heads = (rows // HEAD_SIZE, shared // HEAD_SIZE)
    return LanguagePart(TextSizes(width, n_layers, *heads, ffn, context_length=ModelSizes().context, rope_theta=1e6), tokenizer, weights)


def pretrained_language(file: TextModelFile) -> LanguagePart:
    """Return the language model of a text GGUF; the tokens that mark audio are added to its vocabulary.

    Where the embedding is the output matrix too, both begin alike: transformers' class ties nothing (5.23, `_tied_weights_keys`).
    """
    tokenizer = Tokenizer.from_str(json.dumps(file.tokenizer()))
    known = set(file.file.keys["tokenizer.ggml.tokens"])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in tokens.SPECIALS if name not in known])
    weights = dict(file.weights())
    if file.tied:
        weights[f"{layout.HEAD}.weight"] = weights[f"{layout.TEXT}.embed_tokens.weight"]
    return LanguagePart(file.sizes, tokenizer, weights)


def build(encoder: WhisperEncoder, language: LanguagePart, seed: int = 0) -> Model:
    """Return a model with the weights of both parts; the projector's, and those that a part does not have, are random.

    Rows of the embedding that the language model did not have begin as the mean of those that it had.
    """
    known = (language.weights or {}).get(f"{layout.HEAD}.weight", ())
    n_rows = -(-max(language.tokenizer.get_vocab_size(), len(known)) // ROW_MULTIPLE) * ROW_MULTIPLE
    torch.manual_seed(seed)
    model = MusicFlamingoForConditionalGeneration(_config(encoder, language, n_rows))
    given = {**encoder.weights, **{name: _with_rows(name, rows, n_rows) for name, rows in (language.weights or {}).items()}}
    named = {layout.canonical(name): weight for name, weight in model.state_dict().items()}
    with torch.no_grad():
        for name, values in given.items():
            named[name].copy_(torch.tensor(values))
    return model.eval()


def _config(encoder: WhisperEncoder, language: LanguagePart, n_rows: int) -> MusicFlamingoConfig:
    sizes = vars(encoder.sizes) | {"n_mels": encoder.n_mels}
    text = vars(language.sizes) | {"n_vocab": n_rows}
    ids = tokens.special_ids(language.tokenizer)
    return MusicFlamingoConfig(
        audio_config={"model_type": FAMILY.encoder_type} | {names[-1]: sizes[size] for size, (names, _) in FAMILY.encoder.items()},
        text_config={name: text[size] for size, ((name,), _) in TEXT_FAMILIES[language.sizes.model_type].fields.items()}
        | {
            "model_type": language.sizes.model_type,
            "rope_parameters": {"rope_type": "default", "rope_theta": language.sizes.rope_theta},
            "rms_norm_eps": language.sizes.rms_eps,
            "tie_word_embeddings": False,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        audio_token_id=ids["<sound>"],
        audio_bos_token_id=ids["<|sound_bos|>"],
        audio_eos_token_id=ids["<|sound_eos|>"],
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA, "partial_rotary_factor": ROTARY_SHARE},
        attn_implementation="sdpa",
    )


def _with_rows(name: str, rows: Floats, n_rows: int) -> Floats:
    """A matrix of one row per token with as many rows as there are now; others as they are."""
    if not name.endswith(("embed_tokens.weight", "lm_head.weight")):
        return rows
    return np.concatenate([rows, np.repeat(rows.mean(0, keepdims=True), n_rows - len(rows), axis=0)])


def write(encoder: WhisperEncoder, language: LanguagePart, out: Path, card: Mapping[str, Any], seed: int = 0) -> Path:
    """Write the checkpoint directory of a model: weights in bf16, configuration, tokenizer, processor, and what it says of itself."""
    save(build(encoder, language, seed), out, dtype=torch.bfloat16)
    mel = MelConfig(n_mels=encoder.n_mels)  # Whisper's own
    tokens.write_processor(out, language.tokenizer, mel, MAX_AUDIO_S, language.sizes.context_length, language.sizes.model_type)
    (out / "model.safetensors").chmod(0o644)  # a temporary file of safetensors is private
    write_text(out / "mflamingo.json", json.dumps(dict(card), indent=2) + "\n")
    return out
