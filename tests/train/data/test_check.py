"""The report on rows, and the mask that is shown: it is the one that training uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mflamingo_cli.core.chat import END_OF_TURN
from mflamingo_cli.train.data.check import RowChecker, audio_tokens, pieces
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.rows import ChatEncoder
from quant.config import read_geometry
from tests import checkpoints

RATE = 16_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("checkpoint"), max_audio_len=60)


def checker(checkpoint: Path, context: int = 4000) -> RowChecker:
    return RowChecker(ChatEncoder.of(checkpoint), read_geometry(checkpoint), context)


def song(folder: Path, name: str, seconds: float) -> str:
    soundfile.write(folder / name, np.zeros(int(seconds * RATE), np.float32), RATE)
    return name


def record(audio: str | None, *answers: str, **more: object) -> str:
    said = [{"role": role, "content": text} for answer in answers for role, text in (("user", "What is it?"), ("assistant", answer))]
    return json.dumps({"format": "mflamingo-rows/1", "audio": audio, "messages": said} | more)


def test_good_rows_are_counted_and_the_others_named(checkpoint: Path, tmp_path: Path) -> None:
    song(tmp_path, "a.wav", 45.0), song(tmp_path, "long.wav", 61.0)
    (tmp_path / "broken.wav").write_bytes(b"no sound at all, though named so")
    lines = [
        record("a.wav", "Slow."),
        record("a.wav", "Sad.", "Very."),
        record(None, "Yes."),
        record("long.wav", "x"),
        record("broken.wav", "x"),
        record("broken.wav", "y"),
        record("a.wav", "the <sound> of it"),
        record("gone.wav", "x"),
        record("long.wav", "x", end=60),
        record("a.wav", "x " * 2000),
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    report = checker(checkpoint).check(Rows([tmp_path / "rows.jsonl"]))
    assert (report.n_good, report.with_audio, report.songs, report.answers) == (4, 3, 3, 5)
    assert report.hours == pytest.approx((45 + 61 + 60) / 3600, abs=1e-3)
    found = {int(problem.place.rpartition(":")[2]): problem.reason for problem in report.problems}
    assert sorted(found) == [4, 5, 6, 7, 8, 10]
    assert "lasts 1:01, but the model takes at most 1:00" in found[4]
    assert found[5] == found[6]
    assert "must not contain <sound>" in found[7]
    assert "no file gone.wav" in found[8]
    assert "exceed the context of 4000" in found[10]


def test_what_is_learned_is_the_answers_and_their_ends(checkpoint: Path, tmp_path: Path) -> None:
    song(tmp_path, "a.wav", 31.0)
    (tmp_path / "rows.jsonl").write_text(record("a.wav", "Slow.", "Very slow."), encoding="utf-8")
    check = checker(checkpoint)
    [row] = Rows([tmp_path / "rows.jsonl"])
    shown = list(pieces(check.branch(row), check.encoder))
    assert [text for text, learned in shown if learned] == [f"Slow.{END_OF_TURN}", f"Very slow.{END_OF_TURN}"]
    assert "<sound> × 775" in [text for text, _ in shown]  # 31 s of 25 tokens


def test_an_answer_that_is_only_read_is_not_marked(checkpoint: Path, tmp_path: Path) -> None:
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "loss": False},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"format": "mflamingo-rows/1", "messages": said}), encoding="utf-8")
    check = checker(checkpoint)
    [row] = Rows([tmp_path / "rows.jsonl"])
    assert [text for text, learned in pieces(check.branch(row), check.encoder) if learned] == [f"d{END_OF_TURN}"]


def test_tokens_of_a_song_are_those_of_its_windows(checkpoint: Path) -> None:
    geometry = read_geometry(checkpoint)
    assert [audio_tokens(seconds, geometry) for seconds in (30.0, 60.0, 1200.0, 31.0, 0.01)] == [750, 1500, 30_000, 775, 0]


@pytest.mark.slow
def test_the_command_names_the_lines_and_ends_with_3(checkpoint: Path, tmp_path: Path) -> None:
    song(tmp_path, "a.wav", 4.0)
    (tmp_path / "rows.jsonl").write_text(record("a.wav", "Slow.") + "\n{}\n", encoding="utf-8")
    command = [sys.executable, "-m", "mflamingo_cli", "train", "data", "check", "-m", str(checkpoint), str(tmp_path / "rows.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"}, check=False)
    assert done.returncode == 3, done.stderr
    assert "Slow.<|im_end|>" in done.stdout
    assert f"{tmp_path / 'rows.jsonl'}:2: the record does not have the format of this file, rows of mflamingo" in done.stdout
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert (json.loads(done.stdout)["rows"], json.loads(done.stdout)["problems"][0]["place"]) == (1, f"{tmp_path / 'rows.jsonl'}:2")


MILLION_S = 60.0  # "a million rows are indexed in under a minute"


@pytest.mark.slow
def test_the_last_row_of_many_is_read_as_fast_as_the_first(tmp_path: Path) -> None:
    line = json.dumps(
        {"format": "mflamingo-rows/1", "messages": [{"role": "user", "content": "q" * 200}, {"role": "assistant", "content": "a"}]}
    )
    (tmp_path / "rows.jsonl").write_text(f"{line}\n" * 100_000, encoding="utf-8")
    began = time.thread_time()
    found = Rows([tmp_path / "rows.jsonl"])
    assert len(found) == 100_000
    assert time.thread_time() - began < MILLION_S / 10
    times = []
    for number in (0, 99_900):
        began = time.thread_time()
        assert [found[number + k].exchanges[0].answer for k in range(100)] == ["a"] * 100
        times.append(time.thread_time() - began)
    assert times[1] < 10 * times[0]
