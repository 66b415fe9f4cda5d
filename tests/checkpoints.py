"""Random-weight checkpoints in the layouts of the real ones, small enough to run in tests.

`write(directory, kind, size)` makes what `from_pretrained` and `quant.convert` read: weights, configs, tokenizer, chat template;
`write_fp8` and `publish` bring it into the other layouts that are found on the hub.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import FineGrainedFP8Config
from transformers.integrations.finegrained_fp8 import Fp8Quantize

from quant.families import FAMILIES
from quant.geometry import AudioTokens, EncoderSizes, Geometry, MelConfig, Rote, TextSizes
from quant.layout import CANONICAL_PREFIXES

# Qwen2's pre-tokenizer: words, single digits, punctuation, white space
QWEN2_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The published template's behaviour: a system turn is added when there is none, one placeholder before all text
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nSYSTEM<|im_end|>\n{% endif %}"
    "{% for m in messages if m['content'] is not none %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% set a = namespace(f=False) %}{% set t = namespace(v='') %}"
    "{% for c in m['content'] %}{% if c.get('type') == 'audio' or 'audio' in c %}{% set a.f = True %}"
    "{% elif c.get('type') == 'text' or 'text' in c %}{% set t.v = t.v + c['text'] %}{% endif %}{% endfor %}"
    "{% if a.f %}{{ '<sound>' }}{% endif %}{{ t.v }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "a minor key at 120 BPM, the chords are C, G, Am and F; bright pianos and warm strings.",
    "What is the tempo of this song?",
    "naïve café 音楽 ♯♭ 🎵",
]


# nvidia/music-flamingo-2601-hf
REAL_2601 = Geometry(
    "musicflamingo",
    MelConfig(),
    1200.0,
    EncoderSizes(d_model=1280, n_layers=32, n_heads=20, d_ffn=5120, n_positions=1500),
    TextSizes(d_model=3584, n_layers=28, n_heads=28, n_kv_heads=4, d_ffn=18944, context_length=32768, rope_theta=1e6, n_vocab=151_672),
    Rote(theta=1200.0, dim=256, n_positions=1200, frame_step_s=0.01),
    AudioTokens("<sound>", "<|sound_bos|>", "<|sound_eos|>"),
)


@dataclass(frozen=True)
class Kind:
    """What checkpoints of one class choose for themselves."""

    model_type: str
    max_audio_s: int
    system: str = "You hear music & talk about it -- regardlenss of its name."
    rote_theta: float = 1200.0
    rope_theta: float = 1e6
    context: int = 32_768
    text: str = "qwen2"


KINDS = {
    "musicflamingo": Kind("musicflamingo", 1200),  # 2601, think, the embedded model
    "audioflamingo3": Kind("audioflamingo3", 600, "You are a helpful assistant."),  # the preview
    "audioflamingonext": Kind(
        "musicflamingo", 1800, "You are Audio Flamingo-Next, an assistant for language and audio—whatever it is called.",
        rote_theta=1800.0, rope_theta=15.3e6, context=131_072,
    ),
    "llama": Kind("musicflamingo", 1200, rope_theta=1e5, context=8192, text="llama"),  # with SmolLM2's kind of text model and tokenizer
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """Geometry of a small checkpoint; rows stay multiples of 32 so that every Q8_0 block is whole."""

    d_audio: int = 64
    audio_layers: int = 2
    audio_heads: int = 2
    d_text: int = 64
    text_layers: int = 2
    text_heads: int = 4
    kv_heads: int = 2
    n_fft: int = 400
    n_mels: int = 128
    n_vocab: int = 0  # more than the tokenizer knows


SIZES = {
    "small": Size(),
    "wide": Size(d_audio=128, audio_layers=3, audio_heads=4, d_text=96, text_layers=3, text_heads=3, kv_heads=1),
    "mini": Size(d_audio=96, audio_heads=3, n_fft=2048, n_mels=256),  # the embedded model's front end
}


def write(
    directory: Path, kind: str = "musicflamingo", size: Size | str = "small", *, seed: int = 0, max_audio_len: int | None = None
) -> Path:
    """Write a checkpoint directory of one of KINDS, or of another family with that family's defaults, and return it."""
    size = SIZES[size] if isinstance(size, str) else size
    directory.mkdir(parents=True, exist_ok=True)
    chosen = KINDS.get(kind) or Kind(kind, FAMILIES[kind].max_audio_s)
    tokenizer = _write_tokenizer(directory, chosen)
    torch.manual_seed(seed)
    model = _model(chosen, size, tokenizer)
    _randomize(model)
    model.save_pretrained(directory)
    _write_json(directory, chosen, size, max_audio_len)
    return directory


