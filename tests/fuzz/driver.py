"""Runs many cases in few processes, ends those that hang or grow, and keeps what broke the program."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.outcomes import CRASH, FAULTS, HANG, LIMIT_BYTES, LIMIT_S, MEMORY, WAIT_S

ROOT = Path(__file__).parents[2]
POLL_S = 0.05
START_S = 120.0  # to import, or to make one input, on a machine that does other things too
CASES_PER_PROCESS = 500  # what one case leaves in memory is not counted against many others


@dataclass
class Report:
    """How many inputs came to what, and where those are that broke the program."""

    counts: Counter[str] = field(default_factory=Counter)
    kept: list[Path] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def faults(self) -> int:
        return sum(self.counts[fault] for fault in FAULTS)

    def __str__(self) -> str:
        rows = [f"{count:7,}  {outcome}" for outcome, count in sorted(self.counts.items(), key=lambda row: -row[1])]
        head = f"{self.counts.total():,} inputs in {self.seconds:.0f} s, {self.faults} faults of the program"
        return "\n".join([head, *rows, *map(str, self.kept)])


class Worker:
    """A process that runs the cases of a module from a number on."""

    def __init__(self, module: str, seeds: Path, folder: Path, seed: int, first: int) -> None:
        self._pipe, theirs = os.pipe()
        self.log = folder / f"worker-{first}.log"
        command = [sys.executable, "-m", "tests.fuzz.worker", module, str(seeds), str(folder), str(seed), str(first), str(theirs)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs], start_new_session=True
            )
        os.close(theirs)
        self._lines = b""

    def outcome(self) -> str:
        """Wait for the next case: its outcome, or how the process ended in it."""
        line = self._line(START_S)
        return self._line(WAIT_S, LIMIT_S) if line == "begin" else line

    def _line(self, wait_s: float, limit_s: float = float("inf")) -> str:
        end, end_of_work = time.monotonic() + wait_s, self._processor_s() + limit_s
        while b"\n" not in self._lines:
            ready, _, _ = select.select([self._pipe], [], [], POLL_S)
            data = os.read(self._pipe, 4096) if ready else b""
            self._lines += data
            if ready and not data:
                return CRASH
            if self._resident_bytes() > LIMIT_BYTES:
                return MEMORY
            if (time.monotonic() > end or self._processor_s() > end_of_work) and b"\n" not in self._lines:
                return HANG
        line, _, self._lines = self._lines.partition(b"\n")
        return line.decode()

    def _resident_bytes(self) -> int:
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):  # ended, or not Linux, where the process itself looks after every case
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _processor_s(self) -> float:
        """What the process, and those that it started and that have ended, have worked."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> str:
        """End the process with all that it started, and say how it ended."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        os.close(self._pipe)
        return signal.Signals(-code).name if code < 0 else f"exit {code}"


def fuzz(module: str, *, count: int, seed: int, seconds: float = float("inf"), keep: Path, first: int = 0) -> Report:
    """Run `count` cases of a kind's module, or as many as `seconds` allow; what broke the program is copied into `keep`."""
    report = Report()
    with tempfile.TemporaryDirectory() as place:
        folder, seeds = Path(place), Path(place) / "seeds"
        make_seeds(module, seeds)
        begun = time.monotonic()  # seeds take seconds, on a busy machine more than a test has
        worker: Worker | None = None
        try:
            for number in range(first, first + count):
                if time.monotonic() - begun > seconds:
                    break
                worker = worker or Worker(module, seeds, folder, seed, number)
                outcome = worker.outcome()
                report.counts[outcome] += 1
                if outcome in FAULTS:
                    how = worker.end()
                    report.kept.append(_keep(folder / str(number), worker.log, keep / f"{seed}-{number}-{outcome}", how))
                elif (number - first + 1) % CASES_PER_PROCESS == 0:
                    worker.end()
                else:
                    continue
                worker = None
        finally:
            if worker:
                worker.end()
    report.seconds = time.monotonic() - begun
    return report


def make_seeds(module: str, seeds: Path) -> None:
    """Make a kind's seeds, which must be accepted whole, in a process of their own: what that imports stays out of this one."""
    seeds.mkdir(parents=True)
    code = f"from pathlib import Path; import {module} as kind; kind.make_seeds(s := Path({str(seeds)!r})); [*map(kind.run, s.iterdir())]"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{module}: its seeds are not accepted:\n{done.stdout}")


def _keep(case: Path, log: Path, place: Path, how: str) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if case.is_dir():
        shutil.copytree(case, place, symlinks=True, dirs_exist_ok=True)
    said = log.read_text(encoding="utf-8", errors="replace")[-8000:]
    (place / "why.txt").write_text(f"{how}\n\n{said}", encoding="utf-8")
    return place
