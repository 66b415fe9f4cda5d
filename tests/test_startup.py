"""Laws of starting: help and lists wait for nothing heavy, and the default road never imports what it does not need."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.docs import ROOT

NEVER = set("torch transformers librosa numba scipy matplotlib sklearn huggingface_hub tokenizers click mutagen jams".split())
LATER = NEVER | {"llama_cpp", "gguf", "soundfile", "soxr", "ffmpeg", "numpy", "jinja2"}  # only when a song is heard
MAX_RATIO = 1.8  # of `--help` to importing what draws it
RUNS = 7  # the fastest of so many: other processes only ever add time


def imported(*arguments: str) -> tuple[set[str], int]:
    """Top-level modules that a command imports, and its exit code."""
    code = f"""
import sys
sys.argv = ["mflamingo", *{list(arguments)!r}]
from mflamingo_cli.cli import main
try:
    main()
    code = 0
except SystemExit as stop:
    code = stop.code or 0
print("MODULES", code, *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    _, exit_code, *names = next(line for line in done.stdout.splitlines() if line.startswith("MODULES")).split()
    return set(names), int(exit_code)


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "analyze -h",
        "models convert -h",
        "models imatrix -h",
        "models list",
        "models pull -h",
        "models rm nobody/nothing",
        "schema",
        "nonsense",
    ],
    ids=lambda text: text,
)
def test_what_hears_no_song_imports_nothing_heavy(arguments):
    names, _ = imported(*arguments.split())
    assert not names & LATER


def test_a_wrong_option_of_train_is_told_without_torch():
    names, code = imported("train", "sft", "--nonsense")
    assert code == 2
    assert not names & LATER


def test_analyze_with_the_default_road_needs_no_torch(tiny_model, tmp_song):
    names, code = imported("analyze", "-q", "-m", str(tiny_model), "--max-tokens", "2", str(tmp_song))
    assert code == 0
    assert not names & NEVER


def test_importing_the_package_imports_nothing_of_others():
    code = "import sys; import mflamingo_cli; print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"], capture_output=True, text=True, check=True
    )
    assert "numpy" not in done.stdout
    assert not set(done.stdout.split()) & (LATER | {"typer", "rich"})


def test_the_public_names_can_be_imported():
    import mflamingo_cli

    for name in mflamingo_cli.__all__:
        assert getattr(mflamingo_cli, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = mflamingo_cli.nothing


def test_help_is_nearly_as_fast_as_importing_typer_and_rich():
    """Timed in turns, the fastest of several: what other processes do adds to both."""

    def seconds(*arguments: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env={**os.environ, "COLUMNS": "80"})
        return time.perf_counter() - began

    pairs = [(seconds("-c", "import typer, rich"), seconds("-m", "mflamingo_cli", "--help")) for _ in range(RUNS)]
    base, ours = (min(times) for times in zip(*pairs, strict=True))
    assert ours <= MAX_RATIO * base, f"{ours:.3f} s against {base:.3f} s"
