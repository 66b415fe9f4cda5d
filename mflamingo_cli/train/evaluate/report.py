"""All figures of a model: which groups there are, what each needs to know, and in which order they are printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from mflamingo_cli.backends import find_model, open_backend
from mflamingo_cli.backends.base import Backend, OpenOptions
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.evaluate.baselines import ESTIMATORS, Baseline, check_installed
from mflamingo_cli.train.evaluate.bootstrap import Score
from mflamingo_cli.train.evaluate.caption_metrics import Captions, Faithfulness, Noise, Unknown, noises
from mflamingo_cli.train.evaluate.ground_truth import Item
from mflamingo_cli.train.evaluate.inference import Cut, SongBatch, Update, items
from mflamingo_cli.train.evaluate.probes import ProbeAccuracy
from mflamingo_cli.train.evaluate.question_accuracy import ABILITIES, QuestionAccuracy, Thinking
from mflamingo_cli.train.evaluate.yesno import YesNo, YesNoOfFacts
from mflamingo_cli.train.mini.dialogue.questions import UNKNOWN
from mflamingo_cli.train.mini.frames import Clip, prepared
from mflamingo_cli.train.mini.probes import HEADS, ProbedEncoder

BATCH, BATCH_WHOLE = 16, 8  # excerpts, whole clips asked about together
SMALL_BYTES = 200_000_000  # of weights: rows of some hundred numbers, of which one thread multiplies a few in no time
WHOLE_S = 180.0  # of a whole clip; longer ones are cut


class Job(Protocol):
    """One group of figures: asks about excerpts, then gives scores."""

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """Take the next excerpts: yield questions about them, be sent the answers."""

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figures of all excerpts so far."""


@dataclass(frozen=True)
class EvalConfig:
    """What to measure: `clips` of each split at lengths of `seconds`, which groups, how many captions, which baselines."""

    splits: tuple[str, ...] = ("test", "real-test")
    clips: int | None = None
    seconds: tuple[float, ...] = (20.0,)
    anywhere: bool = False
    only: tuple[str, ...] = ()  # of GROUPS; empty: all but baselines
    captions: int = 160  # of each kind and split
    facts: int = 200  # captions with random facts, of each kind
    baselines: tuple[str, ...] = ()
    baseline_clips: int = 100


Make = Callable[[EvalConfig, ProbedEncoder | None], list[Job]]
EXCERPTS: dict[str, Make] = {  # about an excerpt of every clip
    **{name: (lambda c, h, name=name: [QuestionAccuracy(name)]) for name in ABILITIES if name != "key against measure"},
    "key": lambda c, h: [QuestionAccuracy("key"), QuestionAccuracy("key against measure")],
    "yesno": lambda c, h: [YesNo()],
    "yesno-facts": lambda c, h: [YesNoOfFacts(count=c.facts)],
    "think": lambda c, h: [Thinking(c.facts)],
    "unknown": lambda c, h: [Unknown([question.format(m=1, s="30") for question in UNKNOWN])],
    "noise": lambda c, h: [Noise()],
    "facts": lambda c, h: [Faithfulness(c.facts)],
    "ear-captions": lambda c, h: [Captions(False, c.captions)],
    "heads": lambda c, h: [ProbeAccuracy(h)] if h is not None else [],
}
WHOLE: dict[str, Make] = {"captions": lambda c, h: [Captions(True, c.captions)]}  # about clips from start to end
GROUPS = (*EXCERPTS, *WHOLE, "text-facts")


def report(model: str, work: Path, config: EvalConfig) -> Iterator[Score]:
    """All figures that are asked for, split by split; the model is named as for any command."""
    if unknown := sorted(set(config.only) - set(GROUPS)) + sorted(set(config.baselines) - set(ESTIMATORS)):
        raise UsageError(f"unknown {', '.join(unknown)}; groups are {', '.join(GROUPS)}; baselines are {', '.join(ESTIMATORS)}")
    check_installed(config.baselines)
    wanted = config.only or GROUPS
    found = find_model(model)
    probed = "heads" in wanted and found.adapter is None and found.directory is not None and (found.directory / HEADS).exists()
    encoder = ProbedEncoder(found.directory) if probed else None
    # More threads would only wait for each other: on two busy cores a second one made the figures of a small model 14 times slower
    files = [path for pair in found.pairs for path in pair] or list(found.directory.glob("*.safetensors"))
    small = sum(path.stat().st_size for path in files) < SMALL_BYTES
    with open_backend(model, OpenOptions(threads=1 if small else None)) as backend:
        for split in config.splits:
            yield from _of_split(backend, work, split, config, wanted, encoder)
        yield from _without_clips(backend, config, wanted)


def _of_split(
    backend: Backend, work: Path, split: str, config: EvalConfig, wanted: Iterable[str], encoder: ProbedEncoder | None
) -> Iterator[Score]:
    """The figures of one split, at each length of excerpt."""
    clips = prepared(work / "data" / split, config.clips)
    if not clips:
        raise UsageError(f"{work / 'data' / split}: no prepared clips; run `mflamingo train run mini-test` first")
    where = {"clips": "recordings" if clips[0].row.get("kind") == "recording" else "synth"}
    for seconds in config.seconds:
        jobs = [job for name, make in EXCERPTS.items() if name in wanted for job in make(config, encoder)]
        jobs += [Baseline(name, ESTIMATORS[name](), config.baseline_clips) for name in config.baselines]
        yield from _measure(backend, clips, Cut(seconds, config.anywhere), jobs, BATCH, {**where, "seconds": seconds})
    whole = sorted(clips[: config.captions], key=lambda clip: clip.row["duration"])  # clips of about one length together
    jobs = [job for name, make in WHOLE.items() if name in wanted for job in make(config, encoder)]
    cut = Cut(min(WHOLE_S, backend.info.geometry.max_audio_s), whole=True)
    yield from _measure(backend, whole, cut, jobs, BATCH_WHOLE, {**where, "seconds": None})


def _measure(backend: Backend, clips: Sequence[Clip], how: Cut, jobs: Sequence[Job], batch: int, where: dict[str, Any]) -> Iterator[Score]:
    """Ask about every clip, then give the scores."""
    if not jobs:
        return
    for some in chunks(items(clips, how), batch):
        songs = SongBatch(backend, [item.samples() for item in some])
        songs.run(job.update(songs, some) for job in jobs)
    for job in jobs:
        yield from (score for score in job.scores(**where) if math.isfinite(score.value))  # NaN: nothing to count


def _without_clips(backend: Backend, config: EvalConfig, wanted: Iterable[str]) -> Iterator[Score]:
    """The figures that need no clips."""
    if "noise" in wanted:
        noise = Noise()
        for some in chunks(noises(), BATCH):
            songs = SongBatch(backend, some)
            songs.run([noise.update(songs, [])])
        yield from noise.scores(clips="noise")
    if "text-facts" in wanted:
        copying, songs = Faithfulness(config.facts), SongBatch(backend, [None] * BATCH)
        for _ in range(-(-config.facts // BATCH)):
            songs.run([copying.update(songs, [])])
        yield from copying.scores(clips="text")


def chunks(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many at a time."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some
