"""Reads a GGUF pair back: names, shapes, types, and each tensor's error against the checkpoint it came from.

Errors are relative: root mean square of the difference over root mean square of the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path

import numpy as np

from quant import encoding, heads, layout
from quant.checkpoint import Checkpoint
from quant.errors import QuantError
from quant.layout import AUDIO_PREFIX, PARTS, Part
from quant.pair import Pair, read_pair
from quant.reader import GgufFile

BLOCK_WEIGHTS = 1 << 22


@dataclass(frozen=True)
class TensorReport:
    """One tensor as it is stored; `problem` is a sentence, or None when all is well."""

    file: Path
    name: str
    shape: tuple[int, ...]  # rows first
    type: str
    n_bytes: int | None
    error: float | None = None  # against the checkpoint, where one was given
    power: float | None = None  # sum of the checkpoint's squared weights, where there is an error
    problem: str | None = None


@dataclass(frozen=True)
class TypeReport:
    """All tensors of a file that are stored in one type: their error together, and the tensor that has the largest."""

    file: Path
    type: str
    n_tensors: int
    n_bytes: int
    error: float | None = None  # None where nothing was compared
    largest: float | None = None
    worst: str | None = None  # name of that tensor; None where all are exact


def by_type(reports: Iterable[TensorReport]) -> list[TypeReport]:
    """Sum reports up by file and type, in the order of their first tensors."""
    groups: dict[tuple[Path, str], list[TensorReport]] = {}
    for report in reports:
        if report.n_bytes is not None:
            groups.setdefault((report.file, report.type), []).append(report)
    return [_together(file, type_name, group) for (file, type_name), group in groups.items()]


def _together(file: Path, type_name: str, group: list[TensorReport]) -> TypeReport:
    n_bytes = sum(report.n_bytes or 0 for report in group)
    known = [(report.error, report.power, report.name) for report in group if report.error is not None and report.power is not None]
    if not known:
        return TypeReport(file, type_name, len(group), n_bytes)
    power = sum(power for _, power, _ in known)
    error = sqrt(sum(error**2 * power for error, power, _ in known if power) / power) if power else 0.0
    largest, _, worst = max(known, key=lambda one: one[0])
    return TypeReport(file, type_name, len(group), n_bytes, error, largest, worst if largest else None)


def verify(path: Path, against: Path | None = None) -> Iterator[TensorReport]:
    """Check every GGUF pair in a directory, or the pair of one text file, against its own keys and, if given, a checkpoint.

    Raises QuantError when there is no pair or a file cannot be read at all; what is wrong with single tensors is in the reports.
    """
    checkpoint = Checkpoint(against) if against else None
    for text_file in _text_files(path):
        pair = read_pair(text_file, layout.audio_file(text_file))
        for part in PARTS:
            yield from _check_part(pair, part, checkpoint)


def _text_files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.glob("*.gguf") if not file.name.startswith(AUDIO_PREFIX))
        if not found:
            raise QuantError(f"{path}: no GGUF files found; `mflamingo models convert` makes them")
        return found
    if not path.is_file():
        raise QuantError(f"{path}: no such file or directory")
    return [path]


def _check_part(pair: Pair, part: Part, checkpoint: Checkpoint | None) -> Iterator[TensorReport]:
    file, problems = pair.file(part), dict(pair.problems(part))
    wanted = {tensor.gguf: tensor for tensor in pair.tensors(part)}
    for name, tensor in wanted.items():
        if name not in file.tensors:
            yield TensorReport(file.path, name, tensor.gguf_shape, "-", None, problem=problems[name])
        elif name in problems or file.tensors[name].storage is None:
            yield _report(file, name, problem=problems.get(name))
        else:
            yield _report(file, name, *_compare(file, tensor, checkpoint))
    yield from (_report(file, name, problem=problems[name]) for name in file.tensors if name not in wanted)


def _report(file: GgufFile, name: str, error: float | None = None, power: float | None = None, problem: str | None = None) -> TensorReport:
    stored = file.tensors[name]
    return TensorReport(file.path, name, stored.shape, stored.type_name, stored.n_bytes, error, power, problem)


def _compare(file: GgufFile, tensor: layout.Tensor, checkpoint: Checkpoint | None) -> tuple[float | None, float | None, str | None]:
    """Decode a tensor block by block -> (relative error, sum of squared weights, problem)."""
    storage = file.tensors[tensor.gguf].storage
    assert storage is not None
    if checkpoint is not None:
        entry = checkpoint.entries.get(tensor.hf)
        if entry is None or entry.shape != tensor.shape:
            return None, None, f"has no counterpart of shape {list(tensor.shape)} in {checkpoint.directory}"
    difference = reference = 0.0
    row, together = tensor.gguf_shape[-1], tensor.d_head or 1
    for first, data in file.blocks(tensor.gguf, max(1, BLOCK_WEIGHTS // (together * row)) * together):
        values = encoding.decode(np.frombuffer(data, np.uint8), storage)
        if not np.isfinite(values).all():
            return inf, None, "contains NaN or infinite weights"
        if checkpoint is not None:
            source = checkpoint.weights(tensor.hf, first * row, values.size)
            if tensor.d_head:
                source = heads.to_pairs(source.reshape(-1, row), tensor.d_head).ravel()
            difference += float(np.square(values - source, dtype=np.float64).sum())
            reference += float(np.square(source, dtype=np.float64).sum())
    if checkpoint is None:
        return None, None, None
    error = sqrt(difference / reference) if reference else (inf if difference else 0.0)
    limit = storage.max_error
    problem = f"differs from the checkpoint by {error:.2g}, more than the {limit:.2g} of {storage.name}" if error > limit else None
    return error, reference, problem
