"""Names, shapes and file names of the two parts."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import gguf
import pytest

from quant import layout
from quant.errors import QuantError
from quant.families import FAMILIES
from quant.geometry import MelConfig
from tests.checkpoints import REAL_2601

N_TENSORS = 830
N_WEIGHTS = 8_267_215_360


def test_full_size_has_the_published_number_of_tensors_and_weights() -> None:
    tensors = [tensor for part in layout.PARTS for tensor in layout.tensors(part, REAL_2601)]
    assert len({tensor.hf for tensor in tensors}) == len({tensor.gguf for tensor in tensors}) == N_TENSORS
    assert sum(prod(tensor.shape) for tensor in tensors) == N_WEIGHTS


@pytest.mark.parametrize(
    ("part", "text", "architecture"),
    [
        ("text", "qwen2", gguf.MODEL_ARCH.QWEN2),
        ("text", "llama", gguf.MODEL_ARCH.LLAMA),
        ("audio", "qwen2", gguf.MODEL_ARCH.MMPROJ),
    ],
)
def test_names_are_those_of_llama_cpp(part: layout.Part, text: str, architecture: gguf.MODEL_ARCH) -> None:
    geometry = replace(REAL_2601, text=replace(REAL_2601.text, model_type=text))
    oracle = gguf.get_tensor_name_map(architecture, {"text": geometry.text, "audio": geometry.encoder}[part].n_layers)
    tensors = list(layout.tensors(part, geometry))
    assert len(tensors) > 250
    for tensor in tensors:
        # its converter strips the language model's prefix and tells audio projectors from visual ones by another
        name = tensor.hf.removeprefix("language_model.").replace("multi_modal_projector", "audio.multi_modal_projector")
        assert oracle.get_name(name, try_suffixes=(".weight", ".bias")) == tensor.gguf


def test_old_and_new_prefixes_mean_the_same_tensor() -> None:
    pairs = {
        "model.audio_tower.conv1.bias": "audio_tower.conv1.bias",
        "model.multi_modal_projector.linear_1.bias": "multi_modal_projector.linear_1.bias",
        "model.language_model.layers.0.mlp.up_proj.weight": "language_model.model.layers.0.mlp.up_proj.weight",
        "lm_head.weight": "language_model.lm_head.weight",
    }
    assert {layout.canonical(new) for new in pairs} == set(pairs.values())
    assert {layout.canonical(old) for old in pairs.values()} == set(pairs.values())


def test_tied_models_have_no_output_matrix() -> None:
    tied = {tensor.gguf for tensor in layout.tensors("text", REAL_2601, tied=True)}
    assert {tensor.gguf for tensor in layout.tensors("text", REAL_2601)} - tied == {"output.weight"}


def test_only_what_stock_llama_cpp_hears_rightly_has_its_projector_name() -> None:
    projectors = {name: row.projector_name for name, row in FAMILIES.items()}
    assert projectors["audioflamingo3"](MelConfig()) == "musicflamingo"
    assert projectors["musicflamingo"](MelConfig()) == "musicflamingo_rote"
    assert projectors["audioflamingo3"](MelConfig(n_fft=2048)) == "musicflamingo_mel"


@pytest.mark.parametrize(
    ("text", "audio", "found"),
    [
        ("a-Q8_0.gguf", ["mmproj-a-Q8_0.gguf", "mmproj-a-F16.gguf"], "mmproj-a-Q8_0.gguf"),  # its own type first
        ("a-Q4_K_M.gguf", ["mmproj-a-Q8_0.gguf", "mmproj-a-F16.gguf"], "mmproj-a-Q8_0.gguf"),  # then the default
        ("music-flamingo-Q6_K.gguf", ["mmproj-music-flamingo-bf16.gguf"], "mmproj-music-flamingo-bf16.gguf"),  # then the only one
        ("a.gguf", ["mmproj-a.gguf"], "mmproj-a.gguf"),
    ],
)
def test_audio_part_is_found_beside_the_text_part(tmp_path: Path, text: str, audio: list[str], found: str) -> None:
    for name in audio:
        (tmp_path / name).touch()
    assert layout.audio_file(tmp_path / text).name == found


def test_no_audio_part_or_no_telling_which_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mmproj-b-Q8_0.gguf").touch()
    with pytest.raises(QuantError, match="no audio part"):
        layout.audio_file(tmp_path / "a-Q4_K_M.gguf")
    for name in ("mmproj-a-F16.gguf", "mmproj-a-BF16.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(QuantError, match="several audio parts"):
        layout.audio_file(tmp_path / "a-Q4_K_M.gguf")


def test_file_names_cannot_leave_the_directory() -> None:
    assert layout.file_name("audio", "../we ird/na:me", "F16") == "mmproj-we-ird-na-me-F16.gguf"
