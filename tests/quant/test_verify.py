"""Reading a pair back."""

from __future__ import annotations

import shutil
from math import isinf, prod
from pathlib import Path

import numpy as np
import pytest

from quant import config, encoding, layout, reader, types
from quant.checkpoint import Checkpoint
from quant.convert import convert
from quant.errors import QuantError
from quant.types import TYPES
from quant.verify import TensorReport, by_type, verify


@pytest.fixture
def pair(music: Path, tmp_path: Path) -> tuple[Path, Path]:
    return convert(music, tmp_path, "Q8_0")


def overwrite(path: Path, tensor: str, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(reader.read(path).tensors[tensor].offset)
        file.write(data)


def problems(reports: list[TensorReport]) -> dict[str, str]:
    return {report.name: report.problem for report in reports if report.problem}


@pytest.mark.parametrize("type_name", TYPES)
def test_what_was_converted_verifies(type_name: str, k_quant: Path, tmp_path: Path) -> None:
    text, audio = convert(k_quant, tmp_path, type_name)
    reports = list(verify(tmp_path, against=k_quant))
    assert problems(reports) == {}
    assert len(reports) == sum(len(reader.read(path).tensors) for path in (text, audio))
    errors = {report.type: report.error for report in reports if report.error}
    assert errors.keys() == {report.type for report in reports} - {"F32"}  # stored exactly


def test_a_changed_weight_is_found(pair: tuple[Path, Path], music: Path, tmp_path: Path) -> None:
    overwrite(pair[1], "mm.a.mlp.1.bias", bytes(4))
    assert "differs from the checkpoint" in problems(verify(tmp_path, against=music))["mm.a.mlp.1.bias"]
    assert problems(verify(tmp_path)) == {}  # the file by itself is sound


def test_nan_is_found_without_the_checkpoint(pair: tuple[Path, Path], tmp_path: Path) -> None:
    overwrite(pair[0], "blk.0.attn_norm.weight", b"\xff\xff\xff\x7f")
    (report,) = [report for report in verify(tmp_path) if report.problem]
    assert (report.name, report.problem) == ("blk.0.attn_norm.weight", "contains NaN or infinite weights")
    assert report.error is not None
    assert isinf(report.error)


def test_the_wrong_checkpoint_is_noticed(preview: Path, tmp_path: Path, music: Path) -> None:
    convert(music, tmp_path, "Q8_0")
    assert len(problems(verify(tmp_path, against=preview))) > 10


def test_a_pair_of_two_models_is_refused(pair: tuple[Path, Path], k_quant: Path, tmp_path: Path) -> None:
    _, other = convert(k_quant, tmp_path / "other", "Q8_0")
    shutil.copy(other, pair[1])
    with pytest.raises(QuantError, match="made for another language model"):
        list(verify(tmp_path))


def test_renamed_tensors_are_missing_and_extra(pair: tuple[Path, Path], tmp_path: Path) -> None:
    data = pair[1].read_bytes()
    pair[1].write_bytes(data.replace(b"mm.a.mlp.2.bias", b"mm.a.mlp.3.bias"))
    assert problems(verify(tmp_path)) == {"mm.a.mlp.2.bias": "is missing", "mm.a.mlp.3.bias": "is not part of this architecture"}


@pytest.mark.parametrize("kept", [2, 100, 5000, -100])
def test_cut_files_are_refused(pair: tuple[Path, Path], kept: int) -> None:
    pair[0].write_bytes(pair[0].read_bytes()[:kept])
    with pytest.raises(QuantError, match=r"cut short|not a GGUF file"):
        list(verify(pair[0]))


def test_directories_without_a_pair_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantError, match="no GGUF files"):
        list(verify(tmp_path))
    with pytest.raises(QuantError, match="no such file"):
        list(verify(tmp_path / "nothing.gguf"))


def test_reports_come_one_by_one(pair: tuple[Path, Path]) -> None:
    assert next(verify(pair[0])).file == pair[0]


def test_types_are_summed_up_with_their_worst_tensor(k_quant: Path, tmp_path: Path) -> None:
    text, audio = convert(k_quant, tmp_path, "Q4_K_M")
    reports = list(verify(tmp_path, against=k_quant))
    found = {(one.file, one.type): one for one in by_type(reports)}
    assert found.keys() == {(text, "Q4_K"), (text, "Q6_K"), (text, "F32"), (audio, "Q8_0"), (audio, "F32")}
    for (file, type_name), one in found.items():
        group = [report for report in reports if (report.file, report.type) == (file, type_name)]
        assert one.n_tensors == len(group)
        assert one.n_bytes == sum(report.n_bytes or 0 for report in group)
        worst = max(group, key=lambda report: report.error or 0.0)
        assert one.largest == worst.error
        assert one.worst == (worst.name if worst.error else None)
    weights, stored = [], []  # the error of a type is that of all its weights as one
    checkpoint, file = Checkpoint(k_quant), reader.read(text)
    for tensor in layout.tensors("text", config.read_geometry(k_quant)):
        if file.tensors[tensor.gguf].storage is types.Q4_K:
            weights.append(checkpoint.weights(tensor.hf, 0, prod(tensor.shape)))
            stored.append(encoding.decode(np.frombuffer(next(file.blocks(tensor.gguf, 1 << 20))[1], np.uint8), types.Q4_K))
    difference, reference = np.concatenate(stored) - np.concatenate(weights), np.concatenate(weights)
    expected = np.sqrt(np.square(difference, dtype=np.float64).sum() / np.square(reference, dtype=np.float64).sum())
    assert found[text, "Q4_K"].error == pytest.approx(expected, rel=1e-9)


def test_without_a_checkpoint_types_have_no_error(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert {(one.error, one.largest, one.worst) for one in by_type(verify(tmp_path))} == {(None, None, None)}
