"""Rows grow song by song, each exactly once, also when the process is killed at any moment."""

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

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.data.labelled import LabelledRows

SETTINGS = {"seed": 0}
N_SONGS, N_KILLS = 60, 12
GROW = """
import sys
from pathlib import Path
from mflamingo_cli.train.data.labelled import LabelledRows

with LabelledRows(Path(sys.argv[1]), {"seed": 0}) as rows:
    print("open", flush=True)
    for n in range(int(sys.argv[2])):
        if rows.same(f"{n}.wav") is None:
            made = [{"audio": f"{n}.wav", "task": task, "text": "x" * 20_000} for task in range(n % 4)]
            rows.add(f"{n}.wav", f"sha256:{n}", made, [("key", "is not known")])
"""


def rows_of(path: Path) -> list[tuple[str, int]]:
    return [(row["audio"], row["task"]) for row in map(json.loads, path.read_text().splitlines())]


def test_a_killed_run_goes_on_exactly_once(tmp_path: Path) -> None:
    path, rng, kills = tmp_path / "rows.jsonl", random.Random(5), 0
    for _ in range(N_KILLS):
        process = subprocess.Popen([sys.executable, "-c", GROW, str(path), str(N_SONGS)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.004))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert kills > N_KILLS / 2
    subprocess.run([sys.executable, "-c", GROW, str(path), str(N_SONGS)], check=True, stdout=subprocess.DEVNULL)
    assert rows_of(path) == [(f"{n}.wav", task) for n in range(N_SONGS) for task in range(n % 4)]
    notes = [json.loads(line) for line in (tmp_path / "rows.jsonl.songs").read_text().splitlines()]
    assert [note["audio"] for note in notes[1:]] == [f"{n}.wav" for n in range(N_SONGS)]
    assert notes[1]["left_out"] == [{"what": "key", "why": "is not known"}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.songs"])
@pytest.mark.parametrize("cut", range(1, 300, 13))
def test_a_file_that_was_cut_anywhere_goes_on(cut: int, name: str, tmp_path: Path) -> None:
    """Bytes that a crash of the machine took from either file cost their song, and no other."""
    path = tmp_path / "rows.jsonl"

    def grow() -> None:
        with LabelledRows(path, SETTINGS) as rows:
            for n in range(4):
                if rows.same(f"{n}.wav") is None:
                    rows.add(f"{n}.wav", None, [{"audio": f"{n}.wav", "task": task} for task in range(2)], [])

    grow()
    whole = rows_of(path)
    file = tmp_path / name
    os.truncate(file, max(0, file.stat().st_size - cut))
    grow()
    assert rows_of(path) == whole


def test_rows_that_somebody_removed_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for _ in range(2):
        with LabelledRows(path, SETTINGS) as rows:
            assert len(rows) == 0
            rows.add("a.wav", None, [{"audio": "a.wav", "task": 0}], [])
        assert rows_of(path) == [("a.wav", 0)]
        path.unlink()


def test_the_same_sound_is_one_song(tmp_path: Path) -> None:
    with LabelledRows(tmp_path / "rows.jsonl", SETTINGS) as rows:
        rows.add("a.wav", "sha256:1", [], [])
        assert (rows.same("a.wav"), rows.same("b.wav", "sha256:1"), rows.same("b.wav", "sha256:2")) == ("a.wav", "a.wav", None)
        assert len(rows) == 1
    with LabelledRows(tmp_path / "rows.jsonl", SETTINGS) as rows:
        assert rows.same("b.wav", "sha256:1") == "a.wav"


def test_rows_of_other_settings_or_programs_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with LabelledRows(path, SETTINGS) as rows:
        rows.add("a.wav", None, [{"audio": "a.wav"}], [])
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"rows\.jsonl: was begun with --seed 0, not 1"):
        LabelledRows(path, {"seed": 1})
    other = tmp_path / "other.jsonl"
    other.write_text('{"messages": []}\n')
    with pytest.raises(UsageError, match="did not write it"):
        LabelledRows(other, SETTINGS)
    assert (path.read_bytes(), other.read_text()) == (before, '{"messages": []}\n')
