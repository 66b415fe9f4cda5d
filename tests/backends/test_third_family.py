"""A new family is a row of the table: with that alone it converts, opens in both back ends, and answers like its class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor

from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.core.chat import build_messages
from mflamingo_cli.core.model import load
from mflamingo_cli.store.hub import family_of
from quant.config import read_geometry
from quant.convert import convert
from quant.verify import verify
from tests import checkpoints
from tests.clips import audio
from tests.third_family import LINEAR, registered

CLIPS = {"3 s": audio(3.0), "30 s": audio(30.0), "47 s": audio(47.0)}
EXACT = OpenOptions(device="cpu", dtype="fp32", kv_type="f32", threads=1)
QUESTION, OPTIONS = "Which chords?", GenerateOptions(max_new_tokens=12)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with registered() as row:
        yield checkpoints.write(tmp_path_factory.mktemp("hf") / "linear", row.model_type, seed=4)


@pytest.fixture(scope="module")
def opened(linear: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TorchBackend, GgufBackend]]:
    pair = convert(linear, tmp_path_factory.mktemp("gguf"), "F32")
    with TorchBackend(linear, EXACT) as ours, GgufBackend(*pair, EXACT) as converted:
        yield ours, converted


def reference_tokens(linear: Path, clip: str) -> list[int]:
    """Greedy tokens of the class itself: transformers' `generate` on ids and log-mels, no back end of ours."""
    extractor = WhisperFeatureExtractor(feature_size=128)
    samples = CLIPS[clip].samples
    windows = [samples[start : start + 480_000] for start in range(0, len(samples), 480_000)]
    features = extractor(windows, sampling_rate=16_000, return_tensors="pt", padding="max_length", return_attention_mask=True)
    tokenizer = AutoTokenizer.from_pretrained(linear)
    prompt = tokenizer.apply_chat_template(build_messages(QUESTION, audio=True), add_generation_prompt=True, tokenize=False)
    n_tokens = sum(((int(n) - 1) // 2 - 1) // 2 + 1 for n in features["attention_mask"].sum(-1))
    ids = tokenizer(prompt.replace("<noise>", "<noise>" * n_tokens), return_tensors="pt")["input_ids"]
    with torch.no_grad():
        whole = load(linear).generate(
            input_ids=ids, input_features=features["input_features"], input_features_mask=features["attention_mask"],
            max_new_tokens=OPTIONS.max_new_tokens, do_sample=False,
        )  # fmt: skip
    return whole[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("clip", CLIPS)
def test_a_third_family_answers_like_its_class(
    linear: Path, opened: tuple[TorchBackend, GgufBackend], clip: str, picked: list[tuple[int, np.ndarray]]
) -> None:
    expected = reference_tokens(linear, clip)
    assert len(set(expected)) > 3  # an answer, not one token again and again
    for backend in opened:
        picked.clear()
        complete(backend, backend.encode([CLIPS[clip]])[0], [Prompt(QUESTION)], OPTIONS)
        assert [token for token, _ in picked] == expected, backend.info.backend


def test_a_third_family_is_itself_everywhere(linear: Path, opened: tuple[TorchBackend, GgufBackend], tmp_path: Path) -> None:
    ours, converted = (backend.info.geometry for backend in opened)
    assert ours == converted == read_geometry(linear)
    assert (ours.architecture, ours.rote, ours.tokens, ours.max_audio_s) == ("linearflamingo", None, LINEAR.tokens, 300.0)
    text, _ = convert(linear, tmp_path, "Q8_0")
    assert [report for report in verify(text, linear) if report.problem] == []
    assert family_of(linear)
    assert family_of(tmp_path)
