"""A head that says of its own file what is not so."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from quant import reader
from quant.errors import QuantError
from quant.types import FOREIGN, NOT_WEIGHTS, STORAGES
from tests.gguf_files import Parts, Tensor, parts

F32, Q8_0 = 0, 8


def small() -> Parts:
    """A file with two tensors."""
    return Parts(
        [("general.name", ("s", "tiny")), ("a.count", ("I", 7)), ("a.list", ("[i", [1, -2])), ("a.texts", ("[s", ["x", "", "é"]))],
        [("first", Tensor.filled((2, 3), F32, b"\x01")), ("second", Tensor.filled((2, 32), Q8_0))],
    )


def head(*counts: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, *counts)


def test_a_file_put_together_is_read_as_it_is(tmp_path: Path) -> None:
    file = reader.read(small().write(tmp_path / "a.gguf"))
    assert file.keys == {"general.name": "tiny", "a.count": 7, "a.list": [1, -2], "a.texts": ["x", "", "é"]}
    assert file.types == {"general.name": "s", "a.count": "I", "a.list": "[i", "a.texts": "[s"}
    assert [(one.shape, one.type_name, one.n_bytes) for one in file.tensors.values()] == [((2, 3), "F32", 24), ((2, 32), "Q8_0", 68)]
    assert file.tensors["second"].offset == file.tensors["first"].offset + 32
    assert parts(file.path).bytes() == file.path.read_bytes()


@pytest.mark.parametrize("number", FOREIGN)
def test_types_that_only_others_write_have_their_sizes(number: int) -> None:
    kind = gguf.GGMLQuantizationType(number)
    assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (FOREIGN[number].name, (FOREIGN[number].block, FOREIGN[number].block_bytes))
    assert number not in STORAGES


def test_what_is_multiplied_by_nothing_is_foreign() -> None:
    assert {kind.name for kind in FOREIGN.values()} >= NOT_WEIGHTS


CHANGES: dict[str, tuple[Callable[[Parts], object], str]] = {
    "version": (lambda file: setattr(file, "version", 9), "GGUF version 9 is not supported"),
    "twice": (lambda file: file.keys.append(file.keys[0]), r"general\.name appears twice"),
    "tensor twice": (lambda file: file.tensors.append(file.tensors[0]), "first appears twice"),
    "an end in a name": (lambda file: file.set("a.count\0.x", 1, "I"), r"a\.count\\x00\.x is a name with a null byte"),
    "text": (lambda file: file.set("general.name", b"\xff\xfe"), r"general\.name is not UTF-8 text"),
    "name": (lambda file: file.keys.append((b"\xff", ("I", 0))), "a name is not UTF-8 text"),  # type: ignore[arg-type]
    "alignment": (lambda file: file.set("general.alignment", 48, "I"), r"general\.alignment is 48, not a power of two from 32 to 65536"),
    "alignment 0": (lambda file: file.set("general.alignment", 0, "I"), r"general\.alignment is 0, not a power of two"),
    "type of the alignment": (lambda file: file.set("general.alignment", 32, "Q"), r"general\.alignment is 32, not a power of two"),
    "another alignment": (lambda file: file.set("general.alignment", 64, "I"), "second begins at byte"),
    "overlap": (lambda file: setattr(file.tensors[1][1], "offset", 0), r"second begins at byte \d+, but should begin at \d+, after"),
    "gap": (lambda file: setattr(file.tensors[1][1], "offset", 64), "second begins at byte"),
    "misaligned": (lambda file: setattr(file.tensors[1][1], "offset", 33), "second begins at byte"),
    "beyond": (lambda file: setattr(file.tensors[1][1], "offset", 1 << 63), "second begins at byte"),
    "larger": (lambda file: file.put("second", replace(file.tensors[1][1], shape=(1 << 40, 32))), "second ends after the last of"),
    "no rows": (lambda file: file.put("second", Tensor((0, 32), Q8_0, b"")), r"second of shape \[0, 32\] cannot be stored as Q8_0"),
    "blocks": (lambda file: file.put("second", Tensor.filled((2, 33), Q8_0)), r"second of shape \[2, 33\] cannot be stored as Q8_0"),
    "withdrawn type": (lambda file: file.put("second", Tensor.filled((2, 32), 4)), "second is stored as type 4, which is not a known type"),
    "no type": (lambda file: file.put("second", Tensor.filled((2, 32), 1 << 31)), "second is stored as type 2147483648"),
    "dimensions": (lambda file: file.put("second", Tensor.filled((1, 1, 1, 1, 32), Q8_0)), "damaged or cut short behind second"),
    "long name": (lambda file: file.put("x" * 64, Tensor.filled((1,), F32)), "x: the tensor's name has more than 63 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_what_a_head_says_wrongly_of_its_file_is_one_sentence(case: str, tmp_path: Path) -> None:
    change, sentence = CHANGES[case]
    made = small()
    change(made)
    with pytest.raises(QuantError, match=sentence) as caught:
        reader.read(made.write(tmp_path / "a.gguf"))
    assert str(caught.value).startswith(f"{tmp_path}/a.gguf: ")
    assert "\n" not in str(caught.value)


TEXT = struct.pack("<Q", 1) + b"k"
DATA = {
    "nothing": (b"", "not a GGUF file"),
    "another file": (b"RIFF" + bytes(40), "not a GGUF file"),
    "cut in the counts": (head(0, 0)[:10], "damaged or cut short"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "GGUF version 50331648 is not supported"),
    "endless keys": (head(0, (1 << 64) - 1), "damaged or cut short"),
    "endless tensors": (head(1 << 63, 0), "damaged or cut short"),
    "endless name": (head(0, 1) + struct.pack("<Q", (1 << 64) - 1), "damaged or cut short"),
    "endless text": (head(0, 1) + TEXT + struct.pack("<IQ", 8, 1 << 40), "damaged or cut short behind k"),
    "endless list": (head(0, 1) + TEXT + struct.pack("<IIQ", 9, 4, 1 << 60) + bytes(64), "damaged or cut short behind k"),
    "endless list of nothing": (head(0, 1) + TEXT + struct.pack("<IIQ", 9, 8, 1 << 60) + bytes(64), "damaged or cut short behind k"),
    "list of lists": (head(0, 1) + TEXT + struct.pack("<IIQ", 9, 9, 1) + bytes(64), "damaged or cut short behind k"),
    "no value type": (head(0, 1) + TEXT + struct.pack("<I", 13) + bytes(64), "damaged or cut short behind k"),
}


@pytest.mark.parametrize("case", DATA)
def test_bytes_that_are_no_head_are_one_sentence(case: str, tmp_path: Path) -> None:
    data, sentence = DATA[case]
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(QuantError, match=sentence):
        reader.read(path)


def test_lists_are_not_longer_than_any_vocabulary(tmp_path: Path) -> None:
    many = bytes(reader.MAX_ITEMS)
    made = Parts([("a", ("[B", many[: reader.MAX_ITEMS // 2])), ("b", ("[B", many[: reader.MAX_ITEMS // 2]))], [])
    assert len(reader.read(made.write(tmp_path / "a.gguf")).keys["b"]) == reader.MAX_ITEMS // 2
    made.set("c", [0], "[B")
    with pytest.raises(QuantError, match="damaged or cut short behind c"):
        reader.read(made.write(tmp_path / "a.gguf"))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path), lambda path: os.symlink(path, path)])
def test_what_is_no_file_is_not_waited_for(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.gguf")
    began = time.monotonic()
    with pytest.raises(QuantError, match=r"a\.gguf: (not a file|No such file or directory|Too many levels of symbolic links)"):
        reader.read(tmp_path / "a.gguf")
    assert time.monotonic() - began < 5.0
