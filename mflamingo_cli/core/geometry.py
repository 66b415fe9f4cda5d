"""Sizes, limits and token names of a checkpoint, read from its JSON files or from GGUF keys.

Rates are hertz, lengths seconds, everything else counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mflamingo_cli.core.mel import MelConfig
from mflamingo_cli.errors import ModelError

ENCODER_STRIDE = 4  # mel frames per audio token: conv2 halves, the average pool halves again
MAX_AUDIO_S = {"musicflamingo": 1200, "audioflamingo3": 600}  # defaults of the processors in transformers 5.23


@dataclass(frozen=True)
class Rote:
    """Rotary time embedding of the 2601 checkpoints (transformers `MusicFlamingoRotaryEmbedding`).

    `dim` channels are turned by the window's index and as many by the position inside the window;
    `n_positions` divides both and is the table's length.
    """

    theta: float
    dim: int
    n_positions: int
    frame_step_s: float


@dataclass(frozen=True)
class AudioTokens:
    """Names (never ids) of the audio placeholder and of the markers around it; the preview checkpoint has no markers."""

    audio: str = "<sound>"
    bos: str | None = None
    eos: str | None = None


@dataclass(frozen=True)
class EncoderSizes:
    """The AF-Whisper encoder."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int
    n_positions: int


@dataclass(frozen=True)
class TextSizes:
    """The Qwen2 language model."""

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ffn: int
    context_length: int

    @property
    def d_head(self) -> int:
        """Channels of an attention head: Qwen2 has no other than this."""
        return self.d_model // self.n_heads


@dataclass(frozen=True)
class Geometry:
    """All that code needs to know of a checkpoint besides its weights."""

    architecture: str  # transformers' model_type: "musicflamingo" or "audioflamingo3"
    mel: MelConfig
    max_audio_s: float
    encoder: EncoderSizes
    text: TextSizes
    rote: Rote | None
    tokens: AudioTokens

    @property
    def tokens_per_window(self) -> int:
        """Audio tokens of a full window: 750 for 30 s."""
        return self.mel.window_s * self.mel.sample_rate // self.mel.hop_length // ENCODER_STRIDE

    @classmethod
    def from_directory(cls, directory: Path) -> Geometry:
        """Read `config.json` and `processor_config.json`. Raises ModelError when they are missing or of another model."""
        config = read_json(directory / "config.json")
        path, extractor = directory / "processor_config.json", directory / "preprocessor_config.json"
        processor = read_json(path) if path.exists() or not extractor.exists() else {}
        if "feature_extractor" not in processor and extractor.exists():  # older layout
            processor |= {"feature_extractor": read_json(extractor)}
        return cls.from_config(config, processor)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], processor: Mapping[str, Any]) -> Geometry:
        """Build from the two JSON objects of a checkpoint directory."""
        architecture = config.get("model_type", "")
        if architecture not in MAX_AUDIO_S:
            raise ModelError(f"model_type {architecture!r} is not Music Flamingo; expected one of {', '.join(sorted(MAX_AUDIO_S))}")
        audio, text = config["audio_config"], config["text_config"]
        has_rote = architecture == "musicflamingo"
        return cls(
            architecture=architecture,
            mel=_mel_from_processor(processor.get("feature_extractor", processor)),
            max_audio_s=float(processor.get("max_audio_len", MAX_AUDIO_S[architecture])),
            encoder=EncoderSizes(
                d_model=_any(audio, "hidden_size", "d_model"),
                n_layers=_any(audio, "num_hidden_layers", "encoder_layers"),
                n_heads=_any(audio, "num_attention_heads", "encoder_attention_heads"),
                d_ffn=_any(audio, "intermediate_size", "encoder_ffn_dim"),
                n_positions=audio.get("max_source_positions", 1500),
            ),
            text=TextSizes(
                d_model=text["hidden_size"],
                n_layers=text["num_hidden_layers"],
                n_heads=text["num_attention_heads"],
                n_kv_heads=text["num_key_value_heads"],
                d_ffn=text["intermediate_size"],
                context_length=text.get("max_position_embeddings", 32768),
            ),
            rote=_rote_from_config(config) if has_rote else None,
            tokens=AudioTokens(
                audio=processor.get("audio_token", "<sound>"),
                bos=processor.get("audio_bos_token", "<|sound_bos|>") if has_rote else None,
                eos=processor.get("audio_eos_token", "<|sound_eos|>") if has_rote else None,
            ),
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object of a checkpoint directory. Raises ModelError that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent}: not a checkpoint directory, {path.name} is missing") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return value


def _any(mapping: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if name in mapping:
            return int(mapping[name])
    raise ModelError(f"config.json: audio_config lacks {names[0]}")


def _mel_from_processor(extractor: Mapping[str, Any]) -> MelConfig:
    return MelConfig(
        n_fft=extractor.get("n_fft", 400),
        hop_length=extractor.get("hop_length", 160),
        n_mels=extractor.get("feature_size", 128),
        sample_rate=extractor.get("sampling_rate", 16_000),
        window_s=extractor.get("chunk_length", 30),
    )


def _rote_from_config(config: Mapping[str, Any]) -> Rote:
    """Defaults of MusicFlamingoConfig: theta 1200, a fifth of the encoder's channels, 0.01 s per mel frame."""
    rope = config.get("rope_parameters") or {}
    theta = float(rope.get("rope_theta", 1200.0))
    factor = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 0.2))
    d_model = _any(config["audio_config"], "hidden_size", "d_model")
    return Rote(
        theta=theta,
        dim=int(d_model * factor),
        n_positions=int(theta),  # transformers sets max_position_embeddings = rope_theta, whatever the file says
        frame_step_s=float(config.get("audio_frame_step", 0.01)),
    )
