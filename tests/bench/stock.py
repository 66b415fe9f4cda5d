"""Beside stock llama.cpp, on the same weights and songs: conversion, one question, eight questions; not a test, run by hand.

    python -m tests.bench.fullsize FOLDER --kind audioflamingo3 --audio-type F16
    python -m tests.bench.stock convert FOLDER/checkpoint WORK --sources DIR --tools DIR
    python -m tests.bench.stock ask PAIR --tools DIR [--seconds 60] [--tokens 32] [--questions 8] [--rounds 3] [--threads 2]

The preview's layout is the one that both run. `--sources` is vendor/llama.cpp of llama-cpp-python's source distribution, `--tools` the
folder of llama-mtmd-cli and llama-quantize built from it (cmake -DCMAKE_BUILD_TYPE=Release). Its converter gets told the pre-tokenizer,
which it knows of real vocabularies only. Both programs take turns; prints a table of medians and one JSON line. The physical limits
beside them are measured in the same run: products of bf16 matrices, and reading memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mflamingo_cli.backends import gguf
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, SongPrompts
from mflamingo_cli.backends.generation import PrefixGroup
from mflamingo_cli.backends.ggml.binding import library
from mflamingo_cli.core import audio
from quant.layout import audio_file
from tests.bench.fullsize import SONG, Cost, cost_of, measured
from tests.bench.limits import limits

QUESTIONS = (
    "What is the tempo of this song?", "In which key is it?", "Which chords do you hear?", "Describe the singing.",
    "Which instruments play?", "Name its genre.", "What is its mood?", "Describe this track in full detail.",
)  # fmt: skip
STOCK_CONVERTER = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
import convert_hf_to_gguf
del sys.argv[1]
convert_hf_to_gguf.main()
"""
STOCK_TIMES = {  # what llama-mtmd-cli says on stderr, summed; its own "prompt eval time" holds the encoding, too
    "encode_s": (r"audio slice encoded in (\d+) ms|mtmd batch encoding done in (\d+) ms", 1e-3),
    "read_ms": (r"audio decoded \(batch \d+/\d+\) in (\d+) ms", 1.0),
    "read_tokens": (r"decoding audio batch \d+/\d+, n_tokens_batch = (\d+)", 1.0),
    "write_ms": (r"\n.*?[^t] eval time = +([\d.]+) ms", 1.0),
    "write_tokens": (r"\n.*?[^t] eval time = .*? / +(\d+) runs", 1.0),
}


def convert(checkpoint: Path, work: Path, sources: Path, tools: Path, kind: str) -> dict[str, Any]:
    """Ours in one pass; theirs as text to BF16, that to `kind`, and the audio part to F16."""
    work.mkdir(parents=True, exist_ok=True)
    ours, _ = measured("models", "convert", checkpoint, "-o", work / "ours", "--type", kind, "--audio-type", "F16")
    whole, small, audio_part = work / "whole.gguf", work / "stock.gguf", work / "mmproj-stock.gguf"
    script = [sys.executable, "-c", STOCK_CONVERTER, str(sources), str(checkpoint)]
    steps = {
        "text to BF16": [*script, "--outtype", "bf16", "--outfile", str(whole)],
        f"BF16 to {kind}": [str(tools / "llama-quantize"), str(whole), str(small), kind, str(os.cpu_count())],
        "audio to F16": [*script, "--mmproj", "--outtype", "f16", "--outfile", str(audio_part)],
    }
    theirs = {name: cost_of(command)[0] for name, command in steps.items()}
    whole.unlink()
    total = Cost(
        sum(cost.seconds for cost in theirs.values()),
        sum(cost.processor_s for cost in theirs.values()),
        max(cost.peak_bytes for cost in theirs.values()),
    )
    for name, cost in {"mflamingo": ours, **theirs, "llama.cpp together": total}.items():
        print(f"{name:<20}{cost.seconds:>8.0f} s{cost.processor_s:>8.0f} s of processors{cost.peak_bytes / 1e9:>8.2f} GB at most")
    return {"mflamingo": vars(ours), "llama.cpp": {name: vars(cost) for name, cost in {**theirs, "together": total}.items()}}


class Watched(gguf.Context):
    """A context that adds up what reading and writing take."""

    times: dict[str, float]

    def prefill_prefix(self, sequence: int, group: PrefixGroup, *others: Any) -> None:
        """Timed."""
        self._timed("read", lambda: super(Watched, self).prefill_prefix(sequence, group, *others), group.n_shared)

    def prefill_prompts(self, prompts: Sequence[list[int]]) -> Any:
        """Timed."""
        return self._timed("read", lambda: super(Watched, self).prefill_prompts(prompts), sum(map(len, prompts)))

    def step(self, entries: list[tuple[int, int]]) -> Any:
        """Timed."""
        return self._timed("write", lambda: super(Watched, self).step(entries), len(entries))

    def _timed(self, name: str, work: Any, n_tokens: int) -> Any:
        began = time.perf_counter()
        result = work()
        self.times[f"{name}_ms"] = self.times.get(f"{name}_ms", 0.0) + 1e3 * (time.perf_counter() - began)
        self.times[f"{name}_tokens"] = self.times.get(f"{name}_tokens", 0.0) + n_tokens
        return result


