"""Supervised fine-tuning of any checkpoint of the families: from rows to a checkpoint, or to an adapter in PEFT's format.

Defaults are those of the paper (arXiv 2511.10289, table 3), where it states them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mflamingo_cli.core.model import Model, save
from mflamingo_cli.errors import AudioError, UsageError
from mflamingo_cli.files import write_atomic
from mflamingo_cli.train.adapters import TuneConfig, layers_of, load_for_training
from mflamingo_cli.train.checkpoints import require_settings
from mflamingo_cli.train.data.check import RowChecker, RowSize
from mflamingo_cli.train.data.row import RowError, TrainingRow
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.loop import LoopConfig, Report, fine_tuning, fit
from mflamingo_cli.train.network import RowSequence, TrainingNetwork, n_tokens, share_beginnings
from mflamingo_cli.train.objectives import Objective, Place
from mflamingo_cli.train.parallel import Processes, whole
from mflamingo_cli.train.plan import RowPlan, units_of
from mflamingo_cli.train.rows import ChatEncoder
from mflamingo_cli.train.settings import HASH_DIGITS
from mflamingo_cli.train.songs import ENCODED, SongReader
from quant.checkpoint import Checkpoint, read_json
from quant.config import read_geometry

STAGES: Mapping[str, float] = {"sft": 1.5e-5, "think": 1e-5}  # learning rates of table 3 for all weights
LORA_LR = 5e-5  # of Audio Flamingo 3's stage 3.5, its only one with LoRA
CONTEXT = 24_576  # of the paper: 16 minutes of music and the text
MOST_NAMED = 5  # rows that an error names
ADAPTER, CHECKPOINT = "adapter", "checkpoint"  # what a finished run holds
CARD = "mflamingo.json"
KEPT_FILES = ("*.json", "*.jinja", "*.txt", "*.model")  # of the base, beside the weights


@dataclass(frozen=True)
class SftConfig:
    """A run. `batch` counts packed sequences of `context` tokens a step, over all processes; a step of the paper holds 128 rows."""

    tune: TuneConfig = field(default_factory=TuneConfig)
    stage: str = "sft"
    lr: float | None = None
    steps: int | None = None
    epochs: float = 1.0
    batch: int = 8
    context: int = CONTEXT
    seed: int = 0
    save_every: int = 100
    log_every: int = 1
    workers: int = 2
    bf16: bool | None = None  # None: where it is faster
    checkpointing: bool = True  # of activations: they are computed again, not kept

    def learning_rate(self) -> float:
        """Return the learning rate that was asked for, or the paper's."""
        usual = STAGES[self.stage] if self.tune.tune == "full" else LORA_LR
        return usual if self.lr is None else self.lr


class RowObjective:
    """Rows packed into sequences, those about one song behind it once; songs are decoded ahead by threads."""

    def __init__(
        self, network: TrainingNetwork, rows: Rows, units: Sequence[Sequence[int]], plan: RowPlan, chat: ChatEncoder, songs: SongReader,
        workers: int,
    ) -> None:  # fmt: skip
        self.module, self._rows, self._units, self._plan = network, rows, units, plan
        self._chat, self._songs = chat, songs
        self._pool = ThreadPoolExecutor(max(1, workers))
        self._ahead: dict[Place, list[Future[Any]]] = {}

    def draw(self, place: Place) -> list[RowSequence]:
        """Return the sequences of a step for one process."""
        futures = self._ahead.pop(place, None) or self._submit(place)
        self._ahead = {(later := Place(place.seed, place.step + 1, place.rank, place.world)): self._submit(later)}
        return [self._sequence([future.result() for future in some]) for some in futures]

    def _submit(self, place: Place) -> list[list[Future[Any]]]:
        packs = self._plan.at(place.step, place.rank, place.world)
        return [[self._pool.submit(self._read, number) for number in pack] for pack in packs]

    def _read(self, number: int) -> tuple[list[TrainingRow], Any]:
        """Read the rows of a unit, and the one song that they are about."""
        rows = [self._rows[one] for one in self._units[number]]
        try:
            return rows, None if rows[0].audio is None else self._songs.read(rows[0].audio)
        except AudioError as error:
            raise RowError(rows[0].place, str(error)) from error

    def _sequence(self, found: Sequence[tuple[list[TrainingRow], Any]]) -> RowSequence:
        groups, songs = [], []
        for rows, features in found:
            if rows[0].audio is not None:
                features = features if self.module.trains_encoder else self._songs.encoded(rows[0].audio, features, self.module.encode)
                songs.append(features)
            groups.append([self._chat.row(row, 0 if features is None else n_tokens(features)) for row in rows])
        made = share_beginnings(groups, songs)
        assert int((made.ids == self._chat.sound_id).sum()) == sum(map(n_tokens, songs)), "rows of a unit share their song"
        return made

    def weight(self, batch: RowSequence) -> float:
        """How many answer tokens a sequence has."""
        return batch.n_answers

    def loss(self, batch: RowSequence) -> tuple[torch.Tensor, dict[str, float]]:
        """Summed loss of the answers, and numbers to log."""
        loss, right = self.module(batch)
        return loss, {"token_acc": int(right) / max(1, batch.n_answers), "tokens": float(len(batch.ids)), "songs": float(len(batch.songs))}


