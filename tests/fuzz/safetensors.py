"""Broken checkpoints in a hub cache: headers of weights and every JSON file; listed, shown, converted, opened in torch."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random

from quant.errors import MFlamingoError
from tests.fuzz import numbers

HOME = Path("models--some--model") / "snapshots" / ("0" * 40)  # in a hub cache


def make_seeds(folder: Path) -> None:
    """Random models: in one file, in shards as they are published, of the preview's layout, in FP8."""
    from tests import checkpoints

    single = checkpoints.write(folder / "single" / HOME, "musicflamingo")
    checkpoints.publish(folder / "shards" / HOME, "2601")
    checkpoints.publish(folder / "preview" / HOME, "preview")
    quantized, _ = checkpoints.write_fp8(single, folder / "made", "channel")
    shutil.copytree(quantized, folder / "fp8" / HOME)
    shutil.rmtree(folder / "made")


def mutate(rng: Random, seeds: Path, folder: Path) -> Path:
    """Break one or two files of a checkpoint; the others are links, as in the cache."""
    seed, place = rng.choice(sorted(seeds.iterdir())), folder / HOME
    place.mkdir(parents=True)
    files = sorted((seed / HOME).iterdir())
    weights = [file for file in files if file.suffix == ".safetensors"]
    broken = [rng.choice(weights) if rng.random() < 0.5 else rng.choice(files) for _ in range(rng.choice((1, 1, 1, 2)))]
    for file in files:
        if file not in broken:
            (place / file.name).symlink_to(file)
        elif rng.random() < 0.97:  # else it is missing
            (place / file.name).write_bytes(_broken(rng, file))
    return folder


def run(path: Path) -> None:
    """`models list`, `models info`, `models convert`, then a song and a question in torch."""
    from mflamingo_cli.backends import find_model, open_backend
    from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
    from mflamingo_cli.commands.models.info import describe
    from mflamingo_cli.models import registry
    from quant.convert import convert
    from tests.clips import audio

    os.environ["HF_HUB_CACHE"] = str(path)
    registry.listed()
    model = path / HOME
    with suppress(MFlamingoError):
        describe(find_model(str(model)))
    with tempfile.TemporaryDirectory() as folder, suppress(MFlamingoError):
        convert(model, Path(folder), "Q8_0")
    with open_backend(str(model), OpenOptions(backend="torch", device="cpu", threads=1)) as backend:
        [encoded] = backend.encode([audio(1.5)])
        complete(backend, encoded, [Prompt("Key?")], GenerateOptions(max_new_tokens=3))


def _broken(rng: Random, file: Path) -> bytes:
    data = file.read_bytes()
    if rng.random() < 0.15:
        return numbers.scattered(rng, data)
    if file.suffix == ".json":
        return numbers.json_text(rng, data.decode()).encode("utf-8", "surrogatepass")
    if file.suffix != ".safetensors":
        return numbers.scattered(rng, data)
    (length,) = struct.unpack_from("<Q", data)
    if rng.random() < 0.1:  # weights: NaN, infinity, whatever
        found = bytearray(data)
        for _ in range(rng.choice((1, 100, 10_000))):
            at = rng.randrange(8 + length, len(found) - 4) & ~3
            found[at : at + 4] = rng.choice((b"\x00\x00\xc0\x7f", b"\xc0\x7f\xc0\x7f", rng.randbytes(4)))
        return bytes(found)
    header = numbers.json_text(rng, data[8 : 8 + length].decode()).encode("utf-8", "surrogatepass")
    said = numbers.integer(rng, len(header)) % (1 << 64) if rng.random() < 0.05 else len(header)
    return struct.pack("<Q", said) + header + data[8 + length :]
