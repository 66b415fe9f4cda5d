"""LoRA adapters are merged into their base as it is read: conversion and torch see W + scale * B A; what does not fit is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mflamingo_cli.backends import find_model, open_backend
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.core.model import load
from mflamingo_cli.errors import ModelError
from quant import reader
from quant.convert import convert, plan
from quant.errors import QuantError
from quant.lora import Adapted
from tests import checkpoints
from tests.clips import audio
from tests.quant.test_convert import contents

TOLERANCE = 2e-6  # of weights near 1: B A is summed in another order than by torch
Q_PROJ = f"{checkpoints.LORA_TARGETS[0]}.weight"


@pytest.fixture(scope="module", params=[False, True], ids=["lora", "rslora"])
def twins(request: pytest.FixtureRequest, music: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An adapter, and the checkpoint it makes of its base."""
    return checkpoints.write_lora(music, tmp_path_factory.mktemp("lora"), rslora=request.param)


def test_converts_like_the_merged_checkpoint(twins: tuple[Path, Path], music: Path, tmp_path: Path) -> None:
    adapter, merged = twins
    made = plan(music, tmp_path / "a", "F32", adapter=adapter)
    for _ in made.run():
        pass
    assert made.paths[0].name == "adapter-F32.gguf"
    assert reader.read(made.paths[1]).keys["mflamingo.name"] == "adapter"
    plain = contents(convert(music, tmp_path / "b", "F32")[0])
    for ours, theirs in zip(made.paths, convert(merged, tmp_path / "c", "F32"), strict=True):
        expected, changed = contents(theirs), 0
        for name, (_, data) in contents(ours).items():
            values = [np.frombuffer(bytes_, np.float32) for bytes_ in (data, expected[name][1])]
            np.testing.assert_allclose(*values, rtol=0, atol=TOLERANCE, err_msg=name)
            changed += name in plain and data != plain[name][1]
        assert changed == (2 if "mmproj" not in ours.name else 0)


def test_torch_answers_like_the_merged_checkpoint(twins: tuple[Path, Path], music: Path) -> None:
    ours, theirs = load(music, adapter=twins[0]).state_dict(), load(twins[1]).state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=TOLERANCE)
    answers = []
    for path in twins:
        with open_backend(str(path), OpenOptions(backend="torch", device="cpu", threads=1)) as backend:
            answers.append(complete(backend, backend.encode([audio(3.0)])[0], [Prompt("Key?")], GenerateOptions(max_new_tokens=6)))
            assert ("merged into" in backend.info.reason) == (path.name == "adapter" and path.parent.name != "merged")
            assert backend.info.model == "adapter"
    assert answers[0] == answers[1]


def test_any_rows_are_merged_as_the_whole(twins: tuple[Path, Path], music: Path) -> None:
    with Adapted(music, twins[0]) as weights:
        rows, columns = weights.entries[Q_PROJ].shape
        whole = weights.weights(Q_PROJ, 0, rows * columns)
        part = weights.weights(Q_PROJ, 7 * columns, 5 * columns)
        np.testing.assert_allclose(part, whole[7 * columns : 12 * columns], rtol=0, atol=TOLERANCE)


def test_fp8_takes_an_adapter_too(twins: tuple[Path, Path], music: Path, tmp_path: Path) -> None:
    directory, dense = checkpoints.write_fp8(music, tmp_path, "channel")
    with Adapted(directory, twins[0]) as ours, Adapted(dense, twins[0]) as theirs:
        size = np.prod(ours.entries[Q_PROJ].shape)
        np.testing.assert_array_equal(ours.weights(Q_PROJ, 0, size), theirs.weights(Q_PROJ, 0, size))


