"""Which tensor gets which type: ours against llama-quantize itself, on files of the real shapes that hold no weights."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

import llama_cpp
import pytest

from quant import layout, types
from quant.geometry import TextSizes
from quant.keys import TEXT_KEYS
from quant.layout import Tensor
from quant.types import F16, F32, TYPES, Storage
from quant.writer import GgufWriter
from tests.checkpoints import REAL_2601

# Qwen2.5-7B as in music-flamingo-2601-hf: 28 layers, 28 heads on 4
REAL = REAL_2601.text
FEW_HEADS = replace(REAL, n_layers=13, n_kv_heads=14)  # two heads on one: V matrices are not small
ODD_ROWS = replace(REAL, d_model=96, d_ffn=272, n_vocab=64, n_layers=17, n_heads=3, n_kv_heads=1)
SHAPES = {"real": (REAL, False), "few heads": (FEW_HEADS, False), "odd rows": (ODD_ROWS, False), "tied": (ODD_ROWS, True)}
QUANTIZED = [name for name in TYPES if not name.endswith(("F32", "F16"))]


def real_tensors(sizes: TextSizes, tied: bool) -> list[Tensor]:
    return list(layout.tensors("text", replace(REAL_2601, text=sizes), tied=tied))


def empty_gguf(path: Path, sizes: TextSizes, tied: bool) -> Path:
    """A file of the right length that is all hole: 15 GB for the real shapes, a few kilobytes on the disk."""
    keys = {"general.architecture": "qwen2", "qwen2.context_length": 32768, "qwen2.rope.freq_base": 1e6}
    keys |= {f"qwen2.{TEXT_KEYS[name]}": getattr(sizes, name) for name in ("d_model", "n_layers", "d_ffn", "n_heads", "n_kv_heads")}
    keys |= {f"qwen2.{TEXT_KEYS['rms_eps']}": 1e-6}
    stored = [(tensor, F32 if tensor.role == "vector" else F16) for tensor in real_tensors(sizes, tied)]
    with GgufWriter(path, keys, stored) as writer:
        writer.commit()
    return path


@contextmanager
def lines_of_libllama() -> Iterator[list[str]]:
    lines: list[str] = []

    @llama_cpp.llama_log_callback
    def keep(level: int, text: bytes, data: object) -> None:
        lines.append(text.decode())

    llama_cpp.llama_log_set(keep, None)
    try:
        yield lines
    finally:  # the library must not call what is gone
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), None)


def chosen_by_llama_quantize(path: Path, file_type: int, with_imatrix: bool) -> dict[str, str]:
    """Name -> type, from the lines of a dry run, which reads no weights."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.dry_run = file_type, 1, True
    entry = (llama_cpp.llama_model_imatrix_data * 2)()
    entry[0].name, entry[0].size, entry[0].data = b"blk.0.ffn_down.weight", 1, (ctypes.c_float * 1)(1.0)
    if with_imatrix:
        params.imatrix = entry
    with lines_of_libllama() as lines:
        target = str(path.with_suffix(".out")).encode()
        assert llama_cpp.llama_model_quantize(str(path).encode(), target, ctypes.byref(params)) == 0
    found = re.findall(r"\] +(\S+) +- \[[^]]*\], type = +(\w+), (?:warning:[^\n]*\n)?size = .*?(?:\((\w+)\))?\n", "".join(lines))
    return {name: (new or old).upper() for name, old, new in found}


def name_of(storage: Storage) -> str:
    return storage.name.upper()


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TextSizes, bool]:
    sizes, tied = SHAPES[request.param]
    return empty_gguf(tmp_path_factory.mktemp("empty") / "model.gguf", sizes, tied), sizes, tied


@pytest.mark.parametrize("with_imatrix", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("type_name", QUANTIZED)
def test_every_tensor_gets_the_type_that_llama_quantize_gives_it(
    type_name: str, with_imatrix: bool, model: tuple[Path, TextSizes, bool]
) -> None:
    path, sizes, tied = model
    mix = TYPES[type_name]
    traits = types.Traits(sizes.n_layers, sizes.n_heads // sizes.n_kv_heads, tied, with_imatrix)
    ours = {tensor.gguf: name_of(types.storage_for(tensor, mix, traits)) for tensor in real_tensors(sizes, tied)}
    assert ours == chosen_by_llama_quantize(path, mix.file_type, with_imatrix)


def test_better_mixes_are_larger() -> None:
    sizes, traits = REAL, types.Traits(28, 7)
    total = {
        name: sum(types.storage_for(t, TYPES[name], traits).n_bytes(prod(t.gguf_shape)) for t in real_tensors(sizes, tied=False))
        for name in TYPES
    }
    order = "Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_0 Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K Q8_0 F16 F32".split()
    assert sorted(order, key=total.__getitem__) == order
    assert total["BF16"] == total["F16"]
