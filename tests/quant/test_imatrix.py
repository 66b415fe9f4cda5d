"""Importance matrices: the two formats, what is done with them, and what is refused."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest

from quant import encoding, imatrix, layout, reader, types
from quant.convert import convert
from quant.errors import QuantError
from quant.imatrix import Imatrix, Sums
from quant.types import TYPES
from quant.verify import verify
from tests.quant.test_convert import contents

N_TOKENS = 700
WEIGHED = [mix.name for mix in TYPES.values() if mix.base in types.WEIGHED]


def collected(checkpoint: Path, scratch: Path) -> dict[str, Sums]:
    """Sums of a model that uses some columns much, most a little and one never."""
    text, _ = convert(checkpoint, scratch, "F16")
    rng = np.random.default_rng(3)
    entries = {}
    for name, tensor in reader.read(text).tensors.items():
        if name.startswith("blk.") and name.endswith(".weight") and len(tensor.shape) == 2:
            squares = np.exp(rng.normal(0.0, 2.0, tensor.shape[-1]))
            squares[5] = 0.0
            entries[name] = Sums(squares * N_TOKENS, N_TOKENS)
    return entries


@pytest.fixture(scope="module", params=["k_quant", "music"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Sums]]:
    """A checkpoint, an importance matrix of it, and the sums in it."""
    checkpoint = request.getfixturevalue(request.param)
    scratch = tmp_path_factory.mktemp("imatrix")
    entries = collected(checkpoint, scratch)
    imatrix.write(scratch / "songs.imatrix.gguf", entries, ["a.flac", "b.flac"])
    return checkpoint, scratch / "songs.imatrix.gguf", entries


def llama_quantize(source: Path, target: Path, file_type: int, weights: Imatrix) -> None:
    """What llama-quantize does with --imatrix."""
    entries = (llama_cpp.llama_model_imatrix_data * (len(weights.means) + 1))()
    for entry, (name, mean) in zip(entries, weights.means.items(), strict=False):
        values = np.ascontiguousarray(mean, np.float32)
        entry.name, entry.size = name.encode(), values.size
        entry.data = (ctypes.c_float * values.size)(*values)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.imatrix = file_type, 1, entries
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("type_name", WEIGHED)
def test_weighed_text_part_equals_llama_quantize_bit_by_bit(
    type_name: str, model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path
) -> None:
    checkpoint, file, _ = model
    full, _ = convert(checkpoint, tmp_path, "F32")
    plain, _ = convert(checkpoint, tmp_path / "plain", type_name)
    ours, audio = convert(checkpoint, tmp_path, type_name, imatrix=file)
    llama_quantize(full, tmp_path / "theirs.gguf", TYPES[type_name].file_type, imatrix.read(file))
    assert contents(ours) == contents(tmp_path / "theirs.gguf")
    has_use = any(tensor.storage in types.WEIGHED for tensor in reader.read(ours).tensors.values())
    assert has_use == (contents(ours) != contents(plain))  # rows too short for Q6_K are stored in Q8_0
    assert contents(audio) == contents(next((tmp_path / "plain").glob("mmproj-*")))  # what nothing was collected of


def test_the_error_that_counts_becomes_smaller(model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path) -> None:
    """Of a matrix's results: the squared error of each column times how strongly that column is driven."""
    checkpoint, file, _ = model
    means = imatrix.read(file).means
    assert len(means) >= 7  # the matrices of a layer
    exact, plain, weighed = (
        reader.read(convert(checkpoint, tmp_path / name, type_name, imatrix=weights)[0])
        for name, type_name, weights in (("exact", "F32", None), ("plain", "Q3_K_M", None), ("weighed", "Q3_K_M", file))
    )
    for name, mean in means.items():
        errors = [float((np.square(values(made, name) - values(exact, name)) * mean).sum()) for made in (plain, weighed)]
        assert errors[1] < errors[0], name


def values(file: reader.GgufFile, name: str) -> np.ndarray:
    (_, data), = file.blocks(name, 1 << 20)  # fmt: skip
    tensor = file.tensors[name]
    assert tensor.storage is not None
    return encoding.decode(np.frombuffer(data, np.uint8), tensor.storage).reshape(tensor.shape)


