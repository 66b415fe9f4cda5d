"""Memory of a training step, measured and estimated: a row of 24,000 tokens on a model of about 100 M parameters with the real vocabulary.

`python -m tests.bench.memory` trains two steps in a process of its own for each way to train, the first on a short row, so that Adam's
moments are there, and measures the second: the most memory that it held, less what it held before the model was loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mflamingo_cli.train.memory import StepSizes, estimate
from tests import checkpoints
from tests.docs import ROOT

TWIN = checkpoints.Size(
    d_audio=128,
    audio_layers=2,
    audio_heads=2,
    d_text=320,
    text_layers=4,
    text_heads=5,
    kv_heads=1,
    n_vocab=checkpoints.REAL_2601.text.n_vocab,
)
WINDOW_S, RATE = 30, 16_000
MMAP_BYTES = str(1 << 18)  # larger arrays go back to the system when they are freed; else gaps in the heap are measured


def weights_per_layer(d_model: int, d_kv: int, d_ffn: int) -> int:
    """Return the weights of a layer of Qwen2, without norms and biases."""
    return 2 * d_model * (d_model + d_kv) + 3 * d_model * d_ffn


ANSWER = "bright pianos and warm strings, the chords are C, G, Am and F; "  # as often as it takes to have more answer tokens than a chunk
WAYS = {
    "lora": ("lora", ("language", "projector")),
    "full": ("full", ("language", "projector")),
    "full, encoder too": ("full", ("language", "projector", "encoder")),
    "lora, all kept": ("lora", ("language", "projector")),
    "full, all kept": ("full", ("language", "projector", "encoder")),
}
ALL_KEPT = "all kept"  # of activations: nothing is computed again


def write(folder: Path, windows: int) -> None:
    """Write the model, a song of so many windows, a row about it, and a short row about none."""
    checkpoints.write(folder / "base", size=TWIN)
    noise = np.random.default_rng(0).normal(0, 0.1, windows * WINDOW_S * RATE).astype(np.float32)
    soundfile.write(folder / "song.wav", noise, RATE)
    rows = [(None, "A minor"), ("song.wav", ANSWER * 80)]
    for number, (audio, answer) in enumerate(rows):
        messages = [{"role": "user", "content": "Describe it."}, {"role": "assistant", "content": answer}]
        row = {"format": "mflamingo-rows/1", "messages": messages} | ({"audio": audio} if audio else {})
        (folder / f"rows-{number}.jsonl").write_text(json.dumps(row), encoding="utf-8")


def measure(folder: Path, way: str) -> dict[str, Any]:
    """Train a short step, then a long one, and return what the long one took and what was estimated. In a process of its own."""
    import torch

    from mflamingo_cli.train import sft
    from mflamingo_cli.train.adapters import TuneConfig
    from mflamingo_cli.train.data.rowset import Rows
    from mflamingo_cli.train.loop import fit
    from mflamingo_cli.train.memory import sizes_of
    from mflamingo_cli.train.parallel import Processes

    torch.set_num_threads(1)
    tune, parts = WAYS[way]
    if tune != "full":
        import peft  # noqa: F401  (its imports are no memory of the step)
    before, rows = resident("VmRSS"), Rows([folder / "rows-0.jsonl", folder / "rows-1.jsonl"])
    config = sft.SftConfig(
        TuneConfig(tune, parts), steps=2, batch=1, context=tokens_of(folder), save_every=3,
        checkpointing=ALL_KEPT not in way,
    )  # fmt: skip
    config = next(config for config in (sft.replace(config, seed=seed) for seed in range(99)) if short_first(config.seed))
    run = sft.prepare(folder / "base", rows, folder / "run", config, torch.device("cpu"), Processes(), keeps=False)
    steps = fit(run.objective, run.network, run.loop, folder / "run", run.processes, keeps=False)
    next(steps)
    Path("/proc/self/clear_refs").write_text("5")  # the most that was held is counted from here on
    began = time.monotonic()
    report = next(steps)
    taken, moments = resident("VmHWM") - before, estimate(sizes_of(run))
    busiest = max(moments, key=lambda name: sum(moments[name].values()))
    return {
        "way": way, "parameters": sum(p.numel() for p in run.network.parameters()), "tokens": run.context, "loss": report.loss,
        "seconds": round(time.monotonic() - began), "measured": taken, "estimated": sum(moments[busiest].values()), "busiest": busiest,
        "parts": moments[busiest],
    }  # fmt: skip


REAL = checkpoints.REAL_2601
CONTEXTS = (8192, 24_576, 32_768)
NF4 = 0.516  # bytes of a 4-bit weight with both of its scales (Dettmers 2023)


@dataclass(frozen=True)
class Parts:
    """Weights of the real model by part."""

    layer: int = weights_per_layer(REAL.text.d_model, REAL.text.n_kv_heads * REAL.text.d_head, REAL.text.d_ffn)
    words: int = 2 * REAL.text.n_vocab * REAL.text.d_model  # embedding and output layer
    projector: int = REAL.text.d_model * (REAL.encoder.d_model + REAL.text.d_model + 2)
    encoder: int = REAL.encoder.n_layers * (4 * REAL.encoder.d_model**2 + 2 * REAL.encoder.d_model * REAL.encoder.d_ffn)

    @property
    def layers(self) -> int:
        return self.layer * REAL.text.n_layers

    def low_rank(self, rank: int) -> int:
        """Weights of the low-rank matrices of all layers."""
        text = REAL.text
        q, kv, ffn = text.d_model, text.n_kv_heads * text.d_head, text.d_ffn
        return rank * text.n_layers * (2 * 2 * q + 2 * (q + kv) + 3 * (q + ffn))


def real_sizes(tokens: int) -> dict[str, StepSizes]:
    """Return the sizes of a step of the real model on GPUs: language model and projector learn, the encoder does not."""
    parts, low = Parts(), Parts().low_rank(16)
    frozen = parts.words + parts.projector + parts.encoder
    adapter = {"learned": low + parts.projector, "state": 2, "compute": 2, "whole": False, "dropout": True}
    common = {"trains_encoder": False, "checkpointing": True, "gathered_to_sample": 0, "sampled": 0, "sequences": 8}
    learned = parts.layers + parts.words + parts.projector
    shares = {"weights": 4 * (learned // 8 + parts.encoder), "learned": learned // 8, "gathered": 4 * (2 * parts.layer + parts.words)}
    return {
        "QLoRA": StepSizes(
            REAL, tokens, weights=int(NF4 * parts.layers) + 2 * frozen + 4 * adapter["learned"], gathered=0, **adapter, **common
        ),
        "LoRA": StepSizes(REAL, tokens, weights=2 * (parts.layers + frozen) + 4 * adapter["learned"], gathered=0, **adapter, **common),
        "all weights, 8 cards": StepSizes(
            REAL, tokens, **shares, state=4, compute=2, whole=True, dropout=False, **(common | {"sequences": 1})
        ),
    }


def show_real() -> None:
    """Print what a step of the real model is estimated to take on each card."""
    for tokens in CONTEXTS:
        for name, sizes in real_sizes(tokens).items():
            moments = estimate(sizes)
            busiest = max(moments, key=lambda moment: sum(moments[moment].values()))
            parts = ", ".join(f"{part} {n / 1e9:.1f}" for part, n in moments[busiest].items())
            print(f"{tokens} tokens, {name}: {sum(moments[busiest].values()) / 1e9:.1f} GB in the {busiest} ({parts})")


def tokens_of(folder: Path) -> int:
    """Return the tokens of the long row."""
    from mflamingo_cli.train.data.check import RowChecker
    from mflamingo_cli.train.data.rowset import Rows
    from mflamingo_cli.train.rows import ChatEncoder
    from quant.config import read_geometry

    base = folder / "base"
    checker = RowChecker(ChatEncoder.of(base), read_geometry(base), checkpoints.REAL_2601.text.context_length)
    return len(checker.branch(Rows([folder / "rows-1.jsonl"])[0]).ids)


def short_first(seed: int) -> bool:
    """Return whether two rows that do not fit together come in the order of their file."""
    from mflamingo_cli.train.plan import RowPlan

    return RowPlan([5, 100], 100, seed, 1).at(0) == [[0]]


def resident(name: str) -> int:
    """Return a size that Linux knows of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, nargs="+", default=[31], help="lengths of the row, in windows of 30 s: 750 tokens each")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--real", action="store_true", help="only estimate, for the real model")
    wanted = parser.parse_args()
    if wanted.real:
        show_real()
        return
    if wanted.child:
        print(json.dumps(measure(Path(wanted.child[0]), wanted.child[1])))
        return
    for windows in wanted.windows:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), windows)
            for way in wanted.ways:
                show(name, way)


def show(folder: str, way: str) -> None:
    """Measure one way to train in a process of its own, and print what was found."""
    words = [sys.executable, "-m", "tests.bench.memory", "--child", folder, way]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": MMAP_BYTES}
    done = json.loads(subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    ratio = done["estimated"] / done["measured"]
    print(
        f"{way}: {done['parameters'] / 1e6:.0f} M parameters, {done['tokens']} tokens: measured {done['measured'] / 1e9:.2f} GB, "
        f"estimated {done['estimated'] / 1e9:.2f} GB ({ratio:.2f}), in the {done['busiest']}; {done['seconds']} s", flush=True,
    )  # fmt: skip
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
