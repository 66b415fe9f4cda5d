"""The torch back end states its choices and keeps its memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.pytorch import TorchBackend, byte_alphabet
from mflamingo_cli.errors import ModelError
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
        encoded = backend.encode(audio(2.0))
        assert encoded.payload.dtype == torch.bfloat16
        assert complete(backend, encoded, [Prompt("Key?")], GenerateOptions(max_new_tokens=3))[0].usage.tokens_out <= 3


def test_bf16_stays_near_fp32(checkpoint: Path) -> None:
    embeddings = []
    for dtype in ("fp32", "bf16"):
        with TorchBackend(checkpoint, OpenOptions(device="cpu", dtype=dtype, threads=1)) as backend:
            embeddings.append(backend.encode(audio(35.0)).payload.float())
    error = (embeddings[0] - embeddings[1]).pow(2).mean().sqrt() / embeddings[0].std()
    assert error < 0.05, "bf16 keeps 8 bits: a few per cent after two layers; spoiled time tables would give about 1"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_named(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="no device cuda:1"):
        TorchBackend(checkpoint, OpenOptions(device="cuda:1"))


def test_every_byte_has_its_character() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(byte_alphabet()) == set(ByteLevel.alphabet())
