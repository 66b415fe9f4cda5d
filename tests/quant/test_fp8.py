"""FP8 checkpoints are read as what they are worth: every layout in use converts like its dequantised twin; what does not fit is named."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from quant import fp8, layout
from quant.checkpoint import Checkpoint
from quant.convert import convert, plan
from quant.errors import QuantError
from quant.verify import verify
from tests import checkpoints
from tests.quant.test_convert import edit_json, same_pair

Q_PROJ = "language_model.model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module", params=checkpoints.FP8_LAYOUTS)
def twins(request: pytest.FixtureRequest, music: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint in FP8, and the same in BF16."""
    return checkpoints.write_fp8(music, tmp_path_factory.mktemp("fp8"), request.param)


@pytest.fixture(scope="module")
def fine_grained(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write_fp8(music, tmp_path_factory.mktemp("fine"), "fine-grained")[0]


@pytest.fixture
def broken(fine_grained: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the fine-grained checkpoint and change it: `broken(weights, quantization_config)`, both as functions."""

    def change(weights: Callable[[dict[str, torch.Tensor]], Any] | None = None, **settings: object) -> Path:
        directory = tmp_path / "broken"
        shutil.copytree(fine_grained, directory)
        if weights:
            tensors = load_file(directory / "model.safetensors")
            weights(tensors)
            save_file(tensors, directory / "model.safetensors")
        if settings:
            edit_json(directory / "config.json", **settings)
        return directory

    return change


def test_every_code_is_torchs() -> None:
    theirs = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(fp8.from_f8(np.arange(256, dtype=np.uint8)), theirs)


def test_products_round_to_bf16_as_torch_rounds() -> None:
    values = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
    values[0, :4] = [0.0, -0.0, np.nan, 1 + 2.0**-8]  # the last one lies half way: to even
    scales = np.random.default_rng(1).uniform(1e-3, 1.0, (64, 3)).astype(np.float32)
    scales[0, 0] = 1.0
    expected = (torch.from_numpy(values) * torch.from_numpy(scales).repeat_interleave(16, 1)).bfloat16().float().numpy()
    np.testing.assert_array_equal(fp8.scale(values, scales, 16), expected)


@pytest.mark.parametrize("type_name", ["F32", "BF16", "Q8_0"])
def test_converts_bit_by_bit_like_the_dequantised_checkpoint(twins: tuple[Path, Path], type_name: str, tmp_path: Path) -> None:
    first, second = (convert(directory, tmp_path / directory.parent.name, type_name) for directory in twins)
    assert same_pair(first, second)


def test_any_rows_are_read_as_the_whole(twins: tuple[Path, Path]) -> None:
    with Checkpoint(twins[0]) as quantized, Checkpoint(twins[1]) as dense:
        rows, columns = quantized.entries[Q_PROJ].shape
        for first, count in ((0, rows), (3, 1), (31, 2), (47, 17), (rows - 1, 1)):
            expected = dense.weights(Q_PROJ, first * columns, count * columns)
            np.testing.assert_array_equal(quantized.weights(Q_PROJ, first * columns, count * columns), expected)
        blocks = np.concatenate(list(quantized.blocks(Q_PROJ, 5 * columns)))
        np.testing.assert_array_equal(blocks.ravel(), dense.weights(Q_PROJ, 0, rows * columns))


def test_a_scale_may_lie_in_another_shard_than_its_weight(twins: tuple[Path, Path], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(twins[0], tmp_path / twins[0].name))
    checkpoints.shard(directory, 3)
    assert same_pair(convert(twins[0], tmp_path / "one", "F16"), convert(directory, tmp_path / "shards", "F16"))


def test_names_in_memory_of_transformers_are_read_too(fine_grained: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(fine_grained, tmp_path / fine_grained.name))
    checkpoints.rename(directory)
    assert same_pair(convert(fine_grained, tmp_path / "old", "F16"), convert(directory, tmp_path / "new", "F16"))


def test_memory_is_bounded_by_blocks_not_by_matrices_and_scales(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_rows = 100_000  # 6 MB of codes, a hundred blocks
    monkeypatch.setattr("quant.convert.BLOCK_WEIGHTS", 1 << 16)
    directory, _ = checkpoints.write_fp8(music, tmp_path, "channel")
    weights = load_file(directory / "model.safetensors")
    weights["language_model.model.embed_tokens.weight"] = torch.ones(n_rows, 64, dtype=torch.bfloat16)
    weights["language_model.lm_head.weight"] = torch.ones(n_rows, 64).to(torch.float8_e4m3fn)
    weights["language_model.lm_head.weight_scale"] = torch.ones(n_rows, 1, dtype=torch.bfloat16)
    save_file(weights, directory / "model.safetensors")
    text = json.loads((directory / "config.json").read_text())["text_config"]
    edit_json(directory / "config.json", text_config=text | {"vocab_size": n_rows})
    made = plan(directory, tmp_path, "Q8_0")
    tracemalloc.start()
    for _ in made.run(n_threads=1):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20  # the limit of unquantised checkpoints


def test_verify_compares_with_what_fp8_is_worth(twins: tuple[Path, Path], tmp_path: Path) -> None:
    text, _ = convert(twins[0], tmp_path, "BF16")
    reports = list(verify(text, twins[0]))
    assert not [report for report in reports if report.problem]
    assert next(report.error for report in reports if report.name == "blk.0.attn_q.weight") == 0.0


def test_a_scheme_says_what_it_is() -> None:
    found = {name: str(fp8.read(Path(), settings)) for name, (settings, *_) in checkpoints.FP8_LAYOUTS.items()}
    assert found == {
        "fine-grained": "FP8 (E4M3) with a scale per 32 x 16 block",
        "fine-grained-static": "FP8 (E4M3) with a scale per matrix",
        "channel": "FP8 (E4M3) with a scale per row",
        "tensor": "FP8 (E4M3) with a scale per matrix",
        "block": "FP8 (E4M3) with a scale per 48 x 40 block",
        "group": "FP8 (E4M3) with a scale per 1 x 16 block",
    }
    assert fp8.read(Path(), None) is None


def test_a_missing_or_misshapen_scale_is_named(broken: Callable[..., Path], tmp_path: Path) -> None:
    def misshape(weights: dict[str, torch.Tensor]) -> None:
        weights[f"{Q_PROJ}_scale_inv"] = torch.ones(64, 1)

    with pytest.raises(QuantError, match=r"q_proj\.weight_scale_inv has shape \[64, 1\], but config\.json says .*\[2, 4\] of \[64, 64\]"):
        convert(broken(misshape), tmp_path / "out", "F16")
    shutil.rmtree(tmp_path / "broken")
    with pytest.raises(QuantError, match=r"q_proj\.weight is FP8, but \S+q_proj\.weight_scale_inv or \S+ is missing; download it again"):
        convert(broken(lambda weights: weights.pop(f"{Q_PROJ}_scale_inv")), tmp_path / "out", "F16")
    assert not (tmp_path / "out").exists()


def test_a_scale_without_its_fp8_weight_is_unexpected(broken: Callable[..., Path], tmp_path: Path) -> None:
    directory = broken(lambda weights: weights.update({"language_model.lm_head.weight_scale": torch.ones(1)}))
    with pytest.raises(QuantError, match=r"holds unexpected language_model\.lm_head\.weight_scale"):
        convert(directory, tmp_path, "F16")


def test_fp8_that_is_no_matrix_is_named(broken: Callable[..., Path], tmp_path: Path) -> None:
    name = "language_model.model.norm.weight"
    directory = broken(lambda weights: weights.update({name: torch.ones(64).to(torch.float8_e4m3fn), f"{name}_scale": torch.ones(1)}))
    with pytest.raises(QuantError, match=r"norm\.weight is FP8 but not a matrix"):
        convert(directory, tmp_path, "F16")


def test_nan_in_a_scale_or_code_is_found(broken: Callable[..., Path], tmp_path: Path) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> None:
        weights[f"{Q_PROJ}_scale_inv"][0, 0] = torch.nan

    with pytest.raises(QuantError, match=r"q_proj\.weight: contains NaN"):
        convert(broken(poison), tmp_path / "out", "Q8_0")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (None, "proj.weight is FP8, but config.json has no quantization_config"),
        ({"quant_method": "awq", "bits": 4}, "quantised by 'awq', which cannot be read; use the original, or one made by"),
        ("fp8", "quantised by '[?]', which cannot be read"),
        ({"quant_method": "fp8", "weight_block_size": [0, 4]}, "quantization_config of config.json is damaged"),
        ({"quant_method": "compressed-tensors"}, "quantization_config of config.json is damaged"),
        (checkpoints._scheme("channel") | {"format": "pack-quantized"}, "its weights are 8 bit float, pack-quantized"),
        (checkpoints._scheme("token"), "scaled per token; only tensor, channel, group, block"),
        (checkpoints._scheme("channel") | {"transform_config": {"config_groups": {"R1": {}}}}, "a transform_config was also applied"),
        (checkpoints._scheme("channel") | {"config_groups": {}}, "has 0 different weight schemes"),
    ],
)  # fmt: skip
def test_another_way_to_quantise_is_one_sentence(broken: Callable[..., Path], settings: object, sentence: str, tmp_path: Path) -> None:
    directory = broken(quantization_config=settings)
    with pytest.raises(QuantError, match=sentence) as caught:
        convert(directory, tmp_path / "out", "F16")
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_transformers_dequantises_to_the_same(fine_grained: Path) -> None:
    """On a machine without a GPU transformers turns such a checkpoint into BF16 by itself; accelerate is what it asks for."""
    pytest.importorskip("accelerate")
    from transformers import MusicFlamingoForConditionalGeneration

    theirs = MusicFlamingoForConditionalGeneration.from_pretrained(fine_grained, dtype=torch.bfloat16).state_dict()
    with Checkpoint(fine_grained) as ours:
        assert len(ours.entries) == len(theirs)
        for name, entry in ours.entries.items():
            expected = theirs[next(key for key in theirs if layout.canonical(key) == name)].float().numpy()
            np.testing.assert_array_equal(ours.weights(name, 0, expected.size).reshape(entry.shape), expected, err_msg=name)


@pytest.mark.parametrize("layout", ["channel", "tensor", "block", "group"])
def test_compressed_tensors_stores_and_dequantises_the_same(layout: str, music: Path, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    directory, twin = checkpoints.write_fp8(music, tmp_path, layout)
    settings = json.loads((directory / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate({key: value for key, value in settings.items() if key not in UNTYPED})
    scheme, stored = config.config_groups["group_0"], load_file(directory / "model.safetensors")
    compressor = BaseCompressor.get_value_from_registry(config.format)
    state = {"weight": stored[Q_PROJ], "weight_scale": stored[f"{Q_PROJ}_scale"]}
    dense = compressor.decompress(state, scheme)["weight"]
    assert torch.equal(dense, load_file(twin / "model.safetensors")[Q_PROJ])
    source = load_file(music / "model.safetensors")[Q_PROJ].bfloat16()
    again = compressor.compress({"weight": source, "weight_scale": state["weight_scale"]}, scheme)["weight"]
    assert torch.equal(again.view(torch.uint8), state["weight"].view(torch.uint8))


UNTYPED = ("sparsity_config", "transform_config", "version")  # that the package writes beside its own record
