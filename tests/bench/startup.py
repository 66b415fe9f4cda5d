"""Start-up beside the imports it cannot do without: every -h, --version, completion, and from start to the first decoded sample.

`python -m tests.bench.startup [--rounds N]` runs all in turns, each in a process of its own, so that other work of the machine slows all
of them alike. A ratio is the median over rounds of a command's time to the import's in the same round; figures to quote need an idle core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.docs import ROOT, tree

ROUNDS = 9
HELP, DECODE = "typer, rich", "typer, rich, numpy, soundfile"  # what help and what a first sample cannot do without
GOALS = {HELP: 1.8, DECODE: 1.5}
# As the installed script does it
SCRIPT = "import sys; sys.argv = ['mflamingo', *sys.argv[1:]]; from mflamingo_cli.cli import main; main()"
# Ends the process at the first block that libsndfile gives: what follows is no start-up
FIRST_SAMPLE = f"""
import os, soundfile
read = soundfile.SoundFile.read
def first(self, *arguments, **settings):
    read(self, *arguments, **settings)
    os._exit(42)
soundfile.SoundFile.read = first
{SCRIPT}
"""
DECODED = 42
LINES = ("mflamingo a", "mflamingo analyze --f", "mflamingo analyze --format j")  # to be completed


@dataclass(frozen=True)
class Case:
    """One way of starting: what it is called, code and arguments, what it is compared to, how it must end, a line to be completed."""

    name: str
    code: str
    arguments: tuple[str, ...]
    base: str
    exit_code: int = 0
    line: str = ""

    def seconds(self, env: dict[str, str]) -> float:
        """Run once. Raises RuntimeError where it does not end as it should."""
        if self.line:
            last = str(len(self.line.split()) - 1)
            env = {**env, "_MFLAMINGO_COMPLETE": "complete_bash", "COMP_WORDS": self.line, "COMP_CWORD": last}
        command = [sys.executable, "-c", self.code, *self.arguments]
        began = time.perf_counter()
        done = subprocess.run(command, env=env, capture_output=True, check=False)
        took = time.perf_counter() - began
        if done.returncode != self.exit_code:
            raise RuntimeError(f"{self.name}: exit code {done.returncode}: {done.stderr.decode()[-500:]}")
        return took


def cases(song: Path) -> list[Case]:
    """Return every case, the two imports first."""
    imports = [Case(f"import {names}", f"import {names}", (), names) for names in GOALS]
    helps = [Case(" ".join((*page.path, "-h")), SCRIPT, (*page.path, "-h"), HELP) for page in tree().walk()]
    completions = [Case(f"complete '{line}'", SCRIPT, (), HELP, line=line) for line in LINES]
    samples = [
        Case("first sample of analyze", FIRST_SAMPLE, ("analyze", "-q", "-j1", "--no-cache", str(song)), DECODE, DECODED),
        Case("first sample of ask", FIRST_SAMPLE, ("ask", "-q", "--no-cache", "How fast is it?", str(song)), DECODE, DECODED),
    ]
    return [*imports, *helps, Case("--version", SCRIPT, ("--version",), HELP), *completions, *samples]


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every case, one a round; the first round only warms the disk's cache."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / "song.flac"
        soundfile.write(song, np.sin(np.arange(16_000) * 0.1) * 0.5, 16_000)
        own = {"MFLAMINGO_CACHE": f"{folder}/cache", "MFLAMINGO_STATE": f"{folder}/state", "XDG_CONFIG_HOME": folder}
        env = {**os.environ, **own, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
        for number in range(rounds + 1):
            for case in cases(song):
                took = case.seconds(env)
                if number:
                    times.setdefault(case.name, []).append(took)
    return times


def report(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row for each case: median seconds, median ratio, its goal, whether it is met."""
    rows = []
    for case in cases(Path("song.flac")):
        base, own, goal = times[f"import {case.base}"], times[case.name], GOALS[case.base]
        ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
        rows.append({"name": case.name, "s": statistics.median(own), "ratio": ratio, "of": case.base, "goal": goal, "met": ratio <= goal})
    return rows


def main() -> None:
    """Print a table and, last, the same as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    rows = report(measure(rounds))
    out = sys.stdout
    out.write(f"{'':42} {'ms':>6} {'ratio':>6} {'goal':>5}\n")
    for row in rows:
        missed = "" if row["met"] else "  missed"
        out.write(f"{row['name']:42} {1000 * row['s']:6.0f} {row['ratio']:6.2f} {row['goal']:5.1f}{missed}\n")
    out.write(json.dumps({"bench": "startup", "rounds": rounds, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
