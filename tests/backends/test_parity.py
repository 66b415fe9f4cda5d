"""The central law: transformers alone, our torch back end and our GGUF back end give the same answers, token by token.

Random weights are the harsher test: their logits lie closer together than a trained model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.llama import BATCH, SCORES_BYTES
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.core.chat import END_TOKENS, build_messages
from mflamingo_cli.core.model import load
from quant.convert import convert
from quant.families import FAMILIES
from tests import checkpoints
from tests.clips import audio

CHECKPOINTS = [(kind, size) for kind in FAMILIES for size in checkpoints.SIZES]
CHECKPOINTS += [("audioflamingonext", "small"), ("llama", "small"), ("llama", "wide")]
CLIPS = {
    "3 s": audio(3.0),
    "29.99 s": audio(29.99),
    "30 s": audio(30.0),
    "30.01 s": audio(30.01),
    "47 s": audio(47.0),
    "61 s": audio(61.0),
    "40 s, silent from 25 s": audio(40.0, silence_s=15.0),
}
QUESTIONS = ("What is the key of this song?", "Describe the chords & the tempo — na\u00efve or cafe\u0301 jazz?")  # composed and not
OPTIONS = GenerateOptions(max_new_tokens=12)
TORCH_EXACT, GGUF_EXACT = OpenOptions(device="cpu", dtype="fp32", threads=1), OpenOptions(device="cpu", kv_type="f32", threads=1)
EMBEDDING_TOLERANCE = 1e-5  # float32 sums in another order: 2e-6 measured
# Largest difference of a logit to torch fp32, twice what was measured with these weights; logits have a standard deviation of 1
LOGIT_TOLERANCE = {("F32", "f32"): 1e-4, ("F32", "f16"): 0.05, ("F16", "f16"): 0.05, ("Q8_0", "f16"): 0.16, ("Q8_0", "q8_0"): 0.16}


@dataclass
class Trained:
    """A checkpoint, loaded three ways."""

    directory: Path
    processor: object
    model: torch.nn.Module
    torch: TorchBackend
    gguf: GgufBackend


@pytest.fixture(scope="module", params=CHECKPOINTS, ids="-".join)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    kind, size = request.param
    directory = checkpoints.write(tmp_path_factory.mktemp("hf") / f"{kind}-{size}", kind, size, seed=3)
    pair = convert(directory, tmp_path_factory.mktemp("gguf"), "F32")
    torch.set_num_threads(1)
    with GgufBackend(*pair, GGUF_EXACT) as gguf, TorchBackend(directory, TORCH_EXACT) as ours:
        yield Trained(directory, AutoProcessor.from_pretrained(directory), load(directory), ours, gguf)


def prompt_of(trained: Trained, question: str) -> str:
    turns = [{"role": "user", "content": [{"type": "text", "text": question}, {"type": "audio", "path": None}]}]
    return trained.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)


def reference_tokens(trained: Trained, clip: str, question: str) -> list[int]:
    """Greedy tokens of transformers' processor and `generate`, nothing of ours in between."""
    samples = CLIPS[clip].samples
    if clip == "30.01 s":  # ten more milliseconds make no token; transformers' RoTE fails on them (IndexError)
        samples = samples[: 30 * 16_000]
    inputs = trained.processor(text=[prompt_of(trained, question)], audio=[samples], sampling_rate=16_000)
    ends = trained.processor.tokenizer.convert_tokens_to_ids(list(END_TOKENS))
    with torch.no_grad():
        whole = trained.model.generate(**inputs, max_new_tokens=OPTIONS.max_new_tokens, do_sample=False, eos_token_id=ends)
    return whole[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
def test_answers_equal_transformers_token_by_token(trained: Trained, clip: str, picked: list[tuple[int, np.ndarray]]) -> None:
    question = QUESTIONS[0]
    expected = reference_tokens(trained, clip, question)
    for backend in (trained.torch, trained.gguf):
        picked.clear()
        complete(backend, backend.encode([CLIPS[clip]])[0], [Prompt(question)], OPTIONS)
        assert [token for token, _ in picked] == expected, backend.info.backend


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
def test_encoders_agree(trained: Trained, clip: str) -> None:
    theirs = trained.torch.encode([CLIPS[clip]])[0].payload.numpy()
    ours = trained.gguf.encode([CLIPS[clip]])[0].payload
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < EMBEDDING_TOLERANCE


def test_prompts_together_equal_each_alone(trained: Trained) -> None:
    prompts = [Prompt(question) for question in (*QUESTIONS, "Key?")] + [
        Prompt("Now?", history=(("Key?", "A minor."),)),
        Prompt("Hm?", system="Be brief."),
    ]
    for backend in (trained.torch, trained.gguf):
        encoded = backend.encode([CLIPS["3 s"]])[0]
        together = complete(backend, encoded, prompts, OPTIONS)
        assert together == [complete(backend, encoded, [prompt], OPTIONS)[0] for prompt in prompts], backend.info.backend


def test_text_without_audio_is_answered_alike(trained: Trained) -> None:
    answers = [complete(backend, None, [Prompt("What is a tritone?")], OPTIONS) for backend in (trained.torch, trained.gguf)]
    assert answers[0] == answers[1]


def test_a_penalty_is_the_same(trained: Trained) -> None:
    plain, penalized = OPTIONS, replace(OPTIONS, repetition_penalty=1.3)
    said = {
        (backend.info.backend, options.repetition_penalty): complete(backend, None, [Prompt("What is a tritone?")], options)[0]
        for backend in (trained.torch, trained.gguf)
        for options in (plain, penalized)
    }
    assert said["torch", 1.3] == said["gguf", 1.3]
    assert said["torch", 1.0] == said["gguf", 1.0]


def test_a_loop_ends_at_the_same_token(tmp_path: Path) -> None:
    """Of random weights, whose greedy answer goes round soon and never ends."""
    directory = checkpoints.write(tmp_path / "hf", "musicflamingo", "small", seed=3)
    pair = convert(directory, tmp_path, "F32")
    with GgufBackend(*pair, GGUF_EXACT) as gguf, TorchBackend(directory, TORCH_EXACT) as ours:
        answers = [
            complete(backend, None, [Prompt("What is a tritone?")], GenerateOptions(max_new_tokens=200))[0] for backend in (gguf, ours)
        ]
    assert answers[0] == answers[1]
    assert answers[0].finish == "loop"
    assert answers[0].usage.tokens_out < 200


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["3 s", "47 s"])
def test_prompt_ids_equal_the_processors(trained: Trained, clip: str) -> None:
    samples = CLIPS[clip].samples
    for question in QUESTIONS:
        inputs = trained.processor(text=[prompt_of(trained, question)], audio=[samples], sampling_rate=16_000)
        for backend in (trained.torch, trained.gguf):
            assert prompt_ids(backend, question, backend.encode([CLIPS[clip]])[0].n_tokens) == inputs["input_ids"][0].tolist()


