"""Processes that decode and measure songs while the model works in this one.

Processes, not threads: measuring is many short NumPy calls, between which threads wait for the interpreter's lock. A song that is alone
is measured on two threads all the same (3.2 s for 4.2 s of work, see `pipeline`); two songs on two processes wait for nothing.
A process that dies, as decoders do on some damaged files, costs its song and is replaced. It lives as long as its stdin is open, so that
nothing is left of it whatever ends this program.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from mflamingo_cli import pipeline
from mflamingo_cli.backends.base import BackendInfo
from mflamingo_cli.core.audio import Sound
from mflamingo_cli.errors import AudioError, MFlamingoError, OutOfMemoryError, as_song_error
from mflamingo_cli.requests import PreparedSong, Request
from mflamingo_cli.store.cache import Cache

SOUND, DONE, RAISED = "sound", "done", "raised"  # what a process sends: a sound to look up, then a result or an exception
FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT}  # no decoder does that; SIGKILL is mostly the kernel's


class AlreadyAnalyzed(Exception):
    """Raised when a decoded sound need not be measured."""


class Worker:
    """A process that prepares one song at a time, for one thread; started when first needed."""

    def __init__(self, request: Request, info: BackendInfo, cache: Cache | None) -> None:
        self._task, self._cache = (request, info, cache), cache
        self._process: subprocess.Popen[bytes] | None = None
        self._lock, self._closed = threading.Lock(), False

    def prepare(self, path: str, on_decoded: Callable[[Sound], None]) -> PreparedSong:
        """Do `pipeline.prepare` in the process. Raises what `on_decoded` raises, and MFlamingoError also for a process that died."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, path)
            while True:
                kind, value = pickle.load(process.stdout)  # of our own child
                if kind == RAISED:
                    raise value
                if kind == DONE:
                    song: PreparedSong = value
                    return replace(song, entry=song.entry.within(self._cache)) if song.entry and self._cache else song
                known = False
                try:
                    on_decoded(value)
                except AlreadyAnalyzed:
                    known = True
                _send(process.stdin, known)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self._process = None
            raise _died(path, process.wait()) from None

    def close(self) -> None:
        """End the process, whatever it is doing; may be called from another thread."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise MFlamingoError("stopped")  # nobody waits for the song any more
            if self._process is None:
                root = str(Path(__file__).parents[2])
                env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
                # -P: no module is taken from the folder we are in. -W: as in `cli.main`. Its own session: Ctrl-C is not for it.
                command = [sys.executable, "-P", "-W", "ignore", "-m", __name__]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, start_new_session=True)
                assert self._process.stdin is not None
                _send(self._process.stdin, self._task)
            return self._process


def _died(path: str, code: int) -> Exception:
    from mflamingo_cli.render.text import safe

    if code >= 0:
        return RuntimeError(f"a process that decodes and measures songs ended with {code}")
    if -code in FROM_OUTSIDE:
        return OutOfMemoryError(f"{safe(path)}: its decoder was killed (signal {-code}), probably for lack of memory; lower --jobs")
    return AudioError(f"{safe(path)}: the decoder crashed (signal {-code}); the file is damaged, get it again from its source")


def _send(stream: IO[bytes], message: object) -> None:
    pickle.dump(message, stream, pickle.HIGHEST_PROTOCOL)
    stream.flush()


def main() -> None:
    """Serve the process that started this one until it closes stdin or is gone."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what C libraries print is no message
    request, info, cache = pickle.load(requests)

    def on_decoded(sound: Sound) -> None:
        _send(answers, (SOUND, sound))
        if pickle.load(requests):
            raise AlreadyAnalyzed

    def prepared(path: str) -> tuple[str, Any]:
        try:
            with as_song_error(path, AlreadyAnalyzed, EOFError, BrokenPipeError):
                return DONE, pipeline.prepare(path, request, info, cache, on_decoded)
        except (MFlamingoError, AlreadyAnalyzed) as error:
            return RAISED, error

    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            _send(answers, prepared(pickle.load(requests)))
    os._exit(0)  # an answer that nobody reads any more is not tried once more


if __name__ == "__main__":
    from mflamingo_cli.library import worker  # AlreadyAnalyzed must be the class that the other process knows

    worker.main()
