"""The names that opening a pair reads are gguf's own."""

from __future__ import annotations

import gguf

from quant import keys, vocabulary
from quant.families import TEXT_FAMILIES
from quant.layout import AUDIO_ARCHITECTURE
from quant.types import TYPES


def test_keys_of_the_text_part_are_ggufs() -> None:
    llm, attention, rope = gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope
    theirs = {
        "context_length": llm.CONTEXT_LENGTH, "d_model": llm.EMBEDDING_LENGTH, "n_layers": llm.BLOCK_COUNT,
        "d_ffn": llm.FEED_FORWARD_LENGTH, "n_heads": attention.HEAD_COUNT, "n_kv_heads": attention.HEAD_COUNT_KV,
        "rope_theta": rope.FREQ_BASE,
        "rms_eps": attention.LAYERNORM_RMS_EPS,
    }  # fmt: skip
    for architecture in TEXT_FAMILIES:
        assert {name: key.format(arch=architecture) for name, key in theirs.items()} == keys.text_keys_of(architecture)
    assert set(TEXT_FAMILIES) == {gguf.MODEL_ARCH_NAMES[number] for number in (gguf.MODEL_ARCH.QWEN2, gguf.MODEL_ARCH.LLAMA)}
    names = gguf.Keys.Tokenizer
    assert keys.KEY_TOKENS == names.LIST
    assert (vocabulary.KEY_MODEL, vocabulary.KEY_PRE, vocabulary.KEY_TEMPLATE) == (names.MODEL, names.PRE, names.CHAT_TEMPLATE)
    assert (vocabulary.KEY_TYPES, vocabulary.KEY_MERGES, vocabulary.KEY_SCORES) == (names.TOKEN_TYPE, names.MERGES, names.SCORES)
    ids = [name for field, name in vars(names).items() if field.endswith("_ID") and not field.startswith("FIM_")]
    assert all(name.startswith(vocabulary.PREFIX) and name.endswith(vocabulary.ID) for name in ids)


def test_keys_of_the_audio_part_are_ggufs() -> None:
    audio = gguf.Keys.ClipAudio
    theirs = {
        "d_model": audio.EMBEDDING_LENGTH, "n_layers": audio.BLOCK_COUNT, "d_ffn": audio.FEED_FORWARD_LENGTH,
        "n_heads": audio.Attention.HEAD_COUNT,
    }  # fmt: skip
    assert theirs == keys.ENCODER_KEYS
    assert (keys.KEY_D_TEXT, keys.KEY_N_MELS, keys.KEY_N_POSITIONS) == (audio.PROJECTION_DIM, audio.NUM_MEL_BINS, audio.MAX_POS_EMB)
    assert (keys.KEY_LAYER_NORM_EPS, keys.KEY_PROJECTOR) == (audio.Attention.LAYERNORM_EPS, gguf.Keys.Clip.PROJECTOR_TYPE)
    assert gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.MMPROJ] == AUDIO_ARCHITECTURE


def test_file_types_are_ggufs() -> None:
    theirs = {name.removeprefix("MOSTLY_").removeprefix("ALL_"): kind.value for name, kind in gguf.LlamaFileType.__members__.items()}
    assert {name: mix.file_type for name, mix in TYPES.items()} == {name: theirs[name] for name in TYPES}