@dataclass(frozen=True)
class TrainingRun:
    """Everything a run needs, ready to train; `note` says on what and how long."""

    directory: Path
    output: Path
    tune: TuneConfig
    network: TrainingNetwork
    objective: Objective
    loop: LoopConfig
    processes: Processes
    checker: RowChecker
    context: int  # tokens of its longest sequence
    sequences: int  # of a step in this process
    note: str
    settings: Mapping[str, Any]  # that decide what it learns
    held_out: RowObjective | None = None
    reference: TrainingNetwork | None = None  # a second copy of the model, which answers are held against
    sampled: int = 0  # tokens that are in memory while answers are sampled

    @property
    def result(self) -> Path:
        """Where what was learned is written."""
        return self.output / (CHECKPOINT if self.tune.tune == "full" else ADAPTER)

    def try_step(self) -> tuple[float, float]:
        """Train one step that is not kept; return its loss and its seconds."""
        began = time.monotonic()
        [report] = fit(self.objective, self.network, replace(self.loop, steps=1, save_every=2), self.output, self.processes, keeps=False)
        return report.loss, time.monotonic() - began

    def train(self) -> Iterator[Report]:
        """Train, or go on, and write what was learned."""
        measure = None if self.held_out is None else self._held_out_loss
        yield from fit(self.objective, self.network, self.loop, self.output, self.processes, measure, self.settings)
        self.export()

    def _held_out_loss(self) -> float:
        """Return the mean loss of the answer tokens of rows that are not trained on."""
        assert self.held_out is not None
        self.network.eval()
        total = weight = 0.0
        with torch.no_grad():
            for step in range(self.held_out._plan.steps_per_epoch):
                for batch in self.held_out.draw(Place(0, step, self.processes.rank, self.processes.world)):
                    total += float(self.held_out.loss(batch)[0])
                    weight += batch.n_answers
        total, weight = self.processes.sum(total, weight)
        return total / max(1.0, weight)

    def export(self) -> None:
        """Write the adapter, or the whole checkpoint with the files of its base."""
        state = {name: whole(tensor.detach()) for name, tensor in self.network.model.state_dict().items()}
        if self.processes.rank == 0:
            model = self.network.model
            if self.tune.tune == "full":
                write_checkpoint(model, self.directory, self.result, state)
            else:
                with _new_folder(self.result) as part:
                    model.save_pretrained(part, state_dict=state)
                    (part / "README.md").unlink(missing_ok=True)  # PEFT's, about nothing
        self.processes.wait()