@pytest.mark.slow
def test_weighed_files_verify(model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path) -> None:
    checkpoint, file, _ = model
    for type_name in WEIGHED:
        convert(checkpoint, tmp_path / type_name, type_name, imatrix=file)
        assert [report.problem for report in verify(tmp_path / type_name, against=checkpoint) if report.problem] == []


def test_file_is_what_llama_imatrix_writes(model: tuple[Path, Path, dict[str, Sums]]) -> None:
    _, file, entries = model
    stored = gguf.GGUFReader(file)
    assert stored.get_field("general.type").contents() == "imatrix"
    assert stored.get_field("imatrix.datasets").contents() == ["a.flac", "b.flac"]
    assert stored.get_field("imatrix.chunk_count").contents() == 2  # 700 tokens in chunks of 512
    assert stored.get_field("imatrix.chunk_size").contents() == 512
    tensors = {tensor.name: tensor for tensor in stored.tensors}
    assert list(tensors) == [name + suffix for name in sorted(entries) for suffix in (".in_sum2", ".counts")]
    for name, entry in entries.items():
        np.testing.assert_array_equal(tensors[name + ".in_sum2"].data, entry.squares.astype(np.float32))
        np.testing.assert_array_equal(tensors[name + ".counts"].data, [N_TOKENS])
        assert tensors[name + ".in_sum2"].tensor_type is gguf.GGMLQuantizationType.F32


def test_means_are_sums_over_tokens(model: tuple[Path, Path, dict[str, Sums]]) -> None:
    _, file, entries = model
    means = imatrix.read(file).means
    assert means.keys() == entries.keys()
    for name, entry in entries.items():
        np.testing.assert_allclose(means[name], entry.squares / N_TOKENS, rtol=1e-6)


def old_format(path: Path, means: dict[str, np.ndarray], n_calls: int, *, tail: bytes) -> Path:
    data = struct.pack("<i", len(means))
    for name, mean in means.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", n_calls, mean.size)
        data += (mean * n_calls).astype("<f4").tobytes()
    path.write_bytes(data + tail)
    return path


@pytest.mark.parametrize(
    ("tail", "datasets", "n_chunks"), [(b"", (), 0), (struct.pack("<i", 9), (), 9), (struct.pack("<ii3s", 9, 3, b"wav"), ("wav",), 9)]
)
def test_older_format_says_the_same(
    tail: bytes, datasets: tuple[str, ...], n_chunks: int, model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path
) -> None:
    new = imatrix.read(model[1])
    old = imatrix.read(old_format(tmp_path / "imatrix.dat", dict(new.means), 4, tail=tail))
    assert (old.datasets, old.n_chunks) == (datasets, n_chunks)
    assert old.means.keys() == new.means.keys()
    for name, mean in new.means.items():
        np.testing.assert_array_equal(old.means[name], mean)  # a power of two changes no digit


def test_the_file_says_what_it_was_made_with(model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path) -> None:
    checkpoint, file, entries = model
    text, audio = convert(checkpoint, tmp_path, "Q4_K_M", imatrix=file)
    keys = {key: value for key, value in reader.read(text).keys.items() if key.startswith("quantize.")}
    assert keys == {
        "quantize.imatrix.file": "songs.imatrix.gguf",
        "quantize.imatrix.dataset": "a.flac",
        "quantize.imatrix.entries_count": len(entries),
        "quantize.imatrix.chunks_count": 2,
    }
    assert not any(key.startswith("quantize.") for key in reader.read(audio).keys)


def refused(checkpoint: Path, file: Path, message: str, out: Path, type_name: str = "Q4_K_M") -> None:
    with pytest.raises(QuantError, match=message):
        convert(checkpoint, out, type_name, imatrix=file)
    assert not out.exists()