def test_an_adapter_is_found_by_its_directory_and_leads_to_its_base(twins: tuple[Path, Path], music: Path, tmp_path: Path) -> None:
    found = find_model(str(twins[0]))
    assert (found.directory, found.adapter, found.pairs) == (music, twins[0], ())
    lost = Path(shutil.copytree(twins[0], tmp_path / "lost"))
    checkpoints.edit_json(lost / "adapter_config.json", base_model_name_or_path="nobody/nothing")
    with pytest.raises(ModelError, match="its base model nobody/nothing cannot be opened"):
        find_model(str(lost))
    checkpoints.edit_json(lost / "adapter_config.json", base_model_name_or_path=str(twins[0]))
    with pytest.raises(ModelError, match=r"its base model .* is another adapter"):
        find_model(str(lost))
    checkpoints.edit_json(lost / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(ModelError, match="names no base_model_name_or_path"):
        find_model(str(lost))
    shutil.copy(music / "config.json", lost)
    with pytest.raises(ModelError, match="contains both a checkpoint and a LoRA adapter"):
        find_model(str(lost))


A, B = (f"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{half}.weight" for half in "AB")
SAVED = "base_model.model.lm_head.weight"  # whole, by modules_to_save
Edit = Callable[[dict[str, torch.Tensor]], object]


def move(halves: dict[str, torch.Tensor]) -> None:
    halves |= {name.replace("layers.0", "layers.9"): halves.pop(name) for name in (A, B)}


@pytest.mark.parametrize(
    ("edit", "settings", "sentence"),
    [
        (lambda halves: halves.pop(B), {}, r"q_proj\.weight has only one half of its LoRA matrix"),
        (lambda halves: halves.update({B: torch.zeros(65, 4)}), {}, r"q_proj\.weight by \[65, 4\] x \[4, 64\], which does not match"),
        (lambda halves: halves.update({SAVED: torch.zeros(2)}), {}, r"lm_head\.weight \[2\] is neither half of a LoRA matrix nor"),
        (move, {}, r"changes \S+layers\.9\.\S+, which its base model does not have"),
        (lambda halves: halves.clear(), {}, "contains no LoRA matrices"),
        (None, {"use_dora": True}, "does not have one magnitude per row, as DoRA needs"),
        (None, {"lora_bias": True}, "lora_bias is True; only False can be merged"),
        (None, {"alpha_pattern": {"(": 1}}, "alpha_pattern is not a table of patterns"),
        (None, {"peft_type": "LOHA"}, "peft_type is 'LOHA'; only 'LORA' can be merged"),
        (None, {"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        (None, {"lora_alpha": None}, "lora_alpha is None, not a number"),
    ],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_one_sentence(
    edit: Edit | None, settings: dict[str, object], sentence: str, music: Path, tmp_path: Path
) -> None:
    adapter, _ = checkpoints.write_lora(music, tmp_path)
    if edit:
        halves = load_file(adapter / "adapter_model.safetensors")
        edit(halves)
        save_file(halves, adapter / "adapter_model.safetensors")
    checkpoints.edit_json(adapter / "adapter_config.json", **settings)
    with pytest.raises(QuantError, match=sentence) as caught:
        plan(music, tmp_path / "out", "F16", adapter=adapter)
    assert str(adapter) in str(caught.value)
    with pytest.raises(ModelError, match=sentence):
        load(music, adapter=adapter)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 20}, "rank_pattern": {"layers.0.self_attn.q_proj": 2}},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["multi_modal_projector"], "target_modules": ["q_proj", "v_proj"]},
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_peft_saves_and_merges_the_same(settings: dict[str, object], music: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "linear_2"], "init_lora_weights": False} | settings)
    model = peft.get_peft_model(load(music), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:  # biases and whole modules, as if they had been trained
                parameter += 0.1 * torch.randn_like(parameter)
    model.peft_config["default"].base_model_name_or_path = str(music)
    model.save_pretrained(tmp_path / "adapter")
    merged = model.merge_and_unload().state_dict()
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(music)
    ours, base = load(music, adapter=find_model(str(tmp_path / "adapter")).adapter).state_dict(), load(music).state_dict()
    for name, weight in merged.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=TOLERANCE)
    changed = {name for name, weight in merged.items() if not torch.equal(weight, base[name])}
    assert any(name.endswith("q_proj.weight") for name in changed)
    assert any(name.endswith("bias") for name in changed) == bool({"bias", "modules_to_save"} & set(settings))
