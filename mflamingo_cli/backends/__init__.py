"""Back ends that run a model: PyTorch, or GGUF on ggml and llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mflamingo_cli.backends.options import (
    BACKENDS,
    DEFAULT_MODEL,
    DTYPE_CHOICES,
    EMBEDDED,
    KV_TYPE_CHOICES,
    QUANTIZE_CHOICES,
    OpenOptions,
)
from mflamingo_cli.errors import ModelError, UsageError

if TYPE_CHECKING:  # the command line finds models here and must not wait for what runs them
    from mflamingo_cli.backends.base import Backend


@dataclass(frozen=True)
class ModelFiles:
    """Files of a model: a checkpoint directory, GGUF pairs (text, audio), or both; `directory` is the base where `adapter` is a LoRA."""

    name: str
    directory: Path | None = None
    pairs: tuple[tuple[Path, Path], ...] = ()
    adapter: Path | None = None


def open_backend(model: str = DEFAULT_MODEL, options: OpenOptions | None = None) -> Backend:
    """Open an embedded model ("mini", "small"), a checkpoint directory, a GGUF file, or a downloaded hub id.

    Raises ModelError (exit code 69) when it cannot be found or run here, UsageError for choices that do not exist.
    """
    options = options or OpenOptions()
    _check(options)
    found = find_model(model)
    use_gguf = options.backend == "gguf" or (options.backend == "auto" and found.pairs and options.quantize == "none")
    return _open_gguf(found, options) if use_gguf else _open_torch(found, options)


def find_model(name: str) -> ModelFiles:
    """Find a model's files without opening them. Raises ModelError that says where it was looked for and what to do."""
    from mflamingo_cli.store.hub import hub_snapshot
    from quant.layout import ADAPTER_CONFIG as ADAPTER
    from quant.layout import AUDIO_PREFIX, audio_file

    path = embedded_directory(name) if name in EMBEDDED else Path(name)
    if path.suffix == ".gguf" and path.is_file():
        return ModelFiles(name, pairs=((path, audio_file(path)),))
    if not path.is_dir():
        path = hub_snapshot(name)
    checkpoint = path / "hf" if (path / "hf" / "config.json").exists() else path
    pairs = tuple((text, audio_file(text)) for text in sorted(path.glob("*.gguf")) if not text.name.startswith(AUDIO_PREFIX))
    directory = checkpoint if (checkpoint / "config.json").exists() else None
    if (path / ADAPTER).exists():
        if directory is not None:
            raise ModelError(f"{path}: contains both a checkpoint and a LoRA adapter ({ADAPTER}); move one of them")
        return ModelFiles(name, _base(path), pairs, adapter=path)
    if directory is None and not pairs:
        raise ModelError(f"{path}: contains neither a checkpoint (config.json) nor a GGUF pair")
    return ModelFiles(name, directory, pairs)


def _base(adapter: Path) -> Path:
    """Find the checkpoint that an adapter belongs to, as --model would."""
    from quant.lora import base_name

    name = base_name(adapter)
    try:
        found = find_model(name)
    except ModelError as error:
        raise ModelError(f"{adapter}: its base model {name} cannot be opened: {error}") from error
    if found.directory is None or found.adapter is not None:
        raise ModelError(
            f"{adapter}: its base model {name} is {'another adapter' if found.adapter else 'only GGUF'}; it must be a checkpoint"
        )
    return found.directory


def embedded_directory(name: str = DEFAULT_MODEL) -> Path:
    """Return the directory of an embedded model inside the installed package."""
    return Path(__file__).parents[1] / name


def _check(options: OpenOptions) -> None:
    for name, value, choices in (
        ("--backend", options.backend, BACKENDS),
        ("--dtype", options.dtype, DTYPE_CHOICES),
        ("--kv-type", options.kv_type, KV_TYPE_CHOICES),
        ("--quantize", options.quantize, QUANTIZE_CHOICES),
    ):
        if value not in choices:
            raise UsageError(f"{name} {value}: choose one of {', '.join(choices)}")
    if options.quantize != "none" and options.backend == "gguf":
        raise UsageError("--quantize works only with the torch back end; for a smaller GGUF use `mflamingo models convert --type`")
    family, _, number = options.device.partition(":")
    known = number.isdigit() if family == "cuda" and number else not number and family in ("auto", "cpu", "cuda", "mps")
    if not known:
        raise UsageError(f"--device {options.device}: choose auto, cpu, cuda, cuda:N or mps")


def _open_torch(found: ModelFiles, options: OpenOptions) -> Backend:
    if found.directory is None:
        asked, cure = "--backend torch", "use --backend gguf"
        if options.quantize != "none":
            asked, cure = f"--quantize {options.quantize}", "leave it out, or convert the checkpoint with a smaller --type"
        raise ModelError(f"{found.name}: contains only GGUF files, but {asked} needs a checkpoint directory; {cure}")
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise ModelError(
            f"{found.name}: the torch back end is not installed; pip install 'mflamingo-cli[torch]', "
            "or convert the checkpoint once with `mflamingo models convert`"
        )
    from mflamingo_cli.backends.pytorch import TorchBackend

    return TorchBackend(found.directory, options, found.adapter)


def _open_gguf(found: ModelFiles, options: OpenOptions) -> Backend:
    if len(found.pairs) != 1:
        none = "has no GGUF files; make them with `mflamingo models convert`"
        problem = f"holds several GGUF pairs; name one .gguf file, such as {found.pairs[0][0]}" if found.pairs else none
        raise ModelError(f"{found.name}: {problem}")
    from mflamingo_cli.backends.gguf import GgufBackend

    return GgufBackend(*found.pairs[0], options)