def _write_tokenizer(directory: Path, kind: Kind) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if kind.text == "llama":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        tokenizer.normalizer = normalizers.NFC()
        steps = [pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokens = FAMILIES[kind.model_type].tokens
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    specials += [tokens.audio, "[BOS]", "[PAD]", tokens.bos, tokens.eos] if tokens.bos and tokens.eos else ["[PAD]", tokens.audio]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    tokenizer.save(str(directory / "tokenizer.json"))
    named = "Qwen2Tokenizer" if kind.text == "qwen2" else "PreTrainedTokenizerFast"  # as it stands in tokenizer.json
    config = {"tokenizer_class": named, "eos_token": "<|im_end|>", "pad_token": "[PAD]", "model_max_length": kind.context}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "chat_template.jinja").write_text(
        TEMPLATE.replace("SYSTEM", kind.system).replace("<sound>", tokens.audio), encoding="utf-8"
    )
    return tokenizer


def _model(kind: Kind, size: Size, tokenizer: Tokenizer) -> torch.nn.Module:
    row = FAMILIES[kind.model_type]
    audio = {
        "hidden_size": size.d_audio, "num_hidden_layers": size.audio_layers, "num_attention_heads": size.audio_heads,
        "intermediate_size": 4 * size.d_audio, "num_mel_bins": size.n_mels, "model_type": row.encoder_type,
    }  # fmt: skip
    vocab_size = max(size.n_vocab, -(-tokenizer.get_vocab_size() // 32) * 32)  # padded like the real one: more rows than tokens
    text = {
        "hidden_size": size.d_text, "num_hidden_layers": size.text_layers, "num_attention_heads": size.text_heads,
        "num_key_value_heads": size.kv_heads, "intermediate_size": 2 * size.d_text, "vocab_size": vocab_size,
        "max_position_embeddings": kind.context, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": kind.rope_theta},
        "tie_word_embeddings": False, "model_type": kind.text,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"), "pad_token_id": tokenizer.token_to_id("[PAD]"),
    }  # fmt: skip
    fields: dict[str, Any] = {"audio_token_id": tokenizer.token_to_id(row.tokens.audio)}
    if row.tokens.bos and row.tokens.eos:
        ids = [tokenizer.token_to_id(token) for token in (row.tokens.bos, row.tokens.eos)]
        fields |= dict(zip(("audio_bos_token_id", "audio_eos_token_id"), ids, strict=True))
    if row.rote:
        fields["rope_parameters"] = {"rope_type": "default", "rope_theta": kind.rote_theta, "partial_rotary_factor": row.rote.factor}
    transformers = import_module("transformers")  # which replaces itself while its parts are imported
    config = getattr(transformers, row.config_class)(audio_config=audio, text_config=text, **fields)
    return getattr(transformers, row.model_class)(config)


def _randomize(model: torch.nn.Module) -> None:
    """Weights large enough that answers depend on the audio and greedy choices are not ties; biases and norms not trivial."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 1.0 if "embed_tokens" in name else parameter[0].numel() ** -0.5)
            elif name.endswith("weight"):
                parameter.normal_(1.0, 0.1)
            else:
                parameter.normal_(0.0, 0.1)


def _write_json(directory: Path, kind: Kind, size: Size, max_audio_len: int | None) -> None:
    row = FAMILIES[kind.model_type]
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": size.n_mels, "sampling_rate": 16000, "n_fft": size.n_fft,
        "hop_length": 160, "chunk_length": 30, "n_samples": 480000, "nb_max_frames": 3000, "dither": 0.0, "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": True,
    }  # fmt: skip
    processor = {
        "processor_class": row.model_class.replace("ForConditionalGeneration", "Processor"),
        "audio_token": row.tokens.audio, "feature_extractor": extractor, "max_audio_len": max_audio_len or kind.max_audio_s,
    }  # fmt: skip
    if row.tokens.bos:
        processor |= {"audio_bos_token": row.tokens.bos, "audio_eos_token": row.tokens.eos}
    (directory / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    generation = {
        "max_new_tokens": 2048,
        "eos_token_id": _special_id(directory, "<|im_end|>"),
        "pad_token_id": _special_id(directory, "[PAD]"),
    }
    (directory / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")


def _special_id(directory: Path, name: str) -> int:
    return Tokenizer.from_file(str(directory / "tokenizer.json")).token_to_id(name)


KEPT = ["language_model.lm_head", "audio_tower", "multi_modal_projector"]  # not in FP8, as transformers' FineGrainedFP8Config names them
FP8_MAX = torch.finfo(torch.float8_e4m3fn).max


def _scheme(strategy: str, block: list[int] | None = None, *, group: int | None = None, dynamic: bool = True) -> dict[str, Any]:
    """A quantization_config as llm-compressor's FP8_DYNAMIC, FP8_BLOCK and FP8 leave it."""
    number = {"num_bits": 8, "type": "float", "symmetric": True, "group_size": None, "actorder": None, "observer_kwargs": {}}
    weights = number | {"strategy": strategy, "block_structure": block, "group_size": group, "dynamic": False, "observer": "minmax"}
    inputs = number | {"strategy": "token" if dynamic else "tensor", "block_structure": None, "dynamic": dynamic, "observer": None}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}}
    return {
        "config_groups": groups, "format": "float-quantized", "quant_method": "compressed-tensors", "kv_cache_scheme": None,
        "global_compression_ratio": None, "ignore": ["lm_head", "re:.*audio_tower.*", "re:.*multi_modal_projector.*"],
        "quantization_status": "compressed", "sparsity_config": {}, "transform_config": {}, "version": "0.13.0",
    }  # fmt: skip


