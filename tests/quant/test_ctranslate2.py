"""CTranslate2 files read back exactly; what they say that is not so is one sentence with the file's name."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quant.ctranslate2 import DTYPES, MAX_RANK, MAX_VARIABLES, read
from quant.errors import QuantError
from tests.quant.ct2_files import NUMBERS, content, text, variable, write

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3) / 8
PAIRS = [("a/weight", MATRIX), ("a/bias", MATRIX[0].astype(np.float16)), ("heads", np.array(8, np.int16))]
WHOLE = content(PAIRS, [("b/weight", "a/weight")])
HEAD = struct.pack("<I", 6) + text("WhisperSpec")
ONE = HEAD + struct.pack("<II", 3, 1)  # and one variable, and no alias
NO_ALIAS = struct.pack("<I", 0)


def odd(name: bytes = text("a"), rank: int = 1, shape: tuple[int, ...] = (2,), number: int = 0, n_bytes: int = 8, data: bytes = b"x" * 8):
    return ONE + name + struct.pack(f"<B{len(shape)}IBI", rank, *shape, number, n_bytes) + data + NO_ALIAS


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a CTranslate2 model, or cut short"),
    "other": (b"GGUF" + WHOLE, "format 6, but 1179993927"),
    "older": (content(PAIRS, version=5), "format 6, but 5"),
    "no end of a name": (ONE + struct.pack("<H", 1) + b"ab", "cut short"),
    "null in a name": (odd(struct.pack("<H", 4) + b"a\0b\0"), "cut short"),
    "empty name without its null": (odd(struct.pack("<H", 0)), "cut short"),
    "not UTF-8": (odd(text(b"\xff\xfe")), "cut short"),
    "many variables": (HEAD + struct.pack("<II", 3, MAX_VARIABLES + 1) + b"\0" * 64, "cut short"),
    "more variables than there are": (HEAD + struct.pack("<II", 3, 4) + variable("a", MATRIX) + NO_ALIAS, "cut short"),
    "many aliases": (ONE + variable("a", MATRIX) + struct.pack("<I", 1 << 31), "cut short"),
    "many dimensions": (odd(rank=MAX_RANK + 1, shape=(1,) * (MAX_RANK + 1)), f"a has {MAX_RANK + 1} dimensions"),
    "unknown type": (odd(number=5), "a is stored as type 5, which is not known"),
    "no extent": (odd(shape=(0,), n_bytes=0, data=b""), r"a has 0 bytes, which is not the size of \[0\]"),
    "huge extents": (odd(rank=3, shape=(1 << 23,) * 3, n_bytes=8), "which is not the size of"),
    "wrapped size": (odd(shape=(1 << 31,), n_bytes=0, data=b""), "which is not the size of"),
    "fewer bytes": (odd(n_bytes=4, data=b"x" * 4), r"a has 4 bytes, which is not the size of \[2\]"),
    "data beyond the end": (odd(shape=(1 << 20,), n_bytes=1 << 22), "cut short"),
    "twice": (content([("a", MATRIX), ("a", MATRIX)]), "a appears twice"),
    "alias of nothing": (content(PAIRS, [("b", "c")]), "b cannot stand for c"),
    "alias of itself": (content(PAIRS, [("b", "b")]), "b cannot stand for b"),
    "alias of a name that is taken": (content(PAIRS, [("heads", "a/bias")]), "heads cannot stand for a/bias"),
    "more behind": (WHOLE + b"\0", "unexpected bytes follow"),
}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = read(write(tmp_path / "model.bin", WHOLE))
    assert file.kind == "WhisperSpec"
    assert list(file.variables) == ["a/weight", "a/bias", "heads", "b/weight"]
    for name, values in [*PAIRS[:2], ("b/weight", MATRIX)]:
        assert file.floats(name).dtype == np.float32
        assert np.array_equal(file.floats(name), values.astype(np.float32))
    assert file.whole("heads") == 8


def test_types_are_numpys() -> None:
    assert {number: np.dtype(dtype).name for number, dtype in DTYPES.items()} == {number: name for name, number in NUMBERS.items()}


@pytest.mark.parametrize("fault", HOSTILE)
def test_what_is_not_so_is_refused(fault: str, tmp_path: Path) -> None:
    data, sentence = HOSTILE[fault]
    path = write(tmp_path / "model.bin", data)
    with pytest.raises(QuantError, match=sentence) as raised:
        read(path)
    assert str(raised.value).startswith(str(path))
    assert str(raised.value).isprintable()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for length in range(len(WHOLE)):
        with pytest.raises(QuantError, match=r"model\.bin: "):
            read(write(tmp_path / "model.bin", WHOLE[:length]))


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda file: file.floats("c"), "lacks c"),
        (lambda file: file.floats("heads"), "heads is stored as int16, not as float32 or float16"),
        (lambda file: file.whole("a/bias"), "a/bias is stored as float16, not as a whole number"),
        (lambda file: file.whole("many"), r"many has shape \[2\], but should be one number"),
        (lambda file: file.floats("nan"), "nan contains NaN or infinite weights"),
    ],
)
def test_values_that_are_not_there(ask: Callable, sentence: str, tmp_path: Path) -> None:
    more = [("many", np.array([1, 2], np.int16)), ("nan", np.array([1, np.nan], np.float16))]
    file = read(write(tmp_path / "model.bin", content(PAIRS + more)))
    with pytest.raises(QuantError, match=sentence):
        ask(file)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(QuantError, match="not a file"):
        read(tmp_path)
