"""Attacks that no part answers alone: planted pickles, and connections that nobody asked for. The table is in tests/README.md."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mflamingo_cli.errors import ExitCode
from tests import checkpoints

TIMEOUT_S = 300


def run(*words: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "mflamingo_cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)


# --- pickles -----------------------------------------------------------------------------------------------------------------


class Planted:
    """What runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._proof}",)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """A file that is there when something was unpickled."""
    return tmp_path / "unpickled"


def test_what_is_planted_works(proof: Path) -> None:
    pickle.loads(pickle.dumps(Planted(proof)))
    assert proof.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00001.bin", "model.pth", "model.ckpt"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_pickled_weights_of_a_checkpoint_are_refused_unread(tmp_path: Path, tmp_song: Path, proof: Path, name: str, backend: str) -> None:
    folder = checkpoints.write(tmp_path / "model", "musicflamingo", "mini")
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    (folder / name).write_bytes(pickle.dumps({"weight": Planted(proof)}))
    asked = run("analyze", "-m", folder, "--backend", backend, tmp_song)
    converted = run("models", "convert", folder, "-o", tmp_path / "gguf")
    assert (asked.returncode, converted.returncode) == (ExitCode.UNAVAILABLE, ExitCode.ALL_FAILED)
    for done in (asked, converted):
        assert done.stderr.count("\n") == 1, done.stderr
    assert "safetensors" in converted.stderr
    run("models", "info", folder)
    run("models", "verify", folder, tmp_path / "gguf")
    assert not proof.exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_pickles_beside_whole_weights_are_left_alone(tmp_path: Path, tmp_song: Path, proof: Path, backend: str) -> None:
    folder = checkpoints.write(tmp_path / "model", "musicflamingo", "mini")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt"):
        (folder / name).write_bytes(pickle.dumps(Planted(proof)))
    done = run("analyze", "--json", "--max-tokens", 2, "-m", folder, "--backend", backend, tmp_song)
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "ok"), done.stderr
    assert not proof.exists()


@pytest.mark.slow
def test_a_pickled_adapter_is_refused_unread(tmp_path: Path, tmp_song: Path, proof: Path) -> None:
    base = checkpoints.write(tmp_path / "base", "musicflamingo", "mini")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 4}))
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Planted(proof)))
    for words in (("analyze", "-m", adapter, tmp_song), ("models", "convert", adapter, "-o", tmp_path / "gguf")):
        done = run(*words)
        assert done.returncode in (ExitCode.ALL_FAILED, ExitCode.UNAVAILABLE)
        assert done.stderr == f"mflamingo: {adapter}: adapter_model.safetensors is missing\n"
    assert not proof.exists()


def test_nothing_loads_pickles_but_those_of_our_own_processes() -> None:
    """`torch.load` unpickles; `pickle.load` is for workers that this program started."""
    root = Path(__file__).parents[1]
    sources = {str(path.relative_to(root)): path.read_text() for name in ("mflamingo_cli", "quant") for path in (root / name).rglob("*.py")}
    own = {"mflamingo_cli/library/worker.py", "mflamingo_cli/library/ray.py"}
    unpickles = re.compile(r"\b(?:c?[pP]ickle|joblib|dill|torch)\.loads?\(|allow_pickle=True")
    found = {
        name
        for name, text in sources.items()
        if any("weights_only=True" not in line for line in text.splitlines() if unpickles.search(line))
    }
    assert found == own


# --- connections -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")
@pytest.mark.parametrize(
    "words", [("analyze", "--no-cache", "-j", "1"), ("analyze", "--json", "-j", "2"), ("ask", "How fast is it?"), ("caption",)]
)
def test_a_run_opens_no_socket_of_the_network(tmp_path: Path, tmp_song: Path, words: tuple[str, ...]) -> None:
    other = shutil.copy(tmp_song, tmp_path / "other.wav")
    trace = tmp_path / "trace"
    done = run(*words, tmp_song, other, before=("strace", "-f", "-qq", "-o", str(trace), "-e", "trace=socket,connect,execve"))
    assert done.returncode == 0, done.stderr
    calls = trace.read_text().splitlines()
    assert any("execve(" in call for call in calls)  # it was traced
    assert [call for call in calls if "AF_INET" in call or "connect(" in call] == []