def fine_grained(block: tuple[int, int] | None, scheme: str = "dynamic") -> dict[str, Any]:
    """A quantization_config as transformers leaves it."""
    config = FineGrainedFP8Config(activation_scheme=scheme, weight_block_size=block, modules_to_not_convert=KEPT)
    return {**config.to_dict(), "quant_method": "fp8"}


# Layouts of FP8 checkpoints: quantization_config, then rows and columns that share a scale (0: all of them)
FP8_LAYOUTS: dict[str, tuple[dict[str, Any], int, int]] = {
    "fine-grained": (fine_grained((32, 16)), 32, 16),
    "fine-grained-static": (fine_grained(None, "static"), 0, 0),
    "channel": (_scheme("channel"), 1, 0),
    "tensor": (_scheme("tensor", dynamic=False), 0, 0),
    "block": (_scheme("block", [48, 40]), 48, 40),  # which divides no matrix here
    "group": (_scheme("group", group=16), 1, 16),
}


def is_linear(name: str) -> bool:
    """Whether a weight is of those that FP8 checkpoints hold in FP8: matrices of the language model's layers."""
    return ".layers." in name and name.startswith("language_model") and name.endswith("proj.weight")


def write_fp8(source: Path, directory: Path, layout: str) -> tuple[Path, Path]:
    """Write `source` with the language model's linear layers in FP8, the rest in BF16, and the same dequantised to BF16."""
    settings, rows, columns = FP8_LAYOUTS[layout]
    quantized, twin = (Path(shutil.copytree(source, directory / name / source.name)) for name in (layout, "twin"))
    weights = {name: weight.bfloat16() for name, weight in load_file(source / "model.safetensors").items()}
    stored, dense = dict(weights), dict(weights)
    for name in filter(is_linear, weights):
        codes, scale = _quantize(weights[name], settings["quant_method"], rows, columns)
        dense[name] = (codes.float() * _spread(scale.float(), rows, columns, codes.shape)).bfloat16()
        layer = name.removesuffix(".weight")
        stored |= {name: codes, f"{layer}.weight_scale" + ("_inv" if settings["quant_method"] == "fp8" else ""): scale}
        if layout == "fine-grained-static":
            stored |= {f"{layer}.activation_scale": torch.tensor(0.5), f"{layer}.weight_scale_inv": scale.reshape(())}
        if layout == "tensor":
            stored |= {f"{layer}.input_scale": torch.tensor([0.5]).bfloat16(), f"{layer}.weight_scale": scale.reshape(1)}
    for place, tensors in ((quantized, stored), (twin, dense)):
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    edit_json(quantized / "config.json", quantization_config=settings, dtype="bfloat16")
    return quantized, twin


