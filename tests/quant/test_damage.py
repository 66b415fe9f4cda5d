"""Checkpoints whose headers, indices and JSON files say what is not so: one sentence, the same in conversion and in torch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mflamingo_cli.backends.base import OpenOptions
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.store.hub import is_complete, music_flamingos
from quant.checkpoint import read_header
from quant.convert import convert, plan
from quant.errors import ModelError, QuantError
from quant.json_files import read_json
from tests import checkpoints
from tests.checkpoints import edit_json

CPU = OpenOptions(backend="torch", device="cpu", threads=1)
FIRST = "audio_tower.conv1.bias"  # of the file
Json = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("whole") / "model", "musicflamingo")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refused(directory: Path, sentence: str) -> None:
    """Both roads end in the same sentence, and nothing is written."""
    said = []
    out = directory.parent / "out"
    for road in (lambda: convert(directory, out, "Q8_0"), lambda: TorchBackend(directory, CPU)):
        with pytest.raises(QuantError, match=sentence) as raised:
            road()
        said.append(str(raised.value))
        assert said[-1].startswith(str(directory))
        assert said[-1].isprintable()
    assert said[0] == said[1]
    assert not out.exists()


def rewrite(path: Path, change: Callable[[Json], object]) -> None:
    """Change the header of a safetensors file; `change` edits it, or returns its bytes."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    made = change(header)
    text = made if isinstance(made, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def entry(**fields: object) -> Callable[[Json], object]:
    return lambda header: header[FIRST].update(fields)


def without(field: str) -> Callable[[Json], object]:
    return lambda header: (header[FIRST].pop(field), None)[1]


def moved(by: int) -> Callable[[Json], object]:
    def change(header: Json) -> None:
        for name in header.keys() - {"__metadata__", FIRST}:
            header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]

    return change


HEADERS: dict[str, tuple[Callable[[Json], object], str]] = {
    "negative": (entry(data_offsets=[-256, 0]), r"the data_offsets of audio_tower\.conv1\.bias are \[-256, 0\]"),
    "backwards": (entry(data_offsets=[256, 0]), r"the data_offsets of .* are \[256, 0\]"),
    "three": (entry(data_offsets=[0, 128, 256]), r"the data_offsets of .* are \[0, 128, 256\]"),
    "fractional": (entry(data_offsets=[0, 256.0]), r"an item of data_offsets is 256\.0, not a whole number"),
    "text": (entry(data_offsets=["0", "256"]), "an item of data_offsets is '0', not a whole number"),
    "true": (entry(data_offsets=[False, 256]), "an item of data_offsets is False, not a whole number"),
    "table": (entry(data_offsets={"0": 256}), r"data_offsets is \{'0': 256\}, not a list"),
    "beyond": (entry(data_offsets=[0, 1 << 62]), r"cut short, audio_tower\.conv1\.bias ends at byte 4611686018427395882 of"),
    "gap": (moved(8), "begins at byte 264 of the data, but the tensor before it ends at 256"),
    "overlap": (moved(-8), "begins at byte 248 of the data, but the tensor before it ends at 256"),
    "same place": (
        lambda header: header.update({"another": header[FIRST]}),
        "begins at byte 0 of the data, but the tensor before it ends at 256",
    ),
    "no offsets": (without("data_offsets"), r"the data_offsets of .* are \[\]"),
    "no dtype": (without("dtype"), "is stored as nothing"),
    "no shape": (without("shape"), r"has 256 bytes, which is not the size of \[\] in F32"),
    "negative shape": (entry(shape=[-8, -8]), r"has 256 bytes, which is not the size of \[-8, -8\]"),
    "fractional shape": (entry(shape=[64.0]), r"an item of shape is 64\.0, not a whole number"),
    "empty shape": (entry(shape=[0, 64]), r"which is not the size of \[0, 64\]"),
    "larger shape": (entry(shape=[65]), r"which is not the size of \[65\]"),
    "smaller dtype": (entry(dtype="F16"), r"which is not the size of \[64\] in F16"),
    "foreign dtype": (entry(dtype="I32"), "is stored as I32; only F32, F16, BF16, F8_E4M3 can be read"),
    "dtype of another type": (entry(dtype=["F32"]), r"dtype is \['F32'\], not a text"),
    "an entry that is none": (lambda header: header.update({FIRST: [1]}), r"audio_tower\.conv1\.bias is \[1\], not a JSON object"),
    "metadata": (lambda header: header.update({"__metadata__": {"format": 1}}), "format is 1, not a text"),
    "twice": (lambda header: json.dumps(header).replace('"audio_tower.conv2.bias"', f'"{FIRST}"').encode(), "appears twice in one object"),
    "list": (lambda header: b"[]", r"its header: the whole is \[\], not a JSON object"),
    "not JSON": (lambda header: b"{", "its header: not readable as JSON"),
    "deep": (lambda header: b'{"a":' * 100_000, "its header: nested too deeply"),
    "infinite": (lambda header: b'{"a": 1e999}', "its header: not readable as JSON"),
    "not UTF-8": (lambda header: b'{"\xff": 1}', "its header is not UTF-8"),
    "one lost": (lambda header: header.pop(FIRST), "begins at byte 256 of the data, but the tensor before it ends at 0"),
}


