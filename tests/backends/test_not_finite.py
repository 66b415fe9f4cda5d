"""Weights that are no numbers are said in one sentence; they are never an answer of one character for ever."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, SongPrompts, complete
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.cli import app
from mflamingo_cli.errors import ModelError
from quant.convert import convert
from tests import checkpoints
from tests.clips import audio
from tests.gguf_files import parts

OPTIONS = OpenOptions(device="cpu", dtype="fp32", threads=1)
TORCH = "the model's values are too large for fp32; choose .* or download the model again"
# In the encoder, behind it, and in the language model: names in GGUF and in a checkpoint
PLACES = {
    "encoder": ("a.blk.1.ln1.weight", "audio_tower.layers.1.self_attn_layer_norm.weight"),
    "projector": ("mm.a.mlp.2.bias", "multi_modal_projector.linear_2.bias"),
    "language model": ("blk.1.ffn_norm.weight", "language_model.model.layers.1.post_attention_layernorm.weight"),
    "last norm": ("output_norm.weight", "language_model.model.norm.weight"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("hf") / "tiny", "musicflamingo")


@pytest.fixture(scope="module")
def pair(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return convert(checkpoint, tmp_path_factory.mktemp("pair"), "Q8_0")


def broken_pair(pair: tuple[Path, Path], name: str, value: float, folder: Path) -> tuple[Path, Path]:
    """A copy in which the third weight of a tensor in F32 is another."""
    for path in pair:
        made = parts(path)
        if name in dict(made.tensors):
            tensor = dict(made.tensors)[name]
            tensor.data = tensor.data[:8] + struct.pack("<f", value) + tensor.data[12:]
        made.write(folder / path.name)
    return folder / pair[0].name, folder / pair[1].name


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_pair_with_weights_that_are_no_numbers_is_not_opened(place: str, value: float, pair: tuple[Path, Path], tmp_path: Path) -> None:
    name, _ = PLACES[place]
    with pytest.raises(ModelError, match=rf"{re.escape(name)} holds NaN or infinity; convert or download it again") as caught:
        GgufBackend(*broken_pair(pair, name, value, tmp_path), OPTIONS)
    assert (caught.value.code, caught.value.exit_code) == ("model_unavailable", 69)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_checkpoint_with_weights_that_are_no_numbers_answers_nothing(place: str, value: float, checkpoint: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(checkpoint, tmp_path / "broken"))
    weights = load_file(directory / "model.safetensors")
    weights[PLACES[place][1]][2] = value
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with TorchBackend(directory, OPTIONS) as backend:
        with pytest.raises(ModelError, match=TORCH) if place in ("encoder", "projector") else nullcontext() as caught:
            [encoded] = backend.encode([audio(1.5)])  # an encoding that is no numbers is not kept
        if caught is None:
            with pytest.raises(ModelError, match=TORCH) as caught:
                complete(backend, encoded, [Prompt("Key?")], GenerateOptions(max_new_tokens=3, temperature=0.7))
    assert (caught.value.code, caught.value.exit_code) == ("failed", 69)


@pytest.mark.parametrize("name", ["a.blk.1.ln1.weight", "output_norm.weight"])  # norms: times what deviates by more than 1.1
def test_values_that_overflow_in_a_pair_are_no_answer(name: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Each weight is a number, their sums are none."""
    with (
        GgufBackend(*broken_pair(pair, name, 3e38, tmp_path), OPTIONS) as backend,
        pytest.raises(ModelError, match="the model's values are too large: its weights are probably damaged"),
    ):
        complete(backend, backend.encode([audio(1.5)])[0], [Prompt("Key?")], GenerateOptions(max_new_tokens=3, temperature=0.7))


def test_values_that_overflow_while_an_answer_is_written_end_it(checkpoint: Path) -> None:
    with TorchBackend(checkpoint, OPTIONS) as backend:
        song = SongPrompts(backend.encode([audio(1.5)])[0], [Prompt("Key?")])
        chunks = backend.generate([song], GenerateOptions(max_new_tokens=9))
        next(chunks)
        backend.network.lm_head.weight.data.fill_(torch.nan)
        with pytest.raises(ModelError, match="too large for fp32"):
            list(chunks)


def test_a_command_says_it_with_its_exit_code(pair: tuple[Path, Path], tmp_path: Path, tmp_song: Path) -> None:
    text, _ = broken_pair(pair, "output_norm.weight", math.nan, tmp_path)
    done = CliRunner().invoke(app, ["ask", "--json", "--no-cache", "-m", str(text), "Key?", str(tmp_song)])
    record = json.loads(done.stdout)
    assert (done.exit_code, record["status"], record["error"]["code"]) == (69, "error", "model_unavailable")
    assert "output_norm.weight holds NaN or infinity" in record["error"]["message"]
