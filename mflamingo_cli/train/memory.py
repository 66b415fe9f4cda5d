"""How much memory a step takes, reckoned from the sizes of the model and of its longest sequence. All sizes are bytes, of one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mflamingo_cli.train.network import CHUNK, WINDOWS_AT_ONCE
from mflamingo_cli.train.parallel import local

if TYPE_CHECKING:
    from mflamingo_cli.train.sft import TrainingRun

GRADIENT_AND_MOMENTS = 3  # numbers of float32 for each that learns: its gradient, and Adam's two moments
LAYER_ARRAYS = (10, 4)  # of (T, d_model) and of (T, d_ffn) that a layer of the language model keeps while it is computed again
ENCODER_ARRAYS = (10, 3)
SCORE_ARRAYS = 3  # of (chunk, words): scores, their exponentials, their gradient


def estimate(run: TrainingRun) -> dict[str, int]:
    """Return what takes memory in a step on the longest sequence, and how much."""
    geometry, text, encoder = run.network.geometry, run.network.geometry.text, run.network.geometry.encoder
    parameters = list(run.network.parameters())
    learned = sum(local(p).numel() for p in parameters if p.requires_grad)
    device = parameters[0].device
    size = 2 if run.loop.bf16 and torch.amp.is_autocast_available(device.type) else 4
    tokens = run.context
    windows = max(1, tokens // geometry.tokens_per_window)
    layer = sum(n * width for n, width in zip(LAYER_ARRAYS, (text.d_model, text.d_ffn), strict=True)) * tokens * size
    positions = 2 * geometry.tokens_per_window  # before pairs are averaged
    width = sum(n * d for n, d in zip(ENCODER_ARRAYS, (encoder.d_model, encoder.d_ffn), strict=True))
    group = min(windows, WINDOWS_AT_ONCE) * positions * width * size
    kept = windows * positions * encoder.d_model * encoder.n_layers * size if run.network.trains_encoder else 0
    answers = min(CHUNK, tokens)
    return {
        "weights": sum(local(p).numel() * p.element_size() for p in parameters),
        "gradients and Adam's moments": 4 * GRADIENT_AND_MOMENTS * learned,
        "inputs of the layers": (text.n_layers + 2) * tokens * text.d_model * size,
        "one layer, computed again": layer,
        "audio encoder": kept + group,
        "scores of answers": SCORE_ARRAYS * answers * text.n_vocab * 4,
    }
