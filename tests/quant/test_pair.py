"""A pair is checked as a whole before anything of it reaches C: what would end the process there is one sentence here."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quant import pair as pairs
from quant.convert import convert
from quant.errors import QuantError
from quant.layout import Part
from quant.pair import open_pair
from quant.types import FOREIGN
from tests import checkpoints
from tests.gguf_files import Parts, Tensor, parts

TOKENS, MERGES, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type"
HUGE = (1 << 32) - 1
Change = Callable[[Parts], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return convert(checkpoints.write(folder / "tiny", "musicflamingo"), folder, "Q8_0")


def broken(whole: tuple[Path, Path], part: Part, change: Change, folder: Path) -> tuple[Path, Path]:
    """A copy of the pair in which one file is changed."""
    files = {name: Path(shutil.copy(path, folder)) for name, path in zip(("text", "audio"), whole, strict=True)}
    made = parts(files[part])
    change(made)
    made.write(files[part])
    return files["text"], files["audio"]


def put(key: str, value: object, kind: str | None = None) -> Change:
    return lambda file: file.set(key, value, kind)


def kept(name: str, shape: tuple[int, ...], number: int) -> Change:
    return lambda file: file.put(name, Tensor.filled(shape, number))


def item(key: str, at: int, value: object) -> Change:
    return lambda file: file.set(key, [*file[key][:at], value, *file[key][at:][1:]])


CASES: list[tuple[Part, Change, str]] = [
    # what libllama asserts of its hyperparameters
    ("text", put("qwen2.block_count", 0), r"qwen2\.block_count is 0, not a whole number from 1 to 512"),
    ("text", put("qwen2.block_count", 513), r"qwen2\.block_count is 513, not a whole number from 1 to 512"),
    ("text", put("qwen2.block_count", 3), r"blk\.2\.attn_norm\.weight is missing"),
    ("text", put("qwen2.block_count", 1), r"blk\.1\.attn_norm\.weight is not part of this architecture"),
    ("text", put("qwen2.expert_count", 8, "I"), r"qwen2\.expert_count is 8, not 0"),
    ("text", put("qwen2.expert_used_count", 2, "I"), r"qwen2\.expert_used_count is 2, not 0"),
    ("text", put("qwen2.expert_used_count", [2, 2], "[I"), r"qwen2\.expert_used_count is \[2, 2\], not 0"),
    ("text", put("qwen2.expert_group_count", 1, "I"), r"qwen2\.expert_group_count is 1, not 0"),
    ("text", put("qwen2.nextn_predict_layers", 9, "I"), r"qwen2\.nextn_predict_layers is 9, not 0"),
    ("text", put("qwen2.rope.scaling.type", "yarnx", "s"), r"qwen2\.rope\.scaling\.type is 'yarnx', not 'none' or 'linear'"),
    ("text", put("qwen2.rope.scaling.type", "yarn", "s"), r"qwen2\.rope\.scaling\.type is 'yarn', not"),
    ("text", put("qwen2.rope.scaling.factor", 4.0, "f"), r"qwen2\.rope\.scaling\.factor is 4\.0, not 0\.0 or 1\.0"),
    ("text", put("qwen2.rope.dimension_count", 8, "I"), r"qwen2\.rope\.dimension_count is 8, not 16"),
    ("text", put("qwen2.attention.key_length", 32, "I"), r"qwen2\.attention\.key_length is 32, not 16"),
    ("text", put("qwen2.attention.value_length", 0, "I"), r"qwen2\.attention\.value_length is 0, not 16"),
    ("text", put("qwen2.attention.causal", False, "?"), r"qwen2\.attention\.causal is False, not True"),
    ("text", put("qwen2.pooling_type", 3, "I"), r"qwen2\.pooling_type is 3, not 0"),
    ("text", put("qwen2.attention.head_count", 3), "64 channels cannot be divided into 3 heads"),
    ("text", put("qwen2.attention.head_count", 128), "64 channels cannot be divided into 128 heads"),
    ("text", put("qwen2.attention.head_count", 64), "heads of 1 channels cannot be rotated in pairs"),
    ("text", put("qwen2.attention.head_count", [4, 4], "[I"), r"qwen2\.attention\.head_count is \[4, 4\], not a whole number"),
    ("text", put("qwen2.attention.head_count_kv", 3), "4 heads cannot share 3 heads of keys and values"),
    ("text", put("qwen2.attention.head_count_kv", 0), r"head_count_kv is 0, not a whole number from 1 to 16,777,216"),
    ("text", put("qwen2.attention.head_count_kv", 4), r"blk\.0\.attn_k\.weight has shape \[32, 64\], but the file's keys say \[64, 64\]"),
    ("text", put("qwen2.embedding_length", 128), "made for another language model"),
    ("text", put("qwen2.feed_forward_length", 96), r"ffn_\w+\.weight has shape"),
    ("text", put("qwen2.context_length", HUGE), r"qwen2\.context_length is 4294967295, not a whole number"),
    ("text", put("qwen2.context_length", 512, "Q"), r"qwen2\.context_length is 512, not a whole number"),
    ("text", put("qwen2.rope.freq_base", math.nan), r"qwen2\.rope\.freq_base is nan, not a number from 1 to 1e\+12"),
    ("text", put("qwen2.rope.freq_base", -1.0), r"qwen2\.rope\.freq_base is -1\.0, not"),
    ("text", put("qwen2.attention.layer_norm_rms_epsilon", math.inf), r"layer_norm_rms_epsilon is inf, not a number from 1e-12 to 0\.01"),
    ("text", put("qwen2.attention.layer_norm_rms_epsilon", 0.0), r"layer_norm_rms_epsilon is 0\.0, not"),
    ("text", lambda file: file.drop("qwen2.attention.layer_norm_rms_epsilon"), r"lacks the key qwen2\.attention\.layer_norm_rms_epsilon"),
    ("text", put("split.count", 2, "H"), r"split\.count is 2, not 0 or 1"),
    ("text", put("general.file_type", [1], "[I"), r"general\.file_type is \[1\], not a whole number"),
    ("text", put("general.architecture", "phi3"), r"general\.architecture is 'phi3', not 'qwen2' or 'llama'"),
    # the vocabulary
    ("text", lambda file: file.set(TOKENS, [*file[TOKENS][:-1], file[TOKENS][0]]), r"tokens contains a token twice"),
    ("text", item(TOKENS, 5, ""), r"tokens contains a token twice, or one that is empty or contains a null byte"),
    ("text", item(TOKENS, 5, "x\0y"), r"tokens contains a token twice, or one that is empty or contains a null byte"),
    ("text", item(TOKENS, 5, "\ud800"), r"tokenizer\.ggml\.tokens is not UTF-8 text"),
    ("text", put(TOKENS, [1, 2], "[i"), r"tokenizer\.ggml\.tokens is \[1, 2\], not a list of texts"),
    ("text", lambda file: file.set(TOKENS, file[TOKENS][:-1]), r"token_type has \d+ items for \d+ tokens"),
    ("text", lambda file: file.set(TYPES, file[TYPES][:-1]), r"token_type has \d+ items for \d+ tokens"),
    ("text", lambda file: file.set(TYPES, file[TYPES], "[b"), r"token_type is \[1, 1, 1, 1, 1, 1, \.\.\.\], not a list of whole numbers"),
    ("text", put("tokenizer.ggml.scores", [0.5], "[f"), r"tokenizer\.ggml\.scores has 1 items for \d+ tokens"),
    ("text", put("tokenizer.ggml.scores", ["x"], "[s"), r"tokenizer\.ggml\.scores is \['x'\], not a list of numbers"),
    ("text", put("tokenizer.ggml.eos_token_id", HUGE), r"eos_token_id is 4294967295, which is not one of its \d+ tokens"),
    ("text", put("tokenizer.ggml.fim_pre_token_id", 1 << 20, "I"), r"fim_pre_token_id is 1048576, which is not one of its"),
    ("text", put("tokenizer.ggml.bos_token_id", "x", "s"), r"bos_token_id is 'x', which is not one of its"),
    ("text", item(MERGES, 3, "nospace"), r"tokenizer\.ggml\.merges holds 'nospace', which does not produce any of its tokens"),
    ("text", item(MERGES, 3, ""), r"tokenizer\.ggml\.merges holds '', which does not produce"),
    ("text", item(MERGES, 3, "a b c d"), r"tokenizer\.ggml\.merges holds 'a b c d', which does not produce"),
    ("text", put(MERGES, [1.0], "[f"), r"tokenizer\.ggml\.merges is \[1\.0\], not a list of texts"),
    ("text", lambda file: file.drop(MERGES), r"lacks the key tokenizer\.ggml\.merges"),
    ("text", put("tokenizer.ggml.model", "llama"), r"its tokenizer is 'llama' with 'qwen2', not 'gpt2' with 'qwen2' or 'smollm'"),
    ("text", put("tokenizer.ggml.pre", "gpt-2"), r"its tokenizer is 'gpt2' with 'gpt-2', not 'gpt2' with"),
    ("text", put("tokenizer.chat_template", "{{ \udcff }}"), r"tokenizer\.chat_template is not UTF-8 text"),
    ("text", put("tokenizer.chat_template", 5, "I"), r"tokenizer\.chat_template is 5, not a text"),
    ("text", lambda file: file.set(TOKENS, ["<noise>" if token == "<sound>" else token for token in file[TOKENS]]),
     r"its tokens lack '<sound>', which marks audio"),
    # tensors that the graphs do not expect
    ("text", kept("blk.0.attn_norm.weight", (64,), 1), r"blk\.0\.attn_norm\.weight is stored as F16, not as F32"),
    ("text", kept("blk.0.attn_q.bias", (64,), 8), r"blk\.0\.attn_q\.bias is stored as Q8_0, not as F32"),
    ("text", kept("blk.0.attn_q.weight", (64, 64), 24), r"blk\.0\.attn_q\.weight is stored as I8, which is not a supported type"),
    ("text", kept("token_embd.weight", (9, 64), 8), r"token_embd\.weight has shape \[9, 64\], but the file's keys say \[\d+, 64\]"),
    ("text", kept("output.bias", (64,), 0), r"output\.bias is not part of this architecture"),
    ("text", kept("blk.0.attn_qkv.weight", (128, 64), 8), r"blk\.0\.attn_qkv\.weight is not part of this architecture"),
    ("text", lambda file: file.drop("blk.1.attn_k.bias"), r"blk\.1\.attn_k\.bias is missing"),
    ("audio", lambda file: file.drop("mm.a.mlp.2.bias"), r"mm\.a\.mlp\.2\.bias is missing"),
    ("audio", kept("a.blk.0.attn_k.bias", (64,), 0), r"a\.blk\.0\.attn_k\.bias is not part of this architecture"),
    ("audio", kept("a.position_embd.weight", (1500, 64), 1), r"a\.position_embd\.weight is stored as F16, not as F32"),
    ("audio", kept("a.position_embd.weight", (64, 1500), 0), r"a\.position_embd\.weight has shape \[64, 1500\]"),
    ("audio", kept("a.conv1d.1.weight", (64, 128, 3), 26), r"a\.conv1d\.1\.weight is stored as I32, not as F32 or F16 or BF16"),
    ("audio", kept("a.blk.0.ffn_up.bias", (256, 1), 0), r"a\.blk\.0\.ffn_up\.bias has shape \[256, 1\], but the file's keys say \[256\]"),
    # the encoder's sizes
    ("audio", put("clip.audio.num_mel_bins", 100_000), r"clip\.audio\.num_mel_bins is 100000, not 128"),
    ("audio", put("mflamingo.mel.n_mels", 100_000), r"100000 mel bands cannot be computed from 201 frequencies"),
    ("audio", lambda file: file.set("mflamingo.mel.n_mels", 80).set("clip.audio.num_mel_bins", 80),
     r"a\.conv1d\.1\.weight has shape \[64, 128, 3\], but the file's keys say \[64, 80, 3\]"),
    ("audio", put("mflamingo.mel.n_fft", 1 << 24), "a transform of 16777216 samples every 160 is none"),
    ("audio", put("mflamingo.mel.n_fft", 100), "a transform of 100 samples every 160 is none"),
    ("audio", put("mflamingo.mel.hop_length", 1), "windows of 30 s are longer than the encoder's 1500 positions"),
    ("audio", put("mflamingo.mel.hop_length", 1 << 20), "a transform of 400 samples every 1048576 is none"),
    ("audio", put("mflamingo.mel.window_s", 100_000), "windows of 100000 s are longer than the encoder's 1500 positions"),
    ("audio", put("mflamingo.mel.sample_rate", 48_000), "a sample rate of 48000 Hz is not the one that songs are decoded to"),
    ("audio", put("mflamingo.mel.window_s", 1.5, "f"), r"mflamingo\.mel\.window_s is 1\.5, not a whole number"),
    ("audio", put("clip.audio.max_pos_emb", 100), "windows of 30 s are longer than the encoder's 100 positions"),
    ("audio", put("clip.audio.attention.head_count", 7), "64 channels cannot be divided into 7 heads"),
    ("audio", put("clip.audio.block_count", 129), r"clip\.audio\.block_count is 129, not a whole number from 1 to 128"),
    ("audio", put("clip.audio.attention.layer_norm_epsilon", 0.5), r"layer_norm_epsilon is 0\.5, not 1e-05"),
    ("audio", put("clip.projector_type", [1], "[I"), r"clip\.projector_type is \[1\], not a text"),
    ("audio", lambda file: file.drop("clip.projector_type"), "the audio part's projector is None, not a Music Flamingo one"),
    ("audio", put("clip.projector_type", "musicflamingo"), "the audio part's keys are not those of musicflamingo"),
    ("audio", put("mflamingo.architecture", "audioflamingo3"), "the audio part's keys are not those of audioflamingo3"),
    ("audio", lambda file: file.drop("mflamingo.rote.theta"), "the audio part's keys are not those of musicflamingo"),
    ("audio", put("mflamingo.rote.theta", math.nan), r"mflamingo\.rote\.theta is nan, not a number"),
    ("audio", put("mflamingo.rote.dim", 66), "132 of 64 channels cannot be rotated"),
    ("audio", put("mflamingo.max_audio_s", math.inf), r"mflamingo\.max_audio_s is inf, not a number from 1 to 86400"),
    ("audio", put("mflamingo.abilities", [1, 2], "[I"), r"mflamingo\.abilities is \[1, 2\], not a list of texts"),
    ("audio", put("mflamingo.abilities", "caption", "s"), r"mflamingo\.abilities is 'caption', not a list of texts"),
    ("audio", put("mflamingo.grounded", 1, "I"), r"mflamingo\.grounded is 1, not true or false"),
    ("audio", put("mflamingo.tokens.audio", "no token"), "its tokens lack 'no token', which marks audio"),
    ("audio", put("general.architecture", "qwen2"), r"general\.architecture is 'qwen2', not 'clip'"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "change", "sentence"), CASES, ids=[sentence[:60] for _, _, sentence in CASES])
def test_what_would_end_the_process_is_one_sentence(part: Part, change: Change, sentence: str, whole, tmp_path: Path) -> None:
    text, audio = broken(whole, part, change, tmp_path)
    with pytest.raises(QuantError, match=sentence) as caught:
        open_pair(text, audio)
    assert str(caught.value).startswith(f"{tmp_path}/")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 69


def test_control_characters_of_a_file_do_not_reach_a_terminal(whole: tuple[Path, Path], tmp_path: Path) -> None:
    text, audio = broken(whole, "text", put("tokenizer.ggml.pre", "\x1b]52;c;\x07\u202e\n"), tmp_path)
    with pytest.raises(QuantError, match="not 'gpt2' with") as caught:
        open_pair(text, audio)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("part", ["text", "audio"])
@pytest.mark.parametrize("number", [number for number, kind in FOREIGN.items() if kind.name.startswith(("IQ4_NL", "MXFP4"))])
def test_types_of_other_makers_are_weights_too(part: Part, number: int, whole: tuple[Path, Path], tmp_path: Path) -> None:
    name = {"text": "blk.0.attn_q.weight", "audio": "a.blk.0.attn_q.weight"}[part]
    opened = open_pair(*broken(whole, part, kept(name, (64, 64), number), tmp_path))
    assert opened.file(part).tensors[name].kind == FOREIGN[number]


@pytest.mark.parametrize("number", [1, 30])
def test_kernels_may_be_halves(number: int, whole: tuple[Path, Path], tmp_path: Path) -> None:
    opened = open_pair(*broken(whole, "audio", kept("a.conv1d.1.weight", (64, 128, 3), number), tmp_path))
    assert not list(opened.problems("audio"))


def test_settings_that_change_nothing_are_accepted(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """As other converters write them."""
    settings = {
        "qwen2.vocab_size": None, "qwen2.rope.dimension_count": 16, "qwen2.attention.key_length": 16, "qwen2.attention.value_length": 16,
        "qwen2.expert_count": 0, "general.tags": ["x"],
    }  # fmt: skip

    def change(file: Parts) -> None:
        for key, value in settings.items():
            file.set(key, len(file[TOKENS]) if value is None else value, "[s" if isinstance(value, list) else "I")
        file.set("qwen2.rope.scaling.type", "none", "s").set("qwen2.attention.causal", True, "?")

    assert open_pair(*broken(whole, "text", change, tmp_path)).geometry.text.d_head == 16


def test_what_llama_cpp_itself_writes_is_a_pair(tmp_path: Path) -> None:
    preview = checkpoints.publish(tmp_path / "preview", "preview")
    text, audio = convert(preview, tmp_path / "stock", "Q8_0")
    checkpoints.write_stock_audio(preview, audio)
    opened = open_pair(text, audio)
    assert (opened.geometry.architecture, opened.geometry.max_audio_s, opened.geometry.rote) == ("audioflamingo3", 600.0, None)
    assert [list(opened.problems(part)) for part in ("text", "audio")] == [[], []]


def test_a_node_of_the_largest_encoder_finds_room() -> None:
    from mflamingo_cli.backends.ggml.graph import GRAPH_SIZE

    assert 40 * pairs.MAX_ENCODER_LAYERS < GRAPH_SIZE
