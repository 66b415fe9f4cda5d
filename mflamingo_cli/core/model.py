"""The model: transformers' classes built, loaded, saved and run, with RoTE tables that stay float32 under every change of dtype.

This is the only definition of the network: GGUF files are converted from what is saved here, and training trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import dispatch_model, infer_auto_device_map, init_empty_weights
from accelerate.utils import get_balanced_memory
from torch import nn
from transformers.models.musicflamingo.modeling_musicflamingo import MusicFlamingoRotaryEmbedding, apply_rotary_time_emb, rotate_half
from transformers.utils import logging as transformers_logging

from mflamingo_cli.core import rote
from mflamingo_cli.core.quantized import BLOCK_WEIGHTS, KINDS, Quantized
from mflamingo_cli.errors import ModelError
from quant.checkpoint import Checkpoint
from quant.config import geometry_of_json
from quant.families import FAMILIES, family
from quant.geometry import ENCODER_STRIDE, Geometry, Rote
from quant.json_files import read_json
from quant.layout import IGNORED_SUFFIXES, canonical, some
from quant.lora import Adapted

Model: TypeAlias = Any  # the class that a row of FAMILIES names; transformers' attributes are not typed

MAX_SAID = 300  # characters of what transformers says
OUT_OF_MEMORY = (  # torch's words where it has no class for it: CPU, MPS, and what its libraries say, cuBLAS and oneDNN
    "out of memory", "can't allocate memory", "not enough memory", "Invalid buffer size", "CUBLAS_STATUS_ALLOC_FAILED",
    "could not create a primitive",
)  # fmt: skip


class Float32RotaryEmbedding(MusicFlamingoRotaryEmbedding):
    """RoTE whose tables stay float32 when the model is cast: angles reach 3e4 rad, which bfloat16 rounds to multiples of 128."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        kept = {name: buffer for name, buffer in self.named_buffers(recurse=False) if not buffer.is_meta}
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self


def build(config: Mapping[str, Any]) -> Model:
    """Return a model with random float32 weights; `config` is the content of a config.json."""
    model_class, config_class = _classes(config)
    return _keep_rote_float32(model_class(config_class(**config)))


def build_audio_encoder(geometry: Geometry, weights: Iterable[tuple[str, torch.Tensor]]) -> Model:
    """Return what `encode_windows` needs of a model, without a language model; `weights` are all of them, by the hub's names."""
    sizes, rotary = geometry.encoder, geometry.rote
    row, named = FAMILIES[geometry.architecture], vars(sizes) | {"n_mels": geometry.mel.n_mels}
    config: dict[str, Any] = {
        "model_type": row.model_type,
        "audio_config": {"model_type": row.encoder_type} | {names[-1]: named[size] for size, (names, _) in row.encoder.items()},
        "text_config": {"model_type": "qwen2", "hidden_size": geometry.text.d_model, "num_hidden_layers": 0, "vocab_size": 1},
    }
    if rotary is not None:
        part = (rotary.dim + 0.5) / sizes.d_model  # rounded down, it is those channels
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": rotary.theta, "partial_rotary_factor": part}
        config["audio_frame_step"] = rotary.frame_step_s
    model, targets = _without_weights(config)
    for name, weight in weights:
        path, leaf = targets[name]
        setattr(model.get_submodule(path), leaf, nn.Parameter(weight, requires_grad=False))
    return _keep_rote_float32(model).eval()


def _without_weights(config: Mapping[str, Any]) -> tuple[Model, dict[str, tuple[str, str]]]:
    """Return a model without memory for its weights, and the module and attribute of each weight by the hub's name."""
    model_class, config_class = _classes(config)
    with init_empty_weights(include_buffers=False):
        model = model_class(config_class(**config))
    paths = {canonical(name): name.rpartition(".") for name in model.state_dict()}
    return model, {name: (path, leaf) for name, (path, _, leaf) in paths.items()}


