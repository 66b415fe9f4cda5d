"""Songs per hour of `mflamingo analyze` over a folder, by jobs: what each stage takes, and what the processors could do at most.

    python -m tests.bench.hours FOLDER [--jobs 1 2] [-- options of mflamingo analyze]

Runs in turns, best of `--rounds`, nothing remembered. The limit is that of a run in which no processor ever waits: cores / processor
seconds of a song. Stages are seconds of wall time as the records tell them, the mean of a song.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mflamingo_cli.backends.threads import physical_cores
from mflamingo_cli.commands import inputs
from tests.docs import ROOT

STAGES = ("decode_s", "measure_s", "encode_s", "generate_s")


@dataclass(frozen=True)
class Cost:
    """Of one run over all songs: wall and processor seconds, music, and the stages' means."""

    wall_s: float
    processor_s: float
    music_s: float
    n_songs: int
    stages: dict[str, float]

    @property
    def songs_per_hour(self) -> float:
        """So many songs of this length."""
        return 3600 * self.n_songs / self.wall_s

    @property
    def limit(self) -> float:
        """The same if no processor waited."""
        return 3600 * self.n_songs * physical_cores() / self.processor_s


def measure(folder: Path, jobs: int, options: list[str]) -> Cost:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as home:
        out = Path(home, "out.jsonl")
        env = os.environ | {"PYTHONPATH": str(ROOT), "MFLAMINGO_CACHE": f"{home}/cache", "MFLAMINGO_STATE": f"{home}/state"}
        command = [sys.executable, "-m", "mflamingo_cli", "analyze", "--json", "-q", "-j", str(jobs), "-o", str(out), *options, str(folder)]
        began = time.perf_counter()
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        assert os.waitstatus_to_exitcode(status) == 0, "a song failed"
        records = [json.loads(line) for line in out.read_text().splitlines()]
    stages = {stage: sum(record["timing"][stage] or 0.0 for record in records) / len(records) for stage in STAGES}
    music_s = sum(record["audio"]["end"] - record["audio"]["start"] for record in records)
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, music_s, len(records), stages)


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, physical_cores()])
    parser.add_argument("--rounds", type=int, default=2)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    wanted, options = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    n_songs = len(inputs.collect([str(wanted.folder)], None, False))
    costs: dict[int, Cost] = {}
    for _ in range(wanted.rounds):
        for jobs in wanted.jobs:
            cost = measure(wanted.folder, jobs, options)
            costs[jobs] = min(cost, costs.get(jobs, cost), key=lambda one: one.wall_s)
    print(f"{n_songs} songs, {physical_cores()} cores")
    print(
        f"{'jobs':>4}{'wall':>9}{'songs/h':>9}{'x realtime':>12}{'limit, songs/h':>16}  " + "".join(f"{stage[:-2]:>10}" for stage in STAGES)
    )
    for jobs, cost in costs.items():
        stages = "".join(f"{cost.stages[stage]:>8.2f} s" for stage in STAGES)
        fast = f"{cost.songs_per_hour:>9.0f}{cost.music_s / cost.wall_s:>12.0f}{cost.limit:>16.0f}"
        print(f"{jobs:>4}{cost.wall_s:>7.1f} s{fast}  {stages}")
    print(json.dumps({jobs: asdict(cost) | {"songs_per_hour": cost.songs_per_hour, "limit": cost.limit} for jobs, cost in costs.items()}))


if __name__ == "__main__":
    main()
