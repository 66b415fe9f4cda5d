"""A stage of training from its TOML file: which objective, on what data, from which earlier run; and the export of the result.

All paths are inside one work folder: `data/SPLIT` (of the recipe's first steps), `base` (tokenizer and processor files), `runs/NAME`.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import distributed, nn

from mflamingo_cli.core.model import Model, load, save
from mflamingo_cli.errors import UsageError
from mflamingo_cli.files import write_atomic, write_text
from mflamingo_cli.train.checkpoints import load_part, newest, part_states, require_settings
from mflamingo_cli.train.checkpoints import save as save_run
from mflamingo_cli.train.loop import LoopConfig, Report, fit
from mflamingo_cli.train.mini import build, tokens
from mflamingo_cli.train.mini.dialogue.clip_labels import confident_labels, excerpt_labels
from mflamingo_cli.train.mini.dialogue.exchanges import REASONING_SHARE, audio_turns, random_labels, text_turn
from mflamingo_cli.train.mini.frames import MINI_MEL, TOKEN_S, Clip, prepared, window_frames
from mflamingo_cli.train.mini.objectives import Excerpt, JointObjective, ProbeObjective, SongFrames, excerpt_drawer
from mflamingo_cli.train.mini.probes import PROBE_WEIGHTS, LinearProbes, encode_samples, labels_of, load_probes, probe_logits, save_probes
from mflamingo_cli.train.objectives import AudioTextObjective, EqualBatches, SeededObjective, TextObjective
from mflamingo_cli.train.parallel import Processes
from mflamingo_cli.train.rows import ChatEncoder, rows_that_fit

CONFIGS = Path(__file__).parent / "configs"
EXCERPT_SECONDS = {4: 0.08, 10: 0.22, 20: 0.22, 30: 0.2, 60: 0.18}  # of excerpts, with shares
MAX_AUDIO_S = 60  # a key is heard as well in the first minute as in three (.67 and .68 of 91 recordings), in a third of the time
FREE = ("name", "loop.steps", "loop.save_every", "loop.log_every")  # what may change while a stage is trained
HEARING = {"audio_tower", "heads"}  # parts that an excerpt's tokens and confident labels depend on


@dataclass(frozen=True)
class StageConfig:
    """One stage; `init` names earlier runs whose parts are loaded in turn, `data` the splits with their shares."""

    name: str
    objective: str  # "encoder" | "text" | "speech" | "joint"
    loop: LoopConfig
    init: tuple[str, ...] = ()
    data: tuple[tuple[str, float], ...] = (("train", 1.0),)
    clips: int | None = None  # only the first so many of each split
    lengths: tuple[tuple[int, int], ...] = ((50, 24),)  # encoder: (tokens of a crop, crops in a batch)
    weights: dict[str, float] = field(default_factory=dict)  # encoder: of terms of the loss that are not to weigh as `PROBE_WEIGHTS` says
    rounds: int = 1  # speech, joint: excerpts of every clip
    tokens: int = 4500  # speech, joint: positions in a batch
    turns: int = 6  # speech, joint: exchanges about an excerpt
    batch: int = 48  # text: exchanges in a batch
    text_batch: int = 28  # speech, joint: exchanges without audio beside those with
    thinking: float = REASONING_SHARE  # speech, joint: share of the exchanges that ask for the reasoning too
    model: build.ModelSizes = field(default_factory=build.ModelSizes)


def load_config(path: Path) -> StageConfig:
    """Read a stage file; unknown keys are refused by name."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}; stage files lie in {CONFIGS}") from error
    loop, model = (
        LoopConfig(**known_keys(LoopConfig, table.pop("loop", {}), path)),
        build.ModelSizes(**known_keys(build.ModelSizes, table.pop("model", {}), path)),
    )
    values = known_keys(StageConfig, table, path)
    if strange := sorted(set(values.get("weights", {})) - set(PROBE_WEIGHTS)):
        raise UsageError(f"{path}: unknown weight {', '.join(strange)}; known are {', '.join(PROBE_WEIGHTS)}")
    for name in ("init", "lengths", "data"):
        if name in values:
            values[name] = tuple(tuple(v) if isinstance(v, list) else v for v in values[name])
    return StageConfig(**values, loop=loop, model=model)


