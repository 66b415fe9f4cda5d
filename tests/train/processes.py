"""Commands of the program in processes of their own, several as torchrun starts them; each is forked where all is imported already.

To import torch, transformers and PEFT takes longer than what these commands train in tests. torchrun itself is left to tests of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
IMPORTED = [
    "peft",
    "transformers.models.musicflamingo.modeling_musicflamingo",
    "mflamingo_cli.train.grpo",
    "mflamingo_cli.commands.train.grpo",
]

_forks = get_context("forkserver")
_forks.set_forkserver_preload(IMPORTED)


def start(words: Sequence[str], folder: Path, count: int = 1) -> list[BaseProcess]:
    """Start the processes of a command in a folder; what they say on stderr is added to `stderr.txt` there."""
    os.environ |= ENVIRONMENT  # before the process that they are forked from is started
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [_forks.Process(target=_run, args=(list(words), folder, rank, count, port)) for rank in range(count)]
    for process in started:
        process.start()
    return started


def finish(started: Sequence[BaseProcess], folder: Path, timeout_s: float) -> None:
    """Wait until processes have ended well; else say what they said."""
    for process in started:
        process.join(timeout_s)
    codes = [process.exitcode for process in started]
    kill(started)
    assert codes == [0] * len(started), (codes, (folder / "stderr.txt").read_text()[-3000:])


def kill(started: Sequence[BaseProcess]) -> None:
    """Kill processes with no warning."""
    for process in started:
        process.kill()
    for process in started:
        process.join()


def _run(words: list[str], folder: Path, rank: int, count: int, port: int) -> None:
    import torch

    from mflamingo_cli.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell lets its background jobs ignore, the tests among them
    os.chdir(folder)
    if count > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    with open(os.devnull, "w") as nothing, (folder / "stderr.txt").open("a") as errors:
        os.dup2(nothing.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    torch.set_num_threads(1)
    sys.argv = ["mflamingo", *words]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:  # whatever it is: only this process ends
        traceback.print_exc()
        code = 1
    os._exit(code)  # without what the process that it was forked from does at its end
