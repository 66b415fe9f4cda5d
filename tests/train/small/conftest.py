"""A tiny Whisper as transformers builds it, and the same in a CTranslate2 file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from quant.geometry import EncoderSizes
from tests.quant.ct2_files import content, whisper, write

SIZES, MELS = EncoderSizes(d_model=32, n_layers=2, n_heads=4, d_ffn=64, n_positions=1500), 80


@dataclass(frozen=True)
class TinyWhisper:
    """transformers' encoder, its variables by CTranslate2's names, and a file of them."""

    encoder: WhisperEncoder
    variables: dict[str, np.ndarray]
    path: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWhisper:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=SIZES.d_model, encoder_layers=SIZES.n_layers, encoder_attention_heads=SIZES.n_heads, encoder_ffn_dim=SIZES.d_ffn,
        num_mel_bins=MELS, max_source_positions=SIZES.n_positions,
    )  # fmt: skip
    encoder = WhisperEncoder(config).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():  # also norms and biases, which begin trivial; float16 as in the package
            parameter.copy_((parameter + 0.1 * torch.randn_like(parameter)).half().float())
    weights = {name: weight.detach().numpy() for name, weight in encoder.state_dict().items()}
    variables = whisper(weights, SIZES.n_layers, SIZES.n_heads)
    path = tmp_path_factory.mktemp("whisper") / "model.bin"
    return TinyWhisper(encoder, variables, write(path, content([*variables.items(), ("decoder/scale", np.zeros(3, np.int8))])))
