"""Geometry -> GGUF keys, and keys -> geometry: the two directions of the same tables.

What is only written takes its names from gguf. What is read when a pair is opened has them here, because importing gguf would be 0.06 s of
every start; `tests/quant/test_keys.py` compares them with the package's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from quant.config import CheckpointInfo
from quant.errors import QuantError
from quant.families import FAMILIES, family, of_projector, text_family
from quant.geometry import AudioTokens, EncoderSizes, Geometry, MelConfig, Rote, TextSizes
from quant.layout import AUDIO_ARCHITECTURE
from quant.types import Mix
from quant.writer import Value

LAYER_NORM_EPS = 1e-5  # of torch's LayerNorm, which the encoder uses unchanged

# Fields of TextSizes -> GGUF keys behind the architecture's name; of EncoderSizes -> GGUF keys
TEXT_KEYS: Mapping[str, str] = {
    "context_length": "context_length",
    "d_model": "embedding_length",
    "n_layers": "block_count",
    "d_ffn": "feed_forward_length",
    "n_heads": "attention.head_count",
    "n_kv_heads": "attention.head_count_kv",
    "rope_theta": "rope.freq_base",
    "rms_eps": "attention.layer_norm_rms_epsilon",
}
ENCODER_KEYS: Mapping[str, str] = {
    "d_model": "clip.audio.embedding_length",
    "n_layers": "clip.audio.block_count",
    "d_ffn": "clip.audio.feed_forward_length",
    "n_heads": "clip.audio.attention.head_count",
}
KEY_D_TEXT = "clip.audio.projection_dim"
KEY_N_MELS = "clip.audio.num_mel_bins"
KEY_N_POSITIONS = "clip.audio.max_pos_emb"  # not written by llama.cpp's own converter: 1500
KEY_LAYER_NORM_EPS = "clip.audio.attention.layer_norm_epsilon"
KEY_PROJECTOR = "clip.projector_type"
KEY_TOKENS = "tokenizer.ggml.tokens"
OPTIONAL = frozenset({"rope_theta"})  # libllama has it for itself
KEY_CHECKPOINT = "mflamingo.checkpoint"  # ours, in both parts, whatever their types: parts of two checkpoints are not opened together
# Ours, in the audio part: with them nothing needs the checkpoint's directory
KEY_ARCHITECTURE = "mflamingo.architecture"  # transformers' model_type
KEY_MAX_AUDIO = "mflamingo.max_audio_s"
KEY_NAME = "mflamingo.name"
KEY_REVISION = "mflamingo.revision"
KEY_ABILITIES = "mflamingo.abilities"  # absent: all
KEY_GROUNDED = "mflamingo.grounded"
MEL_KEYS: Mapping[str, str] = {name: f"mflamingo.mel.{name}" for name in ("n_fft", "hop_length", "n_mels", "sample_rate", "window_s")}
ROTE_KEYS: Mapping[str, str] = {name: f"mflamingo.rote.{name}" for name in ("theta", "dim", "n_positions", "frame_step_s")}
TOKEN_KEYS: Mapping[str, str] = {name: f"mflamingo.tokens.{name}" for name in ("audio", "bos", "eos")}


def text_keys(info: CheckpointInfo, mix: Mix) -> dict[str, Value]:
    """GGUF keys of the text part, without the vocabulary."""
    text = info.geometry.text
    return _general(info, text.model_type, "model", mix) | _keyed(text, text_keys_of(text.model_type))


def text_keys_of(model_type: str) -> Mapping[str, str]:
    """Fields of TextSizes -> GGUF keys of a text model."""
    return {field: f"{model_type}.{key}" for field, key in TEXT_KEYS.items()}


def audio_keys(info: CheckpointInfo, mix: Mix) -> dict[str, Value]:
    """GGUF keys of the audio part; everything about the audio side that is not a weight, and what the model's card says."""
    geometry = info.geometry
    keys: dict[str, Value] = {
        **_general(info, AUDIO_ARCHITECTURE, "mmproj", mix),
        "clip.has_audio_encoder": True,
        KEY_PROJECTOR: FAMILIES[geometry.architecture].projector_name(geometry.mel),
        **_keyed(geometry.encoder, ENCODER_KEYS),
        KEY_D_TEXT: geometry.text.d_model,
        KEY_N_MELS: geometry.mel.n_mels,
        KEY_N_POSITIONS: geometry.encoder.n_positions,
        KEY_LAYER_NORM_EPS: LAYER_NORM_EPS,
        KEY_ARCHITECTURE: geometry.architecture,
        KEY_MAX_AUDIO: geometry.max_audio_s,
        **_keyed(geometry.mel, MEL_KEYS),
        **_keyed(geometry.tokens, TOKEN_KEYS),
        **(_keyed(geometry.rote, ROTE_KEYS) if geometry.rote else {}),
        KEY_NAME: info.name,
        KEY_GROUNDED: bool(info.card.get("grounded", False)),
    }
    if info.card.get("revision"):
        keys[KEY_REVISION] = str(info.card["revision"])
    if info.card.get("abilities") is not None:
        keys[KEY_ABILITIES] = [str(ability) for ability in info.card["abilities"]]
    return keys


