"""A synthetic library of thousands of files, analysed: is every file accounted for, how fast does it go, how much memory does it take?

`python -m tests.bench.library --files 5000` writes half a gigabyte into a temporary folder, kills the first run once on its way, moves,
adds and removes files before the last one, and checks every record against what each file was made to be.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from mflamingo_cli.core.audio import SAMPLE_RATE
from tests.clips import song
from tests.docs import ROOT

SHARES = {"copy": 0.08, "tagged": 0.02, "cut": 0.02, "broken": 0.04, "silent": 0.02, "short": 0.02}  # the others are songs of their own
STATUS = {"song": "ok", "copy": "ok", "tagged": "ok", "cut": "ok", "broken": "error", "silent": "skipped", "short": "skipped"}
SUFFIXES = (".wav", ".flac", ".ogg")
ODD = (
    b"caf\xe9 %d",
    b"line\nbreak %d",
    b"-rf %d",
    "\U0001f3b5 %d".encode(),
    b"a 'quote\" %d",
    b"  spaces %d ",
    b"[b]%d\x1b[31m",
    "\u202e%d".encode(),
)
BROKEN = (b"", b"words, no sound " * 99, b"RIFF\x24\x00\x00\x00WAVEfmt ", b"fLaC" + bytes(99), b"OggS" + bytes(99), b"\x89PNG\r\n\x1a\n")
SAMPLE_S = 2.0  # between two looks at the memory


def make(folder: Path, n_files: int, seed: int = 0, first: int = 0) -> dict[bytes, str]:
    """Write files; what each is, by path."""
    rng, kinds = random.Random(seed), {}
    made: list[Path] = []
    for n in range(first, first + n_files):
        kind = rng.choices([*SHARES, "song"], [*SHARES.values(), 1 - sum(SHARES.values())])[0] if made else "song"
        suffix = rng.choice(SUFFIXES)
        path = folder / f"artist {n % 97}" / os.fsdecode(_name(n) + suffix.encode())
        path.parent.mkdir(exist_ok=True)
        sound = 0.5 * song(5.0 + 1.5 * rng.random() + n * 1e-6, bpm=70 + 90 * rng.random())
        source = rng.choice(made) if made else None
        if kind == "copy" and source:
            path = Path(shutil.copy(source, path.with_suffix(source.suffix)))
        elif kind == "tagged" and source:
            path = _tagged(source, path.with_suffix(".flac"))
        elif kind == "broken":
            path.write_bytes(rng.choice(BROKEN))
        else:
            sound = {"silent": 0 * sound, "short": sound[:3000]}.get(kind, sound)
            path = path.with_suffix(".wav") if kind == "cut" else path
            soundfile.write(os.fsencode(path), sound, SAMPLE_RATE)
            if kind == "cut":
                os.truncate(path, path.stat().st_size * 2 // 3)
            made += [path] if kind == "song" and path.suffix == ".flac" else []
        kinds[os.fsencode(path)] = kind
    return kinds


def _name(n: int) -> bytes:
    return ODD[n // 20 % len(ODD)] % n if n % 20 == 0 else b"%05d" % n


def _tagged(source: Path, path: Path) -> Path:
    samples, rate_hz = soundfile.read(os.fsencode(source), dtype="int16")
    with soundfile.SoundFile(os.fsencode(path), "w", rate_hz, 1) as file:
        file.title = "another title"
        file.write(samples)
    return path


class Watched:
    """A run of the program whose memory is looked at: itself, and with all its helpers."""

    def __init__(self, music: Path, out: Path, env: dict[str, str], options: list[str]) -> None:
        command = [sys.executable, "-m", "mflamingo_cli", "analyze", "--json", *options, "-o", str(out), str(music)]
        self.began, self.log = time.monotonic(), out.with_suffix(".log").open("ab")
        self.process = subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=self.log)
        self.curve: list[tuple[float, int, int]] = []  # seconds, MB of the program, MB of all

    def wait(self, until: Callable[[], bool] = lambda: False) -> float:
        """Seconds until it ended; killed when it is time."""
        while self.process.poll() is None:
            time.sleep(SAMPLE_S)
            sizes = [_resident_mb(pid) for pid in (self.process.pid, *_children(self.process.pid))]
            self.curve.append((time.monotonic() - self.began, sizes[0], sum(sizes)))
            if until():
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
        self.log.close()
        return time.monotonic() - self.began

    def told(self) -> str:
        """The curve in ten points, without the last looks, when processes go."""
        steps = self.curve[:-2][:: max(1, len(self.curve) // 10)]
        return ", ".join(f"{seconds:.0f} s {own}/{everything} MB" for seconds, own, everything in steps)


def _children(pid: int) -> list[int]:
    """Processes that any of its threads started."""
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:  # a thread has just ended
        return []


def _resident_mb(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    except (OSError, IndexError):
        return 0


def check(out: Path, kinds: dict[bytes, str]) -> Counter[str]:
    """One true record per file, in the order of the walk; counts by kind and status."""
    paths, counts = [], Counter()
    with out.open() as lines:
        for line in lines:
            record = json.loads(line)
            path = base64.b64decode(record["path_b64"]) if record["path_b64"] else record["path"].encode()
            kind = kinds[path]
            assert record["status"] == STATUS[kind], (kind, record)
            assert (kind == "cut") == any("cut or damaged" in warning for warning in record["warnings"]), record
            paths.append(path)
            counts[f"{kind} {record['status']}"] += 1
    walked = [os.fsencode(os.path.join(where, name)) for where, folders, names in _walk(out.parent / "music") for name in names]
    assert paths == walked, "not one record per file in the order of the files"
    return counts


def _walk(music: Path):
    for where, folders, names in os.walk(music):
        folders.sort()
        yield where, folders, sorted(names)


def stored(state: Path) -> int:
    """Records in the store: what was really analysed or found to fail."""
    try:
        with sqlite3.connect(f"file:{state / 'runs.db'}?mode=ro", uri=True) as database:
            [[n]] = database.execute("SELECT count(*) FROM records")
        return int(n)
    except sqlite3.OperationalError:  # it is not there yet
        return 0


def change(music: Path, kinds: dict[bytes, str], seed: int) -> tuple[dict[bytes, str], int, int]:
    """Move a tenth into another folder, remove one in fifty, add one in fifty: kinds by path, moved, added."""
    rng, moved = random.Random(seed), 0
    (music / "moved").mkdir()
    for n, path in enumerate(sorted(kinds)):
        choice = rng.random()
        if choice < 0.1:
            target = os.fsencode(music / "moved" / str(n)) + b" " + os.path.basename(path)
            os.rename(path, target)
            kinds[target] = kinds.pop(path)
            moved += 1
        elif choice < 0.12:
            os.unlink(path)
            del kinds[path]
    added = make(music, max(1, len(kinds) // 50), seed + 1, first=100_000)
    return kinds | added, moved, len(added)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("options", nargs="*", help="of mflamingo analyze, after --")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        music, out, state = folder / "music", folder / "out.jsonl", folder / "state"
        env = os.environ | {"PYTHONPATH": str(ROOT), "MFLAMINGO_CACHE": str(folder / "cache"), "MFLAMINGO_STATE": str(state)}
        music.mkdir()
        kinds = make(music, wanted.files)
        n_bytes = sum(os.stat(path).st_size for path in kinds)
        print(f"{len(kinds)} files, {n_bytes / 1e6:.0f} MB: {dict(Counter(kinds.values()))}", flush=True)

        first = Watched(music, out, env, wanted.options)
        seconds = first.wait(until=lambda: stored(state) > len(kinds) // 10)
        before = stored(state)
        print(f"killed after {seconds:.0f} s: {before} in the store", flush=True)
        run = Watched(music, out, env, wanted.options)
        seconds = run.wait()
        assert run.process.returncode == 3, out.with_suffix(".log").read_text()
        counts = check(out, kinds)
        n_new = stored(state) - before
        print(f"then whole in {seconds:.0f} s, {3600 * n_new / seconds:.0f} files an hour: {dict(counts)}", flush=True)
        print(f"memory, the program alone / all its processes: {run.told()}", flush=True)

        content, before = out.read_bytes(), stored(state)
        seconds = Watched(music, out, env, wanted.options).wait()
        assert (out.read_bytes(), stored(state)) == (content, before), "the run after did something"
        print(f"again: {seconds:.0f} s, the same bytes", flush=True)

        kinds, moved, added = change(music, kinds, seed=1)
        seconds = Watched(music, out, env, wanted.options).wait()
        n_new, n_heard = stored(state) - before, added + sum(path.startswith(os.fsencode(music / "moved")) for path in kinds)
        print(
            f"{moved} moved, {added} added: {seconds:.0f} s, {n_new} records made of {n_heard} new names, {dict(check(out, kinds))}",
            flush=True,
        )


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
