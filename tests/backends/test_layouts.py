"""The layouts in which the real checkpoints are published, small and with random weights: both back ends load each and answer alike."""

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
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.core.audio import SAMPLE_RATE, Audio, Source
from mflamingo_cli.core.chat import build_messages
from mflamingo_cli.core.model import load
from mflamingo_cli.errors import AudioError, ModelError
from quant import layout
from quant.convert import convert
from quant.errors import QuantError
from tests import checkpoints
from tests.clips import audio
from tests.quant.test_convert import same_pair

pytestmark = pytest.mark.slow

CPU = OpenOptions(device="cpu", dtype="fp32", kv_type="f32", threads=1)
PROMPTS, SHORT = [Prompt("What is the key?")], GenerateOptions(max_new_tokens=8)


@pytest.fixture(scope="module", params=checkpoints.PUBLISHED)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.publish(tmp_path_factory.mktemp("hub") / request.param, request.param, seed=7)


@pytest.fixture(scope="module")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.publish(tmp_path_factory.mktemp("hub") / "music-flamingo", "preview", seed=7)


def test_a_published_checkpoint_answers_alike_in_both_back_ends(published: Path, tmp_path: Path) -> None:
    clip, answers = audio(3.0), []
    for backend in (TorchBackend(published, CPU), GgufBackend(*convert(published, tmp_path, "F32"), CPU)):
        with backend:
            geometry = backend.info.geometry
            assert (geometry.rote is None) == (geometry.tokens.bos is None) == (published.name == "preview")
            kind = checkpoints.KINDS[checkpoints.PUBLISHED[published.name][0]]
            assert (geometry.max_audio_s, geometry.text.rope_theta, geometry.text.context_length, backend.info.context_length) == (
                kind.max_audio_s, kind.rope_theta, kind.context, kind.context,
            )  # fmt: skip
            assert geometry.rote is None or (geometry.rote.theta, geometry.rote.n_positions) == (kind.rote_theta, int(kind.rote_theta))
            assert kind.system in backend._chat.render_prompt(build_messages("Key?", audio=True)).before
            answers.append(complete(backend, backend.encode([clip])[0], PROMPTS, SHORT))
            if published.name == "preview":
                with pytest.raises(AudioError, match="the model takes at most 600 s"):
                    backend.encode(
                        [Audio(np.zeros(601 * SAMPLE_RATE, np.float32), Source("long.wav", 601.0, SAMPLE_RATE, 1, "pcm_f32le"))]
                    )[0]
    assert answers[0] == answers[1]


def test_the_torch_back_end_holds_every_weight_of_every_shard(published: Path) -> None:
    held = load(published, dtype=torch.bfloat16).state_dict()
    stored = {name: weight for path in published.glob("*.safetensors") for name, weight in load_file(path).items()}
    assert len(stored) == len([name for name in held if "pos_emb" not in name])
    by_name = {layout.canonical(name): weight for name, weight in held.items()}
    assert all(torch.equal(by_name[name], weight) for name, weight in stored.items())


def test_of_two_copies_the_single_file_is_read(preview: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(preview, tmp_path / preview.name))
    stored = {name: weight for path in preview.glob("*.safetensors") for name, weight in load_file(path).items()}
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    for shard in directory.glob("model-*"):
        shard.write_bytes(b"never opened")
    ours, theirs = load(directory).state_dict(), load(preview).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert same_pair(convert(preview, tmp_path / "a", "F16"), convert(directory, tmp_path / "b", "F16"))


def test_new_prefixes_load_like_old_ones(tmp_path: Path) -> None:
    old = checkpoints.write(tmp_path / "old" / "tiny", "musicflamingo")
    new = Path(shutil.copytree(old, tmp_path / "new" / "tiny"))
    checkpoints.rename(new)
    ours, theirs = load(new).state_dict(), load(old).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


NORM = "language_model.model.norm.weight"


def drop(weights: dict[str, torch.Tensor]) -> None:
    del weights[NORM]


def add(weights: dict[str, torch.Tensor]) -> None:
    weights["language_model.model.norm.bias"] = torch.zeros(64)


