"""A checkpoint's JSON files are read once: what they leave out is the class's default, what is wrong is one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mflamingo_cli.backends import find_model
from mflamingo_cli.commands.models.info import describe
from mflamingo_cli.core.model import load
from quant import reader
from quant.checkpoint import Checkpoint
from quant.config import geometry_of_json, read_geometry
from quant.convert import convert
from quant.errors import QuantError
from quant.families import FAMILIES
from quant.keys import geometry_of_keys
from tests import checkpoints

CONFIG_2601 = {  # of nvidia/music-flamingo-2601-hf
    "model_type": "musicflamingo",
    "audio_config": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "intermediate_size": 5120},
    "text_config": {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944,
        "max_position_embeddings": 32768, "vocab_size": 151672, "rope_theta": 1e6,
    },
    "rope_parameters": {"rope_type": "default", "rope_theta": 1200, "partial_rotary_factor": 0.2},
}  # fmt: skip
PROCESSOR = {"max_audio_len": 1200, "feature_extractor": {"feature_size": 128}}


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("size", checkpoints.SIZES)
def test_gguf_says_what_the_checkpoint_says(kind: str, size: str, tmp_path: Path) -> None:
    directory = checkpoints.write(tmp_path / "hf", kind, size, max_audio_len=90)
    text, audio = convert(directory, tmp_path, "F32")
    assert geometry_of_keys(reader.read(audio).keys, reader.read(text).keys, text) == read_geometry(directory)


def test_the_real_checkpoint_has_750_tokens_and_256_rotated_channels_twice() -> None:
    geometry = geometry_of_json(CONFIG_2601, PROCESSOR, Path("hf"))
    assert geometry == checkpoints.REAL_2601
    assert geometry.tokens_per_window == 750
    assert geometry.extents == checkpoints.REAL_2601.extents


def test_without_a_processor_the_front_end_is_not_looked_at() -> None:
    sizes = {"num_mel_bins": 256, "max_source_positions": 750}  # of the embedded model
    config = CONFIG_2601 | {"audio_config": CONFIG_2601["audio_config"] | sizes}
    assert geometry_of_json(config, None, Path("hf")).mel.n_mels == 256


def test_what_is_missing_is_the_classs_default() -> None:
    bare = {"model_type": "musicflamingo"}
    empty = geometry_of_json(bare, PROCESSOR, Path("hf"))
    assert empty == geometry_of_json(bare | {"audio_config": {"model_type": "audioflamingo3_encoder"}}, PROCESSOR, Path("hf"))
    assert (empty.encoder, empty.text.n_heads) == (checkpoints.REAL_2601.encoder, 32)
    shorter = CONFIG_2601 | {"text_config": {name: CONFIG_2601["text_config"][name] for name in ("hidden_size", "num_hidden_layers")}}
    text = geometry_of_json(shorter, PROCESSOR, Path("hf")).text
    assert (text.n_heads, text.n_kv_heads, text.rope_theta) == (32, 32, 10_000.0)
    grouped = CONFIG_2601 | {"text_config": CONFIG_2601["text_config"] | {"num_key_value_heads": None}}
    assert geometry_of_json(grouped, PROCESSOR, Path("hf")).text == replace(checkpoints.REAL_2601.text, n_kv_heads=28)


WRONG: dict[str, dict[str, Any]] = {
    r"model_type None is not Music Flamingo": {"model_type": None},
    r"model_type \['a'\] is not Music Flamingo": {"model_type": ["a"]},
    r"config\.json: audio_config is 'x', not a JSON object": {"audio_config": "x"},
    r"config\.json: text_config is \[\], not a JSON object": {"text_config": []},
    r"config\.json: audio_config\.hidden_size is '64', not a positive whole number": {"audio_config": {"hidden_size": "64"}},
    r"config\.json: text_config\.vocab_size is 1000000000000, not a": {"text_config": {"vocab_size": 10**12}},
    r"config\.json: text_config\.num_attention_heads is 0, not a": {"text_config": {"num_attention_heads": 0}},
    r"config\.json: text_config\.num_attention_heads is None, not a": {"text_config": {"num_attention_heads": None}},
    r"config\.json: 4096 channels cannot be divided into 7 heads": {"text_config": {"num_attention_heads": 7}},
    r"config\.json: 32 heads cannot share 3 heads of keys and values": {"text_config": {"num_key_value_heads": 3}},
    r"config\.json: 1280 channels cannot be divided into 7 heads": {"audio_config": {"num_attention_heads": 7}},
    r"config\.json: text_config\.rms_norm_eps is 'tiny', not a positive number": {"text_config": {"rms_norm_eps": "tiny"}},
    r"config\.json: rope_parameters is 3, not a JSON object": {"rope_parameters": 3},
    r"config\.json: rope_theta is None, not a positive number": {"rope_parameters": {"rope_theta": None}},
    r"config\.json: rope_type 'yarn' is not supported": {"text_config": {"rope_parameters": {"rope_type": "yarn"}}},
    r"config\.json: audio_frame_step is 'long', not": {"audio_frame_step": "long"},
    r"the feature extractor makes 128 mel bands, but the encoder takes 80": {"audio_config": {"num_mel_bins": 80}},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_is_wrong_is_one_sentence_wherever_it_is_read(sentence: str, tmp_path: Path) -> None:
    directory = checkpoints.write(tmp_path / "hf", "musicflamingo")
    (directory / "config.json").write_text(json.dumps({"model_type": "musicflamingo"} | WRONG[sentence]))
    readers: tuple[Callable[[], object], ...] = (
        lambda: describe(find_model(str(directory))),
        lambda: convert(directory, tmp_path / "out", "F16"),
    )
    for read in readers:
        with pytest.raises(QuantError, match=sentence) as caught:
            read()
        assert str(directory) in str(caught.value)


def test_weights_without_a_readable_config_are_named(tmp_path: Path) -> None:
    directory = checkpoints.write(tmp_path / "hf", "musicflamingo")
    checkpoints.edit_json(directory / "config.json", text_config=[1])
    for read in (Checkpoint, load):
        with pytest.raises(QuantError, match=r"hf/config\.json: text_config is \[1\], not a JSON object"):
            read(directory)
    checkpoints.edit_json(directory / "config.json", model_type="qwen2_audio")
    with pytest.raises(QuantError, match=r"hf: model_type 'qwen2_audio' is not Music Flamingo; expected one of"):
        load(directory)


def test_more_layers_than_tensors_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    directory = checkpoints.write(tmp_path / "hf", "musicflamingo")
    text = json.loads((directory / "config.json").read_text())["text_config"]
    checkpoints.edit_json(directory / "config.json", text_config=text | {"num_hidden_layers": 10**7})
    with pytest.raises(QuantError, match=r"hf: config\.json says 10000002 layers, but there are only \d+ tensors"):
        convert(directory, tmp_path, "F16")


def test_processors_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    directory = checkpoints.write(tmp_path / "hf", "musicflamingo")
    path = directory / "processor_config.json"
    whole = json.loads(path.read_text())
    wrong = {
        r"processor_config\.json: max_audio_len is 'long', not": whole | {"max_audio_len": "long"},
        r"processor_config\.json: feature_extractor\.n_fft is 400\.5, not": whole | {"feature_extractor": {"n_fft": 400.5}},
        r"processor_config\.json: feature_extractor is 1, not a JSON object": whole | {"feature_extractor": 1},
        r"preprocessor_config\.json is missing": {name: value for name, value in whole.items() if name != "feature_extractor"},
    }
    for sentence, content in wrong.items():
        path.write_text(json.dumps(content))
        with pytest.raises(QuantError, match=sentence):
            read_geometry(directory)


def test_a_directory_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuantError, match=r"config\.json is missing"):
        read_geometry(tmp_path)
    shutil.copy(checkpoints.write(tmp_path / "hf", "musicflamingo") / "config.json", tmp_path)
    with pytest.raises(QuantError, match=r"processor_config\.json is missing"):
        read_geometry(tmp_path)
