"""Building, loading and saving; time tables stay float32 whatever the weights become."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mflamingo_cli.core.geometry import read_json
from mflamingo_cli.core.model import Model, build, load, save
from mflamingo_cli.errors import ModelError
from tests import checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("hf"), "musicflamingo")


@pytest.mark.parametrize(
    "cast",
    [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16().float(), lambda m: m],
    ids=["bf16", "half", "back", "none"],
)
def test_time_tables_survive_every_cast(checkpoint: Path, cast: Callable[[Model], Model]) -> None:
    model = load(checkpoint)
    before = {name: buffer.clone() for name, buffer in model.model.pos_emb.named_buffers()}
    after = dict(cast(model).model.pos_emb.named_buffers())
    assert before
    for name, buffer in before.items():
        assert after[name].dtype == torch.float32
        assert torch.equal(after[name], buffer)


def test_loading_in_bf16_keeps_time_tables_exact(checkpoint: Path) -> None:
    exact, rounded = load(checkpoint), load(checkpoint, dtype=torch.bfloat16)
    assert next(rounded.parameters()).dtype == torch.bfloat16
    assert torch.equal(exact.model.pos_emb.position_angles, rounded.model.pos_emb.position_angles)


@pytest.mark.parametrize("kind", ["musicflamingo", "audioflamingo3"])
def test_what_is_saved_loads_equal(kind: str, tmp_path: Path) -> None:
    directory = checkpoints.write(tmp_path / "a", kind)
    model = load(directory)
    save(model, tmp_path / "b", dtype=torch.float32)
    again = load(tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_saved_names_are_the_hubs(checkpoint: Path, tmp_path: Path) -> None:
    save(load(checkpoint), tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert "language_model.lm_head.weight" in names
    assert "audio_tower.conv1.weight" in names
    assert names["audio_tower.conv1.weight"].dtype == torch.bfloat16


def test_build_takes_the_geometry_of_a_config(checkpoint: Path) -> None:
    config = read_json(checkpoint / "config.json")
    model = build({key: value for key, value in config.items() if key not in ("architectures", "transformers_version")})
    assert [tuple(p.shape) for p in model.parameters()] == [tuple(p.shape) for p in load(checkpoint).parameters()]


def test_a_missing_tensor_is_named(checkpoint: Path, tmp_path: Path) -> None:
    directory = tmp_path / "broken"
    shutil.copytree(checkpoint, directory)
    tensors = load_file(directory / "model.safetensors")
    tensors.pop("multi_modal_projector.linear_1.bias")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the checkpoint lacks multi_modal_projector\.linear_1\.bias"):
        load(directory)


def test_a_truncated_file_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    directory = tmp_path / "cut"
    shutil.copytree(checkpoint, directory)
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a safetensors file, or cut short"):
        load(directory)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    with pytest.raises(ModelError, match="not Music Flamingo"):
        load(tmp_path)
