"""`mflamingo train data check`: what rows hold, three of them with their mask, and every problem by its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mflamingo_cli.commands.reference import Json
from mflamingo_cli.commands.tables import show, show_json, table
from mflamingo_cli.commands.train.work import require_extra
from mflamingo_cli.errors import ExitCode, ModelError

if TYPE_CHECKING:
    from mflamingo_cli.train.data.check import RowChecker, RowsReport
    from mflamingo_cli.train.data.row import TrainingRow

MOST_PROBLEMS = 100  # lines of them in a terminal; --json names all


def check(
    rows: Annotated[
        list[Path],
        typer.Argument(
            metavar="ROWS", help="A JSON Lines, JSON or CSV file in any supported format, or a folder with metadata.", exists=True
        ),
    ],
    model: Annotated[str, typer.Option("-m", "--model", metavar="NAME|DIR", help="Checkpoint that will be trained on the rows.")] = "mini",
    audio: Annotated[
        list[Path] | None,
        typer.Option(
            "--audio", metavar="FOLDER", help="Folder to search for audio files before the folder of the rows; repeatable.", file_okay=False
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option("--context", min=1, help="Longest allowed row, in tokens. [default: the model's context length]", show_default=False),
    ] = None,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Number of rows to show, with the tokens that are trained on.")] = 3,
    as_json: Json = False,
) -> None:
    """Check rows before training: format, length, and missing or damaged audio. Each problem is listed as FILE:LINE.

    Formats: mflamingo, AF3 and LLaVA, ms-swift, LLaMA-Factory, OpenAI, TRL, MusicCaps, LP-MusicCaps, MusicInstruct, Song Describer and
    audiofolder. Exit code 3 if some rows cannot be trained on, 1 if none can.
    """
    require_extra()
    from mflamingo_cli.backends import find_model
    from mflamingo_cli.commands.terminal import Reporter
    from mflamingo_cli.train.data.check import RowChecker
    from mflamingo_cli.train.data.rowset import Rows
    from mflamingo_cli.train.rows import ChatEncoder
    from quant.config import read_geometry

    directory = find_model(model).directory
    if directory is None:
        raise ModelError(f"{model}: contains only GGUF files; checking rows needs the tokenizer of a checkpoint directory")
    geometry, reporter = read_geometry(directory), Reporter()
    checker = RowChecker(ChatEncoder.of(directory), geometry, context or geometry.text.context_length)
    try:
        found = Rows(rows, audio or ())
        report = checker.check(found, examples, lambda done, total: reporter.working(f"{done} of {total} rows"))
    finally:
        reporter.idle()
    if as_json:
        show_json(as_record(report))
    else:
        _show(report, checker)
    if report.problems:
        raise typer.Exit(ExitCode.SOME_FAILED if report.n_good else ExitCode.ALL_FAILED)


def as_record(report: RowsReport) -> dict[str, object]:
    """Return a report as JSON values."""
    return {
        "rows": report.n_good,
        "formats": dict(report.formats),
        "with_audio": report.with_audio,
        "songs": report.songs,
        "hours": round(report.hours, 4),
        "answers": report.answers,
        "answer_tokens": report.answer_tokens,
        "longest_row_tokens": report.longest,
        "problems": [{"place": problem.place, "reason": problem.reason} for problem in report.problems],
    }


def _show(report: RowsReport, checker: RowChecker) -> None:
    """Print the examples, the counts, then the problems."""
    from mflamingo_cli.render.text import safe

    show_rows(report.shown, checker)
    counts = table(None, None)
    for name, n_rows in report.formats.most_common():
        counts.add_row(name, f"{n_rows} rows")
    counts.add_row("about audio", f"{report.with_audio} rows, {report.songs} songs, {report.hours:.2f} h")
    counts.add_row("answers", f"{report.answers}, {report.answer_tokens} tokens that are trained on")
    counts.add_row("longest row", f"{report.longest} of {checker.context} tokens")
    counts.add_row("problems", str(len(report.problems)))
    show(counts)
    for problem in report.problems[:MOST_PROBLEMS]:
        show(safe(str(problem)))
    if len(report.problems) > MOST_PROBLEMS:
        show(f"… and {len(report.problems) - MOST_PROBLEMS} more; --json names them all")


def show_rows(rows: Sequence[TrainingRow], checker: RowChecker) -> None:
    """Print rows as the model is given them, with what is learned of each."""
    from rich.text import Text

    from mflamingo_cli.render.text import safe
    from mflamingo_cli.train.data.check import pieces

    for row in rows:
        example = table(None, None)
        for text, learned in pieces(checker.branch(row), checker.encoder):
            style = "green" if learned else "dim"
            example.add_row(
                Text("trained" if learned else "context", style=style), Text("\n".join(map(safe, text.splitlines())), style=style)
            )
        show(safe(row.place))
        show(example)