def misshape(weights: dict[str, torch.Tensor]) -> None:
    weights[NORM] = torch.zeros(65)


def duplicate(weights: dict[str, torch.Tensor]) -> None:
    weights["model.language_model.norm.weight"] = torch.zeros(64)


@pytest.mark.parametrize(
    ("change", "indexed", "sentence"),
    [
        (drop, False, rf"model-0000\d-of-00004\.safetensors: lacks {NORM}, which the index lists"),
        (drop, True, rf"the checkpoint lacks {NORM}"),
        (add, False, r"model-0000\d-of-00004\.safetensors: holds language_model\.model\.norm\.bias, which the index does not list"),
        (add, True, r"the checkpoint holds unexpected language_model\.model\.norm\.bias"),
        (misshape, True, rf"{NORM} has shape \[65\], but config\.json says \[64\]"),
        (duplicate, True, rf"{NORM} appears twice, under an old and a new name"),
    ],
)
def test_what_does_not_fit_is_named_in_both_back_ends(
    change: Callable[[dict[str, torch.Tensor]], None], indexed: bool, sentence: str, preview: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(preview, tmp_path / preview.name))
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    home = directory / index["weight_map"][NORM]
    weights = load_file(home)
    change(weights)
    save_file(weights, home, metadata={"format": "pt"})
    if indexed:
        kept = {name: file for name, file in index["weight_map"].items() if file != home.name}
        index["weight_map"] = kept | dict.fromkeys(weights, home.name)
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=sentence) as caught:
        TorchBackend(directory, CPU)
    assert "\n" not in str(caught.value)
    with pytest.raises(QuantError, match=sentence):
        convert(directory, tmp_path / "out", "F16")


def test_an_index_that_transformers_cannot_read_is_one_sentence(preview: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(preview, tmp_path / preview.name))
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index["weight_map"]}))
    with pytest.raises(ModelError, match="'metadata' is missing from the checkpoint's JSON files"):
        TorchBackend(directory, CPU)


def test_a_missing_shard_is_named(preview: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(preview, tmp_path / preview.name))
    (directory / "model-00003-of-00004.safetensors").unlink()
    with pytest.raises(ModelError, match=r"shard model-00003-of-00004\.safetensors is missing; download the checkpoint again"):
        TorchBackend(directory, CPU)


def test_a_table_stored_beside_the_weights_is_left_alone(tmp_path: Path) -> None:
    directory = checkpoints.write(tmp_path / "tiny", "musicflamingo")
    weights = load_file(directory / "model.safetensors")
    save_file(weights | {"audio_tower.pos_emb.freqs": torch.zeros(3)}, directory / "model.safetensors", metadata={"format": "pt"})
    assert load(directory).get_parameter("lm_head.weight").shape == weights["language_model.lm_head.weight"].shape


def test_a_pair_of_llama_cpps_own_converter_hears_windows_rightly(preview: Path, tmp_path: Path) -> None:
    text, ours = convert(preview, tmp_path / "ours", "BF16")
    folder = tmp_path / "music-flamingo-gguf"
    folder.mkdir()
    shutil.copy(convert(preview, tmp_path, "Q8_0")[0], folder / "music-flamingo-Q8_0.gguf")  # llama.cpp's own format
    checkpoints.write_stock_audio(preview, folder / "mmproj-music-flamingo-bf16.gguf")
    assert find_model(str(folder)).pairs == ((folder / "music-flamingo-Q8_0.gguf", folder / "mmproj-music-flamingo-bf16.gguf"),)
    with open_backend(str(folder), CPU) as stock, GgufBackend(text, ours, CPU) as own:
        assert stock.info.geometry == own.info.geometry
        assert stock.info.geometry.max_audio_s == 600.0
        for seconds, n_tokens in ((29.99, 750), (30.0, 750), (31.0, 775)):  # of llama.cpp itself: whole windows of silence behind
            heard = stock.encode([audio(seconds)])[0]
            assert heard.n_tokens == n_tokens
            np.testing.assert_array_equal(heard.payload, own.encode([audio(seconds)])[0].payload)
        assert complete(stock, heard, PROMPTS, SHORT)[0].usage.tokens_out > 0