def test_matrices_of_other_models_are_refused(model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path) -> None:
    checkpoint, _, entries = model
    name = "blk.1.ffn_down.weight"
    n_columns = entries[name].squares.size
    changes = {
        r"one has no blk\.99\.attn_q\.weight$": entries | {"blk.99.attn_q.weight": entries[name]},
        rf"{name} has {n_columns} columns here and 3 there": entries | {name: Sums(np.ones(3), 1)},
        rf"lacks {name}; compute it again": {key: entry for key, entry in entries.items() if key != name},
    }
    for message, changed in changes.items():
        imatrix.write(tmp_path / "other.gguf", changed, [])
        refused(checkpoint, tmp_path / "other.gguf", message, tmp_path / "out")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_values_that_are_no_squares_are_refused(bad: float, model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path) -> None:
    checkpoint, _, entries = model
    name = "blk.0.attn_k.weight"
    squares = entries[name].squares.copy()
    squares[0] = bad
    imatrix.write(tmp_path / "bad.gguf", entries | {name: Sums(squares, 5)}, [])
    refused(checkpoint, tmp_path / "bad.gguf", rf"{name} contains values that cannot be sums of squares", tmp_path / "out")


def test_a_matrix_that_nothing_reached_is_refused(model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path) -> None:
    checkpoint, _, entries = model
    name = "blk.1.ffn_up.weight"
    imatrix.write(tmp_path / "zero.gguf", entries | {name: Sums(0 * entries[name].squares, 5)}, [])
    refused(checkpoint, tmp_path / "zero.gguf", f"no inputs reached {name}", tmp_path / "out")


def test_files_that_are_no_importance_matrix_are_refused(model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path) -> None:
    checkpoint, file, _ = model
    text, _ = convert(checkpoint, tmp_path / "pair", "F16")
    whole = old_format(tmp_path / "whole.dat", dict(imatrix.read(file).means), 4, tail=b"").read_bytes()
    bad = {
        "empty": (b"", "not an importance matrix, or cut short"),
        "prose": (b"a song about an importance matrix", "not an importance matrix, or cut short"),
        "none": (struct.pack("<i", 0), "contains no importance matrix"),
        "cut": (whole[:-9], "not an importance matrix, or cut short"),
        "model": (text.read_bytes(), "not an importance matrix; "),
        "half": (file.read_bytes()[:-64], "cut short"),
    }
    for name, (data, message) in bad.items():
        (tmp_path / name).write_bytes(data)
        refused(checkpoint, tmp_path / name, message, tmp_path / "out")
    refused(checkpoint, tmp_path / "nowhere", "No such file", tmp_path / "out")
    refused(checkpoint, file, "Q8_0 does not use an importance matrix", tmp_path / "out", "Q8_0")


def test_sums_without_counts_are_refused(model: tuple[Path, Path, dict[str, Sums]], tmp_path: Path) -> None:
    checkpoint, file, _ = model
    data = file.read_bytes().replace(b"blk.0.attn_k.weight.counts", b"blk.0.attn_k.weight.xounts")
    (tmp_path / "odd.gguf").write_bytes(data)
    refused(checkpoint, tmp_path / "odd.gguf", r"blk\.0\.attn_k\.weight has sums without a count", tmp_path / "out")


def test_a_matrix_that_no_token_reached_weighs_all_columns_the_same(tmp_path: Path) -> None:
    imatrix.write(tmp_path / "few.gguf", {"blk.0.attn_q.weight": Sums(np.zeros(8), 0)}, [])
    np.testing.assert_array_equal(imatrix.read(tmp_path / "few.gguf").means["blk.0.attn_q.weight"], np.ones(8, np.float32))


def test_nothing_is_left_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(QuantError, match="No such file or directory"):
        imatrix.write(tmp_path / "nowhere" / "x.gguf", {"blk.0.attn_q.weight": Sums(np.ones(8), 1)}, [])
    assert list(tmp_path.iterdir()) == []


def test_only_matrices_of_layers_are_weighed() -> None:
    weighed = {rule.gguf for rule in layout.TENSORS["text"] if rule.role in imatrix.WEIGHED_ROLES}
    assert {name.removeprefix("blk.{}.").removesuffix(".weight") for name in weighed} == {
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
    }  # fmt: skip