@pytest.mark.parametrize("damage", HEADERS)
def test_a_header_that_does_not_fit_its_file_is_one_sentence(damage: str, copy: Path) -> None:
    change, sentence = HEADERS[damage]
    rewrite(copy / "model.safetensors", change)
    refused(copy, rf"model\.safetensors: .*{sentence}")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "not a safetensors file, or cut short"),
    "a header longer than the file": (lambda path: path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}"), "or cut short"),
    "a header of 2^64": (lambda path: path.write_bytes(b"\xff" * 8 + b"{}"), "or cut short"),
    "bytes behind": (lambda path: path.write_bytes(path.read_bytes() + b"\0" * 7), "7 unexpected bytes follow the last tensor"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-7]), "cut short, .* ends at byte"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "no weights found"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "no weights found"),
}


@pytest.mark.parametrize("damage", FILES)
def test_a_file_that_is_no_weights_is_one_sentence(damage: str, copy: Path) -> None:
    change, sentence = FILES[damage]
    change(copy / "model.safetensors")
    refused(copy, sentence)


def test_what_safetensors_writes_is_read_with_an_empty_table_among_it(copy: Path) -> None:
    path = copy / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "audio_tower.pos_emb.freqs": torch.zeros(0, dtype=torch.int64)}, path)
    assert {entry.name for entry in read_header(path)} == set(weights)


# --- the index -------------------------------------------------------------------------------------------------------------------


def weight_map(value: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({"metadata": {}, "weight_map": value}))


def elsewhere(shard: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        index = json.loads(path.read_text())
        index["weight_map"][FIRST] = shard
        path.write_text(json.dumps(index))

    return change


INDICES: dict[str, tuple[Callable[[Path], object], str]] = {
    "list": (lambda path: path.write_text("[]"), r"the whole is \[\], not a JSON object"),
    "list of weights": (weight_map(["a"]), r"weight_map is \['a'\], not a JSON object"),
    "number": (weight_map(7), "weight_map is 7, not a JSON object"),
    "nothing": (weight_map({}), "contains no weight_map"),
    "nested": (weight_map({FIRST: {"a": "b"}}), r"conv1\.bias is \{'a': 'b'\}, not a text"),
    "above": (
        elsewhere("../other/model.safetensors"),
        r"is listed in '\.\./other/model\.safetensors', which is not a safetensors file of",
    ),
    "hidden above": (elsewhere("a/../../model.safetensors"), "which is not a safetensors file of this folder"),
    "absolute": (elsewhere("/etc/model.safetensors"), "is listed in '/etc/model.safetensors'"),
    "pickle": (elsewhere("pytorch_model.bin"), r"is listed in 'pytorch_model\.bin'"),
    "null byte": (elsewhere("a\0.safetensors"), r"shard a\\x00\.safetensors is missing"),
}


@pytest.mark.parametrize("damage", INDICES)
def test_an_index_of_another_shape_or_that_leaves_its_folder_is_one_sentence(damage: str, copy: Path) -> None:
    checkpoints.shard(copy)
    change, sentence = INDICES[damage]
    change(copy / "model.safetensors.index.json")
    refused(copy, sentence)


def test_shards_may_be_links_to_blobs_and_lie_in_a_folder_of_the_model(whole: Path, copy: Path, tmp_path: Path) -> None:
    checkpoints.shard(copy)
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    (copy / "weights").mkdir()
    (tmp_path / "blobs").mkdir()
    for number, shard in enumerate(sorted(set(index["weight_map"].values()))):
        (copy / shard).rename(tmp_path / "blobs" / str(number))
        (copy / "weights" / shard).symlink_to(tmp_path / "blobs" / str(number))
    moved = {name: f"weights/{shard}" for name, shard in index["weight_map"].items()}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index | {"weight_map": moved}))
    for made, expected in zip(convert(copy, tmp_path / "a", "Q8_0"), convert(whole, tmp_path / "b", "Q8_0"), strict=True):
        assert made.stat().st_size == expected.stat().st_size
    TorchBackend(copy, CPU).close()


