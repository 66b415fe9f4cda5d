"""A 30 s window through the encoder: llama.cpp's kernels beside transformers' in BF16, by turns; not a test, run by hand.

    python -m tests.bench.encode PAIR [--threads N] [--rounds 5]

PAIR is a folder with a GGUF pair; torch's encoder has the same shapes and random weights. Seconds are medians. The limit is the encoder's
multiplications at the speed of one large product in BF16. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

import numpy as np
import torch
import transformers
from transformers import AudioFlamingo3EncoderConfig
from transformers.models.audioflamingo3.modeling_audioflamingo3 import AudioFlamingo3Encoder

from mflamingo_cli.backends import find_model, ggml
from mflamingo_cli.backends.cores import physical_cores
from mflamingo_cli.backends.gguf import geometry_of
from mflamingo_cli.core.geometry import EncoderSizes
from tests.bench.limits import TYPES, best, product


def torch_encoder(sizes: EncoderSizes, n_mels: int) -> AudioFlamingo3Encoder:
    """Random weights in BF16."""
    config = AudioFlamingo3EncoderConfig(
        num_mel_bins=n_mels,
        hidden_size=sizes.d_model,
        num_hidden_layers=sizes.n_layers,
        num_attention_heads=sizes.n_heads,
        intermediate_size=sizes.d_ffn,
        max_source_positions=sizes.n_positions,
    )
    config._attn_implementation = "sdpa"
    return AudioFlamingo3Encoder(config).to(torch.bfloat16).eval()


def operations(sizes: EncoderSizes) -> float:
    """Of the layers of one window: projections, MLP, and attention of all positions on all."""
    weights = sizes.n_layers * (4 * sizes.d_model**2 + 2 * sizes.d_model * sizes.d_ffn)
    return 2 * weights * sizes.n_positions + 4 * sizes.n_layers * sizes.n_positions**2 * sizes.d_model


def main() -> None:
    """Open both, run by turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pair")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    [(text, audio)] = find_model(told.pair).pairs
    geometry = geometry_of(ggml.read_metadata(audio), ggml.read_metadata(text))
    n_frames = 2 * geometry.encoder.n_positions
    mel = np.random.default_rng(0).standard_normal((geometry.mel.n_mels, n_frames)).astype(np.float32)
    theirs = torch_encoder(geometry.encoder, geometry.mel.n_mels)
    features, mask = torch.from_numpy(mel).bfloat16()[None], torch.ones(1, n_frames, dtype=torch.long)
    with ExitStack() as opened, torch.inference_mode():
        device = opened.enter_context(closing(ggml.Device("cpu", told.threads)))
        weights = opened.enter_context(closing(ggml.Weights(audio, device)))
        ours = opened.enter_context(closing(ggml.Encoder(weights, geometry, device)))
        sides: dict[str, Callable[[], object]] = {
            "llama.cpp's kernels": lambda: ours.window(mel, n_frames, 0),
            "torch, BF16": lambda: theirs(features, mask),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(told.rounds):
            for name, work in sides.items():
                times[name].append(best(work, 1))
    seconds = {name: median(found) for name, found in times.items()}
    speed = product(TYPES["bf16"], told.threads)
    seconds["limit"] = operations(geometry.encoder) / speed
    print(f"{Path(audio).name}, {'BF16 in memory' if weights.widened else 'as in the file'}, {told.threads} threads")
    for name, value in seconds.items():
        print(f"{name:<22}{value:>8.2f} s{operations(geometry.encoder) / value / 1e9:>8.0f} GFLOP/s")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "ggml": device.ggml.ggml_version().decode()}
    print(json.dumps({"seconds": seconds, "times": times, "threads": told.threads, "versions": versions}))


if __name__ == "__main__":
    main()