def listen(pair: Path, song: Path, n_questions: int, n_tokens: int, threads: int) -> dict[str, float]:
    """Ours, in a process of its own: open, encode, answer all questions together."""
    began = time.perf_counter()
    Watched.times = {}
    gguf.Context = Watched  # type: ignore[misc]
    with gguf.GgufBackend(pair, audio_file(pair), OpenOptions(threads=threads)) as backend:
        heard = audio.load(str(song))
        at = time.perf_counter()
        [encoded] = backend.encode([heard])
        encode_s = time.perf_counter() - at
        prompts = [Prompt(question) for question in QUESTIONS[:n_questions]]
        for _ in backend.generate([SongPrompts(encoded, prompts)], GenerateOptions(max_new_tokens=n_tokens)):
            pass
    return {"encode_s": encode_s, "total_s": time.perf_counter() - began, **Watched.times}


def ours(pair: Path, song: Path, n_questions: int, options: argparse.Namespace) -> dict[str, float]:
    """`listen` as a whole process, with its start and its memory."""
    words = ["listen", pair, "--song", song, "--questions", n_questions, "--tokens", options.tokens, "--threads", options.threads]
    cost, printed = cost_of([sys.executable, "-m", "tests.bench.stock", *map(str, words)])
    found: dict[str, float] = json.loads(printed)
    return found | {"total_s": cost.seconds, "peak_gb": cost.peak_bytes / 1e9}


def theirs(pair: Path, song: Path, question: str, options: argparse.Namespace) -> dict[str, float]:
    """llama-mtmd-cli on the same pair and song, greedy, a context as long as it needs and no warm-up."""
    command = [options.tools / "llama-mtmd-cli", "-m", pair, "--mmproj", audio_file(pair), "--audio", song, "-p", question]
    numbers = ["-n", options.tokens, "-t", options.threads, "--temp", 0, "-c", options.context, "--no-warmup", "-b", 512, "-v"]
    with tempfile.TemporaryFile() as said:
        cost, _ = cost_of([str(word) for word in (*command, *numbers)], said)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    found = {name: scale * sum(float(next(filter(None, hit.groups()))) for hit in re.finditer(pattern, text))
             for name, (pattern, scale) in STOCK_TIMES.items()}  # fmt: skip
    return found | {"total_s": cost.seconds, "peak_gb": cost.peak_bytes / 1e9}


def ask(options: argparse.Namespace) -> dict[str, Any]:
    """Rounds of ours and theirs in turn; the questions one by one where the other has no other way."""
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / "song.wav"
        samples = audio.load(str(options.song), end_s=options.seconds).samples
        repeats = -(-int(options.seconds * audio.SAMPLE_RATE) // len(samples))
        soundfile.write(song, np.tile(samples, repeats)[: int(options.seconds * audio.SAMPLE_RATE)], audio.SAMPLE_RATE)
        options.context = int(options.seconds * 25) + 750 + 512 + options.tokens
        one = [(ours(options.pair, song, 1, options), theirs(options.pair, song, QUESTIONS[0], options)) for _ in range(options.rounds)]
        together = ours(options.pair, song, options.questions, options) if options.questions > 1 else {}
        alone = [theirs(options.pair, song, question, options) for question in QUESTIONS[: options.questions]] if together else []
    middle = [{key: statistics.median(run[key] for run in side) for key in side[0]} for side in zip(*one, strict=True)]
    found = {"mflamingo": speeds(middle[0]), "llama.cpp": speeds(middle[1])}
    print(f"{options.seconds:g} s of music, {options.tokens} tokens, {options.threads} threads, medians of {options.rounds}")
    for name in found["mflamingo"]:
        a, b = found["mflamingo"][name], found["llama.cpp"][name]
        ratio = a / b if name.endswith("per s") else b / a
        print(f"{name:<22}{a:>10.2f}{b:>12.2f}{ratio:>8.2f} x")
    if together:
        total = sum(run["total_s"] for run in alone)
        print(f"{f'{options.questions} questions, s':<22}{together['total_s']:>10.1f}{total:>12.1f}{total / together['total_s']:>8.2f} x")
        found |= {"questions": {"n": options.questions, "mflamingo": together["total_s"], "llama.cpp": total}}
    return found


def speeds(run: dict[str, float]) -> dict[str, float]:
    """What a reader compares: seconds, tokens per second, gigabytes."""
    return {
        "encode, s": run["encode_s"],
        "read, tokens per s": 1e3 * run["read_tokens"] / run["read_ms"],
        "write, tokens per s": 1e3 * run["write_tokens"] / run["write_ms"],
        "everything, s": run["total_s"],
        "peak, GB": run["peak_gb"],
    }


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("convert", "ask", "listen"))
    parser.add_argument("pair", type=Path, help="checkpoint directory, or text model of a pair")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--tools", type=Path)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--song", type=Path, default=SONG)
    for name, default in (("--tokens", 32), ("--questions", 8), ("--rounds", 3), ("--threads", 2)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    if options.what == "listen":
        print(json.dumps(listen(options.pair, options.song, options.questions, options.tokens, options.threads)))
        return
    found = convert(options.pair, options.work, options.sources, options.tools, options.type) if options.what == "convert" else ask(options)
    print(json.dumps(found | {"limits": limits(options.threads), "ggml": library().ggml_version().decode()}))


if __name__ == "__main__":
    main()