# --- JSON ------------------------------------------------------------------------------------------------------------------------

JSON_FILES = ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "mflamingo.json")
TEXTS: dict[str, tuple[bytes, str]] = {
    "list": (b"[]", r"the whole is \[\], not a JSON object"),
    "text": (b'"x"', "the whole is 'x', not a JSON object"),
    "null": (b"null", "the whole is None, not a JSON object"),
    "empty": (b"", "not readable as JSON"),
    "cut short": (b'{"a": ', "not readable as JSON"),
    "deep": (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    "twice": (b'{"a": 1, "a": 2}', r"not readable as JSON \('a' appears twice in one object\)"),
    "nan": (b'{"a": NaN}', r"not readable as JSON \(NaN is not a number\)"),
    "infinity": (b'{"a": [-Infinity]}', r"not readable as JSON \(-Infinity is not a number\)"),
    "overflow": (b'{"a": 1e999}', r"not readable as JSON \(1e999 is not a number\)"),
    "digits": (b'{"a": ' + b"9" * 10_000 + b"}", "not readable as JSON"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), r"not UTF-8 \(.* at byte 7\)"),
    "mark": (b'\xef\xbb\xbf{"a": 1}', "not readable as JSON"),
}


@pytest.mark.parametrize("name", JSON_FILES)
def test_json_that_is_none_is_one_sentence(name: str, copy: Path) -> None:
    for content, sentence in TEXTS.values():
        (copy / name).write_bytes(content)
        refused(copy, f"/{name}: {sentence}")
    (copy / name).unlink()
    os.mkfifo(copy / name)  # waits for a writer
    refused(copy, f"/{name}: not a file|no tokenizer.json")


def test_a_file_larger_than_any_is_not_read(copy: Path) -> None:
    with (copy / "tokenizer_config.json").open("r+b") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    refused(copy, r"tokenizer_config\.json: 1099511627776 bytes is too large for such a file")


def model(**fields: object) -> Callable[[Path], object]:
    return lambda path: edit_json(path / "tokenizer.json", model=json.loads((path / "tokenizer.json").read_text())["model"] | fields)


def text_config(**fields: object) -> Callable[[Path], object]:
    return lambda path: edit_json(path / "config.json", text_config=json.loads((path / "config.json").read_text())["text_config"] | fields)


def fields(file: str, **values: object) -> Callable[[Path], object]:
    return lambda path: (path / file).write_text(json.dumps(read_json(path / file, required=False) | values))


FIELDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "model": (fields("tokenizer.json", model=[1]), r"model is \[1\], not a JSON object"),
    "vocab": (model(vocab=["a"]), r"vocab is \['a'\], not a JSON object"),
    "ids": (model(vocab={"a": "0"}), "'a' is '0', not a whole number"),
    "negative ids": (model(vocab={"a": -1}), "the token ids are not consecutive numbers from 0"),
    "ids beyond memory": (model(vocab={"a": 1 << 40}), "the token ids are not consecutive numbers from 0"),
    "merges": (model(merges={"a": "b"}), r"merges is \{'a': 'b'\}, not a list"),
    "merge of numbers": (model(merges=[[1, 2]]), r"\[1, 2\] is not a merge of two tokens into a third"),
    "merge of nothing": (model(merges=["ab"]), "'ab' is not a merge of two tokens"),
    "merge into nothing": (model(merges=[["💥", "💥"]]), "is not a merge of two tokens into a third"),
    "dropout": (model(dropout=0.5), "not a byte-level BPE tokenizer"),
    "added tokens": (fields("tokenizer.json", added_tokens={"a": 1}), r"added_tokens is \{'a': 1\}, not a list"),
    "an added token": (fields("tokenizer.json", added_tokens=[7]), "an item of added_tokens is 7, not a JSON object"),
    "without an id": (fields("tokenizer.json", added_tokens=[{"content": "a"}]), "the token ids are not"),
    "without a text": (fields("tokenizer.json", added_tokens=[{"id": 5}]), "a token is empty or contains a null byte"),
    "pre-tokenizer": (fields("tokenizer.json", pre_tokenizer=[1]), r"pre_tokenizer is \[1\], not a JSON object"),
    "pattern": (
        fields("tokenizer.json", pre_tokenizer={"pretokenizers": [{"type": "Split", "pattern": "x"}]}),
        "pattern is 'x', not a JSON object",
    ),
    "normalizer": (
        fields("tokenizer.json", normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": ""}),
        "its normalizer is not that of qwen2",
    ),
    "template": (lambda path: (path / "chat_template.jinja").write_bytes(b"\xff"), r"chat_template\.jinja: not UTF-8"),
    "no template": (
        lambda path: ((path / "chat_template.jinja").unlink(), fields("tokenizer_config.json", chat_template=5)(path)),
        r"tokenizer_config\.json: chat_template is 5, not a text",
    ),
    "templates": (
        lambda path: ((path / "chat_template.jinja").unlink(), fields("chat_template.json", chat_template=["x"])(path)),
        r"chat_template\.json: an item of chat_template is 'x', not a JSON object",
    ),
    "end of an answer": (
        lambda path: (fields("tokenizer_config.json", eos_token=None)(path), fields("generation_config.json", eos_token_id="x")(path)),
        r"generation_config\.json: eos_token_id is 'x', not a whole number",
    ),
    "ends of an answer": (fields("generation_config.json", eos_token_id=[-1]), r"eos_token_id is \[-1\], not the id of a token"),
    "end in the text model": (text_config(eos_token_id={"a": 1}), r"config\.json: eos_token_id is \{'a': 1\}, not a whole number"),
    "abilities": (fields("mflamingo.json", abilities="all"), r"mflamingo\.json: abilities is 'all', not a list"),
    "an ability": (fields("mflamingo.json", abilities=[1]), "an item of abilities is 1, not a text"),
    "grounded": (fields("mflamingo.json", grounded="yes"), "grounded is 'yes', not true or false"),
    "name": (fields("mflamingo.json", name=["x"]), r"name is \['x'\], not a text"),
    "audio token": (fields("processor_config.json", audio_token=5), r"processor_config\.json: audio_token is 5, not a text"),
    "no audio token": (fields("processor_config.json", audio_token=""), "a token that stands for audio is empty"),
    "longest audio": (fields("processor_config.json", max_audio_len=10**400), "max_audio_len is .*, not a positive number"),
    "rotation": (fields("config.json", rope_parameters={"rope_type": "default", "rope_theta": 1e9}), "1000000000 positions of rotary"),
    "layers": (text_config(num_hidden_layers=1 << 23), "config.json says 8388610 layers, but there are only"),
    "text": (fields("config.json", text_config=[]), r"text_config is \[\], not a JSON object"),
    "dropout of the text model": (text_config(attention_dropout=7), "attention_dropout is 7, not a number from 0 to 1"),
    "labels": (fields("config.json", num_labels=10**8), "num_labels is 100000000, not a number from 0 to 1000"),  # ten gigabytes of them
    "quantization": (fields("config.json", quantization_config=[1]), "quantised by '.'"),
}


@pytest.mark.parametrize("damage", FIELDS)
def test_a_value_of_another_type_is_one_sentence(damage: str, copy: Path) -> None:
    change, sentence = FIELDS[damage]
    change(copy)
    refused(copy, sentence)


