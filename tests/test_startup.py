"""Laws of starting: help and lists wait for nothing heavy, and the default road never imports what it does not need."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from tests.docs import ROOT, tree

NEVER = set("torch transformers librosa numba scipy matplotlib sklearn huggingface_hub tokenizers click jams".split())
NEVER |= {"llama_cpp", "xllamacpp"}  # their shared objects are loaded, their Python modules are not
LATER = NEVER | {"mutagen", "gguf", "soundfile", "soxr", "ffmpeg", "numpy", "jinja2"}  # only when a song is analysed
# What of this program does work, so that help must not wait for it
OF_WORK = {"measure", "pipeline", "parsers", "schema", "tasks", "backends.gguf", "commands.songs", "commands.terminal", "library.tags"}
HELPS = [" ".join((*page.path, "-h")) for page in tree().walk()]
MAX_RATIO = 1.8  # of `--help` to importing what draws it
PAIRS = range(5, 41)  # at least and at most: other processes only ever add time, so the fewest seconds of more pairs are truer


def imported(*arguments: str) -> tuple[set[str], int]:
    """Modules that a command imports, and its exit code."""
    code = f"""
import sys
sys.argv = ["mflamingo", *{list(arguments)!r}]
from mflamingo_cli.cli import main
try:
    main()
    code = 0
except SystemExit as stop:
    code = stop.code or 0
print("MODULES", code, *sorted(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    _, exit_code, *names = next(line for line in done.stdout.splitlines() if line.startswith("MODULES")).split()
    return set(names), int(exit_code)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [*HELPS, "--version"], ids=lambda text: text)
def test_help_imports_what_draws_it_and_nothing_else(arguments):
    names, _ = imported(*arguments.split())
    assert not names & (LATER | {"pydantic", "rich.console"})
    assert not names & {f"mflamingo_cli.{name}" for name in OF_WORK}


@pytest.mark.parametrize("line", ["mflamingo a", "mflamingo analyze --fo", "mflamingo analyze --format j"])
def test_completion_imports_nothing_heavy(line, monkeypatch):
    monkeypatch.setenv("_MFLAMINGO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    names, code = imported()
    assert code == 0
    assert not names & (LATER | {"pydantic", "rich.console"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", ["models list", "models rm nobody/nothing", "schema", "nonsense", "analyze --nonsense"], ids=lambda text: text
)
def test_what_analyses_no_song_imports_nothing_heavy(arguments):
    names, _ = imported(*arguments.split())
    assert not names & LATER


def test_a_wrong_option_of_train_is_refused_without_torch():
    names, code = imported("train", "sft", "--nonsense")
    assert code == 2
    assert not names & LATER


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", "analyze", "models pull", "train sft"])
def test_help_is_nearly_as_fast_as_importing_typer_and_rich(command):
    """Seconds of a processor, not of the clock, the fewest of pairs in turns; more pairs only where few do not fit yet."""

    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env={**os.environ, "COLUMNS": "80"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    pairs: list[tuple[float, float]] = []
    for count in range(1, PAIRS.stop):
        pairs.append((seconds("-c", "import typer, rich"), seconds("-m", "mflamingo_cli", *command.split(), "--help")))
        base, ours = (min(times) for times in zip(*pairs, strict=True))
        if count >= PAIRS.start and ours <= MAX_RATIO * base:
            break
    assert ours <= MAX_RATIO * base, f"{ours:.3f} s against {base:.3f} s"
