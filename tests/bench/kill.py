"""Kill a command at random moments, again and again: nothing lost, nothing twice, no file torn, nothing left over.

`python -m tests.bench.kill --what run|tags|convert|pull --kills 50` prints the counts and fails at the first broken promise. `run` is
`analyze` over a library, killed until it is through; the others change files (`writers.py`). It takes some seconds a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from mflamingo_cli.core.audio import SAMPLE_RATE
from tests.bench.writers import ENDED, WRITERS
from tests.clips import song
from tests.docs import ROOT

LATEST = 0.5  # of the time of a whole run: when a kill comes, at the latest
ORPHANS_S = 20.0  # after the end of a run its helpers are gone within this; a busy machine takes its time


@dataclass
class KilledRun:
    """A library, one run over it that is killed and started again, and what was seen."""

    folder: Path
    arguments: tuple[str, ...] = ()
    seed: int = 0
    kills: int = 0
    finished: int = 0
    torn_parts: int = 0  # a part may end anywhere, FILE may not
    committed: list[int] = field(default_factory=list)  # records in the store after each kill

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.music, self.out, self.state = self.folder / "music", self.folder / "out.jsonl", self.folder / "state"
        self.env = os.environ | {"PYTHONPATH": str(ROOT), "MFLAMINGO_CACHE": str(self.folder / "cache"), "MFLAMINGO_STATE": str(self.state)}

    def make_music(self, n_songs: int) -> None:
        """Short songs, a copy, a broken one and a silent one."""
        self.music.mkdir(parents=True)
        for n in range(n_songs - 3):
            soundfile.write(self.music / f"{n:03d}.wav", song(2.0 + n / 100, bpm=80 + n), SAMPLE_RATE)
        (self.music / "copy.wav").write_bytes((self.music / "000.wav").read_bytes())
        (self.music / "broken.wav").write_bytes(b"words, no sound")
        soundfile.write(self.music / "silent.wav", 0 * song(2.0), SAMPLE_RATE)

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mflamingo_cli", "analyze", "--json", "-q", *self.arguments, "-o", str(self.out), str(self.music)]
        return subprocess.Popen(command, env=self.env, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def until_done(self, longest_s: float = 0.0, most_kills: int = 0) -> float:
        """Start and kill until a run ends by itself; after so many kills it may. Seconds that the last one took."""
        rows: dict[str, int] = {}
        while True:
            process, began = self.start(), time.monotonic()
            try:
                if self.kills < most_kills:
                    process.wait(self.random.uniform(0.0, longest_s))
                else:
                    process.wait()
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.kills += 1
                if self.out.exists():  # what has its name is whole: the kill came behind the last step
                    self.records()
                rows = self.check_store(rows)
                continue
            finally:
                stderr = process.stderr.read() if process.poll() is not None and process.stderr else b""
            assert process.returncode == 3, stderr.decode()  # one is broken
            self.finished += 1
            self.check_store(rows)
            return time.monotonic() - began

    def check_store(self, before: dict[str, int]) -> dict[str, int]:
        """Sound, with all that was in it before in its place: a record that was made again would have another row."""
        parts = list(self.folder.glob(f".{self.out.name}.mflamingo-*.part"))
        self.torn_parts += any(not part.read_bytes().endswith(b"\n") for part in parts)
        path = self.state / "runs.db"
        if not path.exists():
            return {}
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            made = database.execute("SELECT name FROM sqlite_master WHERE name = 'records'").fetchall()
            rows = dict(database.execute("SELECT key, rowid FROM records").fetchall()) if made else {}
        database.close()
        assert before.items() <= rows.items(), "a record was lost, or made twice"
        self.committed.append(len(rows))
        return rows

    def records(self) -> list[dict]:
        """The output, which has exactly one record per song, in order."""
        records = [json.loads(line) for line in self.out.read_text().splitlines()]
        assert [record["path"] for record in records] == sorted(str(path) for path in self.music.iterdir())
        return records

    def forget(self) -> None:
        """Begin anew."""
        for path in (self.out, *self.state.glob("*"), *(self.folder / "cache").glob("*")):
            path.unlink(missing_ok=True)

    def helpers(self) -> int:
        """Processes that are left of the runs, after waiting for them (Linux)."""
        mark, until = f"MFLAMINGO_STATE={self.state}".encode(), time.monotonic() + ORPHANS_S
        while (left := sum(mark in _environ(path) for path in Path("/proc").glob("[0-9]*/environ"))) and time.monotonic() < until:
            time.sleep(0.2)
        return left


def _environ(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:
        return []


def truth(records: list[dict]) -> list[dict]:
    """Records without the seconds that they took."""
    return [{**record, "timing": None} for record in records]


def kill_runs(folder: Path, kills: int, songs: int, seed: int) -> None:
    """Kill runs over a library of so many songs until they are through."""
    trial = KilledRun(folder, seed=seed)
    trial.make_music(songs)
    whole_s = trial.until_done()
    expected = truth(trial.records())
    print(f"{songs} songs in {whole_s:.1f} s if nobody kills", flush=True)
    while trial.kills < kills:
        trial.forget()
        trial.until_done(LATEST * whole_s, kills)
        records = trial.records()
        assert truth(records) == expected, "a record is another after a kill"
        before = trial.out.read_bytes()
        trial.until_done()
        assert trial.out.read_bytes() == before, "the run after is not the same byte for byte"
        torn = f"{trial.torn_parts} torn .part files seen"
        print(f"{trial.kills} kills, {trial.finished} runs finished, {torn}, 0 records lost or twice", flush=True)
    print(f"processes left: {trial.helpers()}; records in the store after each kill: {trial.committed}")


def kill_writers(what: str, folder: Path, kills: int, seed: int) -> None:
    """Kill a command that changes files, each time anew."""
    found, moments = Counter[str](), random.Random(seed)
    with WRITERS[what](folder) as writer:
        while found.total() - found[ENDED] < kills:
            found[writer.kill(moments)] += 1
        print(
            f"{kills} kills in {writer.write_s:.1f} s of writing, 0 files torn or lost, nothing left by the next run; found after the kill:"
        )
    for state, count in found.most_common():
        print(f"{count:4}  {state}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=("run", *WRITERS), default="run")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--songs", type=int, default=60, help="of a run")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if wanted.what == "run":
            kill_runs(Path(folder), wanted.kills, wanted.songs, wanted.seed)
        else:
            kill_writers(wanted.what, Path(folder), wanted.kills, wanted.seed)


if __name__ == "__main__":
    main()
