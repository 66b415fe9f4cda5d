"""Other programs read the files: libllama the text part, llama.cpp's mtmd the audio part where it may."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_float, c_void_p
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
import torch
from llama_cpp import mtmd_cpp
from tokenizers import Tokenizer
from transformers import AudioFlamingo3ForConditionalGeneration, WhisperFeatureExtractor

from quant import reader
from quant.convert import convert

WINDOW = 30 * 16_000  # samples
STOCK_TOLERANCE = 2e-3  # relative RMS; measured 5e-4: llama.cpp attends in F16 and computes its own log-mel

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
    text, _ = convert(checkpoint, tmp_path, "Q8_0")
    with text_model(text) as model:
        for sample in TRICKY:
            normal = unicodedata.normalize("NFC", sample)  # libllama does not normalize; callers do
            assert tokenize(model, normal) == oracle.encode(sample, add_special_tokens=False).ids, sample


def test_rows_without_a_token_are_unused_tokens(music: Path, tmp_path: Path) -> None:
    text, _ = convert(music, tmp_path, "Q8_0")
    keys = reader.read(text).keys
    n_tokens = Tokenizer.from_file(str(music / "tokenizer.json")).get_vocab_size()
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == reader.read(text).tensors["token_embd.weight"].shape[0] > n_tokens
    assert tokens[n_tokens:] == [f"[PAD{index}]" for index in range(n_tokens, len(tokens))]
    assert set(types[n_tokens:]) == {gguf.TokenType.UNUSED}


@contextmanager
def audio_context(audio: Path, model: c_void_p) -> Iterator[c_void_p | None]:
    """llama.cpp's own reader of audio parts, or None where it refuses."""
    params = mtmd_cpp.mtmd_context_params_default()
    params.use_gpu, params.warmup, params.n_threads = False, False, 1
    context = mtmd_cpp.mtmd_init_from_file(str(audio).encode(), model, params)
    try:
        yield context
    finally:
        if context:
            mtmd_cpp.mtmd_free(context)


def hear(context: c_void_p, samples: np.ndarray, d_text: int) -> np.ndarray:
    """Embeddings that llama.cpp makes of the first window: (n,) float32 -> (tokens, d_text) float32."""
    marker = mtmd_cpp.mtmd_default_marker()
    text = mtmd_cpp.mtmd_input_text(marker, len(marker), False, True)
    bitmap = mtmd_cpp.mtmd_bitmap_init_from_audio(samples.size, samples.ctypes.data_as(POINTER(c_float)))
    bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
    chunks = mtmd_cpp.mtmd_input_chunks_init()
    assert mtmd_cpp.mtmd_tokenize(context, chunks, byref(text), bitmaps, 1) == 0
    chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, 1)  # 0 is the marker in front
    assert mtmd_cpp.mtmd_encode_chunk(context, chunk) == 0
    n_tokens = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
    heard = np.ctypeslib.as_array(mtmd_cpp.mtmd_get_output_embd(context), shape=(n_tokens, d_text)).copy()
    mtmd_cpp.mtmd_input_chunks_free(chunks)
    mtmd_cpp.mtmd_bitmap_free(bitmap)
    return heard


def test_mtmd_refuses_what_it_would_hear_wrongly(music: Path, tmp_path: Path) -> None:
    text, audio = convert(music, tmp_path, "F16")
    with text_model(text) as model, audio_context(audio, model) as context:
        assert not context


def test_mtmd_opens_the_preview_and_hears_like_transformers(preview: Path, tmp_path: Path) -> None:
    text, audio = convert(preview, tmp_path, "F32")
    samples = np.random.default_rng(0).standard_normal(WINDOW).astype(np.float32) * np.float32(0.1)
    features = WhisperFeatureExtractor(feature_size=128)(samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
    torch_model = AudioFlamingo3ForConditionalGeneration.from_pretrained(preview).eval()
    with torch.no_grad():
        expected = torch_model.get_audio_features(features.input_features, features.attention_mask).pooler_output.numpy()
    with text_model(text) as model, audio_context(audio, model) as context:
        assert context
        assert mtmd_cpp.mtmd_support_audio(context)
        heard = hear(context, samples, expected.shape[-1])
    expected = expected.reshape(heard.shape)
    assert np.sqrt(np.square(heard - expected).mean() / np.square(expected).mean()) < STOCK_TOLERANCE


def test_gguf_py_reads_keys_and_tensors_as_we_do(music: Path, tmp_path: Path) -> None:
    for path in convert(music, tmp_path, "Q8_0"):
        ours, theirs = reader.read(path), gguf.GGUFReader(path)
        assert len(ours.keys) > 10
        assert ours.tensors
        for key, value in ours.keys.items():
            written = float(np.float32(value)) if isinstance(value, float) else value  # theirs is not rounded to its decimal
            assert theirs.get_field(key).contents() == written
        assert [(t.name, tuple(map(int, reversed(t.shape))), t.data_offset) for t in theirs.tensors] == [
            (t.name, t.shape, t.offset) for t in ours.tensors.values()
        ]