def write_checkpoint(model: Model, base: Path, output: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a model as a checkpoint directory in bfloat16, with the tokenizer and processor files of the one it was made from."""
    with _new_folder(output) as part:
        for path in (path for pattern in KEPT_FILES for path in base.glob(pattern)):
            if not path.name.endswith(".index.json"):
                shutil.copyfile(path, part / path.name)
        if (base / CARD).exists():  # what a model can do is its base's, its name and revision are not
            card = {key: value for key, value in read_json(base / CARD).items() if key not in ("name", "revision")}
            with write_atomic(part / CARD) as stream:
                stream.write(json.dumps(card, indent=2).encode() + b"\n")
        save(model, part, state=state)
        for path in part.glob("*.safetensors"):
            path.chmod(0o644)  # a temporary file of safetensors is private


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder that takes the place of another one when all is written."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def prepare(
    directory: Path,
    rows: Rows,
    output: Path,
    config: SftConfig,
    device: torch.device,
    processes: Processes,
    held_out: Rows | None = None,
    *,
    keeps: bool = True,
) -> TrainingRun:
    """Check rows, load the model, and plan the steps; without `keeps` encoded songs are not kept either.

    Raises UsageError that names the first rows that cannot be trained on.
    """
    settings = {
        **settings_of(directory, rows, config.tune), "eval": held_out.names() if held_out else None, "lr": config.learning_rate(),
        "batch": config.batch, "context": config.context, "seed": config.seed, "bf16": config.bf16,
    }  # fmt: skip
    if keeps:
        require_settings(output, settings)
    geometry, chat = read_geometry(directory), ChatEncoder.of(directory)
    context = min(config.context, geometry.text.context_length)
    checker = RowChecker(chat, geometry, context)
    units, lengths = units_of(checked_sizes(rows, checker, processes, lacks_answer), context)
    if config.batch % processes.world:
        raise UsageError(f"--batch {config.batch} is not a multiple of the {processes.world} processes")
    plan = RowPlan(lengths, context, config.seed, config.batch)
    steps = config.steps or math.ceil(config.epochs * plan.steps_per_epoch)
    network = network_of(directory, config.tune, device, processes, config.seed, checkpointing=config.checkpointing)
    songs = SongReader(geometry, output / ENCODED if keeps and not network.trains_encoder else None)
    loop = fine_tuning(
        steps, config.learning_rate(), seed=config.seed, bf16=config.bf16, save_every=config.save_every, log_every=config.log_every
    )

    judged = None
    if held_out is not None:
        some, tokens = units_of(checked_sizes(held_out, checker, processes, lacks_answer), context)
        judged = RowObjective(network, held_out, some, RowPlan(tokens, context, 0, processes.world), chat, songs, config.workers)
    objective = RowObjective(network, rows, units, plan, chat, songs, config.workers)
    note = (
        f"{len(rows)} rows in sequences of at most {context} tokens, {config.batch} sequence{'s' * (config.batch > 1)} per step: "
        f"{steps} step{'s' * (steps > 1)}, {steps / plan.steps_per_epoch:.3g} epochs"
    )
    longest, share = min(context, sum(lengths)), config.batch // processes.world
    return TrainingRun(
        directory, output, config.tune, network, objective, loop, processes, checker, longest, share, note, settings,
        judged,
    )  # fmt: skip


def network_of(
    directory: Path, tune: TuneConfig, device: torch.device, processes: Processes, seed: int, *, checkpointing: bool = True
) -> TrainingNetwork:
    """Load a checkpoint as a network that trains, shared out among the processes."""
    torch.manual_seed(seed)  # of the low-rank matrices
    model, geometry = load_for_training(directory, tune, device), read_geometry(directory)
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    if checkpointing:
        getattr(core, "activation_checkpointing_enable", core.gradient_checkpointing_enable)({"use_reentrant": False})  # its name in v6
    trains_encoder, hears = "encoder" in tune.parts, {"encoder", "projector"} & set(tune.parts) != set()
    sound_id = ChatEncoder.of(directory).sound_id
    network = TrainingNetwork(model, geometry, sound_id, trains_encoder=trains_encoder, always_hears=hears, rounds=processes.largest)
    frozen = set() if trains_encoder else set(core.model.audio_tower.parameters())
    processes.shard(network, [layer for layer in layers_of(core) if next(layer.parameters()) not in frozen], device, frozen)
    return network


def settings_of(directory: Path, rows: Rows, tune: TuneConfig) -> dict[str, Any]:
    """Return what decides the result of any fine-tuning, by the names of options; how long and where it runs is not among it."""
    with Checkpoint(directory) as checkpoint:
        model = f"{read_json(directory / CARD, required=False).get('name', directory.name)} ({checkpoint.identity()[:HASH_DIGITS]})"
    settings = {"model": model, "data": rows.names(), "tune": tune.tune, "parts": sorted(tune.parts)}
    low_rank = {"rank": tune.rank, "alpha": tune.alpha, "dropout": tune.dropout, "dora": tune.dora}
    return settings | ({} if tune.tune == "full" else low_rank)


def lacks_answer(row: TrainingRow) -> str | None:
    """Say that a row has no last answer, if it has none."""
    return "the last question has no answer to train on" if row.exchanges[-1].answer is None else None


def checked_sizes(rows: Rows, checker: RowChecker, processes: Processes, wrong: Callable[[TrainingRow], str | None]) -> list[RowSize]:
    """Return the tokens of every row; each process looks at its share of them.

    Raises UsageError with the first rows that cannot be trained on, those that `wrong` tells a reason for too: none is dropped unasked.
    """
    sizes: dict[int, RowSize] = {}
    problems = [(-1, problem.place, problem.reason) for problem in rows.problems]
    for number in range(processes.rank, len(rows), processes.world):
        try:
            row = rows[number]
            if reason := wrong(row):
                raise RowError(row.place, reason)
            sizes[number] = checker.size(row)
        except RowError as error:
            problems.append((number, error.place, error.reason))
    parts = processes.gather((sizes, problems))
    found = sorted({problem for _, some in parts for problem in some})
    if found:
        more = f" (and {len(found) - MOST_NAMED} more)" if len(found) > MOST_NAMED else ""
        sentences = "; ".join(f"{place}: {reason}" for _, place, reason in found[:MOST_NAMED])
        count = f"{len(found)} row{'s' * (len(found) > 1)}"
        raise UsageError(f"{count} cannot be trained on: {sentences}{more}; `mflamingo train data check` lists them all")
    if not len(rows):
        raise UsageError("there are no rows to train on; see `mflamingo train data check`")
    every = {number: size for some, _ in parts for number, size in some.items()}
    return [every[number] for number in range(len(rows))]
