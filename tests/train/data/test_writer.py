"""An instruct model in a GGUF file writes for `train data label --writer FILE.gguf`, through llama.cpp: one with random weights, and one
that learned what to say to the very prompts that `label` makes, so that another prompt, template or order of turns would fail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mflamingo_cli.train import sft
from mflamingo_cli.train.adapters import TuneConfig
from mflamingo_cli.train.data.label import LabelOptions, labels_of
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.data.writer import CAPTION, N_QUESTIONS, QUESTIONS, REASONS, SongWriter
from mflamingo_cli.train.parallel import Processes
from quant.convert import plan
from tests import checkpoints
from tests.docs import ROOT
from tests.train.data.test_label import record

CAPTIONED = "A driving rock song in A minor at 124 BPM."
ASKED = '{"question": "Is it fast?", "answer": "Yes, it runs at 124 BPM from start to end."}'
LIED = '{"question": "Which key?", "answer": "It is in D major throughout, I think."}'
REASONED = "I tap along and the taps come at 124 BPM, and the phrases come to rest on A, so that it is A minor."
SAID = {CAPTION: CAPTIONED, QUESTIONS.format(count=N_QUESTIONS): f"{ASKED}\n{LIED}", REASONS: REASONED}


class Prompts:
    """A writer that keeps what it is asked, and answers as the trained one shall."""

    name = "prompts"

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def complete(self, system: str, prompt: str, seed: int = 0, temperature: float = 0.7) -> str:
        said = zip(("system", "user", "assistant"), (system, prompt, SAID[system]), strict=True)
        self.rows.append({"format": "mflamingo-rows/1", "messages": [{"role": role, "content": text} for role, text in said]})
        return SAID[system]


def converted(directory: Path, folder: Path) -> Path:
    """Convert a checkpoint, and return the GGUF file of its language model."""
    for _ in plan(directory, folder, "F32").run():
        pass
    [path] = [path for path in folder.glob("*.gguf") if not path.name.startswith("mmproj")]
    return path.rename(folder / "scribe.gguf")


def label(folder: Path, writer: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Label one analysed song by the command, and return its rows and what was left out."""
    (folder / "records.jsonl").write_text(record().to_json() + "\n", encoding="utf-8")
    words = ["train", "data", "label", "records.jsonl", "-o", "rows.jsonl", "--writer", str(writer), "--think"]
    done = subprocess.run(
        [sys.executable, "-m", "mflamingo_cli", *words], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    return rows, json.loads((folder / "rows.jsonl.songs").read_text(encoding="utf-8").splitlines()[1])["left_out"]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_what_random_weights_write_is_left_out_with_reasons(tmp_path: Path) -> None:
    rows, left_out = label(tmp_path, converted(checkpoints.write(tmp_path / "base"), tmp_path / "gguf"))
    assert not [row for row in rows if "scribe" in row["provenance"].values()]
    assert {entry["what"] for entry in left_out} >= {"caption, scribe", "reasons for the tempo, scribe", "reasons for the key, scribe"}
    assert all(entry["why"] for entry in left_out)


@pytest.mark.slow
def test_a_trained_writer_is_asked_filtered_and_named(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    asked = Prompts()
    labels_of(record(), LabelOptions(writer=SongWriter(asked), think=True))
    (tmp_path / "lessons.jsonl").write_text("\n".join(map(json.dumps, asked.rows)), encoding="utf-8")
    size = checkpoints.Size(d_text=128, text_layers=2, text_heads=4)
    config = sft.SftConfig(TuneConfig("full", ("language",)), lr=3e-3, steps=80, batch=1, context=8192, save_every=1000, bf16=False)
    base, lessons = checkpoints.write(tmp_path / "base", size=size), Rows([tmp_path / "lessons.jsonl"])
    run = sft.prepare(base, lessons, tmp_path / "run", config, torch.device("cpu"), Processes())
    *_, last = run.train()
    assert last.loss < 0.02
    rows, left_out = label(tmp_path, converted(run.result, tmp_path / "gguf"))
    written = [row for row in rows if "scribe" in row["provenance"].values()]
    assert {row["task"]: row["messages"][-1]["content"] for row in written} == {
        "caption": CAPTIONED,
        "question": json.loads(ASKED)["answer"],
        "tempo-think": f"<think>{REASONED}</think>\n<answer>124</answer>",
        "key-think": f"<think>{REASONED}</think>\n<answer>A minor</answer>",
    }
    provenance = {row["task"]: row["provenance"] for row in written}
    assert provenance["caption"]["answer"] == "scribe"
    assert (provenance["question"]["question"], provenance["question"]["answer"]) == ("scribe", "scribe")
    assert (provenance["key-think"]["answer"], provenance["key-think"]["reasons"]) == ("measured, 0.90", "scribe")
    assert {"what": "question, scribe", "why": "contradicts the key that was measured"} in left_out
