"""The audio part where the processor multiplies BF16: what loses nothing is stored so, the rest stays as it is in the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mflamingo_cli.backends import torch_encoder
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.ggml.binding import Device
from mflamingo_cli.backends.ggml.graph import GgmlEncoder
from mflamingo_cli.backends.ggml.weights import BF16_FEATURE
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.errors import ModelError
from quant.convert import convert
from tests import checkpoints
from tests.clips import audio

OPTIONS = OpenOptions(device="cpu", threads=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """ggml multiplies BF16 on every processor, only not everywhere quickly."""
    monkeypatch.setattr(Device, "features", lambda self: {BF16_FEATURE})


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in float32."""
    return checkpoints.write(tmp_path_factory.mktemp("hf") / "single", "audioflamingo3", "wide")


@pytest.fixture(scope="module")
def rounded(single: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as one that was trained in BF16."""
    return rounded_copy(single, tmp_path_factory.mktemp("hf") / "rounded")


def rounded_copy(checkpoint: Path, directory: Path) -> Path:
    """A checkpoint in BF16."""
    directory.mkdir()
    for path in checkpoint.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    weights = {name: weight.bfloat16() for name, weight in load_file(checkpoint / "model.safetensors").items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[object]:
    """Opens a checkpoint converted to a type; closes it at the end."""
    backends: list[GgufBackend] = []

    def open_as(checkpoint: Path, kind: str) -> GgufBackend:
        backends.append(GgufBackend(*convert(checkpoint, tmp_path / f"{checkpoint.name}-{kind}", kind), OPTIONS))
        return backends[-1]

    yield open_as
    for backend in backends:
        backend.close()


@pytest.mark.parametrize(("kind", "converted"), [("Q8_0", True), ("F16", False), ("BF16", False), ("F32", False)])
def test_of_float32_weights_only_quantised_ones_are_widened(opened, single, kind, converted) -> None:
    backend = opened(single, kind)
    assert backend._encoder.weights.converted is converted
    assert ("audio part in BF16" in backend.info.reason) is converted


def test_halves_that_were_bf16_are_again_the_numbers_of_the_checkpoint(opened, rounded) -> None:
    weights = opened(rounded, "F16")._encoder.weights
    assert weights.converted
    wanted = load_file(rounded / "model.safetensors")
    name = next(name for name in wanted if name.endswith("layers.1.fc1.weight"))
    tensor = weights["a.blk.1.ffn_up.weight"]
    bits = np.empty(wanted[name].numel(), np.int16)
    get = weights.ggml.ggml_backend_tensor_get
    get(tensor, bits.ctypes.data, 0, bits.nbytes)
    got = torch.from_numpy(bits).view(torch.bfloat16).reshape(wanted[name].shape).float()
    tiny = 2.0**-14  # below it halves have fewer bits than BF16
    normal = wanted[name].float().abs() >= tiny
    assert normal.float().mean() > 0.9
    assert torch.equal(got[normal], wanted[name].float()[normal])


def test_quantised_weights_encode_nearer_to_the_checkpoint_in_bf16(opened, single, monkeypatch) -> None:
    song = audio(35.0)
    with TorchBackend(single, OpenOptions(device="cpu", dtype="fp32", threads=1)) as exact:
        truth = exact.encode([song])[0].payload.numpy()

    def error(backend: GgufBackend) -> float:
        return float(np.sqrt(np.mean((backend.encode([song])[0].payload - truth) ** 2)) / truth.std())

    converted = error(opened(single, "Q8_0"))
    monkeypatch.setattr(Device, "features", lambda self: set())
    plain = error(opened(single, "Q8_0"))
    assert converted < plain


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "kind"), [("musicflamingo", "BF16"), ("audioflamingo3", "F16"), ("musicflamingo", "Q8_0")])
def test_a_large_audio_part_on_torch_encodes_as_the_checkpoint(tmp_path, monkeypatch, architecture, kind) -> None:
    """Where torch is installed; of weights that the file keeps whole it is the same network."""
    source = rounded_copy(checkpoints.write(tmp_path / "single", architecture, "wide"), tmp_path / "bf16")
    pair, song = convert(source, tmp_path, kind), audio(64.0)
    with TorchBackend(source, OpenOptions(device="cpu", dtype="bf16", threads=1)) as backend:
        truth = backend.encode([song])[0].payload.float().numpy()
    with GgufBackend(*pair, OPTIONS) as backend:
        [on_ggml], without = backend.encode([song]), backend.info
    monkeypatch.setattr(torch_encoder, "MIN_BYTES", 0)
    with GgufBackend(*pair, OPTIONS) as backend:
        [on_torch], info = backend.encode([song]), backend.info
        assert complete(backend, on_torch, [Prompt("Key?")], GenerateOptions(max_new_tokens=3))[0].usage.tokens_out == 3
    assert info.reason.endswith("audio part in BF16 by torch: AVX512_BF16")
    assert info.encoder_fingerprint != without.encoder_fingerprint
    assert on_torch.payload.shape == on_ggml.payload.shape
    distance = [float(np.sqrt(np.mean((song.payload - truth) ** 2)) / truth.std()) for song in (on_torch, on_ggml)]
    assert distance[0] < (0.03 if kind == "Q8_0" else 1e-6)
    assert distance[1] < 0.03


def test_a_cut_audio_part_is_named_before_torch_encodes(single, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch_encoder, "MIN_BYTES", 0)
    text, part = convert(single, tmp_path, "Q8_0")
    part.write_bytes(part.read_bytes()[: part.stat().st_size - 5000])
    with pytest.raises(ModelError, match=r"cut short.*; convert or download it again"):
        GgufBackend(text, part, OPTIONS)


def test_without_torch_a_large_audio_part_runs_on_ggml(opened, single, monkeypatch) -> None:
    monkeypatch.setattr(torch_encoder, "MIN_BYTES", 0)
    monkeypatch.setattr(torch_encoder, "find_spec", lambda name: None)
    assert isinstance(opened(single, "Q8_0")._encoder, GgmlEncoder)


def test_weights_that_bf16_cannot_hold_are_not_converted(opened, single, monkeypatch) -> None:
    monkeypatch.setattr(torch_encoder, "MIN_BYTES", 0)
    assert {kind: isinstance(opened(single, kind)._encoder, GgmlEncoder) for kind in ("F32", "F16", "BF16")} == {
        "F32": True,
        "F16": True,
        "BF16": False,
    }


def test_the_size_is_that_after_conversion(opened, single) -> None:
    weights = opened(single, "Q8_0")._encoder.weights
    halves = sum(weight.numel() for name, weight in load_file(single / "model.safetensors").items() if "audio_tower.layers" in name)
    assert weights.n_bytes > 2 * 0.9 * halves
    assert weights.n_bytes > weights._file.path.stat().st_size


def test_features_of_the_processor_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    device = Device("cpu", 1)
    try:
        flags = Path("/proc/cpuinfo")
        if not flags.exists() or "flags" not in flags.read_text():
            pytest.skip("processor flags are read from Linux on x86")
        assert (BF16_FEATURE in device.features()) <= ("avx512_bf16" in flags.read_text())
        assert "F16C" in device.features() or "f16c" not in flags.read_text()
    finally:
        device.close()
