"""A 30 s window through the encoder of a GGUF pair: ggml's kernels beside torch's in BF16, by turns; not a test, run by hand.

    python -m tests.bench.encode PAIR [--threads N] [--rounds 5]

Seconds are medians, the first round is not counted; opening holds what torch costs to import. The limit is the encoder's multiplications
at the speed of one large product in BF16. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

import numpy as np

from mflamingo_cli.backends import find_model
from mflamingo_cli.backends.ggml.binding import Device
from mflamingo_cli.backends.ggml.graph import GgmlEncoder
from mflamingo_cli.backends.ggml.weights import Weights
from mflamingo_cli.backends.threads import physical_cores
from mflamingo_cli.backends.torch_encoder import TorchEncoder, faster_in_torch
from quant import reader
from quant.geometry import EncoderSizes
from quant.keys import geometry_of_keys
from tests.bench.limits import TYPES, best, product


def operations(sizes: EncoderSizes) -> float:
    """Of the layers of one window: projections, MLP, and attention of all positions on all."""
    weights = sizes.n_layers * (4 * sizes.d_model**2 + 2 * sizes.d_model * sizes.d_ffn)
    return 2.0 * weights * sizes.n_positions + 4.0 * sizes.n_layers * sizes.n_positions**2 * sizes.d_model


def main() -> None:
    """Open both, run by turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pair")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    [(text, audio)] = find_model(told.pair).pairs
    file = reader.read(audio)
    geometry = geometry_of_keys(file.keys, reader.read(text).keys, text)
    n_frames, n_operations = 2 * geometry.encoder.n_positions, operations(geometry.encoder)
    mel = np.random.default_rng(0).standard_normal((geometry.mel.n_mels, n_frames)).astype(np.float32)
    with ExitStack() as opened:
        device = opened.enter_context(closing(Device("cpu", told.threads)))
        weights = opened.enter_context(closing(Weights(file, device)))
        chosen = "torch" if faster_in_torch(weights) else "ggml"
        makers = {"ggml": lambda: GgmlEncoder(weights, geometry, device), "torch": lambda: TorchEncoder(file, geometry, told.threads)}
        sides, opening = {}, {}
        for name, make in makers.items():
            began = time.perf_counter()
            sides[name] = opened.enter_context(closing(make()))
            opening[name] = time.perf_counter() - began
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(told.rounds + 1):
            for name, side in sides.items():
                times[name].append(best(lambda side=side: side.window(mel, n_frames, 0), 1))
        versions = {name: side.versions for name, side in sides.items()}
    seconds = {name: median(found[1:]) for name, found in times.items()}
    seconds["limit"] = n_operations / product(TYPES["bf16"], told.threads)
    print(f"{Path(audio).name}, {told.threads} threads; the gguf back end encodes with {chosen}")
    for name, value in seconds.items():
        opens = f"{opening[name]:>8.1f} s to open" if name in opening else ""
        print(f"{name:<8}{value:>8.2f} s{n_operations / value / 1e9:>8.0f} GFLOP/s{opens}")
    print(json.dumps({"seconds": seconds, "times": times, "opening": opening, "threads": told.threads, "versions": versions}))


if __name__ == "__main__":
    main()
