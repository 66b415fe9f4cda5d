"""Not a kind: inputs that do to their process what a broken program would, for the tests of the driver."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

from quant.errors import MFlamingoError

DEEDS = ("ok", "sentence", "lines", "traceback", "crash", "ok", "hang", "memory", "exit", "ok")


def make_seeds(folder: Path) -> None:
    (folder / "deed").write_text("ok")


def mutate(rng: Random, seeds: Path, folder: Path) -> Path:
    path = folder / "deed"
    path.write_text(DEEDS[int(folder.name)])
    return path


def run(path: Path) -> None:
    match path.read_text():
        case "sentence":
            raise MFlamingoError("this is wrong", code="usage")
        case "lines":
            raise MFlamingoError("this is\nwrong")
        case "traceback":
            raise KeyError(path.name)
        case "crash":
            os.abort()
        case "hang":
            time.sleep(3600)
        case "memory":
            held = b"x" * (1200 << 20)
            assert held
            time.sleep(3600)
        case "exit":
            os._exit(0)
