"""Which parts of a model learn, and how: whole, by low-rank matrices (LoRA, PEFT's format), or by those beside 4-bit weights (QLoRA).

Patterns are matched against whole names of modules: bare names such as `q_proj` would hit the audio encoder too.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from mflamingo_cli.core.model import Model, load
from mflamingo_cli.errors import ModelError, UsageError

Tune = Literal["full", "lora", "qlora"]
TUNES: tuple[Tune, ...] = get_args(Tune)

PARTS: Mapping[str, tuple[str, ...]] = {  # name -> its modules
    "language": ("model.language_model", "lm_head"),
    "projector": ("model.multi_modal_projector",),
    "encoder": ("model.audio_tower",),
}
TARGETS: Mapping[str, str] = {  # the linear layers of a part that get low-rank matrices; a projector is small and learns whole
    "language": r".*language_model\.layers\.\d+\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    "encoder": r".*audio_tower\.layers\.\d+\.(.*\.)?(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}
UNQUANTIZED = ("model.audio_tower", "model.multi_modal_projector", "lm_head")  # as `core/quantized.py` leaves them at inference


@dataclass(frozen=True)
class TuneConfig:
    """What learns. `rank`, `alpha`, `dropout` and `dora` are those of LoRA; its change is multiplied by alpha / rank."""

    tune: Tune = "lora"
    parts: tuple[str, ...] = ("language", "projector")
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    dora: bool = False

    def __post_init__(self) -> None:
        if self.tune not in TUNES:
            raise UsageError(f"--tune {self.tune}: choose one of {', '.join(TUNES)}")
        if wrong := [part for part in self.parts if part not in PARTS]:
            raise UsageError(f"--parts {wrong[0]}: choose from {', '.join(PARTS)}")
        if self.tune != "full" and not set(self.parts) & set(TARGETS):
            raise UsageError(
                f"--tune {self.tune} trains adapters for {' and '.join(TARGETS)}; to train only the projector, use --tune full"
            )


def load_for_training(directory: Path, config: TuneConfig, device: torch.device) -> Model:
    """Load a checkpoint, with what learns in float32 and unfrozen, the rest in bfloat16 on GPUs and frozen."""
    frozen = torch.float32 if device.type == "cpu" else torch.bfloat16
    if config.tune == "full":
        model = load(directory, dtype=torch.float32, device=device)
        model.requires_grad_(False)
        for part in config.parts:
            for name in PARTS[part]:
                model.get_submodule(name).requires_grad_(True)
        model.model.audio_tower.embed_positions.requires_grad_(False)  # sines, as in Whisper
        return model
    model = _load_4bit(directory, frozen, device) if config.tune == "qlora" else load(directory, dtype=frozen, device=device)
    return _with_lora(model.requires_grad_(False), directory, config)


def _with_lora(model: Model, directory: Path, config: TuneConfig) -> Model:
    with _quiet_imports():
        from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_dora=config.dora,
        target_modules="|".join(f"({TARGETS[part]})" for part in config.parts if part in TARGETS),
        modules_to_save=["multi_modal_projector"] if "projector" in config.parts else None,
        task_type="CAUSAL_LM",
    )
    model.name_or_path = str(directory)  # where an adapter says that its base is
    with _quiet_imports():  # PEFT imports the libraries of its kinds of layers here
        adapted = get_peft_model(model, lora)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _load_4bit(directory: Path, dtype: torch.dtype, device: torch.device) -> Model:
    """Load a checkpoint whose language model is quantised to nf4, two scales deep (Dettmers 2023)."""
    try:
        with _quiet_imports():
            import bitsandbytes as bitsandbytes
    except ImportError:
        raise ModelError("--tune qlora needs bitsandbytes; install it with: pip install 'mflamingo-cli[train]'") from None
    from transformers import BitsAndBytesConfig

    from mflamingo_cli.core.model import load_quantized

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(UNQUANTIZED),
    )
    return load_quantized(directory, settings, dtype=dtype, device=device)


@contextmanager
def _quiet_imports() -> Iterator[None]:
    """Silence what bitsandbytes and torchao say, when they are imported, of kernels that are nowhere to be had."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def trained_by_part(model: Model) -> dict[str, tuple[int, int]]:
    """Return of each part how many weights are trained, and how many are frozen."""
    counts = {part: [0, 0] for part in PARTS}
    for name, parameter in model.named_parameters():
        part = next((part for part, modules in PARTS.items() if any(f".{module}." in f".{name}" for module in modules)), None)
        if part is not None and ".original_module." not in name:  # what PEFT's `modules_to_save` stand in for
            packed = getattr(parameter, "quant_state", None)  # 4-bit weights lie two in a byte
            counts[part][not parameter.requires_grad] += parameter.numel() if packed is None else packed.shape.numel()
    return {part: (trained, frozen) for part, (trained, frozen) in counts.items()}


def why_trained(config: TuneConfig, part: str) -> str:
    """Say how a part is trained, or why it is not."""
    if part not in config.parts:
        return "not in --parts"
    if config.tune == "full":
        return "all weights"
    return f"low-rank matrices of rank {config.rank}" if part in TARGETS else "all weights: too small for low-rank matrices"


def layers_of(model: Model) -> Sequence[torch.nn.Module]:
    """Return the layers of both towers, in the order they run in."""
    return [*model.model.audio_tower.layers, *model.model.language_model.layers]
