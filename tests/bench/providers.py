"""The packages that bring ggml and llama.cpp, by turns: whole commands with `mini`, one layer of the 8 B shape; not a test, run by hand.

    python -m tests.bench.providers FOLDER [--rounds 5] [--threads 2]

FOLDER takes 0.8 GB: a checkpoint of random weights with one layer of each part in the real extents and a small vocabulary, as Q8_0. Seconds
are medians, of a clock and of processors, which other programs disturb less; the first round is not counted. The limit is the memory that a
token written must read. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.gguf import GgufBackend
from quant.convert import convert
from quant.providers import PROVIDERS, VARIABLE
from tests.bench import fullsize
from tests.bench.limits import limits
from tests.clips import audio as clip

READ_TOKENS, WRITTEN_TOKENS = 512, 32  # of a prompt, and of an answer: fewer than go round
VOCABULARY = 4096  # the real one would weigh as much as five layers
HERE = "tests.bench.providers"


def small(folder: Path) -> tuple[Path, Path]:
    """The pair of one layer each, written once."""
    fullsize.TWIN, fullsize.VOCABULARY = replace(fullsize.TWIN, audio_layers=1, text_layers=1), VOCABULARY
    fullsize.write(folder / "checkpoint", "musicflamingo")
    made = sorted((folder / "Q8_0").glob("*.gguf"))
    if not made:
        made = sorted(convert(folder / "checkpoint", folder / "Q8_0", "Q8_0"))
    [text] = [path for path in made if not path.name.startswith("mmproj")]
    [encoder] = [path for path in made if path.name.startswith("mmproj")]
    return text, encoder


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a clock and of processors."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def layer(folder: Path, rounds: int, threads: int) -> None:
    """In a process of its own, with the provider that its variable names: print times of one layer, and the limits of its kernels."""
    text, encoder = small(folder)
    window = clip(30.0)
    with GgufBackend(text, encoder, OpenOptions(device="cpu", threads=threads)) as backend:
        backend._end_ids = frozenset()
        words = [Prompt("a b c d " * (READ_TOKENS // 8))]
        steps = {
            "encode 30 s": lambda: backend.encode([window]),
            "read": lambda: complete(backend, None, words, GenerateOptions(max_new_tokens=1)),
            "read and write": lambda: complete(backend, None, words, GenerateOptions(max_new_tokens=1 + WRITTEN_TOKENS)),
        }
        times = {name: [timed(step) for _ in range(rounds + 1)][1:] for name, step in steps.items()}
        n_read = complete(backend, None, words, GenerateOptions(max_new_tokens=1))[0].usage.tokens_in
    print(json.dumps({"times": times, "tokens_read": n_read, "bytes": text.stat().st_size, **limits(threads)}))


def main() -> None:
    """Run by turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layer", action="store_true", help="of this process's provider only")
    told = parser.parse_args()
    if told.layer:
        layer(told.folder, told.rounds, told.threads)
        return
    small(told.folder)
    names = [provider.name for provider in PROVIDERS if provider.directory is not None]
    command = [sys.executable, "-m", "mflamingo_cli", "caption", "--no-cache", str(fullsize.SONG)]
    commands: dict[str, list[fullsize.Cost]] = {name: [] for name in names}
    said: dict[str, str] = {}
    for _ in range(told.rounds + 1):
        for name in names:
            os.environ[VARIABLE] = name
            cost, said[name] = fullsize.cost_of(command)
            commands[name].append(cost)
    layers = {}
    for name in names:
        os.environ[VARIABLE] = name
        alone = [sys.executable, "-m", HERE, str(told.folder), "--layer", "--rounds", str(told.rounds), "--threads", str(told.threads)]
        layers[name] = json.loads(fullsize.cost_of(alone)[1].splitlines()[-1])
    show(commands, layers)
    print(f"the captions are {'the same' if len(set(said.values())) == 1 else 'not the same'}")
    print(json.dumps({"caption": {name: [vars(cost) for cost in costs] for name, costs in commands.items()}, "layer": layers}))


def show(commands: dict[str, list[fullsize.Cost]], layers: dict[str, dict]) -> None:
    """A row for each thing that was timed, a column for each provider: seconds of a clock (of processors)."""
    print(f"{'':<28}" + "".join(f"{name:>24}" for name in commands))

    def row(what: str, cells: list[tuple[float, float]], limit: list[float] | None = None) -> None:
        shown = "".join(f"{wall:>12.3f} s ({used:.3f} s)" for wall, used in cells)
        print(f"{what:<28}{shown}  ratio {cells[-1][0] / cells[0][0]:.2f} ({cells[-1][1] / cells[0][1]:.2f})")
        if limit:
            print(f"{'  limit':<28}" + "".join(f"{value:>12.3f} s          " for value in limit))

    row("caption with mini", [
        (median(cost.seconds for cost in costs[1:]), median(cost.processor_s for cost in costs[1:])) for costs in commands.values()
    ])  # fmt: skip
    middle = {
        name: {step: tuple(median(side) for side in zip(*of, strict=True)) for step, of in one["times"].items()}
        for name, one in layers.items()
    }
    row("encode 30 s, one layer", [middle[name]["encode 30 s"] for name in layers])
    row(f"read {next(iter(layers.values()))['tokens_read']} tokens, one layer", [middle[name]["read"] for name in layers])
    written = [
        tuple(both - read for both, read in zip(middle[name]["read and write"], middle[name]["read"], strict=True)) for name in layers
    ]
    row(f"write {WRITTEN_TOKENS} tokens, one layer", written, [
        WRITTEN_TOKENS * one["bytes"] / (1e9 * one["read_gb_per_s"]) for one in layers.values()
    ])  # fmt: skip


if __name__ == "__main__":
    main()
