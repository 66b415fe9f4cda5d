"""Sizes are read from a checkpoint's own files, and the GGUF made of it says the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import quant
from mflamingo_cli.backends import ggml
from mflamingo_cli.backends.gguf import geometry_of
from mflamingo_cli.core.geometry import Geometry
from mflamingo_cli.errors import ModelError
from tests import checkpoints

REAL_2601 = {  # the sizes of nvidia/music-flamingo-2601-hf
    "model_type": "musicflamingo",
    "audio_config": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "intermediate_size": 5120},
    "text_config": {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944,
        "max_position_embeddings": 32768,
    },
    "rope_parameters": {"rope_type": "default", "rope_theta": 1200, "partial_rotary_factor": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["musicflamingo", "audioflamingo3"])
@pytest.mark.parametrize("size", checkpoints.SIZES)
def test_gguf_says_what_the_checkpoint_says(kind: str, size: str, tmp_path: Path) -> None:
    directory = checkpoints.write(tmp_path / "hf", kind, size, max_audio_len=90)
    text, audio = quant.convert(directory, tmp_path, "F32")
    geometry = Geometry.from_directory(directory)
    assert geometry_of(ggml.read_metadata(audio), ggml.read_metadata(text)) == geometry


def test_the_real_checkpoint_has_750_tokens_and_512_turned_channels() -> None:
    geometry = Geometry.from_config(REAL_2601, {"max_audio_len": 1200, "feature_extractor": {"feature_size": 128}})
    assert geometry.tokens_per_window == 750
    assert geometry.rote is not None
    assert geometry.rote.dim == 256


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_audio"}), encoding="utf-8")
    (tmp_path / "processor_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="'qwen2_audio' is not Music Flamingo"):
        Geometry.from_directory(tmp_path)


def test_a_directory_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        Geometry.from_directory(tmp_path)