def load(
    directory: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    adapter: Path | None = None,
    quantize: str = "none",
    spread: bool = False,
) -> Model:
    """Load a checkpoint directory for inference, straight to where it will run.

    FP8 weights are dequantised, a LoRA in the directory `adapter` is merged; `quantize` names one of `quantized.KINDS` for the language
    model's linear layers, `spread` puts layers on all CUDA devices. Raises ModelError that names a missing file or the tensors that do not
    fit.
    """
    config = read_json(directory / "config.json")
    model_class, _ = _classes(config, directory)
    device = torch.device(device)
    if str(device) == "cuda":  # without a number, as not every map of modules to devices takes it
        device = torch.device("cuda", torch.cuda.current_device())
    with open_weights(directory, adapter) as weights, _loading(directory):
        if weights.scheme or adapter or quantize != "none":
            model = _load_tensors(weights, config, dtype, device, quantize, spread)
            return _keep_rote_float32(model).eval()
        device_map = "auto" if spread else {"": device}
        found: Any = model_class.from_pretrained(
            directory, dtype=dtype, output_loading_info=True, local_files_only=True, device_map=device_map
        )
        model, report = found
    for kind in ("missing", "unexpected"):  # of what the tables do not know of
        if names := [name for name in report[f"{kind}_keys"] if not name.endswith(IGNORED_SUFFIXES)]:
            raise ModelError(f"{directory}: {kind} tensors: {some(names)}")
    return _keep_rote_float32(model).eval()


def load_quantized(directory: Path, settings: Any, *, dtype: torch.dtype, device: torch.device) -> Model:
    """Load a checkpoint that transformers quantises by its own settings, for training beside it. Raises ModelError."""
    model_class, _ = _classes(read_json(directory / "config.json"), directory)
    with open_weights(directory) as weights, _loading(directory):
        if weights.scheme:
            raise ModelError(
                f"{directory}: stored as {weights.scheme}, which cannot be used here; name the checkpoint that it was made from"
            )
        model = model_class.from_pretrained(
            directory, dtype=dtype, quantization_config=settings, local_files_only=True, device_map={"": device}
        )
    return _keep_rote_float32(model)


def open_weights(directory: Path, adapter: Path | None = None) -> Checkpoint:
    """Open the weights of a checkpoint directory, with a LoRA or not; their names and shapes are those that its config.json asks for.

    Raises QuantError that names the tensors that do not fit.
    """
    geometry = geometry_of_json(read_json(directory / "config.json"), None, directory)
    weights = Adapted(directory, adapter) if adapter else Checkpoint(directory)
    weights.check(geometry)
    return weights


@contextmanager
def _loading(directory: Path) -> Iterator[None]:
    """Make one sentence of what transformers raises at files of others; its progress bar and its table of tensors are silenced."""
    before = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except ModelError:
        raise
    except KeyError as error:  # such as the index's "metadata"
        raise ModelError(f"{directory}: {error} is missing from the checkpoint's JSON files; download it again") from error
    except Exception as error:  # whatever its parts raise: each checks its settings in its own way
        said = " ".join(str(error).split())[:MAX_SAID] or type(error).__name__
        raise ModelError(f"{directory}: cannot be loaded ({said})", code="oom" if is_out_of_memory(error) else None) from error
    finally:
        transformers_logging.set_verbosity(before)


def _load_tensors(
    weights: Checkpoint, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device, quantize: str, spread: bool
) -> Model:
    """Return a model whose weights are dequantised, merged and quantised while they are read, tensor by tensor.

    transformers itself would need compressed-tensors, kernels from the hub, peft or bitsandbytes for it, and may fall back silently.
    """
    plain = {name: value for name, value in config.items() if name != "quantization_config"}
    text = config.get("text_config") or {}
    plain["text_config"] = {name: value for name, value in text.items() if name != "quantization_config"}
    model, targets = _without_weights(plain)
    if quantize != "none":
        _quantize(model, KINDS[quantize])
    device_map = _infer_device_map(model, dtype) if spread else {"": device}
    for name in weights.entries:
        path, leaf = targets[name]
        module, place = model.get_submodule(path), _device_of(path, device_map)
        if isinstance(module, Quantized) and leaf == "weight":
            module.allocate(place)
            module.fill(weights, name)
        else:
            setattr(module, leaf, nn.Parameter(_read_tensor(weights, name, dtype, place), requires_grad=False))
    model.tie_weights()
    return dispatch_model(model, device_map) if spread else model.to(device)


