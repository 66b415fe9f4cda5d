"""How much memory a step takes, reckoned from the sizes of the model and of its longest sequence. All sizes are bytes, of one process.

`python -m tests.bench.memory` compares it with what a step takes. Sampling is no part of it, but the weights that it gathers are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mflamingo_cli.train.loop import computes_in_bf16
from mflamingo_cli.train.network import CHUNK, WINDOWS_AT_ONCE
from mflamingo_cli.train.parallel import local
from quant.geometry import Geometry

if TYPE_CHECKING:
    from mflamingo_cli.train.sft import TrainingRun

MOMENTS = 2  # of Adam, for each number that learns


@dataclass(frozen=True)
class StepSizes:
    """What memory depends on: the model, the tokens of a sequence, and how many bytes numbers have."""

    geometry: Geometry
    tokens: int
    weights: int  # bytes of this process's share
    learned: int  # numbers of this process's share
    gathered: int  # bytes of weights that are gathered at once: two layers and what belongs to none
    gathered_to_sample: int
    sampled: int  # tokens whose keys and values are kept while answers are sampled, 0 where none are
    state: int  # bytes of a number between layers
    compute: int  # bytes of a number that is multiplied
    whole: bool  # all weights learn, not low-rank matrices beside them
    dropout: bool
    trains_encoder: bool
    checkpointing: bool  # what layers compute is computed again, not kept
    sequences: int  # of a step in this process: gradients of the first stay while the others are computed

    @property
    def windows(self) -> int:
        """Windows of a sequence that is all music."""
        return max(1, self.tokens // self.geometry.tokens_per_window)


def saved_bytes(sizes: StepSizes, tokens: int, d_model: int, d_ffn: int) -> int:
    """Return what a layer saves for its gradients.

    It was counted on a layer of Qwen2, in bytes for each token and channel: 34 of (tokens, d_model) where all weights learn, 26 beside
    low-rank matrices, 24 more with dropout before them; of (tokens, d_ffn) gate, its activation, up and their product.
    """
    per_width = (34 if sizes.whole else 26) + 24 * sizes.dropout
    return tokens * (per_width * d_model + 4 * (sizes.compute + sizes.dropout) * d_ffn)


def gradient_bytes(sizes: StepSizes, tokens: int, d_model: int, d_ffn: int) -> int:
    """Return what the gradients of a layer's activations take while they come back: three arrays of either width."""
    return 3 * tokens * (sizes.state * d_model + sizes.compute * d_ffn)


def estimate(sizes: StepSizes) -> dict[str, Mapping[str, int]]:
    """Return what takes memory in each part of a step, and how much; the largest sum is what the step needs."""
    text, encoder = sizes.geometry.text, sizes.geometry.encoder
    positions = 2 * sizes.geometry.tokens_per_window  # before pairs are averaged
    towers = [(text.n_layers, sizes.tokens, sizes.tokens, text.d_model, text.d_ffn)]  # layers, tokens, those of one pass, widths
    if sizes.trains_encoder:
        group = min(sizes.windows, WINDOWS_AT_ONCE)
        towers.append((encoder.n_layers, sizes.windows * positions, group * positions, encoder.d_model, encoder.d_ffn))
    kept, layer = 2 * sizes.tokens * text.d_model * sizes.state, 0  # what goes into the first layer and comes out of the last
    for n_layers, tokens, at_once, d_model, d_ffn in towers:
        own, gradient = saved_bytes(sizes, at_once, d_model, d_ffn), gradient_bytes(sizes, at_once, d_model, d_ffn)
        kept += n_layers * (tokens * d_model * sizes.state if sizes.checkpointing else saved_bytes(sizes, tokens, d_model, d_ffn))
        layer = max(layer, own * sizes.checkpointing + gradient)
    always = {"weights": sizes.weights, "Adam's moments": 4 * MOMENTS * sizes.learned, "gathered weights": sizes.gathered}
    kv_width = 2 * text.n_kv_heads * text.d_head
    cache = sizes.sampled * text.n_layers * kv_width * sizes.state
    inputs = {"checkpointed activations" if sizes.checkpointing else "activations": kept}
    gradients = {"gradients": 4 * sizes.learned}
    layer_name = "one layer, recomputed" if sizes.checkpointing else "gradients of activations"
    copies = sizes.learned * sizes.compute if sizes.whole and sizes.compute < 4 else 0
    moments = {
        "sampling": always | {"gathered weights": sizes.gathered_to_sample, "KV cache": cache},
        "forward pass": always | inputs | (gradients if sizes.sequences > 1 else {})
        | {"bfloat16 copies of weights": copies, "logits": min(CHUNK, sizes.tokens) * text.n_vocab * 4},
        "backward pass": always | inputs | gradients | {layer_name: layer},
    }  # fmt: skip
    return {name: {part: size for part, size in parts.items() if size} for name, parts in moments.items()}


def sizes_of(run: TrainingRun) -> StepSizes:
    """Return the sizes of a run."""
    network, parameters = run.network, list(run.network.parameters())
    held = [*parameters, *(run.reference.parameters() if run.reference else ())]
    device, state = network.core.device, network.core.model.language_model.embed_tokens.weight.element_size()
    half = computes_in_bf16(run.loop.bf16, device.type)
    shared, every = run.processes.strategy == "fsdp2", n_bytes(parameters)
    layers = [n_bytes(layer.parameters()) for layer in network.core.model.language_model.layers]
    return StepSizes(
        network.geometry,
        run.context,
        weights=n_bytes(map(local, held)),
        learned=sum(local(p).numel() for p in parameters if p.requires_grad),
        gathered=shared * (2 * max(layers) + every - sum(layers)),
        gathered_to_sample=shared * every,
        sampled=run.sampled,
        state=state,
        compute=2 if half else state,
        whole=run.tune.tune == "full",
        dropout=run.tune.tune != "full" and run.tune.dropout > 0.0,
        trains_encoder=network.trains_encoder,
        checkpointing=network.core.is_gradient_checkpointing,
        sequences=run.sequences,
    )


def n_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return how much memory tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