def known_keys(kind: type, table: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    """Return a table whose keys are fields of a class. Raises UsageError that names others."""
    names = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(table) - names)
    if unknown:
        raise UsageError(f"{path}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(names))}")
    return dict(table)


def make_base(work: Path, config: StageConfig, samples: int = 15_000, vocab: int = 1024, seed: int = 7) -> None:
    """Train the tokenizer on the text of the data generator and write the processor files, once."""
    base = work / "base"
    if (base / "tokenizer.json").exists():
        return
    tokens.write_processor(base, tokens.train_tokenizer(sample_texts(samples, seed), vocab), MINI_MEL, MAX_AUDIO_S, config.model.context)


def sample_texts(samples: int, seed: int) -> Iterator[str]:
    """Text as the model will speak and read it, for a tokenizer."""
    rng = np.random.default_rng(seed)
    for number in range(samples):
        for turn in audio_turns(rng, random_labels(rng), 6) if number % 6 == 0 else [text_turn(rng)]:
            yield from (turn.question, turn.answer)


def adopt(work: Path, name: str, checkpoint: Path, vocab: int, sizes: build.ModelSizes, samples: int = 6000, seed: int = 7) -> None:
    """Make a checkpoint directory of this architecture the run `name`, its vocabulary grown by what the text of today needs.

    A new token begins as the mean of those that spelled it before, in both layers of words; a language model that grows
    to larger `sizes` computes what it did.
    """
    model, old = load(checkpoint, dtype=torch.float32), Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    new = tokens.grow(old, sample_texts(samples, seed), vocab)
    tokens.write_processor(work / "base", new, MINI_MEL, MAX_AUDIO_S, model.config.text_config.max_position_embeddings)
    spelled = tokens.pieces_of(new, old)
    with torch.no_grad():
        for layer in (model.model.language_model.embed_tokens, model.lm_head):
            rows = torch.stack([layer.weight[ids].mean(0) if ids else torch.zeros_like(layer.weight[0]) for ids in spelled])
            layer.weight = nn.Parameter(rows)
    grown = build.build(sizes, tokens.special_ids(new), tokens.padded_vocab(new), seed)
    build.grow(model, grown)
    parts = {part: getattr(grown.model, part) for part in ("audio_tower", "multi_modal_projector", "language_model")}
    module = nn.ModuleDict({**parts, "lm_head": grown.lm_head, "heads": load_probes(checkpoint, model)})
    save_run(work / "runs" / name, module, torch.optim.AdamW(module.parameters()), 0, {}, Processes())


def new_model(work: Path, config: StageConfig) -> tuple[Model, ChatEncoder]:
    """The model with the parts of earlier runs, and its chat."""
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        make_base(work, config)
    if distributed.is_initialized():
        distributed.barrier()
    tokenizer = Tokenizer.from_file(str(work / "base" / "tokenizer.json"))
    model = build.build(config.model, tokens.special_ids(tokenizer), tokens.padded_vocab(tokenizer), config.loop.seed)
    load_runs(work, config.init, model)
    return model, ChatEncoder(tokenizer, tokens.CHAT_TEMPLATE, tokens.AUDIO)


def load_runs(work: Path, names: Sequence[str], model: Model, heads: LinearProbes | None = None) -> None:
    """Load what earlier runs trained (also of the probes), the later where two trained one part.

    A projector starts as the probes' one, where both are as wide.
    """
    parts = {name: getattr(model.model, name) for name in ("audio_tower", "multi_modal_projector", "language_model")}
    parts |= {"lm_head": model.lm_head} | ({} if heads is None else {"heads": heads})
    for name in names:
        states = part_states(work / "runs" / name)
        width, heard = model.config.text_config.hidden_size, model.config.audio_config.hidden_size
        if "heads" in states and "multi_modal_projector" not in states and width == heard:
            marked = "project."
            states["multi_modal_projector"] = {n.removeprefix(marked): v for n, v in states["heads"].items() if n.startswith(marked)}
        for part, module in parts.items():
            if part in states:
                load_part(module, states[part])