def _infer_device_map(model: Model, dtype: torch.dtype) -> dict[str, Any]:
    """Return a map of modules to all devices, about as much on each, as `from_pretrained` makes it."""
    settings = {"dtype": dtype, "no_split_module_classes": model._no_split_modules}
    return dict(infer_auto_device_map(model, get_balanced_memory(model, **settings), **settings))


def is_out_of_memory(error: Exception) -> bool:
    """Return whether torch or NumPy failed because memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def _quantize(model: Model, kind: type[Quantized]) -> None:
    """Replace the language model's linear layers by empty quantised ones.

    lm_head and the embedding keep their dtype: an error there is one of the answer, which no later layer corrects, and they are 1 of 8 B
    parameters.
    """
    for layer in model.model.language_model.layers:
        for path, linear in [(path, module) for path, module in layer.named_modules() if isinstance(module, nn.Linear)]:
            parent, _, leaf = path.rpartition(".")
            setattr(layer.get_submodule(parent), leaf, kind((linear.out_features, linear.in_features), linear.bias, torch.device("meta")))


def _device_of(path: str, device_map: Mapping[str, Any]) -> torch.device:
    """Return the device of a module by a map of modules to devices."""
    while path not in device_map:
        path = path.rpartition(".")[0]
    return torch.device(device_map[path])


def _read_tensor(weights: Checkpoint, name: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    shape = weights.entries[name].shape
    flat, first = torch.empty(prod(shape), dtype=dtype, device=device), 0
    for rows in weights.blocks(name, BLOCK_WEIGHTS):
        flat[first : first + rows.size] = torch.tensor(rows).ravel()
        first += rows.size
    return flat.reshape(shape)


def save(model: Model, directory: Path, *, dtype: torch.dtype = torch.bfloat16, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write weights and configs of a checkpoint directory under the hub's tensor names; tokenizer and processor files are the caller's.

    `state` holds the weights of a model that has only a share of them.
    """
    tensors = model.state_dict() if state is None else state
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    model.config.dtype = dtype
    model.save_pretrained(directory, state_dict=state)


def encode_windows(
    model: Model, geometry: Geometry, mels: torch.Tensor, n_frames: torch.Tensor, indices: torch.Tensor
) -> list[torch.Tensor]:
    """Encode windows of one song or of several to embeddings of the language model: `encode_audio`, then the projector.

    Returns
    -------
    One (n_audio_tokens, d_text) tensor per window.
    """
    encoded = encode_audio(model, geometry, mels, n_frames, indices)
    return list(model.model.multi_modal_projector(torch.cat(encoded)).split([len(part) for part in encoded]))


def encode_audio(model: Model, geometry: Geometry, mels: torch.Tensor, n_frames: torch.Tensor, indices: torch.Tensor) -> list[torch.Tensor]:
    """Encode windows of one song or of several to the projector's input.

    Parameters
    ----------
    mels : (windows, n_mels, frames) in the model's dtype
    n_frames : (windows,) valid frames of each
    indices : (windows,) number of each in its song, from 0

    Returns
    -------
    One (n_audio_tokens, d_audio) tensor per window.
    """
    inner = model.model
    mask = torch.arange(mels.shape[-1], device=mels.device) < n_frames.to(mels.device)[:, None]
    hidden = inner.audio_tower(mels, input_features_mask=mask, return_dict=True).last_hidden_state  # (windows, tokens, d_audio)
    if geometry.rote is not None:
        n_tokens, step = hidden.shape[1], geometry.rote.frame_step_s * ENCODER_STRIDE
        timestamps = (
            indices.to(mels.device)[:, None] * n_tokens * step + torch.arange(n_tokens, device=mels.device, dtype=torch.float32) * step
        )
        hidden = apply_rotary_time_emb(hidden, *inner.pos_emb(timestamps, seq_len=n_tokens))
    _, lengths = inner.audio_tower._get_feat_extract_output_lengths(n_frames)
    return [row[: int(length)] for row, length in zip(hidden, lengths, strict=True)]


