"""What a checkpoint says of itself: sizes and settings from its JSON files, and the GGUF keys made of them.

Sizes are counts, rates hertz, lengths seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quant import layout
from quant.checkpoint import read_json
from quant.layout import Part, QuantError
from quant.types import Mix
from quant.writer import Value

QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION
LAYER_NORM_EPS = 1e-5  # of torch's LayerNorm, which the encoder uses unchanged

# Whether RoTE is used, and how much a processor takes in (transformers 5.23), by model_type
HAS_ROTE: Mapping[str, bool] = {"musicflamingo": True, "audioflamingo3": False}
MAX_AUDIO_S: Mapping[str, int] = {"musicflamingo": 1200, "audioflamingo3": 600}

# Names of sizes -> names in config.json (first that is there) and the class's default (transformers 5.23),
# because older files hold only what differs from it
AUDIO_FIELDS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "d_audio": (("hidden_size", "d_model"), 1280),
    "n_audio_layers": (("num_hidden_layers", "encoder_layers"), 32),
    "n_audio_heads": (("num_attention_heads", "encoder_attention_heads"), 20),
    "ffn_audio": (("intermediate_size", "encoder_ffn_dim"), 5120),
    "n_mels": (("num_mel_bins",), 128),
    "n_positions": (("max_source_positions",), 1500),
}
TEXT_FIELDS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "d_text": (("hidden_size",), 4096),
    "n_text_layers": (("num_hidden_layers",), 32),
    "n_heads": (("num_attention_heads",), 32),
    "n_kv_heads": (("num_key_value_heads",), 32),
    "ffn_text": (("intermediate_size",), 22016),
    "n_vocab": (("vocab_size",), 151_936),
    "n_context": (("max_position_embeddings",), 32_768),
}
# Settings that neither our graph nor llama.cpp's qwen2 has in another way: place, name, the value there must be (and is by default)
FIXED: tuple[tuple[str, str, Any], ...] = (
    ("audio_config", "activation_function", "gelu"),
    ("text_config", "hidden_act", "silu"),
    ("text_config", "use_sliding_window", False),
    ("", "projector_hidden_act", "gelu"),
    ("", "projector_bias", True),
)
MEL_FIELDS: Mapping[str, tuple[str, int]] = {  # of the feature extractor: WhisperFeatureExtractor's names and defaults
    "n_fft": ("n_fft", 400),
    "hop_length": ("hop_length", 160),
    "n_mels": ("feature_size", 128),
    "sample_rate": ("sampling_rate", 16_000),
    "window_s": ("chunk_length", 30),
}
TOKEN_DEFAULTS: Mapping[str, str] = {"audio": "<sound>", "bos": "<|sound_bos|>", "eos": "<|sound_eos|>"}


@dataclass(frozen=True)
class Model:
    """A checkpoint without its weights."""

    name: str
    architecture: str  # transformers' model_type
    sizes: Mapping[str, int]  # as `layout` names them
    rope_theta: float
    rms_eps: float
    mel: Mapping[str, int]
    max_audio_s: float
    rote: Mapping[str, float] | None
    tokens: Mapping[str, str]
    card: Mapping[str, Any]  # mflamingo.json, of our own models; else where it was downloaded from

    def text_keys(self, mix: Mix) -> dict[str, Value]:
        """GGUF keys of the text part, without the vocabulary."""
        numbers: dict[str, Value] = {**self.sizes, "rope_theta": self.rope_theta, "rms_eps": self.rms_eps}
        return {**self._general("text", "model", mix), **{key: numbers[name] for name, key in layout.TEXT_KEYS.items()}}

    def audio_keys(self, mix: Mix) -> dict[str, Value]:
        """GGUF keys of the audio part; everything about hearing that is not a weight."""
        numbers: dict[str, Value] = {**self.sizes, "layer_norm_eps": LAYER_NORM_EPS}
        keys: dict[str, Value] = {
            **self._general("audio", "mmproj", mix),
            "clip.has_audio_encoder": True,
            layout.KEY_PROJECTOR: layout.projector(self.rote is not None, self.mel),
            **{key: numbers[name] for name, key in layout.AUDIO_KEYS.items()},
            layout.KEY_ARCHITECTURE: self.architecture,
            layout.KEY_MAX_AUDIO: self.max_audio_s,
            **{key: self.mel[name] for name, key in layout.MEL_KEYS.items()},
            **{layout.TOKEN_KEYS[name]: token for name, token in self.tokens.items()},
        }
        if self.rote:
            keys |= {key: self.rote[name] for name, key in layout.ROTE_KEYS.items()}
        return keys | self._card_keys()

    def _general(self, part: Part, kind: str, mix: Mix) -> dict[str, Value]:
        return {
            "general.architecture": layout.ARCHITECTURES[part],
            "general.type": kind,
            "general.name": self.name,
            "general.file_type": mix.file_type,
            "general.quantization_version": QUANTIZATION_VERSION,
        }

    def _card_keys(self) -> dict[str, Value]:
        keys: dict[str, Value] = {layout.KEY_NAME: self.name, layout.KEY_GROUNDED: bool(self.card.get("grounded", False))}
        if self.card.get("revision"):
            keys[layout.KEY_REVISION] = str(self.card["revision"])
        if self.card.get("abilities") is not None:
            keys[layout.KEY_ABILITIES] = [str(ability) for ability in self.card["abilities"]]
        return keys


def read(directory: Path, adapter: Path | None = None) -> Model:
    """Read config.json, processor_config.json and, where there is one, mflamingo.json; a LoRA `adapter` gives the model its own name."""
    if not directory.is_dir():
        raise QuantError(f"{directory}: no such directory; give the directory of a checkpoint, the one that holds config.json")
    config = read_json(directory / "config.json")
    processor = read_json(directory / "processor_config.json", required=False)
    if "feature_extractor" not in processor:  # older layout
        processor |= {"feature_extractor": read_json(directory / "preprocessor_config.json", required=not processor)}
    architecture = str(config.get("model_type", ""))
    if architecture not in HAS_ROTE:
        raise QuantError(f"{directory}: model_type {architecture!r} is not Music Flamingo; expected one of {', '.join(sorted(HAS_ROTE))}")
    sizes = read_sizes(directory, config)
    _check_fixed(directory, config)
    name, revision = layout.hub_identity(directory) or (directory.resolve().name, None)
    card = {"name": name, "revision": revision} | read_json(directory / "mflamingo.json", required=False)
    if adapter:
        name, revision = layout.hub_identity(adapter) or (adapter.resolve().name, None)
        card |= {"name": name, "revision": revision} | read_json(adapter / "mflamingo.json", required=False)
    has_rote = HAS_ROTE[architecture]
    text = config["text_config"]
    return Model(
        name=str(card["name"]),
        architecture=architecture,
        sizes=sizes,
        rope_theta=_rope_theta(directory, text),
        rms_eps=float(text.get("rms_norm_eps", 1e-6)),
        mel=_mel(directory, processor, sizes),
        max_audio_s=float(processor.get("max_audio_len", MAX_AUDIO_S[architecture])),
        rote=_rote(config, sizes["d_audio"]) if has_rote else None,
        tokens={
            name: str(processor.get("audio_token" if name == "audio" else f"audio_{name}_token", default))
            for name, default in TOKEN_DEFAULTS.items()
            if has_rote or name == "audio"
        },
        card=card,
    )


def read_sizes(directory: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """What the shapes of `layout` name, from the content of config.json."""
    for part in ("audio_config", "text_config"):
        if not isinstance(config.get(part), dict):
            raise QuantError(f"{directory}: config.json lacks {part}")
    sizes = {name: _number(config["audio_config"], *field) for name, field in AUDIO_FIELDS.items()}
    sizes |= {name: _number(config["text_config"], *field) for name, field in TEXT_FIELDS.items()}
    d_text, n_heads, head_dim = sizes["d_text"], sizes["n_heads"], config["text_config"].get("head_dim")
    if d_text % n_heads or (head_dim or d_text // n_heads) * n_heads != d_text:
        raise QuantError(f"{directory}: {n_heads} heads do not fill {d_text} channels, which llama.cpp's qwen2 requires")
    return sizes | {"d_kv": d_text // n_heads * sizes["n_kv_heads"]}


def _number(config: Mapping[str, Any], names: tuple[str, ...], default: int) -> int:
    return int(next((config[name] for name in names if config.get(name) is not None), default))


def _check_fixed(directory: Path, config: Mapping[str, Any]) -> None:
    for place, name, value in FIXED:
        found = (config[place] if place else config).get(name, value)
        if found != value:
            raise QuantError(f"{directory}: {name} is {found!r}; only {value!r} can be converted")


def _rope_theta(directory: Path, text: Mapping[str, Any]) -> float:
    """Base of the language model's positions: under `rope_parameters` in new files, beside it in old ones."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise QuantError(f"{directory}: rope_type {kind!r} of the language model is not supported")
    return float(rope.get("rope_theta", text.get("rope_theta", 10_000.0)))


def _mel(directory: Path, processor: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, int]:
    extractor = processor["feature_extractor"]
    mel = {name: int(extractor.get(field, default)) for name, (field, default) in MEL_FIELDS.items()}
    if mel["n_mels"] != sizes["n_mels"]:
        raise QuantError(f"{directory}: the front end makes {mel['n_mels']} mel bands but the encoder takes {sizes['n_mels']}")
    return mel


def _rote(config: Mapping[str, Any], d_audio: int) -> dict[str, float]:
    """Settings of MusicFlamingoConfig and its defaults; transformers sets the table's length to theta, whatever the file says."""
    rope = config.get("rope_parameters") or {}
    theta = float(rope.get("rope_theta", 1200.0))
    factor = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 0.2))
    return {
        "theta": theta,
        "dim": int(d_audio * factor),
        "n_positions": int(theta),
        "frame_step_s": float(config.get("audio_frame_step", 0.01)),
    }
