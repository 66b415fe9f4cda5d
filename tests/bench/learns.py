"""Whether `mini` learns from labelled songs: `python -m tests.bench.learns ROWS.jsonl --work W` (three seeds, about an hour of two cores).

ROWS are those of `train data label`. Songs are parted by group, three tenths of the rows are held out, and of each song 15 s are given.
The model is fine-tuned (SFT), then rewarded for right options (GRPO); each time it answers the questions about the held-out songs. A step
that is done is not done again. Differences are of the mean of the seeds, standard errors over songs, whose questions belong together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli.train.evaluate.bench.items import BenchItem
from mflamingo_cli.train.evaluate.bench.own_rows import MEASURES, read

SEEDS = (0, 1, 2)
HELD_OUT = 0.3
PART_S = 15.0
SFT = ("--tune", "full", "--steps", "16", "--batch", "1", "--context", "3072", "--lr", "3e-4", "--save-every", "50")
GRPO = (
    "--reward",
    "accuracy",
    "--tune",
    "full",
    "--lr",
    "1e-4",
    "--steps",
    "24",
    "--batch",
    "3",
    "--max-tokens",
    "10",
    "--save-every",
    "50",
)
LEFT_OUT = ("vocals", "lyrics", "caption", "question")  # of these songs nearly none is sung; the others have no one right answer


def part(rows: Sequence[dict[str, Any]], work: Path) -> None:
    """Write rows to train on, prompts to be rewarded, and held-out rows; no group stands on both sides."""
    kept = [row for row in rows if not row["task"].startswith(LEFT_OUT) and not row["task"].endswith("-think")]
    sizes, held_out, n_held = Counter(row["group"] for row in kept), set(), 0
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if n_held < HELD_OUT * len(kept):
            held_out.add(group)
            n_held += sizes[group]
    files: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in kept:
        start = row.get("start", 0.0)
        row = row | {"start": start, "end": start + PART_S, "split": "test" if row["group"] in held_out else "train"}
        files[row["split"]].append(row)
        if row["split"] == "train" and row.get("choices"):
            files["prompts"].append(row | {"messages": row["messages"][:1]})
    for name, some in files.items():
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))


def command(*arguments: str) -> None:
    """Run a command of the program; its progress is shown."""
    subprocess.run([sys.executable, "-m", "mflamingo_cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def replies(work: Path, name: str, model: str) -> Path:
    """Ask a model about the held-out songs, through GGUF, which is quicker; return its replies."""
    log = work / f"{name}.jsonl"
    if not log.exists():
        if (work / name).is_dir():
            command("models", "convert", model, "-o", str(work / f"{name}-gguf"))
            model = str(work / f"{name}-gguf")
        command("train", "eval", "-m", model, "--bench", f"rows={work / 'test.jsonl'}", "--replies", str(log))
    return log


def trained(work: Path, name: str, *arguments: str) -> str:
    """Train, unless it is done; return the checkpoint."""
    if not (work / name / "checkpoint").is_dir():
        command("train", *arguments, "-o", str(work / name))
    return str(work / name / "checkpoint")


def marks(items: Sequence[BenchItem], log: Path, measure: int) -> np.ndarray:
    """Return a measure of each reply, (items,)."""
    said = {entry["id"]: entry["text"] for entry in map(json.loads, log.read_text().splitlines())}
    return np.array([MEASURES[measure].row(said[item.id], item)[0] for item in items])


def by_song(items: Sequence[BenchItem], differences: np.ndarray) -> tuple[float, float]:
    """Return a mean over items and its standard error over songs (a ratio of sums, by linearisation)."""
    songs: Mapping[str, list[float]] = defaultdict(list)
    for item, difference in zip(items, differences, strict=True):
        songs[str(item.audio)].append(difference)
    mean, count = float(differences.mean()), len(songs)
    spread = sum((sum(values) - mean * len(values)) ** 2 for values in songs.values())
    return mean, float(np.sqrt(spread * count / max(1, count - 1)) / len(items))


def main() -> None:
    """Train with each seed and print what became better."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "test.jsonl").exists():
        part([json.loads(line) for line in options.rows.read_text().splitlines()], work)
    logs: dict[str, list[Path]] = {"mini": [replies(work, "base", "mini")], "SFT": [], "GRPO": []}
    for seed in SEEDS:
        tuned = trained(work, f"sft{seed}", "sft", "-m", "mini", "--data", str(work / "train.jsonl"), "--seed", str(seed), *SFT)
        logs["SFT"].append(replies(work, f"sft{seed}", tuned))
        better = trained(work, f"grpo{seed}", "grpo", "-m", tuned, "--data", str(work / "prompts.jsonl"), "--seed", str(seed), *GRPO)
        logs["GRPO"].append(replies(work, f"grpo{seed}", better))
    show(list(read(work / "test.jsonl")), logs)


def show(items: Sequence[BenchItem], logs: Mapping[str, Sequence[Path]]) -> None:
    """Print the figures of each stage and seed, and the difference from the stage before with its standard error."""
    print(f"{len({item.audio for item in items})} held-out songs, {len(items)} questions")
    for kind, some in (("with options", [i for i in items if i.choices]), ("without", [i for i in items if not i.choices])):
        for number, measure in enumerate(MEASURES):
            before = None
            for stage, files in logs.items():
                rows = np.array([marks(some, log, number) for log in files])
                seeds = ", ".join(f"{row.mean():.3f}" for row in rows)
                line = f"{kind}, {measure.name}, {stage}: {rows.mean():.3f} ({seeds})"
                if before is not None:
                    difference, error = by_song(some, rows.mean(axis=0) - before)
                    line += f"; difference {difference:+.3f}, standard error {error:.3f}"
                print(line)
                before = rows.mean(axis=0)


if __name__ == "__main__":
    main()
