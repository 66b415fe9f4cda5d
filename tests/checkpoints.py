"""Random-weight checkpoints in the layouts of the real ones, small enough to run in tests.

`write(directory, kind, size)` makes what `from_pretrained` and `quant.convert` read: weights, configs, tokenizer, chat template.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
)

# Qwen2's pre-tokenizer: words, single digits, punctuation, white space
QWEN2_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SYSTEM = {
    "musicflamingo": "You hear music & talk about it -- regardlenss of its name.",
    "audioflamingo3": "You are a helpful assistant.",
}
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
SPECIALS = {
    "musicflamingo": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>", "[BOS]", "[PAD]", "<|sound_bos|>", "<|sound_eos|>"],
    "audioflamingo3": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD]", "<sound>"],
}
CORPUS = [
    "a minor key at 120 BPM, the chords are C, G, Am and F; bright pianos and warm strings.",
    "What is the tempo of this song?",
    "naïve café 音楽 ♯♭ 🎵",
]


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


SIZES = {
    "small": Size(),
    "wide": Size(d_audio=128, audio_layers=3, audio_heads=4, d_text=96, text_layers=3, text_heads=3, kv_heads=1),
    "mini": Size(d_audio=96, audio_heads=3, n_fft=2048, n_mels=256),  # the embedded model's front end
}


def write(
    directory: Path, kind: str = "musicflamingo", size: Size | str = "small", *, seed: int = 0, max_audio_len: int | None = None
) -> Path:
    """Write a checkpoint directory of class `kind` ("musicflamingo": 2601, think, mini; "audioflamingo3": preview) and return it."""
    size = SIZES[size] if isinstance(size, str) else size
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _write_tokenizer(directory, kind)
    torch.manual_seed(seed)
    model = _model(kind, size, tokenizer)
    _randomize(model)
    model.save_pretrained(directory)
    _write_json(directory, kind, size, max_audio_len)
    return directory


def _write_tokenizer(directory: Path, kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS[kind]])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "[PAD]", "model_max_length": 32768}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "chat_template.jinja").write_text(TEMPLATE.replace("SYSTEM", SYSTEM[kind]), encoding="utf-8")
    return tokenizer


def _model(kind: str, size: Size, tokenizer: Tokenizer) -> torch.nn.Module:
    audio = {
        "hidden_size": size.d_audio, "num_hidden_layers": size.audio_layers, "num_attention_heads": size.audio_heads,
        "intermediate_size": 4 * size.d_audio, "num_mel_bins": size.n_mels, "model_type": "audioflamingo3_encoder",
    }  # fmt: skip
    vocab_size = -(-tokenizer.get_vocab_size() // 32) * 32  # padded like the real one: more rows than tokens
    text = {
        "hidden_size": size.d_text, "num_hidden_layers": size.text_layers, "num_attention_heads": size.text_heads,
        "num_key_value_heads": size.kv_heads, "intermediate_size": 2 * size.d_text, "vocab_size": vocab_size,
        "max_position_embeddings": 32768, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "model_type": "qwen2",
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"), "pad_token_id": tokenizer.token_to_id("[PAD]"),
    }  # fmt: skip
    ids = {"audio_token_id": tokenizer.token_to_id("<sound>")}
    if kind == "audioflamingo3":
        return AudioFlamingo3ForConditionalGeneration(AudioFlamingo3Config(audio_config=audio, text_config=text, **ids))
    ids |= {"audio_bos_token_id": tokenizer.token_to_id("<|sound_bos|>"), "audio_eos_token_id": tokenizer.token_to_id("<|sound_eos|>")}
    rope = {"rope_type": "default", "rope_theta": 1200.0, "partial_rotary_factor": 0.2}
    return MusicFlamingoForConditionalGeneration(MusicFlamingoConfig(audio_config=audio, text_config=text, rope_parameters=rope, **ids))


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


def _write_json(directory: Path, kind: str, size: Size, max_audio_len: int | None) -> None:
    music = kind == "musicflamingo"
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": size.n_mels, "sampling_rate": 16000, "n_fft": size.n_fft,
        "hop_length": 160, "chunk_length": 30, "n_samples": 480000, "nb_max_frames": 3000, "dither": 0.0, "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": True,
    }  # fmt: skip
    processor = {
        "processor_class": "MusicFlamingoProcessor" if music else "AudioFlamingo3Processor",
        "audio_token": "<sound>", "feature_extractor": extractor, "max_audio_len": max_audio_len or (1200 if music else 600),
    }  # fmt: skip
    if music:
        processor |= {"audio_bos_token": "<|sound_bos|>", "audio_eos_token": "<|sound_eos|>"}
    (directory / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    generation = {
        "max_new_tokens": 2048,
        "eos_token_id": _special_id(directory, "<|im_end|>"),
        "pad_token_id": _special_id(directory, "[PAD]"),
    }
    (directory / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")


def _special_id(directory: Path, name: str) -> int:
    return Tokenizer.from_file(str(directory / "tokenizer.json")).token_to_id(name)
