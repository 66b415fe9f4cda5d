"""A new small model with random weights, of the sizes in the `[model]` table of a stage file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import MusicFlamingoConfig, MusicFlamingoForConditionalGeneration
from transformers.models.whisper.modeling_whisper import sinusoids

from mflamingo_cli.core.model import Model
from mflamingo_cli.train.mini.frames import MINI_MEL, WINDOW_TOKENS

ROPE_THETA = 1200.0  # of the published checkpoints (configuration of transformers 5.23)
ROTARY_SHARE = 0.2
# Matrices that write into the residual stream of the language model: what a grown one has more of begins as zero there
WRITERS = ("embed_tokens.weight", "o_proj.weight", "down_proj.weight", "linear_2.weight", "linear_2.bias")


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


def build(sizes: ModelSizes, token_ids: dict[str, int], vocab_size: int, seed: int) -> Model:
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


@torch.no_grad()
def grow(small: Model, large: Model) -> None:
    """Give a model with fresh weights those of a smaller one, so that both compute the same (arXiv 1511.05641, 2206.06854).

    Old weights fill the first rows and columns, further heads and units of a layer come behind them. Whatever is new may read anything, but
    begins by writing nothing; the normalisations, which divide by the root of the mean over more channels, get smaller by that root.
    """
    known = small.state_dict()
    share = (small.config.text_config.hidden_size / large.config.text_config.hidden_size) ** 0.5
    for name, weight in large.state_dict().items():
        if name.endswith(WRITERS):
            weight.zero_()
        if name not in known:
            continue
        weight[tuple(slice(size) for size in known[name].shape)] = known[name]
        if "language_model" in name and name.endswith("norm.weight"):
            weight.mul_(share)
