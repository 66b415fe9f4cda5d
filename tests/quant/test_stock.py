"""Other programs read the files: libllama the text part, llama.cpp's mtmd the audio part where it may."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_void_p
from pathlib import Path

import gguf
import llama_cpp
import pytest
from llama_cpp import mtmd_cpp
from tokenizers import Tokenizer

import quant
from quant import reader

TRICKY = [
    "", " ", "a", "  two  spaces\n\n\nlines\r\n\ttabs\t\t ", "12345 3.14159 1e-9", "don't I'LL we'Re they'd 'tis", "Hello,world!!! ...?",
    "naïve café ÄÖÜß", "音楽を分析する 한국어 음악", "♯♭𝄞 🎵🎶 👩‍👩‍👧 \u200d\u00a0\u3000x", "مرحبا שלום हिन्दी", "\u0000\u0007\ufeff",
    "<|im_start|>system\nYou.<|im_end|>\n<|im_start|>user\n<sound><sound>What?<|im_end|>\n<|im_start|>assistant\n",
    "<|sound_bos|><sound><|sound_eos|>[PAD][BOS]", "<|im_start|", "<sound <|endoftext|>x<sound>y",
]  # fmt: skip


@contextmanager
def text_model(path: Path) -> Iterator[c_void_p]:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, "libllama refused the text part"
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)


def tokenize(model: c_void_p, text: str) -> list[int]:
    data = text.encode()
    buffer = (llama_cpp.llama_token * (len(data) + 1))()
    n = llama_cpp.llama_tokenize(llama_cpp.llama_model_get_vocab(model), data, len(data), buffer, len(buffer), False, True)
    assert n >= 0
    return list(buffer[:n])


@pytest.mark.parametrize("kind", ["music", "preview"])
def test_libllama_tokenizes_like_the_checkpoint(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    checkpoint = request.getfixturevalue(kind)
    oracle = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    text, _ = quant.convert(checkpoint, tmp_path, "Q8_0")
    with text_model(text) as model:
        for sample in TRICKY:
            normal = unicodedata.normalize("NFC", sample)  # libllama does not normalize; callers do
            assert tokenize(model, normal) == oracle.encode(sample, add_special_tokens=False).ids, sample


def test_rows_without_a_token_are_unused_tokens(music: Path, tmp_path: Path) -> None:
    text, _ = quant.convert(music, tmp_path, "Q8_0")
    keys = reader.read(text).keys
    n_tokens = Tokenizer.from_file(str(music / "tokenizer.json")).get_vocab_size()
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == reader.read(text).tensors["token_embd.weight"].shape[0] > n_tokens
    assert tokens[n_tokens:] == [f"[PAD{index}]" for index in range(n_tokens, len(tokens))]
    assert set(types[n_tokens:]) == {gguf.TokenType.UNUSED}


@pytest.mark.parametrize(("kind", "opens"), [("preview", True), ("music", False)])
def test_mtmd_opens_the_preview_and_refuses_rote(kind: str, opens: bool, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    text, audio = quant.convert(request.getfixturevalue(kind), tmp_path, "F16")
    params = mtmd_cpp.mtmd_context_params_default()
    params.use_gpu, params.warmup = False, True  # the warm-up runs the whole encoder once
    with text_model(text) as model:
        context = mtmd_cpp.mtmd_init_from_file(str(audio).encode(), model, params)
        assert bool(context) == opens
        if context:
            assert mtmd_cpp.mtmd_support_audio(context)
            mtmd_cpp.mtmd_free(context)


def test_gguf_py_reads_keys_and_tensors_as_we_do(music: Path, tmp_path: Path) -> None:
    for path in quant.convert(music, tmp_path, "Q8_0"):
        ours, theirs = reader.read(path), gguf.GGUFReader(path)
        for key, value in ours.keys.items():
            assert theirs.get_field(key).contents() == value
        assert [(t.name, tuple(map(int, reversed(t.shape))), t.data_offset) for t in theirs.tensors] == [
            (t.name, t.shape, t.offset) for t in ours.tensors.values()
        ]
