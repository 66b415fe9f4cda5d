"""A checkpoint of Whisper's encoder and a language model: transformers' own numbers in it, and the same answers in both back ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.mini import stages
from mflamingo_cli.train.mini.build import ModelSizes
from mflamingo_cli.train.small import build
from mflamingo_cli.train.small.whisper import read_encoder
from quant.convert import convert
from quant.errors import QuantError
from quant.geometry import TextSizes
from quant.readback import read_text_model
from tests import checkpoints
from tests.clips import audio
from tests.gguf_files import parts
from tests.train.small.conftest import MELS, TinyWhisper

SUMS = 1e-5  # float32 sums in another order
TEXTS = ["It is in A minor at 120 BPM.", "naïve cafe\u0301 café 音楽 ♯♭ 🎵 12,345  two  spaces \n\n a\tb's isn't '90s x²½"]
EXACT = {"torch": OpenOptions(device="cpu", dtype="fp32", threads=1), "gguf": OpenOptions(device="cpu", kv_type="f32", threads=1)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose text model is Llama's, with SmolLM2's kind of tokenizer."""
    return checkpoints.write(tmp_path_factory.mktemp("source") / "llama", "llama", seed=3)


@pytest.fixture(scope="module")
def text_file(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(source, tmp_path_factory.mktemp("gguf"), "F32")[0]


def test_the_tower_is_transformers_whisper(tiny: TinyWhisper) -> None:
    language = build.own_language(TEXTS * 20, 600, TextSizes(32, 1, 2, 2, 64, 512))
    model = build.build(read_encoder(tiny.path), language)
    mel = torch.randn(1, MELS, 3000, generator=torch.Generator().manual_seed(1))
    norm = tiny.encoder.layer_norm
    with torch.no_grad():
        tiny.encoder.layer_norm = torch.nn.Identity()
        try:
            theirs = tiny.encoder(mel).last_hidden_state
        finally:
            tiny.encoder.layer_norm = norm
        theirs = norm(F.avg_pool1d(theirs.mT, 2).mT)  # Music Flamingo's pairs, then Whisper's last normalisation
        ours = model.model.audio_tower(mel, input_features_mask=torch.ones(1, 3000), return_dict=True).last_hidden_state
    assert ours.shape == (1, 750, 32)
    assert float((ours - theirs).abs().max()) < SUMS
    assert float(theirs.std()) > 0.1


def test_a_text_gguf_is_read_back_as_its_checkpoint(source: Path, text_file: Path) -> None:
    file = read_text_model(text_file)
    weights = load_file(source / "model.safetensors")
    found = dict(file.weights())
    assert found.keys() == {name for name in weights if name.startswith("language_model")}
    for name, values in found.items():
        np.testing.assert_array_equal(values, weights[name].numpy())


def test_its_tokenizer_is_read_back(source: Path, text_file: Path) -> None:
    import json

    theirs = Tokenizer.from_file(str(source / "tokenizer.json"))
    ours = Tokenizer.from_str(json.dumps(read_text_model(text_file).tokenizer()))
    for text in [*TEXTS, "<|im_start|>user\n<sound>What?<|im_end|>"]:
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False).ids == ids
        assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda file: file.set("general.architecture", "phi3"), "'phi3', not 'qwen2' or 'llama'"),
        (lambda file: file.set("llama.block_count", 3), r"lacks blk\.2\."),
        (lambda file: file.set("llama.block_count", 1), r"holds unexpected blk\.1\."),
        (lambda file: file.set("llama.feed_forward_length", 96), r"has shape"),
        (lambda file: file.set("tokenizer.ggml.pre", "gpt-2"), "'gpt-2', not 'gpt2' with"),
        (lambda file: file.drop("llama.context_length"), r"lacks the key llama\.context_length"),
        (lambda file: file.set("llama.attention.head_count", 7), r"channels cannot be divided into 7 heads"),
        (lambda file: file.set("llama.rope.scaling.type", "yarn", "s"), r"rope\.scaling\.type is 'yarn', not"),
        (lambda file: file.set("llama.rope.dimension_count", 2, "I"), r"rope\.dimension_count is 2, not"),
        (lambda file: file.set("llama.attention.key_length", 2, "I"), r"attention\.key_length is 2, not"),
    ],
)
def test_what_is_no_text_model_is_refused(change, sentence: str, text_file: Path, tmp_path: Path) -> None:
    file = parts(text_file)
    change(file)
    file.write(tmp_path / "text.gguf")
    with pytest.raises(QuantError, match=sentence):
        read_text_model(tmp_path / "text.gguf")


