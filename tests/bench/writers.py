"""Commands that change files, killed while they write: every file is the old or the new one, and the next run leaves nothing over."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import soundfile

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.core.audio import SAMPLE_RATE
from quant.files import PART
from tests.clips import song
from tests.docs import ROOT
from tests.hub_double import Hub, Repo

POLL_S = 0.001
WEIGHTS = "model.safetensors"
SONGS = {"a.mp3": "MP3", "b.flac": "FLAC", "c.ogg": "OGG"}  # name -> libsndfile's format
ENDED = "ended before the kill"


class KilledWriter(ExitStack):
    """A command that changes the folder `place` from an old content to a new one, and is killed on the way."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.place, self.before = folder, folder / "place", folder / "before"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG_"))}
        self.env = kept | {"PYTHONPATH": str(ROOT), "HF_HOME": str(self.place), "NO_PROXY": "127.0.0.1,localhost"}
        self.env |= {f"MFLAMINGO_{name}": str(folder / name) for name in ("CACHE", "STATE")}
        self.place.mkdir(parents=True)
        self.command = self.make_old()
        self.place.rename(self.before)
        self.old = contents(self.before)
        for _ in range(2):  # the second has what the first has cached, as those that are killed
            self.reset()
            process = self.start()
            began = self.first_part_s(process)
            self.finish(process)
        self.write_s, self.new = time.monotonic() - began, contents(self.place)
        assert self.old != self.new

    def make_old(self) -> list[str]:
        """Make the old content, and return the command that will be killed."""
        raise NotImplementedError

    def check_killed(self) -> None:
        """What else is promised after a kill."""

    def reset(self) -> None:
        """Bring the old content back."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.before, self.place, symlinks=True)

    def start(self, command: list[str] | None = None) -> subprocess.Popen[bytes]:
        """Run the command, or another one."""
        words = [sys.executable, "-m", "mflamingo_cli", *(command or self.command)]
        return subprocess.Popen(words, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def first_part_s(self, process: subprocess.Popen[bytes]) -> float:
        """Wait until the first file is being written, and return when that is."""
        while process.poll() is None and not any(self.parts()):
            time.sleep(POLL_S)
        return time.monotonic()

    def parts(self) -> Iterator[str]:
        """Names of unfinished files."""
        for where, _, names in os.walk(self.place):
            yield from (os.path.relpath(os.path.join(where, name), self.place) for name in names if name.endswith(PART))

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a run that nobody kills: it ends well and leaves no part."""
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
        assert not [*self.parts()]

    def kill(self, moments: random.Random) -> str:
        """Kill a run, look at what is there, let the next run finish; returns what was found."""
        self.reset()
        process = self.start()
        self.first_part_s(process)
        time.sleep(moments.uniform(0, self.write_s))
        process.kill()
        process.communicate()
        left = {*self.parts()}
        found = {name: content for name, content in contents(self.place).items() if name not in left}
        assert not [name for name, content in found.items() if content not in (self.old.get(name), self.new.get(name))], "a file is torn"
        assert not self.old.keys() - found.keys(), "a file is lost"
        self.check_killed()
        self.finish(self.start())
        assert contents(self.place) == self.new, "the next run makes something else"
        if process.returncode != -signal.SIGKILL:
            return ENDED
        state = "the old files" if found == self.old else "the new files" if found == self.new else "some old, some new"
        return state + " and a part" * bool(left)


class KilledTags(KilledWriter):
    """Songs that get tags."""

    def make_old(self) -> list[str]:
        for index, (name, kind) in enumerate(SONGS.items()):
            soundfile.write(self.place / name, song(5.0, bpm=90 + 10 * index), SAMPLE_RATE, format=kind)
        return ["analyze", "-q", "--json", "-j", "1", "--write-tags=all", "--tag-confidence", "0", str(self.place)]


class KilledConversion(KilledWriter):
    """A pair of GGUF files in the place of the pair of another checkpoint of the same name."""

    def make_old(self) -> list[str]:
        first, second = self.folder / "1/model", self.folder / "2/model"
        for source in (first, second):
            shutil.copytree(embedded_directory() / "hf", source)
        (second / WEIGHTS).write_bytes(other_weights((second / WEIGHTS).read_bytes()))
        self.finish(self.start(self.converting(first)))
        return self.converting(second)

    def converting(self, source: Path) -> list[str]:
        return ["models", "convert", str(source), "-o", str(self.place), "-t", "F16", "-q"]

    def check_killed(self) -> None:
        """Two files of two checkpoints are never opened as one model."""
        now = contents(self.place)
        mixed = len({now[name] == content for name, content in self.new.items()}) > 1
        process = self.start(["models", "info", str(self.place)])
        _, said = process.communicate()
        assert (process.returncode != 0) == mixed, said.decode()


class KilledPull(KilledWriter):
    """A new revision of a model on a hub, and its conversion."""

    def make_old(self) -> list[str]:
        hub, name, info = self.enter_context(Hub()), "somebody/music-flamingo", {"config": {"model_type": "musicflamingo"}}
        self.env["HF_ENDPOINT"] = hub.endpoint
        files = {path.name: path.read_bytes() for path in (embedded_directory() / "hf").iterdir()}
        command = ["models", "pull", name, "--yes", "--quantize", "F16", "-q"]
        hub.repos[name] = Repo(files, commit="0" * 40, info=info)
        self.finish(self.start(command))
        hub.repos[name] = Repo(files | {WEIGHTS: other_weights(files[WEIGHTS])}, info=info)
        return command


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder by its name, locks left out, with the hash of its content."""
    files = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return {
        os.fspath(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if ".locks" not in path.parts
    }


def other_weights(safetensors: bytes) -> bytes:
    """The same tensors with other numbers: the sign of every second byte pair is turned."""
    data = bytearray(safetensors)
    begin = 8 + int.from_bytes(data[:8], "little")
    data[begin + 1 :: 4] = bytes(byte ^ 0x80 for byte in data[begin + 1 :: 4])
    return bytes(data)


WRITERS = {"tags": KilledTags, "convert": KilledConversion, "pull": KilledPull}
