"""All figures of a checkpoint directory: which groups there are, what each hears, in which order they are told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.evaluate.baselines import ESTIMATORS, Baseline, check_installed
from mflamingo_cli.train.evaluate.bootstrap import Score
from mflamingo_cli.train.evaluate.caption_metrics import Captions, Copying, Noise, Unknown, noises
from mflamingo_cli.train.evaluate.ground_truth import Item
from mflamingo_cli.train.evaluate.inference import Cut, Listener, items
from mflamingo_cli.train.evaluate.probes import Heads
from mflamingo_cli.train.evaluate.question_accuracy import ABILITIES, Spoken, Thinking
from mflamingo_cli.train.evaluate.yesno import YesNo, YesNoOfFacts
from mflamingo_cli.train.mini.dialogue.questions import UNKNOWN
from mflamingo_cli.train.mini.frames import MINI_MEL, Clip, prepared
from mflamingo_cli.train.mini.objectives import hear
from mflamingo_cli.train.mini.probes import HEADS, LinearProbes, load_probes
from mflamingo_cli.train.mini.stages import chat_encoder
from mflamingo_cli.train.rows import ChatEncoder

BATCH, BATCH_WHOLE = 16, 8  # excerpts, whole clips heard together
WHOLE_S = 180.0  # of a whole clip; longer ones are cut


class Job(Protocol):
    """One group of figures: hears excerpts, then tells scores."""

    def hear(self, listener: Listener, items: Sequence[Item]) -> None:
        """Take the next excerpts."""
        ...

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figures of all that was heard."""
        ...


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


Make = Callable[[EvalConfig, LinearProbes | None], list[Job]]
EXCERPTS: dict[str, Make] = {  # hear an excerpt of every clip
    **{name: (lambda c, h, name=name: [Spoken(name)]) for name in ABILITIES if name != "key against measure"},
    "key": lambda c, h: [Spoken("key"), Spoken("key against measure")],
    "yesno": lambda c, h: [YesNo()],
    "yesno-facts": lambda c, h: [YesNoOfFacts(c.facts)],
    "think": lambda c, h: [Thinking(c.facts)],
    "unknown": lambda c, h: [Unknown([question.format(m=1, s="30") for question in UNKNOWN])],
    "noise": lambda c, h: [Noise()],
    "facts": lambda c, h: [Copying(c.facts)],
    "ear-captions": lambda c, h: [Captions(False, c.captions)],
    "heads": lambda c, h: [Heads(h)] if h is not None else [],
}
WHOLE: dict[str, Make] = {"captions": lambda c, h: [Captions(True, c.captions)]}  # hear clips from start to end
GROUPS = (*EXCERPTS, *WHOLE, "text-facts")


def report(directory: Path, work: Path, config: EvalConfig) -> Iterator[Score]:
    """All figures that are asked for, split by split."""
    from mflamingo_cli.core.model import load

    if unknown := sorted(set(config.only) - set(GROUPS)) + sorted(set(config.baselines) - set(ESTIMATORS)):
        raise UsageError(f"unknown {', '.join(unknown)}; groups are {', '.join(GROUPS)}; baselines are {', '.join(ESTIMATORS)}")
    check_installed(config.baselines)
    model = load(directory).eval()
    speech = chat_encoder(Tokenizer.from_file(str(directory / "tokenizer.json")))
    heads = load_probes(directory, model) if (directory / HEADS).exists() else None
    wanted = config.only or GROUPS
    for split in config.splits:
        clips = prepared(work / "data" / split, config.clips)
        if not clips:
            raise UsageError(f"{work / 'data' / split}: no prepared clips; run `mflamingo train data` first")
        where = {"clips": "recordings" if clips[0].row.get("kind") == "recording" else "synth"}
        for seconds in config.seconds:
            jobs = [job for name, make in EXCERPTS.items() if name in wanted for job in make(config, heads)]
            jobs += [Baseline(name, ESTIMATORS[name](work), config.baseline_clips) for name in config.baselines]
            yield from _heard(model, speech, clips, Cut(seconds, config.anywhere), jobs, BATCH, {**where, "seconds": seconds})
        whole = sorted(clips[: config.captions], key=lambda clip: clip.row["duration"])  # neighbours of one length are heard together
        jobs = [job for name, make in WHOLE.items() if name in wanted for job in make(config, heads)]
        yield from _heard(model, speech, whole, Cut(WHOLE_S, whole=True), jobs, BATCH_WHOLE, {**where, "seconds": None})
    yield from _apart(model, speech, config, wanted)


def _heard(
    model: Any, speech: ChatEncoder, clips: Sequence[Clip], how: Cut, jobs: Sequence[Job], batch: int, where: dict[str, Any]
) -> Iterator[Score]:
    """Let every job hear every clip, then tell the scores."""
    if not jobs:
        return
    for some in chunks(items(model, clips, how), batch):
        listener = Listener(model, speech, [item.tokens for item in some])
        for job in jobs:
            job.hear(listener, some)
    for job in jobs:
        yield from (score for score in job.scores(**where) if math.isfinite(score.value))  # NaN: nothing to count


def _apart(model: Any, speech: ChatEncoder, config: EvalConfig, wanted: Iterable[str]) -> Iterator[Score]:
    """What needs no clips."""
    if "noise" in wanted:
        noise, log_mel = Noise(), LogMel(MINI_MEL)
        for some in chunks(iter(noises()), BATCH):
            noise.hear(Listener(model, speech, [hear(model, log_mel, samples) for samples in some]), [])
        yield from noise.scores(clips="noise")
    if "text-facts" in wanted:
        copying = Copying(config.facts)
        listener = Listener(model, speech, [None] * BATCH)
        for _ in range(-(-config.facts // BATCH)):
            copying.hear(listener, [])
        yield from copying.scores(clips="text")


def chunks(values: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """So many at a time."""
    while some := list(islice(values, size)):
        yield some
