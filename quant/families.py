"""The table of model families: what transformers' class of a `model_type` is, and what it assumes where config.json is silent.

Rows hold facts of classes (transformers 5.23; `tests/quant/test_families.py` compares them). What one checkpoint chooses (theta, context,
longest audio, system prompt) is read from its files. A new family is a row here, and an operation in the encoder graph where no row has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr
from typing import Any

from quant.errors import QuantError
from quant.geometry import AudioTokens, MelConfig

# A size -> its names in config.json, of which the first that is there counts, and the class's default
Fields = Mapping[str, tuple[tuple[str, ...], int]]
# Settings that neither our graph nor llama.cpp has in another way: section, name, the value that it must have and has by default
Fixed = tuple[tuple[str, str, Any], ...]


STOCK_MEL = (400, 160, 16_000, 30)  # n_fft, hop, rate, window: fixed in llama.cpp's clip loader

AF_WHISPER: Fields = {  # AudioFlamingo3EncoderConfig, whose attribute_map lets Whisper's old names win
    "d_model": (("d_model", "hidden_size"), 1280),
    "n_layers": (("encoder_layers", "num_hidden_layers"), 32),
    "n_heads": (("encoder_attention_heads", "num_attention_heads"), 20),
    "d_ffn": (("encoder_ffn_dim", "intermediate_size"), 5120),
    "n_positions": (("max_source_positions",), 1500),
    "n_mels": (("num_mel_bins",), 128),
}
FIXED: Fixed = (
    ("audio_config", "activation_function", "gelu"),
    ("", "projector_hidden_act", "gelu"),
    ("", "projector_bias", True),
)


def _text_fields(n_kv_heads: int, d_ffn: int, context_length: int, n_vocab: int) -> Fields:
    """Sizes of a text model by their usual names; all classes have 32 layers of 4096 channels where config.json is silent.

    0 heads of keys and values stand for as many as there are of queries.
    """
    return {
        "d_model": (("hidden_size",), 4096),
        "n_layers": (("num_hidden_layers",), 32),
        "n_heads": (("num_attention_heads",), 32),
        "n_kv_heads": (("num_key_value_heads",), n_kv_heads),
        "d_ffn": (("intermediate_size",), d_ffn),
        "context_length": (("max_position_embeddings",), context_length),
        "n_vocab": (("vocab_size",), n_vocab),
    }


@dataclass(frozen=True, kw_only=True)
class TextFamily:
    """A text model inside every family: a `model_type` of text_config, which is llama.cpp's general.architecture too."""

    model_type: str
    fields: Fields  # of TextSizes
    attention_bias: bool  # of queries, keys and values
    # llama.cpp turns neighbouring channels of a head, transformers those half a head apart: rows of q and k change place
    rotates_pairs: bool
    fixed: Fixed


TEXT_FAMILIES: dict[str, TextFamily] = {
    text.model_type: text
    for text in (
        TextFamily(  # Qwen2Config; what all published checkpoints have
            model_type="qwen2",
            fields=_text_fields(32, 22_016, 32_768, 151_936),
            attention_bias=True,
            rotates_pairs=False,
            fixed=(("text_config", "hidden_act", "silu"), ("text_config", "use_sliding_window", False)),
        ),
        TextFamily(  # LlamaConfig, such as SmolLM2's
            model_type="llama",
            fields=_text_fields(0, 11_008, 2048, 32_000),
            attention_bias=False,
            rotates_pairs=True,
            fixed=(
                ("text_config", "hidden_act", "silu"),
                ("text_config", "attention_bias", False),
                ("text_config", "mlp_bias", False),
                ("text_config", "pretraining_tp", 1),
            ),
        ),
    )
}


@dataclass(frozen=True)
class RoteDefaults:
    """What a class with rotary time embedding assumes; `factor` is the rotated part of the encoder's channels, twice."""

    theta: float
    factor: float
    frame_step_s: float  # of a mel frame


@dataclass(frozen=True)
class Projector:
    """Linear layers between encoder and language model, GELU between them.

    `stock` is the name in GGUF where llama.cpp computes the same: with Whisper's front end and no RoTE. `name` is ours, for everything
    else: llama.cpp refuses what it does not know, as it must, for it would answer wrongly without a word.
    """

    name: str
    layers: tuple[tuple[str, str], ...]  # names in a checkpoint, in GGUF
    stock: str | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """A `model_type` of transformers."""

    model_type: str
    model_class: str
    config_class: str
    encoder_type: str = "audioflamingo3_encoder"  # model_type of the audio_config
    encoder: Fields  # of EncoderSizes, and n_mels
    text: str = "qwen2"  # model_type of the text_config where it names none
    rote: RoteDefaults | None = None
    tokens: AudioTokens  # of the processor class
    max_audio_s: int  # of the processor class
    projector: Projector
    fixed: Fixed = FIXED

    def projector_name(self, mel: MelConfig) -> str:
        """Name of the projector in GGUF: llama.cpp's own only where llama.cpp computes the same."""
        stock = (mel.n_fft, mel.hop_length, mel.sample_rate, mel.window_s) == STOCK_MEL
        return self.projector.stock if self.projector.stock and stock else self.projector.name


MLP = (("multi_modal_projector.linear_1", "mm.a.mlp.1"), ("multi_modal_projector.linear_2", "mm.a.mlp.2"))

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(  # Music Flamingo 2601 and think, Audio Flamingo Next, the embedded model
            model_type="musicflamingo",
            model_class="MusicFlamingoForConditionalGeneration",
            config_class="MusicFlamingoConfig",
            encoder=AF_WHISPER,
            rote=RoteDefaults(theta=1200.0, factor=0.2, frame_step_s=0.01),
            tokens=AudioTokens("<sound>", "<|sound_bos|>", "<|sound_eos|>"),
            max_audio_s=1200,
            projector=Projector("musicflamingo_rote", MLP),
        ),
        Family(  # Audio Flamingo 3 and the preview of Music Flamingo
            model_type="audioflamingo3",
            model_class="AudioFlamingo3ForConditionalGeneration",
            config_class="AudioFlamingo3Config",
            encoder=AF_WHISPER,
            tokens=AudioTokens("<sound>"),
            max_audio_s=600,
            projector=Projector("musicflamingo_mel", MLP, stock="musicflamingo"),
        ),
    )
}


def family(model_type: Any, where: object) -> Family:
    """Look a family up. Raises QuantError that names the file or directory `where` the type stands."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise QuantError(f"{where}: model_type {model_type!r} is not Music Flamingo; expected one of {', '.join(sorted(FAMILIES))}")
    return FAMILIES[model_type]


def text_family(model_type: Any, where: object) -> TextFamily:
    """Look the family of a text model up. Raises QuantError that names the file or directory `where` the type stands."""
    if not isinstance(model_type, str) or model_type not in TEXT_FAMILIES:
        raise QuantError(
            f"{where}: a text model of type {repr(model_type)} is not known; expected one of {', '.join(sorted(TEXT_FAMILIES))}"
        )
    return TEXT_FAMILIES[model_type]


def of_projector(name: Any) -> Family | None:
    """The family that a projector's name in GGUF belongs to."""
    return next((one for one in FAMILIES.values() if name is not None and name in (one.projector.name, one.projector.stock)), None)