def encode_crops(model: Model, frames: torch.Tensor, windows: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Encode crops that are shorter than a window and lie inside one, for training: gradients flow, only the frames given are computed.

    Parameters
    ----------
    frames : (B, n_mels, 4 T) log-mel frames, all of them valid
    windows : (B,) index of the window in its song that each crop lies in
    offsets : (B,) tokens between the start of that window and the crop

    Returns
    -------
    (B, T, d_audio), the projector's input. For whole windows the projector makes of it what `encode_windows` returns.
    """
    tower = model.model.audio_tower
    hidden = F.gelu(tower.conv1(frames))
    hidden = F.gelu(tower.conv2(hidden)).permute(0, 2, 1)
    positions = 2 * offsets[:, None] + torch.arange(hidden.shape[1])  # two positions of the encoder become a token
    hidden = hidden + tower.embed_positions.weight[positions.to(hidden.device)]
    for layer in tower.layers:
        hidden = layer(hidden, None)
    hidden = tower.layer_norm(tower.avg_pooler(hidden.permute(0, 2, 1)).permute(0, 2, 1))
    rotary = rote_of(model)
    return hidden if rotary is None else apply_rote(hidden, rotary, windows, offsets, len(tower.embed_positions.weight) // 2)


def rote_of(model: Model) -> Rote | None:
    """Return the constants of a model's rotary time embedding, or None for a family without one."""
    if getattr(model.model, "pos_emb", None) is None:
        return None
    config, theta = model.config, model.config.rope_parameters["rope_theta"]
    dim = int(config.audio_config.hidden_size * config.rope_parameters["partial_rotary_factor"])
    return Rote(theta=theta, dim=dim, n_positions=int(theta), frame_step_s=config.audio_frame_step)


def apply_rote(hidden: torch.Tensor, rotary: Rote, windows: torch.Tensor, offsets: torch.Tensor, tokens_per_window: int) -> torch.Tensor:
    """Rotate crops, (B, T, d), by time, with the tables of `core.rote` and in their own number format."""
    length, places = hidden.shape[1], zip(windows.tolist(), offsets.tolist(), strict=True)
    rows = [rote.tables(rotary, window, offset + length, tokens_per_window) for window, offset in places]
    cos, sin = (torch.from_numpy(np.stack([table[-length:] for table in tables])).to(hidden) for tables in zip(*rows, strict=True))
    rotated, rest = hidden[..., : cos.shape[-1]], hidden[..., cos.shape[-1] :]
    return torch.cat((rotated * cos + rotate_half(rotated) * sin, rest), dim=-1)


def _classes(config: Mapping[str, Any], where: object = "config.json") -> tuple[type[Any], type[Any]]:
    """Return the model and config classes of a family."""
    row, package = family(config.get("model_type"), where), import_module("transformers")
    if not hasattr(package, row.model_class):
        raise ModelError(f"transformers {package.__version__} has no {row.model_class}; pip install --upgrade transformers")
    return getattr(package, row.model_class), getattr(package, row.config_class)


def _keep_rote_float32(model: Any) -> Model:
    rotary = getattr(model.model, "pos_emb", None)
    if rotary is not None:
        rotary.__class__ = Float32RotaryEmbedding
    return model