def _general(info: CheckpointInfo, architecture: str, kind: str, mix: Mix) -> dict[str, Value]:
    import gguf

    names = gguf.Keys.General
    return {
        names.ARCHITECTURE: architecture,
        names.TYPE: kind,
        names.NAME: info.name,
        names.FILE_TYPE: mix.file_type,
        names.QUANTIZATION_VERSION: gguf.GGML_QUANT_VERSION,
    }


def _keyed(sizes: Any, table: Mapping[str, str]) -> dict[str, Value]:
    return {key: value for name, key in table.items() if (value := getattr(sizes, name)) is not None}


def geometry_of_keys(audio: Mapping[str, Any], text: Mapping[str, Any], where: object) -> Geometry:
    """Geometry from the keys of a pair; one made by llama.cpp's own converter lacks ours, and the projector says whose it is.

    Raises QuantError when the files, which `where` names, are not a Music Flamingo pair.
    """
    row = of_projector(audio.get(KEY_PROJECTOR))
    if row is None:
        raise QuantError(f"{where}: the audio part's projector is {audio.get(KEY_PROJECTOR)!r}, not a Music Flamingo one")
    if lacking := [key for key in (*ENCODER_KEYS.values(), KEY_D_TEXT, KEY_N_MELS) if key not in audio]:
        raise QuantError(f"{where}: the GGUF pair lacks the key {lacking[0]}; convert it again")
    language = text_sizes(text, where)
    if language.d_model != audio[KEY_D_TEXT]:
        raise QuantError(f"{where}: the audio part was made for another language model")
    # Only what contradicts itself is refused: a part without a name may come from llama.cpp's own converter or an earlier version
    if KEY_CHECKPOINT in audio and KEY_CHECKPOINT in text and audio[KEY_CHECKPOINT] != text[KEY_CHECKPOINT]:
        raise QuantError(f"{where}: the audio part beside it was made from another checkpoint; convert both again")
    row = family(audio.get(KEY_ARCHITECTURE, row.model_type), where)
    mel, rote = MelConfig(**({"n_mels": audio[KEY_N_MELS]} | _named(audio, MEL_KEYS))), _named(audio, ROTE_KEYS)
    if rote.keys() != (ROTE_KEYS.keys() if row.rote else set()) or audio[KEY_PROJECTOR] != row.projector_name(mel):
        raise QuantError(f"{where}: the audio part's keys are not those of {row.model_type}; convert it again")
    return Geometry(
        row.model_type,
        mel,
        float(audio.get(KEY_MAX_AUDIO, row.max_audio_s)),
        EncoderSizes(**_named(audio, ENCODER_KEYS), n_positions=audio.get(KEY_N_POSITIONS, row.encoder["n_positions"][1])),
        language,
        Rote(**rote) if rote else None,
        AudioTokens(**(asdict(row.tokens) | _named(audio, TOKEN_KEYS))),
    )


def text_sizes(text: Mapping[str, Any], where: object) -> TextSizes:
    """Sizes of a text model from the keys of its file. Raises QuantError for another family's, and for keys that lack."""
    model_type = text_family(text.get("general.architecture"), where).model_type
    names = text_keys_of(model_type)
    if lacking := [key for name, key in names.items() if name not in OPTIONAL and key not in text]:
        raise QuantError(f"{where}: the text GGUF lacks the key {lacking[0]}; convert it again")
    return TextSizes(**_named(text, names), model_type=model_type, n_vocab=len(text.get(KEY_TOKENS, ())))


def _named(keys: Mapping[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    return {name: keys[key] for name, key in table.items() if key in keys}
