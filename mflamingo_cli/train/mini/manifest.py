"""The manifest of a split: one JSON line a clip, appended as clips are made, so that a stopped run resumes where it ends."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from mflamingo_cli.files import append_lines, read_lines

NAME = "manifest.jsonl"


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Rows written so far; a line cut off by a crash is ignored."""
    rows = []
    for line in read_lines(folder / NAME) if (folder / NAME).exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def missing(folder: Path, count: int) -> list[int]:
    """Which of the first `count` clips have no row yet."""
    done = {row["index"] for row in read_manifest(folder)}
    return [index for index in range(count) if index not in done]


def append_row(folder: Path, row: dict[str, Any]) -> None:
    """Write a row, on a line of its own also after one that a crash cut off."""
    append_lines(folder / NAME, [json.dumps(row, ensure_ascii=False)])


def in_processes(make: Callable[..., Any], todo: Sequence[Any], config: Any, jobs: int) -> Iterator[Any]:
    """`make(item, config)` of each item in order, in so many processes; one job stays in this process."""
    if jobs == 1:
        yield from (make(item, config) for item in todo)
        return
    with ProcessPoolExecutor(jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:  # this process stops them
        try:
            yield from pool.map(make, todo, [config] * len(todo))
        finally:
            pool.shutdown(cancel_futures=True)
