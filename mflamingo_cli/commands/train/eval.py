"""`mflamingo train eval`: figures of a model on music it was not trained on."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mflamingo_cli.commands.tables import show, show_json, table
from mflamingo_cli.commands.train.work import WORK, Work, prepare, resumable
from mflamingo_cli.commands.values import comma_separated
from mflamingo_cli.errors import UsageError

if TYPE_CHECKING:
    from mflamingo_cli.train.evaluate.bench.items import BenchItem, Benchmark
    from mflamingo_cli.train.evaluate.bench.run import Figure, SkillScores
    from mflamingo_cli.train.evaluate.report import EvalConfig

REPLIES = Path("replies.jsonl")
BENCHMARK, CLIPS = "Published benchmarks", "Clips of mini-test"
Model = Annotated[str | None, typer.Option("-m", "--model", metavar="NAME|DIR|FILE.gguf", help="The model to evaluate.")]
Bench = Annotated[
    str | None,
    typer.Option(
        "--bench",
        metavar="NAME=FOLDER",
        help="Benchmark to run, and its folder or file; an unknown name lists them all.",
        rich_help_panel=BENCHMARK,
    ),
]
Replies = Annotated[
    Path,
    typer.Option(
        "--replies", metavar="FILE", help="File for the model's replies; a repeated run resumes from it.", rich_help_panel=BENCHMARK
    ),
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--judge", metavar="URL|FILE.gguf", help="Language model that also rates captions, from 1 to 10.", rich_help_panel=BENCHMARK
    ),
]
JudgeModel = Annotated[
    str, typer.Option("--judge-model", metavar="NAME", help="Model name to request from the --judge endpoint.", rich_help_panel=BENCHMARK)
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Ask only the first N questions.", rich_help_panel=BENCHMARK)]
Think = Annotated[bool, typer.Option("--think", help="Let the model reason before it answers.", rich_help_panel=BENCHMARK)]
Split = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        metavar="SPLIT",
        help="Clips to evaluate on; repeatable. [default: test, real-test]",
        show_default=False,
        rich_help_panel=CLIPS,
    ),
]
Clips = Annotated[int | None, typer.Option("--clips", min=1, help="Use only the first N clips of each split.", rich_help_panel=CLIPS)]
Seconds = Annotated[
    list[float] | None,
    typer.Option(
        "--seconds", metavar="SECONDS", help="Length of the excerpts; repeatable. [default: 20]", show_default=False, rich_help_panel=CLIPS
    ),
]
Anywhere = Annotated[
    bool, typer.Option("--anywhere", help="Take excerpts from random places in a clip instead of its start.", rich_help_panel=CLIPS)
]
Only = Annotated[
    str,
    typer.Option(
        "--only", metavar="GROUP,…", help="Compute only these groups of scores; an unknown name lists them all.", rich_help_panel=CLIPS
    ),
]
Captions = Annotated[int, typer.Option("--captions", min=0, help="Number of captions to check per split.", rich_help_panel=CLIPS)]
Facts = Annotated[
    int,
    typer.Option("--facts", min=0, help="Number of captions to write from random facts without audio, per split.", rich_help_panel=CLIPS),
]
Baseline = Annotated[
    str,
    typer.Option(
        "--baseline", metavar="NAME,…", help="Other estimators to compare with: measure, librosa, musicnn.", rich_help_panel=CLIPS
    ),
]
BaselineClips = Annotated[
    int, typer.Option("--baseline-clips", min=1, help="Number of clips per split for --baseline.", rich_help_panel=CLIPS)
]
Markdown = Annotated[
    list[Path] | None,
    typer.Option("--markdown", metavar="FILE", help="Only print Markdown tables of these earlier --json results.", exists=True),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON Lines.")]


def evaluate(
    model: Model = None, bench: Bench = None, replies: Replies = REPLIES, limit: Limit = None, think: Think = False,
    judge: Judge = None, judge_model: JudgeModel = "default",
    split: Split = None, clips: Clips = None, seconds: Seconds = None, anywhere: Anywhere = False, only: Only = "",
    captions: Captions = 160, facts: Facts = 200, baseline: Baseline = "", baseline_clips: BaselineClips = 100, work: Work = WORK,
    markdown: Markdown = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Score a model on questions about music whose answers are known.

    With --bench, ask the questions of a benchmark. Without it, ask the questions of `analyze` about the clips of `train run mini-test`,
    and compare the scores with the best constant answers, chance and other estimators.
    """
    if markdown:
        from mflamingo_cli.train.evaluate import table as tables

        print("\n".join(tables.markdown(tables.read(markdown))))
    elif model is None:
        raise UsageError("nothing to evaluate: name a model with --model")
    elif bench is not None:
        _bench(model, bench, replies, limit, think, (judge, judge_model), as_json)
    else:
        prepare(work)
        from mflamingo_cli.train.evaluate.report import EvalConfig

        config = EvalConfig(
            tuple(split or EvalConfig.splits), clips, tuple(seconds or EvalConfig.seconds), anywhere, comma_separated(only),
            captions, facts, comma_separated(baseline), baseline_clips,
        )  # fmt: skip
        _clips(model, work, config, as_json)


