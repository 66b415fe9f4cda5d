"""A million rows: how long they take to index and to check, and whether a batch slows with their number.

`python -m tests.bench.rows` writes rows of about 280 bytes, and prints seconds of processor time on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.train.data.check import RowChecker
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.plan import RowPlan
from mflamingo_cli.train.rows import ChatEncoder
from quant.config import read_geometry

CHECKED = 5000  # rows that are checked; the others would take as long each
BATCHES = 200
CONTEXT = 8192


def write(path: Path, n_rows: int) -> None:
    """Write rows of a question and an answer."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(n_rows):
            answer = (
                f"It runs at {60 + number % 120} BPM in {'CDEFGAB'[number % 7]} major, with bright pianos, warm strings and a steady beat."
            )
            messages = [
                {"role": "user", "content": f"What is the tempo of song {number}, and in which key is it played?"},
                {"role": "assistant", "content": answer},
            ]
            stream.write(json.dumps({"format": "mflamingo-rows/1", "messages": messages}) + "\n")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of processor time that some work takes, and what it gives."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def measure(path: Path, n_rows: int) -> dict[str, float]:
    """Return seconds: index of all, check of each, plan of an epoch, a batch of eight sequences."""
    write(path, n_rows)
    base = embedded_directory() / "hf"
    checker = RowChecker(ChatEncoder.of(base), read_geometry(base), CONTEXT)
    index_s, rows = timed(lambda: Rows([path]))
    check_s, lengths = timed(lambda: [checker.size(rows[number]).n_tokens for number in range(0, n_rows, max(1, n_rows // CHECKED))])
    every = [lengths[number % len(lengths)] for number in range(n_rows)]
    plan_s, plan = timed(lambda: planned(RowPlan(every, CONTEXT, 0, 8)))
    read = [number for step in range(BATCHES) for pack in plan.at(step % plan.steps_per_epoch) for number in pack[:4]]
    batch_s, _ = timed(
        lambda: [plan.at(step % plan.steps_per_epoch) for step in range(BATCHES)] + [checker.branch(rows[number]) for number in read]
    )
    return {"rows": n_rows, "index_s": index_s, "check_row_s": check_s / len(lengths), "plan_s": plan_s, "batch_s": batch_s / BATCHES}


def planned(plan: RowPlan) -> RowPlan:
    """Return a plan whose first epoch is packed."""
    plan.at(0)
    return plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for n_rows in wanted.rows:
            found = measure(Path(folder) / "rows.jsonl", n_rows)
            print(
                f"{n_rows} rows: index {found['index_s']:.2f} s, check {found['check_row_s'] * 1e6:.0f} µs a row, plan of an epoch "
                f"{found['plan_s']:.2f} s, 32 rows of a batch {found['batch_s'] * 1e3:.1f} ms"
            )
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
