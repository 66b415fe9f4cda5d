"""The shipped encoder can be made again: the first batches of its stages are those it was trained on, from the same few clips.

Hashes of ids, labels and masks were computed with the program that made the shipped weights; numbers of sound are compared by mean and
spread, because their last bits belong to a processor's FFT and matrix product. The stages of words teach the sentences of the phrase
grammar as they are today, so theirs are only the same each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile
import torch

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.train.mini import build, frames, stages

RATE = 16_000
SECONDS = 31.0
SIZES = build.ModelSizes(
    d_audio=64, audio_layers=1, audio_heads=1, audio_ffn=64, d_text=64, text_layers=1, text_heads=1, text_kv_heads=1, text_ffn=64
)
ENCODER = ("encoder-short", "encoder")
WORDS = ("text", "speech", "joint", "think")  # after those, in the order of training
BATCHES = 2
CHORDS = ((0, "maj"), (9, "min"), (5, "maj7"), (7, "7"))


def sound(rng: np.random.Generator) -> np.ndarray:
    """Chords of sines, a click on each beat and a little noise, (n,) float32."""
    seconds = np.arange(int(SECONDS * RATE)) / RATE
    root = np.array([CHORDS[int(at) // 2 % 4][0] for at in range(int(SECONDS) + 1)])[seconds.astype(int)]
    tones = sum(np.sin(2 * np.pi * 220 * 2 ** ((root + step) / 12) * seconds) for step in (0, 4, 7))
    return (0.1 * tones + 0.3 * (seconds % 0.5 < 0.01) + rng.normal(0, 0.01, len(seconds))).astype(np.float32)


def midi(path: Path) -> None:
    """Two seconds a chord, on a piano and a bass, at 120 BPM."""
    file = mido.MidiFile(ticks_per_beat=480)
    for channel, program, below in ((0, 0, 0), (1, 33, 24)):
        track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=program)])
        for index in range(int(SECONDS) // 2):
            pitches = [57 - below + CHORDS[index % 4][0] + step for step in ((0, 4, 7) if not below else (0,))]
            for kind, wait in (("note_on", 0), ("note_off", 4 * 480)):
                for number, pitch in enumerate(pitches):
                    track.append(mido.Message(kind, channel=channel, note=pitch, velocity=80, time=0 if number else wait))
        file.tracks.append(track)
    file.save(path)


def make_split(folder: Path, count: int, recorded: bool) -> None:
    """Clips of a split as the generators write them."""
    for name in ("audio", "midi", "cache"):
        (folder / name).mkdir(parents=True)
    lines = []
    for index in range(count):
        rng = np.random.default_rng([index, recorded])
        soundfile.write(folder / f"audio/{index:06d}.flac", sound(rng), RATE, subtype="PCM_16")
        row: dict[str, Any] = {"index": index, "audio": f"audio/{index:06d}.flac", "duration": SECONDS, "tonic": 9, "mode": "minor"}
        row["chords"] = [[2.0 * i, 2.0 * i + 2, (9 + CHORDS[i % 4][0]) % 12, CHORDS[i % 4][1]] for i in range(15)]
        if recorded:
            row |= {"kind": "recording", "key2": [9, "minor"], "vocals": bool(index % 2)}
            tags = rng.integers(0, 200, (1, len(TAG_NAMES))).astype(np.uint8).repeat(775, 0)
            np.savez(folder / f"cache/{index:06d}.labels.npz", tags=tags, vocals=np.full(775, index % 2, np.uint8))
        else:
            row |= {"kind": "synth", "midi": f"midi/{index:06d}.mid", "style": ("jazz", "waltz")[index % 2], "tempo": 120.0}
            row |= {
                "meter": ("4/4", "3/4")[index % 2],
                "beat_s": 0.5,
                "bar_s": (2.0, 1.5)[index % 2],
                "instruments": {"piano": 0.0, "bass": -9.0},
            }
            midi(folder / row["midi"])
        frames.make_caches(frames.Clip(row, folder))
        lines.append(json.dumps(row))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def leaves(value: Any) -> Iterator[Any]:
    """The arrays, numbers and words of a batch in a fixed order; where clips lie on disk is left out."""
    if isinstance(value, torch.Tensor):
        yield value.detach().cpu().numpy()
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name not in ("clip",):
                yield from leaves(getattr(value, field.name))
    elif isinstance(value, dict):
        for name in sorted(value):
            yield name
            yield from leaves(value[name])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, slice):
        yield from (value.start, value.stop)
    else:
        yield value


def fingerprint(batch: Any) -> tuple[str, float, float]:
    """A hash of everything exact and of all shapes; mean and spread of what is measured in floating point."""
    digest, floats = hashlib.sha256(), []
    for leaf in leaves(batch):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":
            digest.update(f"{leaf.shape}".encode())
            floats.append(leaf.astype(np.float64).ravel())
        else:
            digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes() if isinstance(leaf, np.ndarray) else repr(leaf).encode())
    every = np.concatenate(floats) if floats else np.zeros(1)
    return digest.hexdigest()[:16], float(every.mean()), float(every.std())


def small(name: str) -> stages.StageConfig:
    """A shipped stage with a smaller model, smaller batches and two steps."""
    config = stages.load_config(stages.CONFIGS / f"{name}.toml")
    loop = dataclasses.replace(config.loop, steps=2, warmup=1, save_every=2, log_every=1, bf16=False)
    lengths = tuple((length, 4) for length, _ in config.lengths)
    return dataclasses.replace(config, loop=loop, lengths=lengths, batch=9, text_batch=6, model=SIZES)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    (work / "base").mkdir()
    shutil.copy(embedded_directory() / "hf" / "tokenizer.json", work / "base")
    make_split(work / "data/train", 3, recorded=False)
    make_split(work / "data/scores-train", 1, recorded=False)
    make_split(work / "data/real-train", 2, recorded=True)
    return work


# The first batches of a stage by the program that made the shipped weights; but sure singing counted as 1 then, as 254 of 255 now
MADE = {
    "encoder-short": [("ef08746ec2cc799b", 0.46413, 0.29804), ("721aa684f497c501", 0.21600, 0.23412)],
    "encoder": [("0b8fb32af0ce3ea4", 0.34394, 0.28279), ("d0e80c9982738b0c", 0.29744, 0.27509)],
}
CLOSE = 0.01  # of means and spreads: bfloat16 or float32, this processor or that one, change them by less than a thousandth


def drawn(work: Path, name: str) -> list[tuple[str, float, float]]:
    """Fingerprints of the first batches of a stage."""
    config = small(name)
    objective = stages.objective_of(work, config)
    return [fingerprint(objective.draw(np.random.default_rng([config.loop.seed, step]))) for step in range(BATCHES)]


@pytest.fixture(scope="module")
def batches(work: Path) -> dict[str, list[tuple[str, float, float]]]:
    """Fingerprints of each stage's first batches; each stage is trained for two steps, because the next one begins from it."""
    torch.set_num_threads(1)
    found = {}
    for name in (*ENCODER, *WORDS):
        config = small(name)
        found[name] = drawn(work, name)
        assert [report.step for report in stages.run(work, config, torch.device("cpu"))] == [0, 1]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODER)
def test_the_first_batches_are_those_of_the_shipped_weights(batches: dict[str, list[tuple[str, float, float]]], name: str) -> None:
    for (digest, mean, spread), (made, made_mean, made_spread) in zip(batches[name], MADE[name], strict=True):
        assert digest == made
        assert (mean, spread) == pytest.approx((made_mean, made_spread), abs=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_batches_of_words_are_the_same_each_time(work: Path, batches: dict[str, list[tuple[str, float, float]]], name: str) -> None:
    assert drawn(work, name) == batches[name]
    assert batches[name][0] != batches[name][1]