def sources(work: Path, config: StageConfig) -> list[tuple[list[Clip], float]]:
    """The prepared clips of every split of a stage with its share."""
    found = [(prepared(work / "data" / split, config.clips), share) for split, share in config.data]
    for (clips, _), (split, _) in zip(found, config.data, strict=True):
        if not clips:
            raise UsageError(f"{work / 'data' / split}: no prepared clips; do the step of the recipe that makes them first")
    return found


def objective_of(work: Path, config: StageConfig) -> SeededObjective:
    """The objective of a stage with everything it needs."""
    model, chat = new_model(work, config)
    if config.objective == "encoder":
        objective = ProbeObjective(model, sources(work, config), config.lengths, PROBE_WEIGHTS | config.weights)
        load_runs(work, config.init, model, objective.heads)
        return objective
    if config.objective not in ("text", "speech", "joint"):
        raise UsageError(f"unknown objective {config.objective!r}; one of encoder, text, speech, joint")
    text = TextObjective(model, chat, text_turn, config.batch if config.objective == "text" else config.text_batch)
    if config.objective == "text":
        return text
    found = excerpts(work, config, model)
    if config.objective == "speech":
        return AudioTextObjective(model, chat, excerpt_drawer(found, config.tokens, config.turns, config.thinking), text)
    joint = JointObjective(model, song_drawer(found, config), text, turns=config.turns, thinking=config.thinking)
    load_runs(work, config.init, model, joint.heads)
    return joint


def excerpts(work: Path, config: StageConfig, model: Model) -> list[tuple[dict[int, list[Excerpt]], float]]:
    """For every split of a stage its excerpts by their number of tokens, as the encoder it starts from encodes them, and its share."""
    folder, heads = work / "runs" / config.name / "excerpts", LinearProbes(model)
    encoder = encoder_stamp(work, config.init)  # caches of another one are not read
    load_runs(work, config.init, model, heads)
    found: list[tuple[dict[int, list[Excerpt]], float]] = []
    for (split, share), (clips, _) in zip(config.data, sources(work, config), strict=True):
        # A recording without any confident label is left out: no label does not mean that there is no music
        usable = [c for c in clips if c.row.get("kind") != "recording" or excerpt_labels(c.row, c.labels(), 0.0, c.row["duration"])]
        where = (folder / split, encoder, config.rounds)
        if distributed.is_initialized():  # each process encodes a part, then all read everything
            deque(encoded_excerpts(model, heads.eval(), usable[distributed.get_rank() :: distributed.get_world_size()], *where), maxlen=0)
            distributed.barrier()
        by_length: dict[int, list[Excerpt]] = {}
        for excerpt in encoded_excerpts(model, heads.eval(), usable, *where):
            by_length.setdefault(len(excerpt.tokens), []).append(excerpt)
        found.append((by_length, share))
    return found


def encoder_stamp(work: Path, names: Sequence[str]) -> str:
    """The runs of `names` that trained what hears, each with the time in ns when its last checkpoint was written."""
    folders = {name: work / "runs" / name for name in names}
    heard_by = [name for name, folder in folders.items() if HEARING & set(part_states(folder))]
    return "+".join(f"{name}-{found.stat().st_mtime_ns}" for name in heard_by if (found := newest(folders[name])))


def run(work: Path, config: StageConfig, device: torch.device, processes: Processes = Processes()) -> Iterator[Report]:  # noqa: B008
    """Train a stage (or go on with it) on a torch device."""
    folder, settings = work / "runs" / config.name, settings_of(config)
    require_settings(folder, settings, option="{}")
    objective = objective_of(work, config)
    objective.model.to(device)
    objective.module.to(device)
    yield from fit(EqualBatches(objective), objective.module, config.loop, folder, processes, settings=settings)


def settings_of(config: StageConfig) -> dict[str, Any]:
    """Return what decides the result of a stage by the names in its file; how long it takes is not among it."""
    table = dataclasses.asdict(config)
    within = {f"{part}.{name}": value for part in ("loop", "model") for name, value in table.pop(part).items()}
    return {name: value for name, value in (table | within).items() if name not in FREE}


# --- excerpts: every clip, encoded once ----------------------------------------------------------------------------------