def prompt_ids(backend: TorchBackend | GgufBackend, question: str, n_audio_tokens: int) -> list[int]:
    rendered = backend._chat.render_prompt(build_messages(question, audio=True))
    placeholder = backend.tokenize(backend.info.geometry.tokens.audio)
    return backend.tokenize(rendered.before) + placeholder * n_audio_tokens + backend.tokenize(rendered.after)


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "kv_type"), LOGIT_TOLERANCE)
@pytest.mark.parametrize("kind", ["musicflamingo", "audioflamingo3", "llama"])
def test_logits_stay_near_torch(kind: str, weights: str, kv_type: str, tmp_path: Path, picked: list[tuple[int, np.ndarray]]) -> None:
    directory = checkpoints.write(tmp_path / "hf", kind, "wide", seed=5)
    first = []
    with (
        TorchBackend(directory, TORCH_EXACT) as reference,
        GgufBackend(*convert(directory, tmp_path, weights), OpenOptions(device="cpu", kv_type=kv_type, threads=1)) as rounded,
    ):
        for backend in (reference, rounded):
            picked.clear()
            complete(backend, backend.encode([CLIPS["47 s"]])[0], [Prompt(QUESTIONS[0])], OPTIONS)
            first.append(picked[0][1])
    assert np.abs(first[0] - first[1][: first[0].size]).max() < LOGIT_TOLERANCE[weights, kv_type]


def test_wide_heads_avoid_flash_attention_and_stay_near_torch(
    tmp_path: Path, picked: list[tuple[int, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = checkpoints.Size(d_text=256, text_heads=2, kv_heads=1)
    directory = checkpoints.write(tmp_path / "hf", "musicflamingo", size, seed=5)
    first = []
    pair = convert(directory, tmp_path, "F32")
    half = replace(GGUF_EXACT, kv_type="f16")
    with TorchBackend(directory, TORCH_EXACT) as reference, GgufBackend(*pair, half) as plain, GgufBackend(*pair, half) as flash:
        longest = SCORES_BYTES // (4 * BATCH * size.text_heads)
        asked = [(longest, "f16"), (longest + 1, "f16"), (longest, "q8_0"), (longest + 1, "f32")]
        assert [plain._language.uses_plain_attention(*each) for each in asked] == [True, False, False, True]
        monkeypatch.setattr(flash._language, "uses_plain_attention", lambda *_: False)
        for backend in (reference, plain, flash):
            picked.clear()
            complete(backend, backend.encode([CLIPS["47 s"]])[0], [Prompt(QUESTIONS[0])], OPTIONS)
            first.append(picked[0][1])
    errors = [np.abs(first[0] - logits[: first[0].size]).max() for logits in first[1:]]
    assert 0 < errors[0] < LOGIT_TOLERANCE["F32", "f16"]
    assert errors[0] != errors[1], "the same kernel computed both"
