"""Several processes train as one does, also where one of them has no song; a run that is killed and resumed is the same run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import checkpoints
from tests.docs import ROOT
from tests.train.test_sft import said, write_song

pytestmark = pytest.mark.slow
AGREE = 1e-5  # of losses: float32 sums in another order
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


def command(work: Path, run: str, processes: int, parallel: str, *options: str) -> list[str]:
    launcher = ["--", "--nproc-per-node", str(processes), "--standalone"] if processes > 1 else []
    program = [sys.executable, "-m", "mflamingo_cli", "train", *options, "-m", str(work / "base"), "--data", str(work / "rows.jsonl")]
    program += ["--batch", "2", "--lr", "1e-3", "--device", "cpu", "--parallel", parallel]
    return [*program, "-o", str(work / run), *launcher]


def train(work: Path, run: str, processes: int, parallel: str, *options: str) -> list[dict[str, Any]]:
    words = command(work, run, processes, parallel, *options)
    done = subprocess.run(words, cwd=work, capture_output=True, text=True, timeout=MOST_S, env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return log_of(work / run)


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(log: list[dict[str, Any]]) -> list[float]:
    return [entry["loss"] for entry in log]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}


ALL = ("--tune", "full", "--parts", "language,projector,encoder", "--no-bf16")


def test_two_processes_are_one(work: Path) -> None:
    alone = losses(train(work, "alone", 1, "none", *SFT, *ALL))
    assert len(alone) == STEPS
    assert alone[-1] < alone[0]
    assert losses(train(work, "ddp", 2, "ddp", *SFT, *ALL)) == pytest.approx(alone, abs=AGREE * 10)
    assert losses(train(work, "fsdp2", 2, "fsdp2", *SFT, *ALL)) == pytest.approx(alone, abs=AGREE * 10)
    files = [load_file(work / run / "checkpoint" / "model.safetensors") for run in ("alone", "fsdp2")]
    assert files[0].keys() == files[1].keys()
    for name, weight in files[0].items():
        assert weight.shape == files[1][name].shape
        assert float((weight.float() - files[1][name].float()).abs().max()) < 0.01, name  # of bfloat16 weights near 1


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


@pytest.mark.parametrize(("processes", "parallel"), [(1, "none"), (2, "fsdp2")])
def test_a_killed_run_goes_on_as_if_it_had_not_been(work: Path, processes: int, parallel: str) -> None:
    options = (*SFT, "--tune", "lora", "--dropout", "0.3", "--save-every", "1", "--no-bf16")
    whole, rng = losses(train(work, f"whole-{parallel}", processes, parallel, *options)), random.Random(processes)
    run = f"killed-{parallel}"
    for kills in range(3 - processes):
        began = subprocess.Popen(
            command(work, run, processes, parallel, *options),
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, env=environment(),
        )  # fmt: skip
        wait_for_step(work / run, rng.randint(kills + 1, kills + 2), began)
        time.sleep(rng.random() * 0.3)
        os.killpg(began.pid, signal.SIGKILL)
        began.wait()
    train(work, run, processes, parallel, *options)
    assert {entry["step"]: entry["loss"] for entry in log_of(work / run)} == dict(enumerate(whole))
    ours, theirs = ((work / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in (run, f"whole-{parallel}"))
    assert ours == theirs


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a checkpoint of a step is there, or the run has ended."""
    deadline = time.monotonic() + MOST_S
    while process.poll() is None and not list((run / "checkpoints").glob(f"step-{step:06d}")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
