"""Recipes: the steps that make a model, from music to a checkpoint, as a TOML file. Every step resumes, so a recipe does."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.checkpoints import newest
from mflamingo_cli.train.mini import stages
from mflamingo_cli.train.mini.build import ModelSizes
from mflamingo_cli.train.mini.corpora import recordings as recorded
from mflamingo_cli.train.mini.corpora import sheet_music
from mflamingo_cli.train.mini.frames import Clip, make_caches, prepare
from mflamingo_cli.train.mini.kitchen import Kitchen
from mflamingo_cli.train.mini.synth import render
from mflamingo_cli.train.recipes import RECIPES, built_in
from mflamingo_cli.train.small import steps as small


@dataclass(frozen=True)
class RecipeStep:
    """A step: its name in the recipe, what it does (a key of STEPS), and its options."""

    name: str
    does: str
    options: Mapping[str, Any]


def read(recipe: str) -> list[RecipeStep]:
    """Read a recipe by file or by the name of a built-in one. Raises UsageError that names what is wrong."""
    path = Path(recipe) if recipe.endswith(".toml") else RECIPES / f"{recipe}.toml"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{recipe}: there is no such recipe; name a .toml file or one of {', '.join(built_in())}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from error
    tables = found.get("step")
    if set(found) != {"step"} or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: a recipe contains only [[step]] tables")
    return [_step(path, table) for table in tables]


def _step(path: Path, table: Mapping[str, Any]) -> RecipeStep:
    name, does = table.get("name"), table.get("does", table.get("name"))
    if does not in STEPS:
        raise UsageError(f"{path}: step {name!r} does {does!r}, which is not one of {', '.join(STEPS)}")
    options = {key: value for key, value in table.items() if key not in ("name", "does")}
    known = list(inspect.signature(STEPS[does]).parameters)[2:]
    if wrong := sorted(set(options) - set(known)):
        raise UsageError(f"{path}: step {name!r} has no option {wrong[0]!r}; {'it has ' + (', '.join(known) or 'none')}")
    return RecipeStep(str(name), does, options)


def cook(step: RecipeStep, kitchen: Kitchen) -> Iterator[str]:
    """Do a step, or go on with it, yielding a line for each thing that is done."""
    return STEPS[step.does](step.name, kitchen, **step.options)


def synth(name: str, kitchen: Kitchen, clips: int = 1500, split: str = "train", seed: int = 1, mma: str | None = None) -> Iterator[str]:
    """Synthesise songs whose tempo, key, chords and notes are known, by MMA's grooves and soundfonts."""
    folder = Path(mma) if mma else kitchen.work / "mma"
    config = render.SynthConfig(kitchen.work / "data", folder.resolve(), clips, split, seed)
    return _prepared(render.generate(config, kitchen.jobs), kitchen.work / "data" / split, lambda row: row.get("groove") or row["ensemble"])


def scores(
    name: str, kitchen: Kitchen, clips: int = 350, split: str = "scores-train", seed: int = 1, sources: Sequence[str] | None = None
) -> Iterator[str]:
    """Render scores of the music21 corpus and MIDI files of free packages; labels are exact, keys where an analyst wrote them."""
    config = sheet_music.ScoresConfig(
        kitchen.work / "data", kitchen.work / "debs", clips, split, seed, tuple(sources or sheet_music.SHARES)
    )
    return _prepared(sheet_music.generate(config), kitchen.work / "data" / split, lambda row: f"{row['source']}, {row['piece']}")


def recordings(name: str, kitchen: Kitchen, hours: float = 1000.0, splits: Sequence[str] | None = None) -> Iterator[str]:
    """Cut music of free Debian packages; its labels are pseudo-labels: musicnn's tags, this program's own chords, keys and beats."""
    config = recorded.RecordingsConfig(kitchen.work / "debs", kitchen.work / "data", hours, tuple(splits or recorded.SPLITS))
    seconds = 0.0
    for count, row in enumerate(recorded.generate(config, kitchen.jobs), 1):
        seconds += row["duration"]
        yield f"{count}: {row['split']} {row['index']}, {row['package']}, {row['title']}, {seconds / 3600:.2f} h"


def adopt(
    name: str, kitchen: Kitchen, checkpoint: str | None = None, vocab: int = 1536, model: Mapping[str, int] | None = None
) -> Iterator[str]:
    """Begin from a trained model of this architecture, the embedded one if none is named: the words are learned anew, the hearing stays.

    `model` holds the sizes that its language model grows to, as the table of a stage file does.
    """
    folder = Path(checkpoint) if checkpoint else embedded_directory() / "hf"
    if newest(kitchen.work / "runs" / name) is None:
        sizes = ModelSizes(**stages.known_keys(ModelSizes, model or {}, f"step {name!r}, model"))
        stages.adopt(kitchen.work, name, folder, vocab, sizes)
    yield f"{folder}, as run {name}"


def stage(name: str, kitchen: Kitchen, config: str | None = None) -> Iterator[str]:
    """Train a stage of the embedded model: a file, or the built-in one of the step's name."""
    found = stages.load_config(Path(config) if config else stages.CONFIGS / f"{name}.toml")
    for report in stages.run(kitchen.work, found, kitchen.device, kitchen.processes):
        numbers = "  ".join(f"{key} {value:.3f}" for key, value in report.numbers.items())
        yield f"{found.name} {report.step + 1}/{found.loop.steps}  loss {report.loss:.4f}  {report.seconds:.0f} s  {numbers}"


def export(name: str, kitchen: Kitchen, stage: str = "speech", abilities: Sequence[str] = (), revision: str = "0") -> Iterator[str]:
    """Write what was trained as a checkpoint directory, WORK/checkpoint."""
    out = kitchen.work / "checkpoint"
    stages.export(kitchen.work, stages.load_config(stages.CONFIGS / f"{stage}.toml"), out, list(abilities), revision)
    yield str(out)


STEPS: Mapping[str, Callable[..., Iterator[str]]] = {
    "synth": synth, "scores": scores, "recordings": recordings, "adopt": adopt, "stage": stage, "export": export,
    "base": small.base, "exchanges": small.exchanges, "tune": small.tune, "reinforce": small.reinforce,
    "release": small.release,
}  # fmt: skip


def _prepared(rows: Iterable[dict[str, Any]], folder: Path, described: Callable[[dict[str, Any]], str]) -> Iterator[str]:
    """Prepare clips as they are rendered, then those that an earlier run left unprepared."""
    for count, row in enumerate(rows, 1):
        make_caches(Clip(row, folder))
        yield f"{count}: clip {row['index']}, {row['duration']:.0f} s, {described(row)}"
    yield f"{sum(1 for _ in prepare(folder))} clips in {folder}"
