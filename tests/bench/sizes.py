"""Encoders of several sizes after the same number of steps, and vocabularies: what a megabyte and a millisecond buy; run by hand.

    python -m tests.bench.sizes --work W [--steps 300] [--sizes 128x4,192x4,256x4] [--vocabularies 512,1024,2048]

Needs the train and dev splits of `mflamingo train run` in W. Every size (width x layers, heads of 64, four times the width
inside) learns from scratch from the same crops of two seconds, drawn by the same seed, on one thread. Prints a table and one JSON line:
root and major/minor accuracy on dev crops (grooves that were never trained on) with the standard error over batches, encoder size in
bf16, milliseconds of a 30 s window. Then tokenizers trained on the generator's text: tokens of a caption and of a chord answer (other
texts than those trained on), megabytes of embedding and output layer in bf16.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mflamingo_cli.core.model import encode_crops
from mflamingo_cli.grounding.prose.captions import caption_of
from mflamingo_cli.train.loop import LoopConfig, fit
from mflamingo_cli.train.mini import build, tokens
from mflamingo_cli.train.mini.dialogue import exchanges, prompt_facts
from mflamingo_cli.train.mini.frames import MINI_MEL, Clip, prepared
from mflamingo_cli.train.mini.objectives import ProbeObjective, draw_crops
from mflamingo_cli.train.mini.probes import encode_songs, probe_accuracies
from mflamingo_cli.train.objectives import EqualBatches

CROP_TOKENS, CROPS = 25, 24  # of a training batch: two seconds
DEV_BATCHES = 20
TIMED_RUNS = 5
TEXTS, CAPTIONS = 6000, 500


def sizes_of(text: str) -> build.ModelSizes:
    """`192x4` -> an encoder 192 wide with 4 layers."""
    width, layers = (int(part) for part in text.split("x"))
    return replace(build.ModelSizes(), d_audio=width, audio_layers=layers, audio_heads=width // 64, audio_ffn=4 * width)


def learn(sizes: build.ModelSizes, clips: list[Clip], steps: int) -> tuple[ProbeObjective, float]:
    """Train from scratch; the objective and processor seconds of a step."""
    ids = {name: i for i, name in enumerate(("<|endoftext|>", "<|im_end|>", "<sound>", "<|sound_bos|>", "<|sound_eos|>"))}
    objective = ProbeObjective(build.build(sizes, ids, 64, seed=0), [(clips, 1.0)], [(CROP_TOKENS, CROPS)])
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for _ in fit(EqualBatches(objective), objective.module, LoopConfig(steps=steps, lr=2.5e-3, save_every=steps), Path(folder)):
            pass
    return objective, (time.process_time() - began) / steps


@torch.no_grad()
def score(objective: ProbeObjective, clips: list[Clip]) -> dict[str, tuple[float, float]]:
    """Mean and standard error over batches of dev crops, without augmentation."""
    found: dict[str, list[float]] = {"root_acc": [], "majmin_acc": []}
    for seed in range(DEV_BATCHES):
        batch = draw_crops(np.random.default_rng(seed), [(clips, 1.0)], CROP_TOKENS, CROPS, augmented=False)
        hidden = encode_crops(objective.model, batch.frames, batch.windows, batch.offsets)
        numbers = probe_accuracies(objective.heads(hidden), batch.labels)
        for name, values in found.items():
            values.append(numbers[name])
    return {name: (float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))) for name, values in found.items()}


@torch.no_grad()
def window_ms(objective: ProbeObjective) -> float:
    """Median processor milliseconds of one 30 s window in float32 on one thread."""
    frames, times = torch.zeros(1, objective.model.config.audio_config.num_mel_bins, MINI_MEL.n_frames), []
    for _ in range(TIMED_RUNS):
        began = time.process_time()
        encode_songs(objective.model, frames)
        times.append(time.process_time() - began)
    return 1000 * float(np.median(times))


def vocabulary(size: int) -> dict[str, float]:
    """Lengths of texts in tokens, and megabytes of the rows, for a tokenizer of at most so many tokens."""
    rng = np.random.default_rng(1)
    turns = [exchanges.text_turn(rng) for _ in range(TEXTS)]
    tokenizer = tokens.train_tokenizer((text for turn in turns for text in (turn.question, turn.answer)), size)
    facts = [prompt_facts.random_facts(rng, 1.0) for _ in range(CAPTIONS)]
    lengths = {
        "caption": [len(tokenizer.encode(caption_of("full", prompt_facts.prompt_slots(fact))).ids) for fact in facts],
        "chords": [len(tokenizer.encode(fact["chords"]).ids) for fact in facts],
    }
    rows = tokens.padded_vocab(tokenizer)
    return {
        "vocabulary": rows,
        "mb": 2 * 2 * rows * build.ModelSizes().d_text / 1e6,
        **{name: float(np.mean(n)) for name, n in lengths.items()},
    }


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--sizes", default="128x4,192x2,192x4,192x6,256x4")
    parser.add_argument("--vocabularies", default="512,768,1024,2048")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, dev = prepared(args.work / "data" / "train"), prepared(args.work / "data" / "dev")
    table = Table("width x layers", "MB bf16", "ms / 30 s", "s / step", "root", "majmin", title=f"{args.steps} steps, {len(train)} clips")
    rows = []
    for text in filter(None, args.sizes.split(",")):
        objective, step_s = learn(sizes_of(text), train, args.steps)
        parameters = sum(p.numel() for p in objective.model.model.audio_tower.parameters())
        row = {"size": text, "mb": parameters * 2 / 1e6, "window_ms": window_ms(objective), "step_s": step_s, **score(objective, dev)}
        shown = [f"{row[name][0]:.3f} ±{row[name][1]:.3f}" for name in ("root_acc", "majmin_acc")]
        table.add_row(text, f"{row['mb']:.1f}", f"{row['window_ms']:.0f}", f"{step_s:.2f}", *shown)
        rows.append(row)
    Console().print(table)
    words = [vocabulary(int(size)) for size in args.vocabularies.split(",") if size]
    table = Table("rows", "MB bf16", "tokens of a caption", "of an answer with chords", title="vocabularies")
    for word in words:
        table.add_row(f"{word['vocabulary']}", f"{word['mb']:.2f}", f"{word['caption']:.1f}", f"{word['chords']:.1f}")
    Console().print(table)
    print(json.dumps({"sizes": rows, "vocabularies": words}))


if __name__ == "__main__":
    main()
