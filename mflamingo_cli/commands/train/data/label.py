"""`mflamingo train data label`: rows from one's own music."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mflamingo_cli.commands.train.work import require_extra, resumable
from mflamingo_cli.errors import AudioError, ExitCode, UsageError

if TYPE_CHECKING:
    from mflamingo_cli.api import Model
    from mflamingo_cli.schema import Analysis

Songs = Annotated[
    list[str], typer.Argument(metavar="SONGS", help="Audio files, folders and playlists, or records of `analyze --json` (.jsonl).")
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="ROWS.jsonl", help="File to write the rows to.", dir_okay=False)]
ModelName = Annotated[str, typer.Option("--model", "-m", metavar="NAME|DIR|FILE", help="The model that describes the songs.")]
Parts = Annotated[int, typer.Option("--parts", min=0, help="Number of half-minute parts of each song that the model also describes.")]
Think = Annotated[bool, typer.Option("--think", help="Add reasoning before the answers; wrong reasoning is left out.")]
Writer = Annotated[
    str,
    typer.Option(
        "--writer",
        metavar="none|URL|FILE.gguf",
        help="Text model that writes captions, questions and reasoning: a GGUF file, or the URL of an OpenAI-compatible endpoint.",
    ),
]
WriterModel = Annotated[str, typer.Option("--writer-model", metavar="NAME", help="Model name to request from the endpoint.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed for questions, options and splits.")]


def label(
    songs: Songs, output: Output, model: ModelName = "mini", parts: Parts = 2, think: Think = False, writer: Writer = "none",
    writer_model: WriterModel = "default", seed: Seed = 0,
) -> None:  # fmt: skip
    """Make training rows from your own music: questions about facts measured with confidence, captions that agree with them, and lyrics.

    ROWS.jsonl.songs lists each finished song, and what was left out and why. Run the same command again to resume. Lyrics are read from
    .lrc, .srt, .vtt or .txt files beside the songs. With several processes, run `analyze --json -j N -o songs.jsonl` first and name it.
    """
    require_extra()
    from mflamingo_cli.train.data.label import LabelOptions, labels_of
    from mflamingo_cli.train.data.labelled import LabelledRows
    from mflamingo_cli.train.data.writer import SongWriter
    from mflamingo_cli.train.text_models import open_writer

    author = SongWriter(open_writer(writer, writer_model, "--writer"), seed) if writer != "none" else None
    options, counts = LabelOptions(seed, author, think), Counter[str]()
    settings = {"seed": seed, "model": model, "parts": parts, "think": think, "writer": author.name if author else "none"}
    with resumable("the rows of finished songs", output), LabelledRows(output, settings) as labelled, _Describer(model) as describer:
        for record in describer.records(songs, labelled.same):
            if (other := labelled.same(str(record.path), record.audio_id)) is not None:
                if other != record.path:
                    print(f"{record.path}: skipped, because it contains the same audio as {other}", file=sys.stderr)
                continue
            labels = labels_of(record, options, list(describer.parts(record, parts)))
            labelled.add(str(record.path), record.audio_id, labels.rows, labels.dropped)
            counts.update(row["task"] for row in labels.rows)
            counts["(left out)"] += len(labels.dropped)
            print(f"{record.path}: {len(labels.rows)} rows, {len(labels.dropped)} left out", file=sys.stderr)
        n_done = len(labelled)
    for task, count in counts.most_common():
        print(f"{task}: {count}")
    if not n_done:
        raise typer.Exit(ExitCode.NO_INPUT)


class _Describer:
    """The model that describes songs, opened when it is first needed."""

    def __init__(self, name: str) -> None:
        self._name, self._opened = name, ExitStack()
        self._model: Model | None = None

    def __enter__(self) -> _Describer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    @property
    def model(self) -> Model:
        """The model, loaded."""
        from mflamingo_cli import load

        if self._model is None:
            self._model = self._opened.enter_context(load(self._name))
        return self._model

    def records(self, songs: list[str], known: Callable[[str], str | None]) -> Iterator[Analysis]:
        """Yield what is known of each song: records that are named, then songs that are not done, analysed now or read from the cache."""
        from mflamingo_cli.commands.inputs import collect

        for path in (Path(name) for name in songs if name.endswith(".jsonl")):
            yield from _read(path)
        if others := [name for name in songs if not name.endswith(".jsonl")]:
            for song in collect(others):
                if known(song) is None:
                    yield self._analyzed(song)

    def _analyzed(self, song: str) -> Analysis:
        from mflamingo_cli.assemble import failed

        try:
            return self.model.analyze(Path(song))
        except AudioError as error:  # of one song: its record says so, and the others go on
            return failed(song, "analyze", error)

    def parts(self, record: Analysis, count: int) -> Iterator[Analysis]:
        """Yield captions of parts of a song that a model described as a whole."""
        from mflamingo_cli.train.data.label import parts_of

        if record.audio is not None and record.model is not None and record.path is not None:
            for start_s, end_s in parts_of(record.audio.start, record.audio.end, count):
                try:
                    yield self.model.caption(Path(record.path), start_s=start_s, end_s=end_s)
                except AudioError:  # a part that is silent has no caption
                    continue


def _read(path: Path) -> Iterator[Analysis]:
    """Yield the records of a file. Raises UsageError that names the line."""
    from mflamingo_cli.files import read_lines
    from mflamingo_cli.schema import Analysis

    for number, line in enumerate(read_lines(path), 1):
        try:
            yield Analysis.from_json(line)
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path}:{number}: not a record of `mflamingo analyze --json` ({error})") from error
