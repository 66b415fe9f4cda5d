"""The real size on this machine: random weights in the shapes of the 2601 checkpoints, converted, then asked; not a test, run by hand.

    python -m tests.bench.fullsize FOLDER [--kind musicflamingo] [--fp8] [--type Q4_K_M] [--audio-type Q8_0] [--song FILE] [--seconds 60]
        [--tokens 32]

FOLDER takes 17 GB for the checkpoint and what the conversion writes; what is there already is used again. Names come from a twin of the
same depth that transformers saves, so nothing here knows them. Prints a table and one JSON line; seconds of a clock, peak memory of the
whole process, mapped files included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import safe_open

from tests import checkpoints

SONG = Path(__file__).parents[1] / "data" / "ocean.opus"
TWIN = checkpoints.Size(d_audio=80, audio_layers=32, audio_heads=20, d_text=112, text_layers=28, text_heads=28, kv_heads=4)
REAL = {
    80: 1280,
    320: 5120,
    112: 3584,
    224: 18944,
    16: 512,
    128: 128,
    3: 3,
    1500: 1500,
}  # the twin's extents, all different -> the real ones
VOCABULARY = 151_672
SHARD_BYTES = 4_200_000_000
BLOCK = 1 << 24  # random weights that are written again and again, from another place each time
SPREAD = 0.02
FP8_BLOCK = 128  # rows and columns that share a scale, as fine-grained FP8 has it
NORM, FP8_SCALE = np.uint16(0x3F80), np.uint16(0x3800)  # 1 and 2^-15 in bfloat16: norms, and what brings codes up to 448 near SPREAD


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: its name in safetensors, shape, and two bytes or one for each number."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "BF16"

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        return prod(self.shape) * (1 if self.dtype == "F8_E4M3" else 2)


def write(directory: Path, kind: str, *, fp8: bool = False) -> int:
    """Write the checkpoint of class `kind` in shards with an index, bf16, or the language model in FP8; the number of its parameters."""
    with tempfile.TemporaryDirectory() as folder:
        twin = checkpoints.write(Path(folder) / "twin", kind, TWIN)
        shapes = _shapes(twin)
        n_parameters = sum(map(prod, shapes.values()))
        if (directory / "model.safetensors.index.json").exists():
            return n_parameters
        directory.mkdir(parents=True, exist_ok=True)
        for path in twin.iterdir():
            if path.suffix != ".safetensors":
                (directory / path.name).write_bytes(path.read_bytes())
        config = _grown(json.loads((twin / "config.json").read_text()))
        if fp8:
            config["quantization_config"] = checkpoints.fine_grained((FP8_BLOCK, FP8_BLOCK))
        (directory / "config.json").write_text(json.dumps(config, indent=2))
    shards = list(_shards([part for name, shape in shapes.items() for part in _stored(name, shape, fp8)]))
    block = _block()
    index = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(directory / name, tensors, block)
        index |= {tensor.name: name for tensor in tensors}
    size = sum(tensor.n_bytes for tensors in shards for tensor in tensors)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": index}))
    return n_parameters


def _stored(name: str, shape: tuple[int, ...], fp8: bool) -> list[Tensor]:
    """A weight as it lies in the files: of the language model's layers in FP8 codes and their scales."""
    if not (fp8 and checkpoints.is_linear(name)):
        return [Tensor(name, shape)]
    scales = tuple(-(-extent // FP8_BLOCK) for extent in shape)
    return [Tensor(name, shape, "F8_E4M3"), Tensor(f"{name}_scale_inv", scales)]


def _shapes(twin: Path) -> dict[str, tuple[int, ...]]:
    vocabulary = json.loads((twin / "config.json").read_text())["text_config"]["vocab_size"]
    real = REAL | {vocabulary: VOCABULARY}
    assert len(real) == len(REAL) + 1, "every extent of the twin has one meaning"
    with safe_open(twin / "model.safetensors", "np") as file:
        return {name: tuple(real[extent] for extent in file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _grown(config: dict[str, Any]) -> dict[str, Any]:
    audio = {"hidden_size": 1280, "intermediate_size": 5120}
    text = {"hidden_size": 3584, "intermediate_size": 18944, "vocab_size": VOCABULARY}
    return config | {"audio_config": config["audio_config"] | audio, "text_config": config["text_config"] | text, "dtype": "bfloat16"}


def _shards(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    shard: list[Tensor] = []
    for tensor in tensors:
        if shard and sum(one.n_bytes for one in shard) + tensor.n_bytes > SHARD_BYTES:
            yield shard
            shard = []
        shard.append(tensor)
    yield shard


def _block() -> np.ndarray:
    """Normal numbers in bfloat16, twice over, so that any start has a whole block behind it."""
    normal = np.random.default_rng(0).standard_normal(BLOCK, dtype=np.float32) * np.float32(SPREAD)
    return np.tile((normal.view(np.uint32) >> 16).astype(np.uint16), 2)


def _write_shard(path: Path, tensors: list[Tensor], block: np.ndarray) -> None:
    header: dict[str, Any] = {}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, at + tensor.n_bytes]}
        at += tensor.n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(len(tensors))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            left = prod(tensor.shape)
            while left:
                count, start = min(left, BLOCK), int(rng.integers(BLOCK))
                file.write(_numbers(tensor, block[start : start + count]))
                left -= count


def _numbers(tensor: Tensor, random: np.ndarray) -> np.ndarray:
    """Random numbers as a tensor has them; norms are 1."""
    if tensor.dtype == "F8_E4M3":
        codes = random.astype(np.uint8)
        return np.where(codes & 0x7F == 0x7F, np.uint8(0), codes)  # which would be no number
    if tensor.name.endswith("_scale_inv"):
        return np.full(random.size, FP8_SCALE)
    is_norm = len(tensor.shape) == 1 and tensor.name.endswith("weight")
    return np.full(random.size, NORM) if is_norm else random


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds of a clock and of processors, peak memory in bytes."""

    seconds: float
    processor_s: float
    peak_bytes: int


def measured(*words: object) -> tuple[Cost, str]:
    """Run a command of this program; what it cost and printed."""
    return cost_of([sys.executable, "-m", "mflamingo_cli", *map(str, words)])


# Between this process and the command: a process that is started counts the memory of the one that starts it as its own
LAUNCH = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as report:
    json.dump([code, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024], report)
"""


def cost_of(command: list[str], stderr: IO[bytes] | None = None) -> tuple[Cost, str]:
    """Run any command; what it cost and printed."""
    with tempfile.TemporaryFile() as printed, tempfile.NamedTemporaryFile() as report:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-S", "-c", LAUNCH, report.name, *command], stdout=printed, stderr=stderr, check=True)
        seconds = time.perf_counter() - began
        code, processor_s, peak_bytes = json.load(report)
        printed.seek(0)
        if code:
            raise SystemExit(f"{command[0]} ended with {code}")
        return Cost(seconds, processor_s, peak_bytes), printed.read().decode("utf-8", "replace")


def main() -> None:
    """Write, convert, ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=("musicflamingo", "audioflamingo3"), default="musicflamingo", help="2601 or the preview")
    parser.add_argument("--fp8", action="store_true", help="the language model in fine-grained FP8")
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--audio-type")
    parser.add_argument("--song", type=Path, default=SONG)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    n_parameters = write(options.folder / "checkpoint", options.kind, fp8=options.fp8)
    converted = options.folder / options.type
    rows: list[tuple[str, Cost]] = []
    if not converted.exists():
        audio = ("--audio-type", options.audio_type) if options.audio_type else ()
        cost, _ = measured("models", "convert", options.folder / "checkpoint", "-o", converted, "--type", options.type, *audio)
        rows.append(("convert", cost))
    asked = ("ask", "What is the tempo of this song?", "-m", converted, "--json", "--no-cache", "--max-tokens", options.tokens)
    cost, printed = measured(*asked, "--end", options.seconds, options.song)
    rows.append(("ask", cost))
    record = json.loads(printed)
    sizes = {path.name: path.stat().st_size for path in sorted(converted.iterdir())}
    print(f"{n_parameters / 1e9:.2f} B parameters; " + ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in sizes.items()))
    for name, cost in rows:
        print(f"{name:<10}{cost.seconds:>8.0f} s{cost.processor_s:>8.0f} s of processors{cost.peak_bytes / 1e9:>8.2f} GB at most")
    print(f"encode {record['timing']['encode_s']} s, prompt and answer {record['timing']['generate_s']} s, {record['usage']}")
    found = {"parameters": n_parameters, "bytes": sizes, **{name: vars(cost) for name, cost in rows}}
    print(json.dumps(found | {"timing": record["timing"], "usage": record["usage"]}))


if __name__ == "__main__":
    main()