def _quantize(weight: torch.Tensor, method: str, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales (blocks down, blocks across): by transformers' own operation, or as compressed-tensors does it."""
    if method == "fp8":
        config = FineGrainedFP8Config(weight_block_size=(rows, columns) if rows else None)
        made = Fp8Quantize(SimpleNamespace(quantization_config=config)).convert({"a.weight": weight})
        return made["a.weight"], made["a.weight_scale_inv"]
    height, width = rows or weight.shape[0], columns or weight.shape[1]
    blocks = [[block.abs().max() for block in band.split(width, 1)] for band in weight.float().split(height)]
    scale = (torch.tensor(blocks) / FP8_MAX).bfloat16()
    scaled = weight / _spread(scale, rows, columns, weight.shape)  # in BF16
    return scaled.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), scale


def _spread(scale: torch.Tensor, rows: int, columns: int, shape: torch.Size) -> torch.Tensor:
    """A scale for every weight."""
    tall = scale.repeat_interleave(rows or shape[0], 0)[: shape[0]]
    return tall.repeat_interleave(columns or shape[1], 1)[:, : shape[1]]


def edit_json(path: Path, **fields: object) -> None:
    """Set fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


# What the published checkpoints differ in: kind, tokenizer class, generation settings (greedy; the preview samples), number of shards
PUBLISHED: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "2601": ("musicflamingo", "Qwen2Tokenizer", {"max_new_tokens": 2048}, 4),
    "think": ("musicflamingo", "TokenizersBackend", {"max_new_tokens": 2048}, 4),
    "preview": (
        "audioflamingo3",
        "Qwen2TokenizerFast",
        {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
        4,
    ),
    "next": ("audioflamingonext", "Qwen2Tokenizer", {"max_new_tokens": 2048}, 4),
    "next-think": ("audioflamingonext", "TokenizersBackend", {"max_new_tokens": 2048}, 4),
    "next-captioner": ("audioflamingonext", "Qwen2Tokenizer", {"max_new_tokens": 2048}, 4),
}


def publish(directory: Path, layout: str, *, seed: int = 0) -> Path:
    """Write a small checkpoint as one of NVIDIA's lies on the hub: BF16 in shards and an index, that one's JSON files."""
    kind, tokenizer_class, generation, n_shards = PUBLISHED[layout]
    write(directory, kind, seed=seed)
    weights = {name: weight.bfloat16() for name, weight in load_file(directory / "model.safetensors").items()}
    (directory / "model.safetensors").unlink()
    order = sorted(weights, key=lambda name: (name.startswith("language_model"), name))  # as in NVIDIA's index: the audio part first
    step = -(-len(order) // n_shards)
    write_shards(directory, [{name: weights[name] for name in order[first : first + step]} for first in range(0, len(order), step)])
    ends = [_special_id(directory, "<|im_end|>"), _special_id(directory, "<|endoftext|>")]
    (directory / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": ends, "pad_token_id": ends[1]}))
    edit_json(directory / "config.json", dtype="bfloat16")
    edit_json(directory / "tokenizer_config.json", tokenizer_class=tokenizer_class, backend="tokenizers")
    if layout == "preview":  # saved by a transformers that still kept the feature extractor in a file of its own
        processor = json.loads((directory / "processor_config.json").read_text())
        (directory / "preprocessor_config.json").write_text(json.dumps(processor.pop("feature_extractor")))
        del processor["max_audio_len"]
        (directory / "processor_config.json").write_text(json.dumps(processor))
    return directory


def write_stock_audio(source: Path, path: Path) -> Path:
    """Write the audio part of a preview checkpoint as llama.cpp's converter does, by gguf-py alone: BF16 matrices, none of our keys."""
    config = json.loads((source / "config.json").read_text())
    audio, weights = config["audio_config"], {}
    for shard_file in source.glob("*.safetensors"):
        weights |= load_file(shard_file)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_clip_has_audio_encoder(True)
    writer.add_audio_projection_dim(config["text_config"]["hidden_size"])
    writer.add_audio_embedding_length(audio["hidden_size"])
    writer.add_audio_feed_forward_length(audio["intermediate_size"])
    writer.add_audio_block_count(audio["num_hidden_layers"])
    writer.add_audio_head_count(audio["num_attention_heads"])
    writer.add_clip_projector_type(gguf.VisionProjectorType.MUSIC_FLAMINGO)
    writer.add_audio_num_mel_bins(audio["num_mel_bins"])
    writer.add_audio_attention_layernorm_eps(1e-5)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, audio["num_hidden_layers"] + 1)  # it counts convolutions as layers
    for name in sorted(name for name in weights if not name.startswith("language_model")):
        found = names.get_name(name.replace("multi_modal", "audio.multi_modal"), try_suffixes=(".weight", ".bias"))
        values = weights[name].float().numpy()
        if "conv" in name and name.endswith("bias"):
            values = values[:, None]
        matrix = values.ndim == 2 and name.endswith("weight") and "positions" not in name
        kind = gguf.GGMLQuantizationType.BF16 if matrix else gguf.GGMLQuantizationType.F32
        writer.add_tensor(found, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shard(directory: Path, n_shards: int = 3) -> None:
    """Split the single file into shards with an index, dealt out like cards."""
    weights = sorted(load_file(directory / "model.safetensors").items())
    write_shards(directory, [dict(weights[number::n_shards]) for number in range(n_shards)])
    (directory / "model.safetensors").unlink()


def write_shards(directory: Path, parts: list[dict[str, torch.Tensor]]) -> None:
    """Write shards and their index."""
    index = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        save_file(part, directory / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
    size = sum(weight.nbytes for part in parts for weight in part.values())
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": index}))


def rename(directory: Path) -> None:
    """Give the tensors the names that they have in memory of transformers 5."""
    weights = load_file(directory / "model.safetensors")
    new = {}
    for name, weight in weights.items():
        modern, hub = next(pair for pair in CANONICAL_PREFIXES if name.startswith(pair[1]))
        new[modern + name.removeprefix(hub)] = weight
    assert len(new) == len(weights)
    save_file(new, directory / "model.safetensors", metadata={"format": "pt"})


# What LoRAs usually change: attention of the language model, and the projector
LORA_TARGETS = (
    "language_model.model.layers.0.self_attn.q_proj",
    "language_model.model.layers.1.self_attn.v_proj",
    "multi_modal_projector.linear_2",
)


def write_lora(base: Path, directory: Path, *, rslora: bool = False, rank: int = 4, seed: int = 0) -> tuple[Path, Path]:
    """Write a LoRA adapter of `base` as peft saves it, and the checkpoint that it makes of its base."""
    adapter, merged = directory / "adapter", Path(shutil.copytree(base, directory / "merged" / "adapter"))
    adapter.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    weights, halves, alpha = load_file(base / "model.safetensors"), {}, 6
    for target in LORA_TARGETS:
        height, width = weights[f"{target}.weight"].shape
        a, b = (torch.randn(shape, generator=generator) * 0.2 for shape in ((rank, width), (height, rank)))
        memory = next(new + target.removeprefix(hub) for new, hub in CANONICAL_PREFIXES if target.startswith(hub))
        halves |= {f"base_model.model.{memory}.lora_A.weight": a, f"base_model.model.{memory}.lora_B.weight": b}
        weights[f"{target}.weight"] = weights[f"{target}.weight"] + alpha / (rank**0.5 if rslora else rank) * (b @ a)
    save_file(halves, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": rank, "lora_alpha": alpha,
        "use_rslora": rslora, "use_dora": False, "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "lora_dropout": 0.0,
        "init_lora_weights": True, "alpha_pattern": {}, "rank_pattern": {}, "modules_to_save": None, "layer_replication": None,
        "target_modules": sorted({target.rpartition(".")[2] for target in LORA_TARGETS}),
    }  # fmt: skip
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return adapter, merged
