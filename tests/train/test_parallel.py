"""Several processes train as one does, on one node and on two, also where one has no song; a run that is killed and resumed is the same."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import checkpoints
from tests.docs import ROOT
from tests.train import processes
from tests.train.test_sft import said, write_song

pytestmark = pytest.mark.slow
AGREE = 1e-5  # of losses and weights: float32 sums in another order
STEPS = 6
MOST_S = 600
VOWELS = "def vowels(texts, row):\n    return [sum(text.count(letter) for letter in 'aeiou') / max(1, len(text)) for text in texts]\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and rows that are a sequence each: two about songs, one of two windows, and two about none."""
    folder = tmp_path_factory.mktemp("work")
    checkpoints.write(folder / "base")
    songs = [write_song(folder / f"{number}.wav", seconds, number) for number, seconds in enumerate((9.0, 33.0))]
    rows = [
        {"audio": songs[0], "messages": said(("Which key is it in, do you think?", "A minor"))},
        {"audio": songs[1], "messages": said(("Describe it.", "bright pianos and warm strings"))},
        {"audio": None, "messages": said(("What is a tritone? " * 60, "six semitones"))},
        {"audio": None, "messages": said(("Name a chord. " * 70, "C, G, Am and F"))},
    ]
    (folder / "vowels.py").write_text(VOWELS)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"format": "mflamingo-rows/1"} | row) for row in rows), encoding="utf-8")
    return folder


SFT = ("sft", "--steps", str(STEPS), "--context", "1000")
GRPO = ("grpo", "--steps", "3", "--group", "4", "--max-tokens", "6", "--reward", "vowels.py:vowels")


def command(run: str, parallel: str, *options: str) -> list[str]:
    return [
        "train", *options, "-m", "base", "--data", "rows.jsonl", "--batch", "2", "--lr", "1e-3", "--device", "cpu", "--parallel", parallel,
        "-o", run,
    ]  # fmt: skip


def train(work: Path, run: str, count: int, parallel: str, *options: str) -> list[dict[str, Any]]:
    processes.finish(processes.start(command(run, parallel, *options), work, count), work, MOST_S)
    return log_of(work / run)


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(log: list[dict[str, Any]]) -> list[float]:
    return [entry["loss"] for entry in log]


ALL = ("--tune", "full", "--parts", "language,projector,encoder", "--no-bf16")


@pytest.fixture(scope="module")
def alone(work: Path) -> list[float]:
    """Losses of one process."""
    found = losses(train(work, "alone", 1, "none", *SFT, *ALL))
    assert len(found) == STEPS
    assert found[-1] < found[0]
    return found


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What a run trained, float32: each process of fsdp2 has a share of the rows."""
    files = [load_file(path) for path in sorted((run / "checkpoints" / f"step-{STEPS:06d}").glob("*.safetensors"))]
    return {name: torch.cat([file[name] for file in files]) for name in files[0] if name.startswith("module.")}


def assert_as_alone(work: Path, run: str, alone: list[float]) -> None:
    assert losses(log_of(work / run)) == pytest.approx(alone, abs=AGREE)
    ours, theirs = weights(work / run), weights(work / "alone")
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0.0, atol=AGREE, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_are_one(work: Path, alone: list[float], parallel: str) -> None:
    train(work, parallel, 2, parallel, *SFT, *ALL)
    assert_as_alone(work, parallel, alone)


@pytest.mark.parametrize("tune", [ALL, ("--tune", "lora", "--no-bf16")], ids=["full", "lora"])
def test_two_processes_sample_and_reward_as_one(work: Path, tune: tuple[str, ...]) -> None:
    name = tune[1]
    alone = train(work, f"grpo-{name}", 1, "none", *GRPO, *tune)
    assert any(entry["numbers"]["no_variance"] < 1.0 for entry in alone)
    for parallel in ("ddp", "fsdp2"):
        both = train(work, f"grpo-{name}-{parallel}", 2, parallel, *GRPO, *tune)
        assert losses(both) == pytest.approx(losses(alone), abs=AGREE)
        for ours, theirs in zip(both, alone, strict=True):
            assert ours["numbers"] == pytest.approx(theirs["numbers"], abs=AGREE)  # rewards, lengths: the same texts


@pytest.mark.parametrize(("count", "parallel"), [(1, "none"), (2, "fsdp2")])
def test_a_killed_run_goes_on_as_if_it_had_not_been(work: Path, count: int, parallel: str) -> None:
    options = (*SFT, "--tune", "lora", "--dropout", "0.3", "--save-every", "1", "--no-bf16")
    whole, rng = losses(train(work, f"whole-{parallel}", count, parallel, *options)), random.Random(count)
    run = f"killed-{parallel}"
    for kills in range(3 - count):
        began = processes.start(command(run, parallel, *options), work, count)
        wait_for_step(work / run, rng.randint(kills + 1, kills + 2), began)
        time.sleep(rng.random() * 0.3)
        processes.kill(began)
    train(work, run, count, parallel, *options)
    assert {entry["step"]: entry["loss"] for entry in log_of(work / run)} == dict(enumerate(whole))
    ours, theirs = ((work / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in (run, f"whole-{parallel}"))
    assert ours == theirs


@pytest.mark.parametrize("options", [(*SFT, "--tune", "lora"), (*GRPO, "--tune", "lora")], ids=["sft", "grpo"])
def test_an_interrupted_run_says_how_it_goes_on(work: Path, options: tuple[str, ...]) -> None:
    run = f"interrupted-{options[0]}"
    words = command(run, "none", *options, "--save-every", "1", "--no-bf16")
    [process] = processes.start(words, work)
    wait_for_step(work / run, 1, [process])
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(MOST_S)
    assert process.exitcode == 130  # as every command that Ctrl-C ends
    last = (work / "stderr.txt").read_text().splitlines()[-1]
    assert last == f"mflamingo: stopped; checkpoints are kept in {run}; run the same command again to resume"
    processes.finish(processes.start(words, work), work, MOST_S)
    assert [entry["step"] for entry in log_of(work / run)] == sorted({entry["step"] for entry in log_of(work / run)})


def wait_for_step(run: Path, step: int, started: Sequence[BaseProcess]) -> None:
    """Wait until a checkpoint of a step is there, or the run has ended."""
    deadline = time.monotonic() + MOST_S
    while any(process.is_alive() for process in started) and not list((run / "checkpoints").glob(f"step-{step:06d}")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_nodes_meet_by_torchrun_and_are_one_process(work: Path, alone: list[float]) -> None:
    """The command of the README on two nodes that share a folder: here two torchruns of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    launcher = ["--", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", meeting]
    words = [sys.executable, "-m", "mflamingo_cli", *command("nodes", "fsdp2", *SFT, *ALL), *launcher, "--local-addr", "127.0.0.1"]
    environment = os.environ | processes.ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    nodes = [subprocess.Popen(words, cwd=work, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in "ab"]
    try:
        said = [node.communicate(timeout=MOST_S)[1] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], said
    assert_as_alone(work, "nodes", alone)
