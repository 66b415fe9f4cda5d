"""The torch back end states its choices and keeps its memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mflamingo_cli.backends import open_backend, pytorch_loading
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.pytorch import TorchBackend, byte_alphabet
from mflamingo_cli.backends.pytorch_loading import choose_dtype, is_spread, weight_bytes
from mflamingo_cli.core.model import open_weights
from mflamingo_cli.core.quantized import KINDS, Quantized
from mflamingo_cli.errors import ModelError, UsageError
from tests import checkpoints
from tests.clips import audio


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("hf") / "tiny", "musicflamingo")


def test_device_and_dtype_come_with_a_reason(checkpoint: Path) -> None:
    with TorchBackend(checkpoint, OpenOptions(device="cpu", threads=1)) as backend:
        assert (backend.info.device, backend.info.dtype) == ("cpu", "fp32")
        assert backend.info.reason == "cpu: asked for; fp32: CPU"


def test_features_are_cast_to_the_models_dtype(checkpoint: Path) -> None:
    with TorchBackend(checkpoint, OpenOptions(device="cpu", dtype="bf16", threads=1)) as backend:
        encoded = backend.encode([audio(2.0)])[0]
        assert encoded.payload.dtype == torch.bfloat16
        assert 1 <= complete(backend, encoded, [Prompt("Key?")], GenerateOptions(max_new_tokens=3))[0].usage.tokens_out <= 3


def test_bf16_stays_near_fp32(checkpoint: Path) -> None:
    embeddings = []
    for dtype in ("fp32", "bf16"):
        with TorchBackend(checkpoint, OpenOptions(device="cpu", dtype=dtype, threads=1)) as backend:
            embeddings.append(backend.encode([audio(35.0)])[0].payload.float())
    error = (embeddings[0] - embeddings[1]).pow(2).mean().sqrt() / embeddings[0].std()
    assert error < 0.05, "bf16 keeps 8 bits: a few per cent after two layers; spoiled time tables would give about 1"


@pytest.mark.parametrize(
    ("wanted", "free_gb", "spread"), [("auto", 40, False), ("auto", 17, True), ("cuda", 17, True), ("cuda:0", 17, False)]
)
def test_a_model_is_spread_over_gpus_only_where_one_is_too_small(
    wanted: str, free_gb: int, spread: bool, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number=0: (free_gb << 30, 80 << 30))
    monkeypatch.setattr(pytorch_loading, "weight_bytes", lambda *_: 16 << 30)
    assert is_spread(wanted, open_weights(checkpoint), 2, "none") is spread
    monkeypatch.setattr(pytorch_loading, "weight_bytes", lambda *_: 160 << 30)
    if ":" not in wanted:
        with pytest.raises(ModelError, match=r"the model on 2 GPUs needs .* choose a smaller --quantize") as caught:
            is_spread(wanted, open_weights(checkpoint), 2, "none")
        assert caught.value.code == "oom"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_named(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="no device cuda:1"):
        TorchBackend(checkpoint, OpenOptions(device="cuda:1"))


def test_every_byte_has_its_character() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(byte_alphabet()) == set(ByteLevel.alphabet())


@pytest.mark.parametrize("layout", checkpoints.FP8_LAYOUTS)
def test_fp8_answers_as_its_dequantised_twin(layout: str, checkpoint: Path, tmp_path: Path, picked: list[tuple[int, np.ndarray]]) -> None:
    for directory in checkpoints.write_fp8(checkpoint, tmp_path, layout):
        with TorchBackend(directory, OpenOptions(device="cpu", threads=1)) as backend:
            assert ("dequantised from FP8 (E4M3) with a scale per" in backend.info.reason) == (directory.parent.name == layout)
            complete(backend, backend.encode([audio(3.0)])[0], [Prompt("Key?")], GenerateOptions(max_new_tokens=4))
    quantized, twin = np.array_split(np.array([logits for _, logits in picked]), 2)
    np.testing.assert_array_equal(quantized, twin)


def test_fp8_without_its_scale_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    directory, _ = checkpoints.write_fp8(checkpoint, tmp_path, "channel")
    weights = load_file(directory / "model.safetensors")
    del weights["language_model.model.layers.1.mlp.down_proj.weight_scale"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.down_proj\.weight is FP8, but \S+ or \S+ is missing") as caught:
        TorchBackend(directory, OpenOptions(device="cpu"))
    assert "\n" not in str(caught.value)


def test_memory_is_reckoned_from_weights_not_from_files(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantized, twin = checkpoints.write_fp8(checkpoint, tmp_path, "channel")
    checkpoints.write_shards(twin, [load_file(twin / "model.safetensors")])  # a second copy, which counts for nothing
    n_weights = sum(weight.numel() for weight in load_file(twin / "model.safetensors").values())
    for directory in (quantized, twin):
        for memory, expected in ((8 * n_weights, "fp32"), (8 * n_weights - 8, "bf16")):
            monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}.get)
            assert choose_dtype("auto", torch.device("cpu"), open_weights(directory))[0] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_models_are_loaded_so_and_still_hear_alike(kind: str, checkpoint: Path) -> None:
    with (
        TorchBackend(checkpoint, OpenOptions(device="cpu", dtype="bf16", threads=1, quantize=kind)) as small,
        TorchBackend(checkpoint, OpenOptions(device="cpu", dtype="bf16", threads=1)) as plain,
    ):
        layers = [module for module in small.network.modules() if isinstance(module, Quantized)]
        assert len(layers) == 7 * plain.info.geometry.text.n_layers
        assert type(small.network.lm_head) is nn.Linear
        assert not any(isinstance(module, Quantized) for module in small.network.model.audio_tower.modules())
        assert small.info.dtype == f"bf16+{kind}"
        assert small.info.reason.endswith(f"; {kind}: unpacked where they are used")
        held = sum(tensor.nbytes for tensor in (*small.network.parameters(), *(layer.weight for layer in layers)))
        assert held <= weight_bytes(open_weights(checkpoint), 2, kind) < weight_bytes(open_weights(checkpoint), 2, "none")
        song = small.encode([audio(3.0)])[0]
        torch.testing.assert_close(song.payload, plain.encode([audio(3.0)])[0].payload, rtol=0, atol=0)
        assert complete(small, song, [Prompt("Key?")], GenerateOptions(max_new_tokens=4))[0].usage.tokens_out > 0


@pytest.mark.parametrize("layout", checkpoints.FP8_LAYOUTS)
def test_fp8_checkpoints_keep_their_numbers(layout: str, checkpoint: Path, tmp_path: Path, picked: list[tuple[int, np.ndarray]]) -> None:
    """Kept in FP8 or dequantised while loading, the logits are the same bit by bit."""
    directory, _ = checkpoints.write_fp8(checkpoint, tmp_path, layout)
    for quantize in ("fp8", "none"):
        with TorchBackend(directory, OpenOptions(device="cpu", dtype="bf16", threads=1, quantize=quantize)) as backend:
            assert ("; fp8: the checkpoint's own numbers, FP8 (E4M3) with a scale per" in backend.info.reason) == (quantize == "fp8")
            complete(backend, backend.encode([audio(3.0)])[0], [Prompt("Key?")], GenerateOptions(max_new_tokens=4))
    kept, dequantised = np.array_split(np.array([logits for _, logits in picked]), 2)
    np.testing.assert_array_equal(kept, dequantised)


def test_gguf_is_not_quantised_while_it_is_loaded() -> None:
    with pytest.raises(UsageError, match="--quantize works only with the torch back end"):
        open_backend("mini", OpenOptions(backend="gguf", quantize="nf4"))
    with pytest.raises(UsageError, match="choose one of none, int8, nf4, fp8"):
        open_backend("mini", OpenOptions(quantize="int3"))


def test_a_gguf_pair_alone_cannot_be_loaded_in_fewer_bits(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="only GGUF files, but --quantize nf4 needs a checkpoint directory; leave it out"):
        open_backend(str(tiny_model), OpenOptions(quantize="nf4"))
