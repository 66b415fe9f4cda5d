"""The script of the README, from a folder of music to a better model, runs as it is written: on two songs, for a step a stage."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mflamingo_cli.train.data.label import split_of
from tests.docs import ROOT

README = ROOT / "mflamingo_cli" / "train" / "README.md"
SHORT = {"--steps": "1", "--start": "0", "--end": "20", "--seed": "", "--max-tokens": "8"}


def commands() -> list[list[str]]:
    [block] = re.findall(r"^```sh\n(mflamingo analyze .*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


@pytest.mark.slow
def test_the_script_of_the_readme_runs(tmp_path: Path) -> None:
    music = tmp_path / "music"
    for name in ("ocean", "rlyeh"):
        (music / name).mkdir(parents=True)
        shutil.copy(ROOT / "tests" / "data" / f"{name}.opus", music / name / "song.opus")
    ran = []
    for words in commands():
        words = [word.replace("~/Music", str(music)).replace("song.mp3", "ocean/song.opus") for word in words]
        for option, value in SHORT.items():
            if option in words:
                words[words.index(option) + 1] = value or str(seed_of(tmp_path / "records.jsonl"))
        done = subprocess.run([sys.executable, "-m", "mflamingo_cli", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        ran.append(words[:2])
    assert ran[0][0] == "analyze"
    assert ran[-1][0] == "ask"
    assert done.stdout.strip()
    for replies in ("before.jsonl", "after.jsonl"):
        assert (tmp_path / replies).read_text(encoding="utf-8").count("\n") >= 2


def seed_of(records: Path) -> int:
    """Return a seed that trains on one song and holds out the other."""
    made = [json.loads(line)["audio"]["tags"] for line in records.read_text(encoding="utf-8").splitlines()]
    groups = [tags["artist"] if tags and tags["artist"] else name for tags, name in zip(made, ("ocean", "rlyeh"), strict=True)]
    return next(seed for seed in range(10_000) if sorted(split_of(group, seed) for group in groups) == ["test", "train"])
