"""The process that runs cases: each is announced before it runs, so that whatever ends the process is that case's."""

from __future__ import annotations

import faulthandler
import importlib
import os
import resource
import shutil
import sys
import traceback
from pathlib import Path
from random import Random

from quant.errors import MFlamingoError
from tests.fuzz.outcomes import LIMIT_BYTES, MEMORY, OK, SENTENCE, TRACEBACK, peak_bytes

INTERNAL = "internal"  # the code of an exception that nobody foresaw, where the program gives it to one song


def main() -> None:
    """Run cases from FIRST on until the parent has read enough: `worker MODULE SEEDS FOLDER SEED FIRST PIPE`."""
    module, seeds, folder, seed, first, pipe = sys.argv[1:]
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind, number = importlib.import_module(module), int(first)
    kind.run(min(Path(seeds).iterdir()))  # imports take longer than a case may
    while True:
        case = Path(folder) / str(number)
        shutil.rmtree(case, ignore_errors=True)  # begun by a process before, which was ended after the case in front of it
        case.mkdir()
        path = kind.mutate(Random(f"{seed} {number}"), Path(seeds), case)
        os.write(int(pipe), b"begin\n")
        outcome = judge(kind.run, path)
        if peak_bytes() > LIMIT_BYTES:
            outcome = MEMORY
        if outcome == OK or outcome.startswith(SENTENCE):
            shutil.rmtree(case)
        os.write(int(pipe), f"{outcome}\n".encode())
        number += 1


def judge(run, path: Path) -> str:
    """Return what became of an input; a traceback goes to stderr."""
    try:
        run(path)
    except MFlamingoError as error:
        if error.code != INTERNAL and str(error) and "\n" not in str(error):
            return SENTENCE + error.code
        traceback.print_exc()
        return TRACEBACK
    except BaseException:  # what a user would see as a traceback
        traceback.print_exc()
        return TRACEBACK
    return OK


if __name__ == "__main__":
    main()
