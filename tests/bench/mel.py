"""Time the log-mel of one 30 s window, ours beside transformers': `python -m tests.bench.mel`.

One thread each, runs interleaved, medians in milliseconds.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from mflamingo_cli.core.mel import LogMel
from quant.geometry import MelConfig

RUNS = 31
CONFIGS = [MelConfig(), MelConfig(n_mels=80), MelConfig(n_fft=1024), MelConfig(n_fft=2048, n_mels=256)]
TAIL = 3 * 16_000  # samples of a partial window


def medians(roads: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds per road, taking turns so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in roads}
    for run in range(RUNS + 2):
        for name, road in roads.items():
            start = time.perf_counter()
            road()
            if run >= 2:  # the first two warm caches up
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def compare(config: MelConfig) -> dict[str, float | int]:
    """One configuration: milliseconds of both roads on a full and on a partial window, and the largest difference."""
    samples = (0.1 * np.random.default_rng(0).standard_normal(config.window_samples)).astype(np.float32)
    ours = LogMel(config)
    theirs = WhisperFeatureExtractor(config.n_mels, config.sample_rate, config.hop_length, config.window_s, config.n_fft)
    call = {"sampling_rate": config.sample_rate, "return_tensors": "np"}
    times = medians(
        {
            "ours_ms": lambda: ours(samples),
            "torch_ms": lambda: theirs(samples, **call),
            "ours_3s_ms": lambda: ours(samples[:TAIL]),
            "torch_3s_ms": lambda: theirs(samples[:TAIL], **call),
        }
    )
    sizes = {"n_fft": config.n_fft, "hop_length": config.hop_length, "n_mels": config.n_mels}
    ratios = {"ratio": times["torch_ms"] / times["ours_ms"], "ratio_3s": times["torch_3s_ms"] / times["ours_3s_ms"]}
    error = float(np.abs(ours(samples) - theirs(samples, **call)["input_features"][0]).max())
    return {**sizes, **times, **ratios, "max_error": error}


def main() -> None:
    """Print a table and, last, the same as one line of JSON."""
    torch.set_num_threads(1)
    rows = [compare(config) for config in CONFIGS]
    out = sys.stdout
    out.write("n_fft  hop mels |  30 s: ours  torch ratio |  3 s: ours  torch ratio | max error\n")
    for row in rows:
        out.write(
            f"{row['n_fft']:5} {row['hop_length']:4} {row['n_mels']:4} |"
            f" {row['ours_ms']:10.2f} {row['torch_ms']:6.2f} {row['ratio']:5.2f} |"
            f" {row['ours_3s_ms']:9.2f} {row['torch_3s_ms']:6.2f} {row['ratio_3s']:5.2f} | {row['max_error']:.1e}\n"
        )
    out.write(json.dumps({"bench": "mel", "runs": RUNS, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
