"""Training that is killed at random steps and started again gives the weights of a run that nobody killed, bit for bit.

`python -m tests.bench.resume --kills 20` trains with dropout (`sft`) and with sampling (`grpo`), in one process and in two that share
every weight, kills all processes of a run behind a random step, and compares what is learned and every loss with a run of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from tests import checkpoints
from tests.train import processes

STEPS = 40
MOST_S = 1800
POLL_S = 0.002
LATEST_S = 0.2  # after a checkpoint: when a kill comes, at the latest
REWARD = "def vowels(texts, row):\n    return [sum(text.count(letter) for letter in 'aeiou') / max(1, len(text)) for text in texts]\n"
COMMON = ("--lr", "1e-3", "--batch", "2", "--steps", str(STEPS), "--save-every", "1", "--device", "cpu")
COMMANDS = {
    "sft": ("sft", "--tune", "lora", "--dropout", "0.3", "--context", "400", *COMMON),
    "grpo": ("grpo", "--tune", "lora", "--group", "4", "--max-tokens", "6", "--reward", "vowels.py:vowels", *COMMON),
}


def write(folder: Path) -> None:
    """Write a model, four rows, two of them about songs, and a reward that a random model earns now and then."""
    checkpoints.write(folder / "base")
    rng, rows = np.random.default_rng(0), []
    for number in range(4):
        messages = [
            {"role": "user", "content": "Which key? " * (5 * number + 1)},
            {"role": "assistant", "content": f"{'CDEF'[number]} major"},
        ]
        row = {"format": "mflamingo-rows/1", "messages": messages}
        if number < 2:
            soundfile.write(folder / f"{number}.wav", rng.normal(0, 0.1, 40_000 * (number + 1)).astype(np.float32), 16_000)
            row["audio"] = f"{number}.wav"
        rows.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "vowels.py").write_text(REWARD, encoding="utf-8")


def kill_behind(folder: Path, words: Sequence[str], count: int, output: Path, step: int, moments: random.Random) -> None:
    """Start a run, and kill all its processes some moment behind a checkpoint."""
    started = processes.start(words, folder, count)
    while (
        started[0].is_alive() and max((path.name for path in (output / "checkpoints").glob("step-??????")), default="") < f"step-{step:06d}"
    ):
        time.sleep(POLL_S)
    time.sleep(moments.uniform(0.0, LATEST_S))
    processes.kill(started)


def losses(output: Path) -> dict[int, float]:
    """Return the loss of each step; of one that was taken twice the last."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines() if line.endswith("}")]
    return {line["step"]: line["loss"] for line in lines}


def try_out(folder: Path, name: str, count: int, kills: int, seed: int) -> None:
    """Train without a kill and with so many, and compare."""
    strategy, moments = "fsdp2" if count > 1 else "none", random.Random(f"{seed} {name} {count}")
    common = ["train", *COMMANDS[name], "-m", "base", "--data", "rows.jsonl", "--parallel", strategy]
    whole, killed = folder / f"whole-{name}-{count}", folder / f"killed-{name}-{count}"
    began = time.monotonic()
    processes.finish(processes.start([*common, "-o", str(whole)], folder, count), folder, MOST_S)
    whole_s = time.monotonic() - began
    steps = sorted(moments.sample(range(1, STEPS), kills))
    for step in steps:
        kill_behind(folder, [*common, "-o", str(killed)], count, killed, step, moments)
    processes.finish(processes.start([*common, "-o", str(killed)], folder, count), folder, MOST_S)
    weights = [(run / "adapter" / "adapter_model.safetensors").read_bytes() for run in (whole, killed)]
    assert weights[0] == weights[1], f"{name}: other weights"
    assert losses(whole) == losses(killed), f"{name}: other losses"
    print(
        f"{name}, {count} process(es): {STEPS} steps in {whole_s:.0f} s; killed behind steps {steps}: the same weights, byte for byte",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=[*COMMANDS])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        for command in wanted.commands:
            for count in wanted.processes:
                try_out(folder, command, count, wanted.kills, wanted.seed)


if __name__ == "__main__":
    main()
