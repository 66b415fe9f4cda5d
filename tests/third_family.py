"""A third `model_type` that neither transformers nor the table of families has: its classes, its row, and both registered for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn
from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

from quant.families import FAMILIES, Family, Projector
from quant.geometry import AudioTokens


class LinearFlamingoConfig(AudioFlamingo3Config):
    """The configuration of a class that transformers does not have."""

    model_type = "linearflamingo"


class LinearProjector(nn.Module):
    """One matrix, as Qwen2-Audio has it, and no activation."""

    def __init__(self, config: LinearFlamingoConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.audio_config.hidden_size, config.text_config.hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear(features)


class LinearFlamingoForConditionalGeneration(AudioFlamingo3ForConditionalGeneration):
    """The encoder and language model of Audio Flamingo 3 with another projector."""

    config_class = LinearFlamingoConfig

    def __init__(self, config: LinearFlamingoConfig) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = LinearProjector(config)


LINEAR = replace(
    FAMILIES["audioflamingo3"],
    model_type="linearflamingo",
    model_class="LinearFlamingoForConditionalGeneration",
    config_class="LinearFlamingoConfig",
    tokens=AudioTokens("<noise>"),
    max_audio_s=300,
    projector=Projector("linearflamingo", (("multi_modal_projector.linear", "mm.a.fc"),)),
)


@contextmanager
def registered() -> Iterator[Family]:
    """The row in the table, and the classes where transformers has its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, LINEAR.model_type, LINEAR)
        for made in (LinearFlamingoConfig, LinearFlamingoForConditionalGeneration):
            patch.setattr(import_module("transformers"), made.__name__, made, raising=False)
        names = get_checkpoint_conversion_mapping("audioflamingo3")  # of tensors in files and in memory
        register_checkpoint_conversion_mapping(LINEAR.model_type, names, overwrite=True)
        yield LINEAR
