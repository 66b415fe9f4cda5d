"""The roads of CUDA and MPS walked without a GPU: fake tensors, which have a device, a number format and a shape, but no numbers.

Finds what lies on another device, what an operation refuses there, and what CUDA could not capture as a graph.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mflamingo_cli.backends import batch_decoder
from mflamingo_cli.backends.generation import PrefixGroup
from mflamingo_cli.core import model as models
from mflamingo_cli.core.quantized import KINDS
from quant.config import read_geometry
from quant.geometry import Geometry
from quant.json_files import read_json
from tests import checkpoints

# what torch asks before it touches a tensor of a device, fake or not, where it is built without that device
GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
using Guard = c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::NAME>;
C10_REGISTER_GUARD_IMPL(NAME, Guard);
"""
BUILT = {"cuda": torch.backends.cuda.is_built, "mps": torch.backends.mps.is_built}
HOPPER = (9, 0)
FORMATS = [(device, dtype, quantize) for device in BUILT for dtype in (torch.bfloat16, torch.float32) for quantize in ("none", *KINDS)]
FORMATS = [names for names in FORMATS if names[0] == "cuda" or names[2] != "fp8"]  # which is refused on MPS
SONGS = [([5, 6, 7], [[8, 9], [10]]), ([5], [[8, 9, 10]])]  # tokens before the song, tokens of each prompt
STEPS = [[(0, 5), (1, 5), (2, 5)], [(1, 5), (2, 5)], [(1, 5)]]  # number of the answer, token


@pytest.fixture(scope="module", autouse=True)
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Devices for fake tensors; `cuda` is of a new kind."""
    compiler, torch_folder = shutil.which("c++"), Path(torch.__file__).parent
    for name in [name for name, is_built in BUILT.items() if not is_built()]:
        if compiler is None:
            pytest.skip("no C++ compiler")
        source = tmp_path_factory.mktemp("guard") / f"{name}.cpp"
        source.write_text(GUARD.replace("NAME", name.upper()))
        options = ["-std=c++20", "-shared", "-fPIC", f"-I{torch_folder}/include", f"-L{torch_folder}/lib", "-lc10"]
        subprocess.run([compiler, source, *options, "-o", source.with_suffix(".so")], check=True)
        ctypes.CDLL(str(source.with_suffix(".so")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: HOPPER)
        patch.setattr(batch_decoder, "capture_cuda_graph", lambda run, device: run)
        patch.setattr(torch.nn.Module, "to", move_buffers)
        yield


def move_buffers(self: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """What is left for `Module.to` and accelerate to do, which cannot exchange parameters that are fake."""
    assert all(parameter.device.type == device.type for parameter in self.parameters())
    for module in self.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.device.type != device.type:
                setattr(module, name, buffer.to(device))
    return self


@pytest.fixture(scope="module", params=["musicflamingo", "audioflamingo3"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("hf") / "tiny", request.param, seed=3)


class Stays(TorchDispatchMode):
    """Fails where an operation moves numbers between devices or waits for one."""

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        tensors = [leaf for leaf in tree_leaves((arguments, settings, result)) if isinstance(leaf, torch.Tensor)]
        assert len({tensor.device for tensor in tensors}) <= 1, function
        assert function != torch.ops.aten._local_scalar_dense.default
        return result


def loaded(directory: Path, device: str, dtype: torch.dtype, quantize: str, *, spread: bool = False) -> models.Model:
    """A checkpoint read tensor by tensor onto a device; a fake tensor takes the shapes of what the files hold."""
    config, weights = read_json(directory / "config.json"), models.open_weights(directory)
    model = models._keep_rote_float32(models._load_tensors(weights, config, dtype, torch.device(device), quantize, spread)).eval()
    if device == "mps":  # whose choice among fused kernels is only in builds for it
        model.set_attn_implementation("eager")
    return model


def decode(model: models.Model, geometry: Geometry) -> batch_decoder.BatchDecoder:
    """Encode a song of two windows, prefill questions about it and about nothing, and answer until all but one have ended."""
    device = model.model.audio_tower.conv1.weight.device
    with pytest.MonkeyPatch.context() as patch:  # lengths are counted on the processor, from real numbers
        patch.setattr(model.model.audio_tower, "_get_feat_extract_output_lengths", lambda n_frames: (None, [750, 100]))
        mels = torch.randn(2, geometry.mel.n_mels, 3000, device=device, dtype=model.dtype)
        song = torch.cat(models.encode_windows(model, geometry, mels, torch.tensor([3000, 400]), torch.tensor([0, 1])))
    assert (len(song), song.device, song.dtype) == (850, device, model.dtype)
    groups = [PrefixGroup([(number, 0)], before, song if number == 0 else None, after) for number, (before, after) in enumerate(SONGS)]
    decoder = batch_decoder.BatchDecoder(model, groups, 30)
    n_vocab = model.config.text_config.vocab_size
    assert decoder.prefill().shape == (3, n_vocab)
    for entries in STEPS:
        logits = decoder.step(entries)
        assert (logits.shape, logits.device, logits.dtype) == ((len(entries), n_vocab), device, torch.float32)
    return decoder


@pytest.mark.slow
@pytest.mark.parametrize(("device", "dtype", "quantize"), FORMATS, ids=str)
def test_all_is_on_the_device_and_a_step_could_be_captured(directory: Path, device: str, dtype: torch.dtype, quantize: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model = loaded(directory, device, dtype, quantize)
        layers = [module for module in model.modules() if isinstance(module, tuple(KINDS.values()))]
        assert len(layers) == (0 if quantize == "none" else 2 * 7)
        assert all(layer.native == (quantize == "fp8") for layer in layers), "FP8 units multiply FP8"
        decoder = decode(model, read_geometry(directory))
        with Stays():
            decoder._run()


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_layers_may_lie_on_two_devices(directory: Path, quantize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"model.language_model.layers.1": "cuda:1", "model.language_model.norm": "cuda:1", "lm_head": "cuda:1", "": "cuda:0"}
    monkeypatch.setattr(models, "_infer_device_map", lambda model, dtype: places)
    monkeypatch.setattr(models, "dispatch_model", lambda model, places: model.to(torch.device(places[""])))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model = loaded(directory, "cuda", torch.bfloat16, quantize, spread=True)
        assert [keys.device.index for keys in decode(model, read_geometry(directory)).cache.keys] == [0, 1]
