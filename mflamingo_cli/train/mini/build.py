"""A new small model from the `[model]` table of a stage file, and the parts of it that training calls one by one.

Audio time is counted in tokens (`frames.TOKEN_S`); the encoder sees two positions, the front end four frames, per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import MusicFlamingoConfig, MusicFlamingoForConditionalGeneration

from mflamingo_cli.core import rote
from mflamingo_cli.core.geometry import Rote
from mflamingo_cli.train.mini.frames import MINI_MEL, WINDOW_TOKENS

ROPE_THETA = 1200.0  # of the published checkpoints (configuration of transformers 5.23)
ROTARY_SHARE = 0.2
TIMESCALE = 10_000.0  # of the encoder's sinusoidal positions (Whisper)


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a small model; every row is a multiple of 64."""

    d_audio: int = 192
    audio_layers: int = 4
    audio_heads: int = 3
    audio_ffn: int = 768
    n_mels: int = 256
    d_text: int = 192
    text_layers: int = 4
    text_heads: int = 3
    text_kv_heads: int = 3
    text_ffn: int = 512
    context: int = 6144


def build(sizes: ModelSizes, token_ids: dict[str, int], vocab_size: int, seed: int) -> MusicFlamingoForConditionalGeneration:
    """A model with fresh weights; `token_ids` holds the ids of `<sound>`, its markers, `<|im_end|>` and `<|endoftext|>`."""
    audio = {
        "model_type": "audioflamingo3_encoder",
        "hidden_size": sizes.d_audio,
        "num_hidden_layers": sizes.audio_layers,
        "num_attention_heads": sizes.audio_heads,
        "intermediate_size": sizes.audio_ffn,
        "num_mel_bins": sizes.n_mels,
        "max_source_positions": 2 * WINDOW_TOKENS,
        "initializer_range": 0.02,  # with 0.05 and a batch of 24 crops, chords take more than twice the steps to be learned
    }
    text = {
        "model_type": "qwen2",
        "hidden_size": sizes.d_text,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": sizes.text_heads,
        "num_key_value_heads": sizes.text_kv_heads,
        "intermediate_size": sizes.text_ffn,
        "vocab_size": vocab_size,
        "initializer_range": 0.05,
        "max_position_embeddings": sizes.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "eos_token_id": token_ids["<|im_end|>"],
        "pad_token_id": token_ids["<|endoftext|>"],
    }
    config = MusicFlamingoConfig(
        audio_config=audio,
        text_config=text,
        audio_frame_step=MINI_MEL.hop_length / MINI_MEL.sample_rate,
        audio_token_id=token_ids["<sound>"],
        audio_bos_token_id=token_ids["<|sound_bos|>"],
        audio_eos_token_id=token_ids["<|sound_eos|>"],
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA, "partial_rotary_factor": ROTARY_SHARE},
    )
    torch.manual_seed(seed)
    config._attn_implementation = "sdpa"
    model = MusicFlamingoForConditionalGeneration(config)
    with torch.no_grad():
        tower = model.model.audio_tower
        tower.embed_positions.weight.copy_(sinusoids(*tower.embed_positions.weight.shape))
        for layer in tower.layers:  # what a layer adds begins small, as in GPT-2 (2019, 2.3)
            for part in (layer.self_attn.out_proj, layer.fc2):
                part.weight.mul_((2 * sizes.audio_layers) ** -0.5)
    return model


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """Whisper's fixed positions, (length, channels)."""
    scales = torch.exp(-np.log(TIMESCALE) / (channels // 2 - 1) * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * scales[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def rote_of(model: MusicFlamingoForConditionalGeneration) -> Rote:
    """The rotary time embedding of a model."""
    config = model.config
    dim = int(config.audio_config.hidden_size * config.rope_parameters["partial_rotary_factor"])
    theta = config.rope_parameters["rope_theta"]
    return Rote(theta=theta, dim=dim, n_positions=int(theta), frame_step_s=config.audio_frame_step)


def encode(
    model: MusicFlamingoForConditionalGeneration, frames: torch.Tensor, windows: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    """Encoder output after RoTE of crops that lie `offsets` tokens inside window `windows`: (B, n_mels, 4 T) -> (B, T, d_audio).

    Only the frames given are computed, no padding; at offset 0 the projector makes `get_audio_features` of it, up to the last token.
    """
    tower = model.model.audio_tower
    hidden = nn.functional.gelu(tower.conv1(frames))
    hidden = nn.functional.gelu(tower.conv2(hidden)).permute(0, 2, 1)
    length = hidden.shape[1]
    positions = 2 * offsets[:, None] + torch.arange(length)
    hidden = hidden + tower.embed_positions.weight[positions.to(hidden.device)]
    for layer in tower.layers:
        hidden = layer(hidden, None)
    hidden = tower.layer_norm(tower.avg_pooler(hidden.permute(0, 2, 1)).permute(0, 2, 1))
    return turn(hidden, rote_of(model), windows, offsets)


def encode_windows(model: MusicFlamingoForConditionalGeneration, frames: torch.Tensor) -> torch.Tensor:
    """Encoder output after RoTE of songs of one length, window by window: (B, n_mels, 4 T) -> (B, T, d_audio)."""
    size, parts = 4 * WINDOW_TOKENS, []
    for index, at in enumerate(range(0, frames.shape[2], size)):
        window = frames[:, :, at : at + size]
        parts.append(encode(model, window, torch.full((len(frames),), index), torch.zeros(len(frames), dtype=torch.long)))
    return torch.cat(parts, dim=1)


def turn(hidden: torch.Tensor, table: Rote, windows: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Rotary time embedding of crops, with the tables of `core.rote`: (B, T, d) -> same."""
    length = hidden.shape[1]
    rows = [rote.tables(table, int(w), int(o) + length, WINDOW_TOKENS) for w, o in zip(windows, offsets, strict=True)]
    cos = torch.from_numpy(np.stack([c[-length:] for c, _ in rows])).to(hidden)
    sin = torch.from_numpy(np.stack([s[-length:] for _, s in rows])).to(hidden)
    turned, rest = hidden[..., : cos.shape[-1]], hidden[..., cos.shape[-1] :]
    pairs = turned.unflatten(-1, (-1, 2))
    half = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return torch.cat((turned * cos + half * sin, rest), dim=-1)
