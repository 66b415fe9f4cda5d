"""A run goes on with the settings it was begun with; others are refused by name, and nothing is touched."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from mflamingo_cli.cli import main
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train import reporters
from mflamingo_cli.train.mini import stages
from mflamingo_cli.train.mini.stages import StageConfig
from mflamingo_cli.train.settings import require_same
from tests import checkpoints
from tests.train.test_sft import said, write_song

pytestmark = pytest.mark.slow
COMMON = ["--batch", "2", "--lr", "1e-3", "--steps", "2", "--save-every", "1", "--device", "cpu"]
COMMANDS = {
    "sft": ["sft", "--context", "400", "--data", "rows.jsonl", *COMMON],
    "grpo": ["grpo", "--group", "2", "--max-tokens", "4", "--reward", "format", "--data", "rows.jsonl", *COMMON],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints, rows, and a finished run of either command."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    checkpoints.write(folder / "base")
    checkpoints.write(folder / "other", seed=1)
    song = write_song(folder / "song.wav", 3.0, 0)
    rows = [{"audio": song, "messages": said(("Which key?", "A minor"))}, {"messages": said(("What is a tritone?", "six semitones"))}]
    lines = [json.dumps({"format": "mflamingo-rows/1"} | row) + "\n" for row in rows]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "more.jsonl").write_text("".join(lines * 2), encoding="utf-8")
    (folder / "copy").mkdir()
    shutil.copy(folder / "rows.jsonl", folder / "copy")
    return folder


def train(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, *options: str) -> int:
    """Run a command in a folder, options given twice the last time; return its exit code."""
    words = ["mflamingo", "train", *COMMANDS[name], "-m", "base", "-o", f"run-{name}"]
    for option, value in zip(options[::2], options[1::2], strict=True):
        words += [option, value]
        if option in ("--data",):  # repeatable: the new one takes the place of the old
            at = words.index(option)
            del words[at : at + 2]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def state(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("sft", ("--lr", "0.01"), "with --lr 0.001, not 0.01; to resume, set --lr to 0.001 again"),
        ("sft", ("--rank", "4"), "with --rank 16, not 4"),
        ("sft", ("--dropout", "0"), "with --dropout 0.05, not 0.0"),
        ("sft", ("--batch", "1"), "with --batch 2, not 1"),
        ("sft", ("--context", "500"), "with --context 400, not 500"),
        ("sft", ("--seed", "7"), "with --seed 0, not 7"),
        ("sft", ("--tune", "full"), "with --tune lora, not full"),
        ("sft", ("--parts", "language"), "with --parts language,projector, not language"),
        ("sft", ("--data", "more.jsonl"), "with --data rows.jsonl (2 rows, "),
        ("sft", ("--eval", "rows.jsonl"), "with --eval none, not rows.jsonl (2 rows, "),
        ("sft", ("-m", "other"), "with --model base ("),
        ("sft", ("--steps", "1"), "2 steps are done already, more than 1; choose more, or another output"),
        ("grpo", ("--group", "3"), "with --group 2, not 3"),
        ("grpo", ("--reward", "format,accuracy"), "with --reward format, not accuracy,format"),
        ("grpo", ("--beta", "0"), "with --beta 0.04, not 0.0"),
        ("grpo", ("--max-tokens", "5"), "with --max-tokens 4, not 5"),
    ],
)
def test_other_settings_are_refused_by_name(
    runs: Path, name: str, options: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if not (runs / f"run-{name}").exists():
        assert train(runs, monkeypatch, name) == 0
    before = state(runs)
    capfd.readouterr()
    assert train(runs, monkeypatch, name, *options) == 2
    words = capfd.readouterr().err
    assert words.splitlines()[-1].startswith(f"mflamingo: run-{name}: ")
    assert sentence in words.splitlines()[-1]
    assert state(runs) == before


def test_what_decides_nothing_may_change(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(runs, monkeypatch, "sft") == 0
    assert (
        train(runs, monkeypatch, "sft", "--steps", "4", "--save-every", "2", "--workers", "1", "--data", "copy/rows.jsonl", "--audio", ".")
        == 0
    )
    steps = [json.loads(line)["step"] for line in (runs / "run-sft" / "log.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 3]


def test_a_run_without_a_checkpoint_may_have_any_settings(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "early", [*COMMANDS["sft"], "--save-every", "2"])
    assert train(runs, monkeypatch, "early", "--steps", "2") == 0
    shutil.rmtree(runs / "run-early" / "checkpoints")
    assert train(runs, monkeypatch, "early", "--lr", "1e-4") == 0


def test_a_stage_of_a_recipe_says_which_of_its_keys_is_other(tmp_path: Path) -> None:
    config = StageConfig("text", "text", stages.LoopConfig(1, 1e-3, save_every=1), batch=2)
    folder = tmp_path / "runs" / "text" / "checkpoints" / "step-000001"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": 1, "world": 1, "settings": stages.settings_of(config)}))
    other = StageConfig("text", "text", stages.LoopConfig(9, 2e-3, save_every=5), batch=2)
    with pytest.raises(UsageError, match=r"runs/text: was begun with loop\.lr 0\.001, not 0\.002; to resume, set loop\.lr to 0\.001 again"):
        next(stages.run(tmp_path, other, torch.device("cpu")))


def test_options_of_another_version_are_not_compared() -> None:
    require_same("run", {"gone": 1, "lr": 0.1}, {"new": 2, "lr": 0.1})
    require_same("run", {"parts": ["a"], "on": True}, {"parts": ("a",), "on": True})
    with pytest.raises(UsageError, match="run: was begun with --dora off, not on; to resume, set --dora to off again"):
        require_same("run", {"dora": False}, {"dora": True})


def test_what_was_moved_or_renamed_is_the_same_and_other_content_is_not() -> None:
    then = {"model": "base (0123abcd)", "data": ["rows.jsonl (2 rows, 89abcdef)"], "eval": None}
    require_same("run", then, {"model": "moved (0123abcd)", "data": ["renamed.jsonl (2 rows, 89abcdef)"], "eval": None})
    with pytest.raises(UsageError, match=r"with --model base \(0123abcd\), not base \(0123abce\)"):
        require_same("run", then, {"model": "base (0123abce)"})
    with pytest.raises(UsageError, match=r"with --data rows\.jsonl \(2 rows, 89abcdef\), not "):
        require_same("run", then, {"data": ["rows.jsonl (2 rows, 89abcdef)", "rows.jsonl (2 rows, 89abcdee)"]})


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_tracker_is_named_before_anything_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reporters, "find_spec", lambda _: None)
    (tmp_path / "rows.jsonl").write_text("no rows")
    assert train(tmp_path, monkeypatch, name, "--report-to", "wandb") == 69
    assert "--report-to wandb needs its package; install it with: pip install wandb" in capfd.readouterr().err
