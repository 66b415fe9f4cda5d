"""Building, loading and saving; time tables stay float32 whatever the weights become."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mflamingo_cli.core.model import Model, build, encode_crops, encode_windows, load, save
from mflamingo_cli.errors import ModelError
from quant.config import read_geometry
from quant.json_files import read_json
from tests import checkpoints

CROP_TOLERANCE = 1e-5  # float32 sums in another order, cosines of large angles by NumPy instead of torch; 2.5e-6 measured


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


@pytest.fixture
def window(checkpoint: Path) -> torch.Tensor:
    """Log-mel frames of a whole window, (1, n_mels, frames), of no particular sound."""
    sizes = read_geometry(checkpoint).mel
    return torch.randn(1, sizes.n_mels, sizes.n_frames, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["musicflamingo", "audioflamingo3"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_crop_that_is_a_whole_window_is_encoded_as_one(kind: str, place: int, window: torch.Tensor, tmp_path: Path) -> None:
    directory = checkpoints.write(tmp_path, kind)
    model = load(directory)
    with torch.no_grad():
        hidden = encode_crops(model, window, torch.tensor([place]), torch.tensor([0]))
        [expected] = encode_windows(model, read_geometry(directory), window, torch.tensor([window.shape[2]]), torch.tensor([place]))
        torch.testing.assert_close(model.model.multi_modal_projector(hidden)[0], expected, atol=CROP_TOLERANCE, rtol=0)


def test_without_attention_a_crop_is_that_part_of_its_window(checkpoint: Path, window: torch.Tensor) -> None:
    """Positions and time go on where the crop begins; its edges differ, where the convolutions see zeros instead of their neighbours."""
    model, offset, length = load(checkpoint), 40, 25
    for layer in model.model.audio_tower.layers:
        for part in (layer.self_attn.out_proj, layer.fc2):
            nn.init.zeros_(part.weight)
    with torch.no_grad():
        whole = encode_crops(model, window, torch.tensor([3]), torch.tensor([0]))
        crop = encode_crops(model, window[:, :, 4 * offset : 4 * (offset + length)], torch.tensor([3]), torch.tensor([offset]))
    assert crop.shape == (1, length, whole.shape[2])
    torch.testing.assert_close(crop[:, 1:-1], whole[:, offset + 1 : offset + length - 1], atol=CROP_TOLERANCE, rtol=0)
    assert (crop - whole[:, :length]).abs().max() > 0.1, "the offset changed nothing"


def test_gradients_reach_every_weight_of_the_encoder(checkpoint: Path, window: torch.Tensor) -> None:
    model = load(checkpoint).requires_grad_(True)
    encode_crops(model, window[:, :, :80], torch.tensor([0]), torch.tensor([7])).square().sum().backward()
    lacking = [name for name, weight in model.model.audio_tower.named_parameters() if weight.grad is None]
    assert lacking == []


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
