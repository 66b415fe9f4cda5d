"""A stage of training from its TOML file: which objective, on what data, from which earlier run; and the export of the result.

All paths are inside one work folder: `data/SPLIT` (from `train data synth`), `base` (tokenizer and processor files), `runs/NAME`.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import distributed
from transformers import MusicFlamingoForConditionalGeneration

from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.core.model import save
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train import build, tokens
from mflamingo_cli.train.data import audio_turns, heard_facts, text_turn
from mflamingo_cli.train.evaluate import hear
from mflamingo_cli.train.frames import MINI_MEL, Clip, prepared
from mflamingo_cli.train.loop import CHECKPOINT, LoopConfig, Report, fit
from mflamingo_cli.train.objectives import AlignObjective, DenseHeads, DenseObjective, Excerpt, Objective, Speech, TextObjective

CONFIGS = Path(__file__).parent / "configs"
EXCERPT_SECONDS = {5: 0.13, 10: 0.3, 20: 0.22, 30: 0.2, 60: 0.15}  # lengths the language model is trained on, with their shares
MAX_AUDIO_S = 60


@dataclass(frozen=True)
class StageConfig:
    """One stage; `init` names earlier runs whose parts are loaded in turn."""

    name: str
    objective: str  # "ears" | "text" | "speech"
    loop: LoopConfig
    init: tuple[str, ...] = ()
    clips: int | None = None  # only the first so many of the split
    lengths: tuple[tuple[int, int], ...] = ((50, 24),)  # ears: (tokens of a crop, crops in a batch)
    rounds: int = 1  # speech: excerpts of every clip
    tokens: int = 4500  # speech: positions in a batch
    turns: int = 6  # speech: exchanges about an excerpt
    batch: int = 48  # text: exchanges in a batch
    text_batch: int = 28  # speech: exchanges without audio beside those with
    model: build.ModelSizes = field(default_factory=build.ModelSizes)


def load_config(path: Path) -> StageConfig:
    """Read a stage file; unknown keys are refused by name."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}; stage files lie in {CONFIGS}") from error
    loop, model = (
        LoopConfig(**_known(LoopConfig, table.pop("loop", {}), path)),
        build.ModelSizes(**_known(build.ModelSizes, table.pop("model", {}), path)),
    )
    values = _known(StageConfig, table, path)
    for name in ("init", "lengths"):
        if name in values:
            values[name] = tuple(tuple(v) if isinstance(v, list) else v for v in values[name])
    return StageConfig(**values, loop=loop, model=model)


def _known(kind: type, table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(table) - names)
    if unknown:
        raise UsageError(f"{path}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(names))}")
    return dict(table)


def make_base(work: Path, config: StageConfig, samples: int = 15_000, vocab: int = 2048, seed: int = 7) -> Path:
    """Train the tokenizer on the text of the data generator and write the processor files, once."""
    base = work / "base"
    if (base / "tokenizer.json").exists():
        return base
    rng, texts = np.random.default_rng(seed), []
    for _ in range(samples):
        turn = text_turn(rng)
        texts += [turn.question, turn.answer]
    for clip in prepared(work / "data" / "train")[:1200]:
        for turn in audio_turns(rng, heard_facts(clip.row, 0, 30), 3):
            texts += [turn.question, turn.answer]
    tokens.write_processor(base, tokens.train_tokenizer(texts, vocab), MINI_MEL, MAX_AUDIO_S, config.model.context)
    return base


def new_model(work: Path, config: StageConfig) -> tuple[MusicFlamingoForConditionalGeneration, Speech]:
    """The model with the parts of earlier runs, and its tongue."""
    tokenizer = Tokenizer.from_file(str(make_base(work, config) / "tokenizer.json"))
    model = build.build(config.model, tokens.special_ids(tokenizer), tokens.padded_vocab(tokenizer), config.loop.seed)
    for name in config.init:
        load_parts(model, work / "runs" / name / CHECKPOINT)
    return model, Speech(tokenizer, tokens.CHAT_TEMPLATE)


def parts_of(model: MusicFlamingoForConditionalGeneration) -> dict[str, torch.nn.Module]:
    """The parts that stages train, by the names they have in a checkpoint."""
    inner = model.model
    return {
        "audio_tower": inner.audio_tower,
        "multi_modal_projector": inner.multi_modal_projector,
        "language_model": inner.language_model,
        "lm_head": model.lm_head,
    }


def load_parts(model: MusicFlamingoForConditionalGeneration, path: Path, heads: DenseHeads | None = None) -> None:
    """Load those parts of the model that a run trained (and its dense heads)."""
    if not path.exists():
        raise UsageError(f"{path}: no such run; train its stage first")
    state = torch.load(path, weights_only=True)["module"]
    parts = parts_of(model) | ({"heads": heads} if heads is not None else {})
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        if own:
            part.load_state_dict(own)


