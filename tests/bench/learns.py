"""Whether `mini` learns from labelled songs: `python -m tests.bench.learns --work W [--seeds N…]`; what is done is not done again.

Songs are composed and rendered, so that their facts are exact: 512 to learn from, and others with grooves that were never trained on, which
are asked about. Of each the first 10 s are given. The model is fine-tuned (SFT) on what `train data label` writes of such facts, or its
captions are rewarded for right claims (GRPO, `facts`). Before and after it answers questions about the held-out songs and captions them.
Differences are of the mean of the seeds, standard errors over songs, whose questions belong together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from mflamingo_cli.backends import open_backend
from mflamingo_cli.claims import read_claims
from mflamingo_cli.measure import Key
from mflamingo_cli.schema import Analysis, AudioInfo, KeyInfo, MeterInfo, Result, SongTags, TempoInfo, VocalsInfo
from mflamingo_cli.train import rewards
from mflamingo_cli.train.data.label import LabelOptions, labels_of
from mflamingo_cli.train.data.row import TrainingRow
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.evaluate.bench import own_rows, run
from mflamingo_cli.train.evaluate.bench.asking import Asker
from mflamingo_cli.train.evaluate.bench.items import BenchItem
from mflamingo_cli.train.mini.manifest import read_manifest
from mflamingo_cli.train.mini.synth import render
from mflamingo_cli.train.rewards import JUDGED

SEEDS = (0, 1, 2)
SONGS = {"train": 512, "dev": 72}  # split of `synth` -> songs; `dev` has grooves of its own
SONG_SEED = 24  # other songs than those that the model comes from
PART_S = 10.0
CAPTION = "caption-short"
TASKS = ("tempo", "key", "meter", "vocals", "tempo-choice", "key-choice", "meter-choice", CAPTION)
SFT = "--tune full --steps 20 --batch 1 --context 2048 --lr 4e-4 --save-every 5".split()
GRPO = "--reward facts --tune full --lr 2e-4 --steps 24 --batch 6 --max-tokens 40 --save-every 4".split()


def record(split: str, row: Mapping[str, Any], folder: Path) -> Analysis:
    """Return what is known of the first seconds of a rendered song as the record of an analysis that is sure of everything."""
    keys = {(tonic, mode) for start, _, tonic, mode in row.get("keys", ()) if start < PART_S} if "tonic" in row else set()
    key = Key.of(*keys.pop()) if len(keys) == 1 else None
    sung = any(start < PART_S for start, *_ in row.get("sung", ())) if row["vocals"] else False
    vocals = VocalsInfo(sung, source="measured", confidence=1.0) if sung or not row["vocals"] else VocalsInfo()
    length = float(row["duration"])
    return Analysis(
        "analyze", "ok", str((folder / row["audio"]).resolve()), audio_id=f"{split}-{row['index']}",
        audio=AudioInfo(length, 16_000, 1, "FLAC", 0.0, PART_S, 1, truncated=False, tags=SongTags(artist=f"{split} {row['index']}")),
        result=Result(
            TempoInfo(row["tempo"], source="measured", confidence=1.0),
            KeyInfo(key.tonic, key.mode, key.name, source="measured", confidence=1.0) if key else KeyInfo(),
            meter=MeterInfo(row["meter"], source="measured", confidence=1.0),
            vocals=vocals,
        ),
    )  # fmt: skip


def write_rows(work: Path, split: str) -> None:
    """Render the songs of a split, and write what is asked about them; of `train` also prompts whose captions are rewarded."""
    for _ in render.generate(render.SynthConfig(work / "data", (work / "mma").resolve(), SONGS[split], split, SONG_SEED)):
        pass
    rows = []
    for song in read_manifest(work / "data" / split):
        if song.get("music") is not False:
            labelled = labels_of(record(split, song, work / "data" / split), LabelOptions(seed=SONG_SEED)).rows
            rows += [row | {"split": "train" if split == "train" else "test"} for row in labelled if row["task"] in TASKS]
    prompts = [row | {"messages": row["messages"][:1]} for row in rows if row["task"] == CAPTION]
    for name, some in ((f"{split}-prompts", prompts), (split, rows)):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))


def command(*arguments: str) -> None:
    """Run a command of the program; its progress is shown."""
    subprocess.run([sys.executable, "-m", "mflamingo_cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def questions(work: Path) -> list[BenchItem]:
    """Return the questions about the held-out songs, then what asks for their captions; the references of these state all facts."""
    captions = [
        BenchItem(
            str(row.extra["id"]), row.audio.path, row.exchanges[0].question, (str(row.exchanges[0].answer),), (), CAPTION, 0.0, PART_S
        )
        for row in Rows([work / "dev.jsonl"])
        if row.extra["task"] == CAPTION
    ]
    return [*own_rows.read(work / "dev.jsonl"), *captions]


def finished(log: Path, items: Sequence[BenchItem]) -> bool:
    """Return whether everything has been asked."""
    return log.exists() and len(log.read_text().splitlines()) == len(items)


def replies(work: Path, name: str, model: str) -> Path:
    """Ask a model, through GGUF, which is quicker; return its replies."""
    log = work / f"{name}.replies.jsonl"
    items = sorted(questions(work), key=lambda item: (item.skill != CAPTION, str(item.audio)))  # questions about a song share its encoding
    if finished(log, items):
        return log
    if (work / name).is_dir():
        command("models", "convert", model, "-o", str(work / f"{name}-gguf"))
        model = str(work / f"{name}-gguf")
    with open_backend(model) as backend:
        run.replies(items, Asker(backend, max_new_tokens=64), log)
    return log


def trained(work: Path, name: str, *arguments: str) -> str:
    """Train, unless it is done; return the checkpoint."""
    if not (work / name / "checkpoint").is_dir():
        command("train", *arguments, "-o", str(work / name))
    return str(work / name / "checkpoint")


# --- figures -----------------------------------------------------------------------------------------------------------------

Figures = Callable[[str, BenchItem, Mapping[str, Any]], tuple[float, float]]  # of a reply: a numerator and a denominator


def claims(text: str, facts: Mapping[str, Any]) -> tuple[int, int, int]:
    """How many claims a caption makes about facts that are known, how many of them are true, and how many facts are named rightly."""
    found = [claim for claim in read_claims(text) if claim.kind in JUDGED and claim.kind in facts and claim.judged]
    right = [claim for claim in found if JUDGED[claim.kind](facts[claim.kind], claim.value) != claim.denied]
    wrong = {claim.kind for claim in found} - {claim.kind for claim in right}
    return len(found), len(right), len({claim.kind for claim in right} - wrong)


def _question(options: bool) -> Figures:
    def row(text: str, item: BenchItem, facts: Mapping[str, Any]) -> tuple[float, float]:
        asked = item.skill != CAPTION and bool(item.choices) == options
        return (own_rows.MEASURES[0].row(text, item)[0], 1.0) if asked else (0.0, 0.0)

    return row


def _caption(numerator: Callable[[str, Mapping[str, Any]], float], denominator: Callable[[str, Mapping[str, Any]], float]) -> Figures:
    return lambda text, item, facts: (numerator(text, facts), denominator(text, facts)) if item.skill == CAPTION else (0.0, 0.0)


def _rewarded(text: str, facts: Mapping[str, Any]) -> float:
    [value] = rewards.facts([text], TrainingRow((), None, "", None, {"facts": dict(facts)}))
    return value or 0.0


FIGURES: Mapping[str, Figures] = {
    "questions with options, right": _question(options=True),
    "questions without options, right": _question(options=False),
    "captions, their reward": _caption(_rewarded, lambda text, facts: 1.0),
    "captions, claims that are true": _caption(lambda text, facts: claims(text, facts)[1], lambda text, facts: claims(text, facts)[0]),
    "captions, facts named rightly": _caption(lambda text, facts: claims(text, facts)[2], lambda text, facts: len(facts)),
}


def table(items: Sequence[BenchItem], truths: Mapping[str, Mapping[str, Any]], log: Path, figure: Figures) -> np.ndarray:
    """Return numerators and denominators of all replies, (items, 2)."""
    said = {entry["id"]: entry["text"] for entry in map(json.loads, log.read_text().splitlines())}
    return np.array([figure(said[item.id], item, truths[str(item.audio)]) for item in items], dtype=float)


def share(rows: np.ndarray, songs: np.ndarray) -> tuple[float, np.ndarray]:
    """Return a ratio of sums and how much each song pulls at it (its linearisation), (songs,)."""
    sums = np.stack([rows[songs == song].sum(0) for song in np.unique(songs)])
    top, bottom = sums.sum(0)
    return top / bottom, (sums[:, 0] - top / bottom * sums[:, 1]) / bottom


def show(work: Path, logs: Mapping[str, Sequence[Path]]) -> None:
    """Print the figures of each stage and seed, and the difference from the model before with its standard error over songs."""
    items = questions(work)
    truths = {str(row.audio.path): {k: v["value"] for k, v in row.extra["facts"].items()} for row in Rows([work / "dev.jsonl"])}
    songs = np.array([str(item.audio) for item in items])
    print(f"{len(set(songs))} held-out songs, {len(items)} questions and captions")
    for name, figure in FIGURES.items():
        before: tuple[float, np.ndarray] | None = None
        for stage, files in logs.items():
            if not files:
                continue
            found = [share(table(items, truths, log, figure), songs) for log in files]
            value, pulls = fmean(part for part, _ in found), np.mean([pull for _, pull in found], axis=0)
            line = f"{name}, {stage}: {value:.3f} ({', '.join(f'{part:.3f}' for part, _ in found)})"
            if before is None:
                before = value, pulls
            else:
                line += f"; difference {value - before[0]:+.3f}, standard error {np.sqrt(((pulls - before[1]) ** 2).sum()):.3f}"
            print(line)


def show_rewards(work: Path, steps: int = 6) -> None:
    """Print the reward of each seed in means of some steps, and by how much the last of them is above the first."""
    rises = []
    for seed in SEEDS:
        log = work / f"grpo{seed}" / "log.jsonl"
        if not log.exists():
            continue
        numbers = [json.loads(line)["numbers"] for line in log.read_text().splitlines()]
        means = {
            name: [fmean(entry[name] for entry in numbers[at : at + steps]) for at in range(0, len(numbers) - steps + 1, steps)]
            for name in ("reward", "kl", "length", "no_variance")
        }
        print(f"seed {seed}: " + "; ".join(f"{name} {', '.join(f'{value:.3f}' for value in values)}" for name, values in means.items()))
        rises.append(means["reward"][-1] - means["reward"][0])
    if len(rises) > 1:
        error = stdev(rises) / len(rises) ** 0.5
        print(f"reward, last {steps} steps less the first: {fmean(rises):+.3f}, standard error over seeds {error:.3f}")


def main() -> None:
    """Train with each seed and print what became better."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--show", action="store_true", help="only print the figures of what is done")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    render.LENGTHS = ((1.0, PART_S, PART_S + 2.0),)  # what comes later is not heard
    for split in SONGS:
        if not (work / f"{split}.jsonl").exists():
            write_rows(work, split)
    logs: dict[str, list[Path]] = {"mini": [], "SFT": [], "GRPO": []}
    if options.show:
        for stage, name in (("mini", "mini"), *((stage, f"{stage.lower()}{seed}") for stage in ("SFT", "GRPO") for seed in SEEDS)):
            logs[stage] += [log for log in [work / f"{name}.replies.jsonl"] if finished(log, questions(work))]
    else:
        logs["mini"].append(replies(work, "mini", "mini"))
        for seed in options.seeds:
            for stage, words, rows in (("SFT", ("sft", *SFT), "train"), ("GRPO", ("grpo", *GRPO), "train-prompts")):
                name = f"{stage.lower()}{seed}"
                made = trained(work, name, *words, "-m", "mini", "--data", str(work / f"{rows}.jsonl"), "--seed", str(seed))
                logs[stage].append(replies(work, name, made))
    show(work, logs)
    show_rewards(work)


if __name__ == "__main__":
    main()