def spans(clip: Clip, rounds: int) -> Iterator[tuple[str, float, float]]:
    """The excerpts of a clip: (name of the file, start, end in seconds, on the grid of audio tokens), always the same ones.

    Of the lengths that a clip has, long ones come rather than short ones; one excerpt in five begins the clip.
    """
    labelled_s = int(clip.row["duration"] / TOKEN_S) * TOKEN_S + 1e-6
    fitting = [seconds for seconds in EXCERPT_SECONDS if seconds <= labelled_s]
    weights = np.array([EXCERPT_SECONDS[seconds] * seconds for seconds in fitting])
    for number in range(rounds if fitting else 0):
        rng = np.random.default_rng([clip.row["index"], number])
        seconds = fitting[rng.choice(len(fitting), p=weights / weights.sum())]
        start = int(rng.integers(int((labelled_s - seconds) / TOKEN_S) + 1)) * TOKEN_S if rng.random() < 0.8 else 0.0
        yield f"{clip.row['index']:06d}-{number}.npz", start, start + seconds


def encoded_excerpts(
    model: Model, heads: LinearProbes, clips: Sequence[Clip], folder: Path, encoder: str, rounds: int
) -> Iterator[Excerpt]:
    """The excerpts of clips with their labels, in a fixed order; encoded by the model once, then read from one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        frame_labels = clip.labels()
        for name, start, end in spans(clip, rounds):
            labels = excerpt_labels(clip.row, frame_labels, start, end)
            if (cached := _cached(folder / name, encoder)) is None:
                tokens = encode_samples(model, clip.samples(start, end))
                cached = tokens, confident_labels(labels, probe_logits(heads, tokens))
                with write_atomic(folder / name) as file:
                    np.savez(file, tokens=tokens, confident_labels=json.dumps(cached[1]), encoder=encoder)
            yield Excerpt(clip, start, end, cached[0], labels, cached[1])


def _cached(path: Path, encoder: str) -> tuple[np.ndarray, dict[str, str]] | None:
    if not path.exists():
        return None
    with np.load(path) as file:
        current = "encoder" in file.files and str(file["encoder"]) == encoder
        return (file["tokens"], json.loads(str(file["confident_labels"]))) if current else None


def song_drawer(
    given: Sequence[tuple[dict[int, list[Excerpt]], float]], config: StageConfig
) -> Callable[[np.random.Generator], list[SongFrames]]:
    """Draws the songs of a batch: excerpts of one length, of the stage's splits by their shares."""
    seconds_of = {round(seconds / TOKEN_S): seconds for seconds in EXCERPT_SECONDS}
    pools = {
        length: [(found[length], share) for found, share in given if length in found] for length in sorted({n for f, _ in given for n in f})
    }
    lengths = np.array([EXCERPT_SECONDS[seconds_of[length]] for length in pools])

    def draw(rng: np.random.Generator) -> list[SongFrames]:
        length = list(pools)[rng.choice(len(pools), p=lengths / lengths.sum())]
        shares = np.array([share for _, share in pools[length]])
        songs = []
        for _ in range(rows_that_fit(length, config.tokens, config.turns)):
            found = pools[length][rng.choice(len(shares), p=shares / shares.sum())][0]
            excerpt = found[rng.integers(len(found))]
            frames = window_frames(excerpt.clip.samples(excerpt.start, excerpt.end)).T.astype(np.float32)
            labels = labels_of(excerpt.clip, round(excerpt.start / TOKEN_S), length)
            songs.append(SongFrames(frames, labels, excerpt.clip_labels, excerpt.confident_labels))
        return songs

    return draw


# --- export ----------------------------------------------------------------------------------------------------------


def export(work: Path, config: StageConfig, out: Path, abilities: list[str] | None, revision: str) -> None:
    """Write the checkpoint directory of a trained model in bf16: what transformers and `quant.convert` read."""
    model, chat = new_model(work, config)
    heads = LinearProbes(model)
    load_runs(work, (*config.init, config.name), model, heads)
    save(model, out, dtype=torch.bfloat16)
    save_probes(heads, out)
    tokens.write_processor(out, chat.tokenizer, MINI_MEL, MAX_AUDIO_S, config.model.context)
    (out / "model.safetensors").chmod(0o644)  # a temporary file of safetensors is private
    meta = {"name": "mini", "revision": revision, "abilities": abilities, "grounded": True}
    write_text(out / "mflamingo.json", json.dumps(meta, indent=2) + "\n")