def test_settings_that_only_transformers_reads_are_one_sentence(copy: Path) -> None:
    edit_json(copy / "config.json", torch_dtype=[1], id2label=5)
    with pytest.raises(ModelError, match=rf"^{copy}: cannot be loaded \(") as raised:
        TorchBackend(copy, CPU)
    assert str(raised.value).isprintable()


# --- adapters --------------------------------------------------------------------------------------------------------------------


def halves(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def damage(adapter: Path) -> None:
        found = load_file(adapter / "adapter_model.safetensors")
        change(found)
        save_file(found, adapter / "adapter_model.safetensors")

    return damage


TARGET = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
TWIN = "base_model.model.language_model.model.layers.0.self_attn.q_proj"  # its other name
ADAPTERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no rank": (
        halves(lambda found: found.update({f"{TARGET}.lora_A.weight": torch.zeros(0, 64), f"{TARGET}.lora_B.weight": torch.zeros(64, 0)})),
        r"has 0 bytes, which is not the size of",
    ),
    "two names": (
        halves(lambda found: found.update({name.replace(TARGET, TWIN): half.clone() for name, half in found.items() if TARGET in name})),
        "is changed twice, under an old and a new name",
    ),
    "header": (lambda path: rewrite(path / "adapter_model.safetensors", lambda header: b"[]"), "its header: the whole is"),
    "alpha": (fields("adapter_config.json", lora_alpha="x"), "lora_alpha is 'x', not a number"),
    "pattern": (fields("adapter_config.json", alpha_pattern={"(q+)+x": 2}), r"'\(q\+\)\+x', which could search without an end"),
    "long pattern": (fields("adapter_config.json", alpha_pattern={".*.*.*x": 2}), "which could search without an end"),
    "patterns": (fields("adapter_config.json", alpha_pattern=[1]), r"alpha_pattern is \[1\], not a JSON object"),
    "alpha of a pattern": (fields("adapter_config.json", alpha_pattern={"q_proj": "x"}), "lora_alpha is 'x', not a number"),
    "type": (fields("adapter_config.json", peft_type=["LORA"]), "peft_type is"),
    "deep": (lambda path: (path / "adapter_config.json").write_text("[" * 100_000), "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("damage", ADAPTERS)
def test_an_adapter_that_does_not_fit_is_one_sentence(damage: str, whole: Path, tmp_path: Path) -> None:
    adapter, _ = checkpoints.write_lora(whole, tmp_path)
    change, sentence = ADAPTERS[damage]
    change(adapter)
    for road in (lambda: plan(whole, tmp_path / "out", "Q8_0", adapter=adapter), lambda: TorchBackend(whole, CPU, adapter)):
        with pytest.raises(QuantError, match=sentence) as raised:
            road()
        assert str(raised.value).startswith(str(adapter))


# --- what the fuzzer found -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"[]", b'{"model_type": ["musicflamingo"]}'])
def test_a_cache_with_a_damaged_config_is_listed(text: bytes, whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    homes = [tmp_path / f"models--some--{name}" / "snapshots" / ("0" * 40) for name in ("whole", "damaged")]
    for home in homes:
        shutil.copytree(whole, home)
    (homes[1] / "config.json").write_bytes(text)
    assert "some/whole" in [found.name for found in music_flamingos()]


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[]", b'{"weight_map": {"a": [1]}}', b'{"weight_map": {"a": "../config.json"}}'])
def test_a_model_with_a_damaged_index_is_not_complete(text: bytes, copy: Path) -> None:
    checkpoints.shard(copy)
    assert is_complete(copy)
    (copy / "model.safetensors.index.json").write_bytes(text)
    assert not is_complete(copy)


def test_windows_shorter_than_the_encoder_are_refused_in_torch(copy: Path) -> None:
    extractor = read_json(copy / "processor_config.json")["feature_extractor"]
    edit_json(copy / "processor_config.json", feature_extractor=extractor | {"chunk_length": 15})
    with pytest.raises(ModelError, match="windows of 15 s do not fill the encoder's 1500 positions"):
        TorchBackend(copy, CPU)