def _clips(model: str, work: Path, config: EvalConfig, as_json: bool) -> None:
    """Ask a model the questions of `analyze` about clips, and print each score when it is known."""
    from mflamingo_cli.train.evaluate import table as tables
    from mflamingo_cli.train.evaluate.report import report

    for score in report(model, work, config):
        print(tables.line(score) if as_json else tables.row(score), flush=True)


def _bench(model: str, bench: str, log: Path, limit: int | None, think: bool, judge: tuple[str | None, str], as_json: bool) -> None:
    """Ask a model the questions of a benchmark, and print its scores."""
    from mflamingo_cli.backends import find_model, open_backend
    from mflamingo_cli.store.keys import content_digest
    from mflamingo_cli.train.evaluate.bench import run
    from mflamingo_cli.train.evaluate.bench.asking import Asker
    from mflamingo_cli.train.evaluate.bench.table import BENCHMARKS
    from mflamingo_cli.train.settings import HASH_DIGITS

    name, _, folder = bench.partition("=")
    if name not in BENCHMARKS or not folder:
        raise UsageError(f"--bench {bench}: write one of {', '.join(BENCHMARKS)} and its folder, such as mmau=~/MMAU")
    benchmark = BENCHMARKS[name]
    if judge[0] is not None and not benchmark.judged:
        raise UsageError(f"--judge {judge[0]}: the replies to {name} are scored as right or wrong, not rated; leave --judge out")
    items, missing = run.read_items(benchmark, Path(folder).expanduser(), limit)
    if missing:
        print(f"{bench}: {len(missing)} recordings are missing and were left out, the first is {missing[0]}", file=sys.stderr)
    settings = {"model": f"{model.rstrip('/').rpartition('/')[2]} ({content_digest(find_model(model))[:HASH_DIGITS]})", "think": think}
    with resumable("replies", log), open_backend(model) as backend:
        texts = run.replies(items, Asker(backend, think=think), log, settings)
    found = run.scores(items, texts, benchmark.measures)
    if judge[0] is not None:
        found = run.beside(found, _judged(items, texts, judge[0], judge[1], log))
    if as_json:
        about = {"bench": name, "model": model, "source": benchmark.source, "note": benchmark.note, "published": dict(benchmark.published)}
        show_json({**about, "missing": len(missing), "scores": run.as_record(found)})
    else:
        _show(benchmark, found)


def _judged(items: Sequence[BenchItem], texts: Sequence[str], place: str, name: str, log: Path) -> list[SkillScores]:
    """Let a judge rate replies; its words are kept beside them."""
    from mflamingo_cli.train.evaluate.bench import run
    from mflamingo_cli.train.evaluate.bench.judge import RATED, rate
    from mflamingo_cli.train.text_models import open_writer

    judge, replies = open_writer(place, name, "--judge"), dict(zip((item.id for item in items), texts, strict=True))
    file, settings = log.with_name(log.name + ".judged"), {"judge": judge.name}
    with resumable("ratings", file):
        said = run.replies(items, lambda item: rate(judge, item, replies[item.id]), file, settings, lambda item: replies[item.id])
    return run.scores(items, said, RATED)


def _show(benchmark: Benchmark, found: Sequence[SkillScores]) -> None:
    """Print the figures of all items and of each skill, then what the paper reports and what is left out."""
    names = [figure.name for figure in found[0].figures]
    made = table("skill", "items", *(column for name in names for column in (name, "95 %")))
    for row in found:
        made.add_row(row.skill, str(row.n), *(cell for figure in row.figures for cell in _cells(figure)))
    show(made)
    for part, value in benchmark.published.items():
        show(f"Music Flamingo, as published ({part}): {value}")
    if benchmark.note:
        show(f"{benchmark.name}: {benchmark.note}")


def _cells(figure: Figure) -> tuple[str, str]:
    return ("-", "") if math.isnan(figure.value) else (f"{figure.value:.3f}", "{:.2f} to {:.2f}".format(*figure.interval))


app = typer.Typer()
app.command()(evaluate)
