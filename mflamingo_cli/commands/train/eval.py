"""`mflamingo train eval`: figures of a model on music it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mflamingo_cli.commands.train.work import WORK, Work, names, prepare
from mflamingo_cli.errors import UsageError

REPLIES = Path("replies.jsonl")


def evaluate(
    model: Annotated[str | None, typer.Option("-m", "--model", metavar="NAME|DIR|FILE.gguf", help="The model to evaluate.")] = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="Clips to evaluate on; repeatable. [default: test, real-test]")] = None,
    clips: Annotated[int | None, typer.Option("--clips", min=1, help="Use only the first N clips of each split.")] = None,
    seconds: Annotated[list[float] | None, typer.Option("--seconds", help="Length of the excerpts; repeatable. [default: 20]")] = None,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Take excerpts from anywhere in a clip, not from its start.")] = False,
    only: Annotated[
        str, typer.Option("--only", metavar="GROUP,…", help="Compute only these groups of scores; an unknown name lists them all.")
    ] = "",
    captions: Annotated[int, typer.Option("--captions", min=0, help="Number of captions per split whose claims are checked.")] = 160,
    facts: Annotated[
        int, typer.Option("--facts", min=0, help="Number of captions made from random facts, per split and without audio.")
    ] = 200,
    baseline: Annotated[
        str, typer.Option("--baseline", metavar="NAME,…", help="Other estimators to compare with: measure, librosa, musicnn.")
    ] = "",
    baseline_clips: Annotated[int, typer.Option("--baseline-clips", min=1, help="Number of clips per split for these estimators.")] = 100,
    markdown: Annotated[
        list[Path] | None, typer.Option("--markdown", help="Only make tables from these files of earlier --json results.", exists=True)
    ] = None,
    bench: Annotated[
        str | None, typer.Option("--bench", metavar="NAME=FOLDER", help="Only a published benchmark: mmau, mmar, muchomusic.")
    ] = None,
    replies: Annotated[
        Path, typer.Option("--replies", metavar="FILE", help="Replies to its questions; a run goes on with them.")
    ] = REPLIES,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use only its first N questions.")] = None,
    think: Annotated[bool, typer.Option("--think", help="Let the model reason before it answers.")] = False,
    work: Work = WORK,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Evaluate a model on music it was not trained on, compared with the best constant answers, chance and other estimators."""
    if model is None and not markdown:
        raise UsageError("nothing to evaluate: name a model with --model, or earlier results with --markdown")
    if bench is not None and model is not None:
        _bench(model, bench, replies, limit, think, as_json)
        return
    prepare(work)
    from mflamingo_cli.train.evaluate import table
    from mflamingo_cli.train.evaluate.report import EvalConfig, report

    if markdown or model is None:
        print("\n".join(table.markdown(table.read(markdown or ()))))
        return
    config = EvalConfig(
        tuple(split or EvalConfig.splits), clips, tuple(seconds or EvalConfig.seconds), anywhere, names(only), captions, facts,
        names(baseline), baseline_clips,
    )  # fmt: skip
    for score in report(model, work, config):
        print(table.line(score) if as_json else table.row(score), flush=True)


def _bench(model: str, bench: str, replies: Path, limit: int | None, think: bool, as_json: bool) -> None:
    """Ask a model the questions of a benchmark, and print its scores."""
    from mflamingo_cli import load
    from mflamingo_cli.commands.tables import show, show_json, table
    from mflamingo_cli.train.evaluate import benchmarks

    name, _, folder = bench.partition("=")
    if name not in benchmarks.BENCHMARKS or not folder:
        raise UsageError(f"--bench {bench}: name one of {', '.join(benchmarks.BENCHMARKS)} and its folder, as in mmau=~/MMAU")
    with load(model) as opened:
        answer = opened.think if think else opened.ask
        found = benchmarks.run(
            benchmarks.BENCHMARKS[name], Path(folder).expanduser(), lambda song, question: answer(song, question).text or "", replies, limit
        )
    scores = benchmarks.table(found)
    if as_json:
        show_json({"bench": name, "model": model, "source": benchmarks.BENCHMARKS[name].source, "scores": scores})
        return
    made = table("skill", "questions", "official rule", "exact rule", "95 %", "unread")
    for score in scores:
        low, high = score["interval"]
        values = (score["official"], score["exact"])
        made.add_row(
            score["skill"], str(score["n"]), *(f"{value:.3f}" for value in values), f"{low:.2f} to {high:.2f}", f"{score['unparsed']:.2f}"
        )
    show(made)


app = typer.Typer()
app.command()(evaluate)
