"""`mflamingo train data label`: rows from one's own music."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mflamingo_cli.commands.train.work import require_extra, resumable
from mflamingo_cli.errors import ExitCode, UsageError
from mflamingo_cli.files import write_atomic

if TYPE_CHECKING:
    from mflamingo_cli.schema import Analysis


def label(
    songs: Annotated[
        list[str], typer.Argument(metavar="SONGS", help="Files, folders and playlists, or records by `analyze --json` (.jsonl).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="ROWS.jsonl", help="Where rows go.", dir_okay=False)],
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME|DIR|FILE", help="The model that describes the songs.")] = "mini",
    writer: Annotated[
        str, typer.Option("--writer", metavar="none|URL", help="An OpenAI-compatible endpoint that writes captions too.")
    ] = "none",
    writer_model: Annotated[str, typer.Option("--writer-model", metavar="NAME", help="Model of the endpoint.")] = "default",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of options and splits.")] = 0,
) -> None:
    """Make rows of one's own music: questions for facts that are sure, captions that agree with them, lyrics beside the songs.

    What is left out stands with its reason in ROWS.jsonl.dropped. Songs are analysed once; a run that is stopped goes on. To label a
    library on many processes, run `analyze --json -j N -o records.jsonl` first and name the records here.
    """
    require_extra()
    from mflamingo_cli.train.data.label import labels_of
    from mflamingo_cli.train.data.writer import EndpointWriter

    write = EndpointWriter(writer, writer_model) if writer != "none" else None
    dropped_path, done, counts = output.with_name(output.name + ".dropped"), _labelled(output), Counter[str]()
    output.parent.mkdir(parents=True, exist_ok=True)
    with resumable(f"in {output}"), output.open("a", encoding="utf-8") as rows, dropped_path.open("a", encoding="utf-8") as reasons:
        for record in _records(songs, model):
            if str(record.path) in done:
                continue
            labels = labels_of(record, seed=seed, writer=write)
            for what, why in labels.dropped:
                reasons.write(json.dumps({"audio": record.path, "what": what, "why": why}, ensure_ascii=False) + "\n")
            rows.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in labels.rows))
            rows.flush()
            counts.update(row["task"] for row in labels.rows)
            counts["(left out)"] += len(labels.dropped)
            print(f"{record.path}: {len(labels.rows)} rows, {len(labels.dropped)} left out", file=sys.stderr)
    for task, count in counts.most_common():
        print(f"{task}: {count}")
    if not counts.total() and not done:
        raise typer.Exit(ExitCode.NO_INPUT)


def _records(songs: list[str], model: str) -> Iterator[Analysis]:
    """Yield what is known of each song: records that are named, then songs, analysed now or read from the cache."""
    from mflamingo_cli import load
    from mflamingo_cli.commands.inputs import collect
    from mflamingo_cli.schema import Analysis

    for path in (Path(name) for name in songs if name.endswith(".jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                yield Analysis.from_json(line)
            except (ValueError, TypeError, KeyError) as error:
                raise UsageError(f"{path}:{number}: is no record of mflamingo ({error})") from error
    if others := [name for name in songs if not name.endswith(".jsonl")]:
        with load(model) as opened:
            for song in collect(others):
                yield opened.analyze(Path(song))


def _labelled(output: Path) -> set[str]:
    """Return the songs whose rows are there; a line that a crash cut off is removed, with the other rows of its song."""
    if not output.exists():
        return set()
    lines = output.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    if len(rows) < len(lines) and rows:
        last = rows[-1]["audio"]
        kept = [line for line, row in zip(lines, rows, strict=False) if row["audio"] != last]
        with write_atomic(output) as stream:
            stream.write("".join(kept).encode())
        rows = [row for row in rows if row["audio"] != last]
    return {str(row["audio"]) for row in rows}
