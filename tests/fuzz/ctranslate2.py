"""Broken CTranslate2 files of a Whisper model: heads of variables, aliases, weights, any byte; read as `train run small` reads one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from tests.fuzz import numbers
from tests.quant.ct2_files import content, whisper

SIZES = {"d_audio": 4, "ffn_audio": 8, "n_positions": 6, "n_mels": 2}  # so small that most of a file is heads


def make_seeds(folder: Path) -> None:
    """Whole models of one layer and of three, with an alias and without."""
    from quant.layout import AUDIO, TENSORS, expand

    rng = np.random.default_rng(0)
    for n_layers in (1, 3):
        tensors = expand("audio", TENSORS["audio"], SIZES, n_layers)
        weights = {tensor.hf.removeprefix(f"{AUDIO}."): rng.normal(size=tensor.shape).astype(np.float32) for tensor in tensors}
        aliases = [("decoder/x", "encoder/conv1/bias")] if n_layers == 1 else []
        (folder / f"{n_layers}.bin").write_bytes(content(whisper(weights, n_layers, 2).items(), aliases))


def mutate(rng: Random, seeds: Path, folder: Path) -> Path:
    """Change one file once or a few times."""
    data = rng.choice(sorted(seeds.iterdir())).read_bytes()
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        data = _number_changed(rng, data) if rng.random() < 0.3 and len(data) > 8 else numbers.scattered(rng, data)
    path = folder / "model.bin"
    path.write_bytes(data)
    return path


def run(path: Path) -> None:
    """Read the encoder."""
    from mflamingo_cli.train.small.whisper import read_encoder

    read_encoder(path)


def _number_changed(rng: Random, data: bytes) -> bytes:
    """A length, an extent or a count at the end of some range."""
    size = rng.choice((1, 2, 4))
    at = rng.randrange(len(data) - size)
    old = int.from_bytes(data[at : at + size], "little")
    return data[:at] + (numbers.integer(rng, old) % (1 << 8 * size)).to_bytes(size, "little") + data[at + size :]