def test_a_merge_is_parted_where_llama_cpp_parts_it(text_file: Path, tmp_path: Path) -> None:
    """A merge of three parts, which the check admits, made a tokenizer.json that cannot be read."""
    file = parts(text_file)
    tokens = file["tokenizer.ggml.tokens"]
    file.set("tokenizer.ggml.tokens", [*tokens[:-1], "ab c"])
    file.set("tokenizer.ggml.merges", [*file["tokenizer.ggml.merges"], "a b c"])
    file.write(tmp_path / "text.gguf")
    assert read_text_model(tmp_path / "text.gguf").tokenizer()["model"]["merges"][-1] == ["a", "b c"]


@pytest.mark.parametrize("kind", ["own", "pretrained"])
def test_both_back_ends_answer_alike(kind: str, tiny: TinyWhisper, text_file: Path, tmp_path: Path) -> None:
    encoder = read_encoder(tiny.path)
    sizes = TextSizes(64, 2, 4, 4, 96, 2048, rope_theta=1e6)
    language = build.own_language(TEXTS * 20, 600, sizes) if kind == "own" else build.pretrained_language(read_text_model(text_file))
    directory = build.write(encoder, language, tmp_path / "small", {"name": "small", "abilities": []}, seed=1)
    song, answers, encodings = audio(33.0), {}, {}
    with (
        TorchBackend(directory, EXACT["torch"]) as theirs,
        GgufBackend(*convert(directory, tmp_path, "F32"), EXACT["gguf"]) as ours,
    ):
        for backend in (theirs, ours):
            assert backend.info.geometry.tokens_per_window == 750
            [encoded] = backend.encode([song])
            name = backend.info.backend
            encodings[name] = np.asarray(encoded.payload)
            answers[name] = complete(backend, encoded, [Prompt("Which key?"), Prompt(TEXTS[1])], GenerateOptions(max_new_tokens=8))
    assert encodings["torch"].shape == (825, language.sizes.d_model)
    np.testing.assert_allclose(encodings["gguf"], encodings["torch"], atol=SUMS)
    assert answers["gguf"] == answers["torch"]


def test_new_tokens_begin_as_the_mean_of_the_old_ones(tiny: TinyWhisper, text_file: Path) -> None:
    file = read_text_model(text_file)
    rows = dict(file.weights())["language_model.model.embed_tokens.weight"]
    model = build.build(read_encoder(tiny.path), build.pretrained_language(file))
    found = model.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(found[: len(rows)], rows)
    np.testing.assert_allclose(found[len(rows) :], np.broadcast_to(rows.mean(0), found[len(rows) :].shape), rtol=1e-6)


def test_an_embedding_that_is_the_output_matrix_too_begins_as_both(tiny: TinyWhisper, text_file: Path) -> None:
    tied = replace(read_text_model(text_file), tied=True)
    model = build.build(read_encoder(tiny.path), build.pretrained_language(tied))
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    assert torch.equal(model.lm_head.weight[:100], torch.tensor(dict(tied.weights())["language_model.model.embed_tokens.weight"][:100]))


def test_a_language_model_that_a_stage_trained_is_taken_over(tiny: TinyWhisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "sample_texts", lambda *_: TEXTS)
    stages.adopt(tmp_path, "embedded", embedded_directory() / "hf", 1024, ModelSizes())
    with monkeypatch.context() as patch:
        patch.setattr(build, "part_states", lambda _: {"audio_tower": {}})
        with pytest.raises(UsageError, match="this stage trained no language model"):
            build.trained_language(tmp_path, "ears")
    language = build.trained_language(tmp_path, "embedded")
    model = build.build(read_encoder(tiny.path), language)
    words, chat = stages.new_model(tmp_path, stages.load_config(stages.CONFIGS / "words.toml"))
    ids = torch.tensor([chat.tokenizer.encode("The key is A minor.").ids])
    with torch.no_grad():
        theirs = words.lm_head(words.model.language_model(input_ids=ids).last_hidden_state)
        ours = model.lm_head(model.model.language_model(input_ids=ids).last_hidden_state)
    assert ours.shape[-1] >= len(chat.tokenizer.get_vocab())
    torch.testing.assert_close(ours[..., : chat.tokenizer.get_vocab_size()], theirs[..., : chat.tokenizer.get_vocab_size()])
