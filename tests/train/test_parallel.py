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

import pytest
from safetensors.torch import load_file

from tests import checkpoints
from tests.train.test_sft import said, write_song

pytestmark = pytest.mark.slow
AGREE = 1e-5  # of losses: float32 sums in another order
STEPS = 6
MOST_S = 600


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
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"format": "mflamingo-rows/1"} | row) for row in rows), encoding="utf-8")
    return folder


def command(work: Path, run: str, processes: int, parallel: str, *options: str) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"] if processes > 1 else []
    program = [sys.executable, *torchrun, "-m", "mflamingo_cli", "train", "sft", "-m", str(work / "base")]
    program += ["--data", str(work / "rows.jsonl")]
    steps = ["--steps", str(STEPS), "--batch", "2", "--context", "1000", "--lr", "1e-3", "--device", "cpu", "--parallel", parallel]
    return [*program, "-o", str(work / run), *steps, *options]


def train(work: Path, run: str, processes: int, parallel: str, *options: str) -> list[float]:
    done = subprocess.run(
        command(work, run, processes, parallel, *options), capture_output=True, text=True, timeout=MOST_S, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line)["loss"] for line in (work / run / "log.jsonl").read_text().splitlines()]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


ALL = ("--tune", "full", "--parts", "language,projector,encoder", "--no-bf16")


def test_two_processes_are_one(work: Path) -> None:
    alone = train(work, "alone", 1, "none", *ALL)
    assert len(alone) == STEPS
    assert alone[-1] < alone[0]
    assert train(work, "ddp", 2, "ddp", *ALL) == pytest.approx(alone, abs=AGREE * 10)
    assert train(work, "fsdp2", 2, "fsdp2", *ALL) == pytest.approx(alone, abs=AGREE * 10)
    files = [load_file(work / run / "checkpoint" / "model.safetensors") for run in ("alone", "fsdp2")]
    assert files[0].keys() == files[1].keys()
    for name, weight in files[0].items():
        assert weight.shape == files[1][name].shape
        assert float((weight.float() - files[1][name].float()).abs().max()) < 0.01, name  # of bfloat16 weights near 1


@pytest.mark.parametrize(("processes", "parallel"), [(1, "none"), (2, "fsdp2")])
def test_a_killed_run_goes_on_as_if_it_had_not_been(work: Path, processes: int, parallel: str) -> None:
    options = ("--tune", "lora", "--dropout", "0.3", "--save-every", "1", "--no-bf16")
    whole, rng = train(work, f"whole-{parallel}", processes, parallel, *options), random.Random(processes)
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
    rest = [json.loads(line) for line in (work / run / "log.jsonl").read_text().splitlines()]
    assert {entry["step"]: entry["loss"] for entry in rest} == dict(enumerate(whole))
    ours, theirs = ((work / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in (run, f"whole-{parallel}"))
    assert ours == theirs


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a checkpoint of a step is there, or the run has ended."""
    deadline = time.monotonic() + MOST_S
    while process.poll() is None and not list((run / "checkpoints").glob(f"step-{step:06d}")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