def objective_of(work: Path, config: StageConfig) -> Objective:
    """The objective of a stage with everything it needs."""
    model, speech = new_model(work, config)
    if config.objective == "text":
        return TextObjective(model, speech, config.batch)
    clips = prepared(work / "data" / "train", config.clips)
    if not clips:
        raise UsageError(f"{work / 'data' / 'train'}: no prepared clips; run `mflamingo train data synth` first")
    if config.objective == "ears":
        objective = DenseObjective(model, clips, config.lengths)
        for name in config.init:
            load_parts(model, work / "runs" / name / CHECKPOINT, objective.heads)
        return objective
    if config.objective == "speech":
        folder = work / "runs" / config.name / "excerpts"
        ears = ears_of(work, config)
        if first_process():
            for _ in cache_excerpts(model, clips, folder, ears, config.rounds):
                pass
        if distributed.is_initialized():
            distributed.barrier()
        return AlignObjective(
            model, speech, load_excerpts(folder, ears), tokens=config.tokens, turns=config.turns, text_batch=config.text_batch
        )
    raise UsageError(f"unknown objective {config.objective!r}; one of ears, text, speech")


def first_process() -> bool:
    """Whether this process writes files: the only one, or the first of a group."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def run(work: Path, config: StageConfig) -> Iterator[Report]:
    """Train a stage (or go on with it)."""
    objective = objective_of(work, config)
    yield from fit(objective, objective.module, config.loop, work / "runs" / config.name)


# --- excerpts: what frozen ears make of every clip ------------------------------------------------------------------


def ears_of(work: Path, config: StageConfig) -> str:
    """Name of the ears an excerpt was made with: caches of other ears are not read."""
    stamps = [f"{name}-{(work / 'runs' / name / CHECKPOINT).stat().st_mtime_ns}" for name in config.init]
    return "+".join(stamps)


def draw_excerpt(clip: Clip, number: int) -> tuple[np.ndarray, dict[str, str]]:
    """Samples of the `number`-th excerpt of a clip and what can be asked of them; clips shorter than 60 s are looped for it."""
    rng = np.random.default_rng([clip.row["index"], number])
    seconds = int(rng.choice(list(EXCERPT_SECONDS), p=list(EXCERPT_SECONDS.values())))
    samples, count = clip.samples(), seconds * 16_000
    if seconds <= 30 and len(samples) < count:
        seconds, count = 20, 320_000
    if len(samples) < count:
        return np.tile(samples, -(-count // len(samples)))[:count], heard_facts(clip.row, 0.0, clip.row["duration"])
    start = int(rng.integers(len(samples) - count + 1)) if rng.random() < 0.8 else 0
    return samples[start : start + count], heard_facts(clip.row, start / 16_000, start / 16_000 + seconds)


def cache_excerpts(model: MusicFlamingoForConditionalGeneration, clips: list[Clip], folder: Path, ears: str, rounds: int) -> Iterator[Path]:
    """Encode the excerpts that are missing, one file each."""
    log_mel = LogMel(MINI_MEL)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(rounds):
        for clip in clips:
            path = folder / f"{clip.row['index']:06d}-{number}.npz"
            if path.exists():
                with np.load(path) as file:
                    if str(file["ears"]) == ears:
                        continue
            samples, heard = draw_excerpt(clip, number)
            part = path.with_suffix(".part.npz")
            np.savez(part, tokens=hear(model, log_mel, samples), heard=json.dumps(heard), ears=ears)
            part.replace(path)
            yield path


def load_excerpts(folder: Path, ears: str) -> dict[int, list[Excerpt]]:
    """Cached excerpts by their number of audio tokens, in a fixed order."""
    found: dict[int, list[Excerpt]] = {}
    for path in sorted(folder.glob("*-*.npz")):
        with np.load(path) as file:
            if str(file["ears"]) == ears:
                excerpt = Excerpt(file["tokens"], json.loads(str(file["heard"])))
                found.setdefault(len(excerpt.tokens), []).append(excerpt)
    return found


# --- export ----------------------------------------------------------------------------------------------------------


def export(work: Path, config: StageConfig, out: Path, abilities: list[str] | None, revision: str) -> None:
    """Write the checkpoint directory of a trained model in bf16: what transformers and `quant.convert` read."""
    model, speech = new_model(work, config)
    load_parts(model, work / "runs" / config.name / CHECKPOINT)
    tokens.write_processor(out, speech.tokenizer, MINI_MEL, MAX_AUDIO_S, config.model.context)
    save(model, out, dtype=torch.bfloat16)
    (out / "model.safetensors").chmod(0o644)  # a temporary file of safetensors is private
    generation = {"max_new_tokens": 512, "eos_token_id": speech.ids["<|im_end|>"], "pad_token_id": speech.ids["<|endoftext|>"]}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    meta = {"name": "mini", "revision": revision, "abilities": abilities, "grounded": True}
    (out / "mflamingo.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
