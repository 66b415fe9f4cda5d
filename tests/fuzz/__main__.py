"""`python -m tests.fuzz KIND`: run a fuzzer, run one of its cases again, or run an input that was kept."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.fuzz import KINDS
from tests.fuzz.driver import fuzz, make_seeds


def main() -> None:
    """Print counts by outcome; exit 1 where the program broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=1_000_000_000, help="cases; without it, as many as --seconds allow")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="folder for what broke the program")
    parser.add_argument("--case", type=int, metavar="N", help="run this case here, and show its traceback")
    parser.add_argument("--input", type=Path, metavar="PATH", help="run this input here")
    chosen = parser.parse_args()
    module = KINDS[chosen.kind]
    if chosen.input is not None:
        importlib.import_module(module).run(chosen.input)
    elif chosen.case is not None:
        again(module, chosen.seed, chosen.case)
    else:
        report = fuzz(
            module, count=chosen.count, seed=chosen.seed, seconds=chosen.seconds, keep=chosen.keep / chosen.kind, first=chosen.first
        )
        print(f"{chosen.kind}, seed {chosen.seed}: {report}")
        sys.exit(report.faults > 0)


def again(module: str, seed: int, number: int) -> None:
    """Run one case in this process, and leave its input where it was made."""
    kind, place = importlib.import_module(module), Path(tempfile.mkdtemp(prefix="fuzz-"))
    make_seeds(module, place / "seeds")
    (place / "case").mkdir()
    path = kind.mutate(Random(f"{seed} {number}"), place / "seeds", place / "case")
    print(path)
    kind.run(path)


if __name__ == "__main__":
    main()
