"""Rebuilds mflamingo_cli/measure/weights/musicnn.npz from the published wheel; runs by hand, needs no TensorFlow.

    pip download --no-deps musicnn==0.1.0
    python -m tests.measure.convert_musicnn musicnn-0.1.0-*.whl

Its checkpoints are TensorFlow tensor bundles: a sorted table of LevelDB that says where in a data file each tensor lies. Normalisations
become a scale and a shift, float32; matrices are stored as float16 in torch's order.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from typing import Any

import numpy as np

from mflamingo_cli.measure.tagging import NETWORKS
from tests.measure.convert_weights import OUT

TABLE_MAGIC = 0xDB4775248B80FB57  # of LevelDB's sorted tables
BATCH_NORM_EPS = 1e-3  # of tf.layers.batch_normalization
FRONTS = [f"fronts.{i}" for i in range(5)]
NORMS = ["norm", *(f"{front}.norm" for front in FRONTS), *(f"norms.{i}" for i in range(3)), "flat_norm", "dense_norm"]
CONVS = [f"{front}.conv" for front in FRONTS] + [f"convs.{i}" for i in range(3)]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a base-128 number: -> value, next position."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _message(data: bytes) -> dict[int, list[Any]]:
    """Fields of a protocol-buffer message by number, each a list of numbers or bytes."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: Any
        if (wire := key & 7) == 0:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value, at = data[at : at + size], at + size
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _block(table: bytes, offset: int, size: int) -> list[tuple[bytes, bytes]]:
    """Entries of one uncompressed block of a sorted table, whose keys share prefixes."""
    assert table[offset + size] == 0, "a compressed block"
    data = table[offset : offset + size]
    end = size - 4 * (struct.unpack_from("<I", data, size - 4)[0] + 1)
    entries, at, key = [], 0, b""
    while at < end:
        shared, at = _varint(data, at)
        rest, at = _varint(data, at)
        length, at = _varint(data, at)
        key = key[:shared] + data[at : at + rest]
        entries.append((key, data[at + rest : at + rest + length]))
        at += rest + length
    return entries


def read_bundle(table: bytes, data: bytes) -> dict[str, np.ndarray]:
    """All float32 tensors of a TensorFlow checkpoint, without the optimizer's, from its `.index` and its data file."""
    assert struct.unpack("<Q", table[-8:])[0] == TABLE_MAGIC, "not the index of a checkpoint"
    numbers, at = [], 0
    for _ in range(4):  # offset and size of the meta index, then of the index
        number, at = _varint(table[-48:], at)
        numbers.append(number)
    tensors = {}
    for _, place in _block(table, *numbers[2:]):
        offset, at = _varint(place, 0)
        for key, value in _block(table, offset, _varint(place, at)[0]):
            entry = _message(value)
            if not key or "/Adam" in key.decode() or entry.get(1) != [1]:  # DT_FLOAT
                continue
            shape = [_message(dim).get(1, [0])[0] for dim in _message(entry.get(2, [b""])[0]).get(2, [])]
            start = entry.get(4, [0])[0]
            tensors[key.decode()] = np.frombuffer(data[start : start + entry[5][0]], "<f4").reshape(shape)
    return tensors


def variable(kind: str, number: int) -> str:
    """TensorFlow's name of the n-th layer of a kind."""
    return kind + (f"_{number}" if number else "")


def state_of(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of `TagNetwork` from the variables of a checkpoint, which TensorFlow numbers in the order of their making."""
    state = {}
    for number, norm in enumerate(NORMS):
        name = variable("batch_normalization", number)
        scale = tensors[f"{name}/gamma"] / np.sqrt(tensors[f"{name}/moving_variance"] + BATCH_NORM_EPS)
        state |= {f"{norm}.scale": scale, f"{norm}.shift": tensors[f"{name}/beta"] - tensors[f"{name}/moving_mean"] * scale}
    for number, conv in enumerate(CONVS):
        name = variable("conv2d", number)
        kernel = tensors[f"{name}/kernel"]  # (time, bands, in, out); the middle ones see channels as bands
        state[f"{conv}.weight"] = kernel.transpose(3, 2, 0, 1) if conv in CONVS[:5] else kernel[:, :, 0].transpose(2, 1, 0)
        state[f"{conv}.bias"] = tensors[f"{name}/bias"]
    for name, layer in (("dense", "dense"), ("dense_1", "head")):
        state |= {f"{layer}.weight": tensors[f"{name}/kernel"].T, f"{layer}.bias": tensors[f"{name}/bias"]}
    return state


def main() -> None:
    """Convert the wheel named on the command line."""
    arrays = {}
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for network in NETWORKS:
            table, data = (wheel.read(f"musicnn/{network}/{part}") for part in (".index", ".data-00000-of-00001"))
            for name, value in state_of(read_bundle(table, data)).items():
                arrays[f"{network}/{name}"] = np.ascontiguousarray(value, np.float16 if value.ndim > 1 else np.float32)
    np.savez_compressed(OUT / "musicnn.npz", **arrays)


if __name__ == "__main__":
    main()
