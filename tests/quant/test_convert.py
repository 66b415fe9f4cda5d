"""Checkpoint directory -> GGUF pair: contents, laws of the pass, errors."""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from quant import layout, reader
from quant.config import read_geometry
from quant.convert import convert, plan
from quant.errors import QuantError
from quant.keys import KEY_CHECKPOINT, geometry_of_keys
from quant.types import TYPES
from quant.verify import verify

MIB = 1 << 20


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of every tensor of a GGUF file."""
    file = reader.read(path)
    return {name: (tensor.type_name, b"".join(data for _, data in file.blocks(name, 1 << 20))) for name, tensor in file.tensors.items()}


def same_pair(first: tuple[Path, Path], second: tuple[Path, Path]) -> bool:
    return all(contents(one) == contents(other) for one, other in zip(first, second, strict=True))


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def llama_quantize(source: Path, target: Path, file_type: int) -> None:
    """What llama-quantize does."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = file_type, 1
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("type_name", [name for name in TYPES if name != "F32"])
@pytest.mark.parametrize("size", ["k_quant", "music"])
def test_text_part_equals_llama_quantize_bit_by_bit(type_name: str, size: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    checkpoint = request.getfixturevalue(size)  # "music" has rows that K-quants do not fit: all fall back
    full, _ = convert(checkpoint, tmp_path, "F32")
    ours, _ = convert(checkpoint, tmp_path, type_name)
    llama_quantize(full, tmp_path / "theirs.gguf", TYPES[type_name].file_type)
    assert contents(ours) == contents(tmp_path / "theirs.gguf")
    assert reader.read(ours).keys["general.file_type"] == reader.read(tmp_path / "theirs.gguf").keys["general.file_type"]


def test_f32_pair_holds_the_checkpoint_itself(music: Path, tmp_path: Path) -> None:
    weights = load_file(music / "model.safetensors")
    stored = {name: data for path in convert(music, tmp_path, "F32") for name, (_, data) in contents(path).items()}
    tensors = [tensor for part in layout.PARTS for tensor in layout.tensors(part, read_geometry(music))]
    assert {tensor.hf for tensor in tensors} == set(weights)
    for tensor in tensors:
        np.testing.assert_array_equal(np.frombuffer(stored[tensor.gguf], np.float32), weights[tensor.hf].numpy().ravel())


def test_audio_part_is_never_below_q8_0_unless_asked(k_quant: Path, tmp_path: Path) -> None:
    _, default = convert(k_quant, tmp_path, "Q4_K_M")
    assert default.name == "mmproj-wide-Q8_0.gguf"
    assert {name for name, _ in contents(default).values()} == {"F32", "Q8_0"}
    _, asked = convert(k_quant, tmp_path, "Q8_0", audio_type="Q4_K_M")
    assert "Q4_K" in {name for name, _ in contents(asked).values()}


def test_kernels_positions_norms_and_biases_stay_f32(music: Path, tmp_path: Path) -> None:
    for path in convert(music, tmp_path, "Q8_0"):
        tensors = reader.read(path).tensors
        assert {tensor.type_name for tensor in tensors.values()} == {"F32", "Q8_0"}
        for name, tensor in tensors.items():
            matrix = tensor.name.endswith(".weight") and len(tensor.shape) == 2 and "position" not in name
            assert tensor.type_name == ("Q8_0" if matrix else "F32"), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_checkpoints_are_read_exactly(edited: Callable[..., Path], dtype: torch.dtype, tmp_path: Path) -> None:
    directory = edited(lambda weights: {name: weight.to(dtype) for name, weight in weights.items()})
    name = "language_model.model.embed_tokens.weight"
    expected = load_file(directory / "model.safetensors")[name].float().numpy().tobytes()
    text, _ = convert(directory, tmp_path, "F32")
    assert contents(text)["token_embd.weight"][1] == expected
    if dtype is torch.bfloat16:  # and BF16 stays as it is
        text, _ = convert(directory, tmp_path, "BF16")
        np.testing.assert_array_equal(
            np.frombuffer(contents(text)["token_embd.weight"][1], np.uint16).astype(np.uint32) << 16, np.frombuffer(expected, np.uint32)
        )


def test_new_prefixes_convert_like_old_ones(music: Path, edited: Callable[..., Path], tmp_path: Path) -> None:
    def rename(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        new = {}
        for name, weight in weights.items():
            for modern, hub in layout.CANONICAL_PREFIXES:
                if name.startswith(hub):
                    new[modern + name.removeprefix(hub)] = weight
        assert len(new) == len(weights)
        return new

    old = convert(music, tmp_path / "old", "Q8_0")
    assert same_pair(old, convert(edited(rename), tmp_path / "new", "Q8_0"))


def shard(directory: Path, n_shards: int = 3) -> None:
    """Write shards and an index beside the single file."""
    weights = sorted(load_file(directory / "model.safetensors").items())
    index = {}
    for number in range(n_shards):
        name = f"model-{number + 1:05d}-of-{n_shards:05d}.safetensors"
        part = dict(weights[number::n_shards])
        save_file(part, directory / name)
        index |= dict.fromkeys(part, name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_shards_convert_like_one_file(music: Path, tmp_path: Path) -> None:
    directory = tmp_path / "tiny"
    shutil.copytree(music, directory)
    shard(directory)
    (directory / "model.safetensors").unlink()
    assert same_pair(convert(music, tmp_path / "one", "F16"), convert(directory, tmp_path / "sharded", "F16"))
    (directory / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(QuantError, match=r"model-00002-of-00003\.safetensors is missing"):
        convert(directory, tmp_path, "F16")


def test_of_two_copies_only_one_is_read(music: Path, tmp_path: Path) -> None:
    directory = tmp_path / "tiny"
    shutil.copytree(music, directory)
    shard(directory)
    for path in directory.glob("model-*"):
        path.write_bytes(b"never opened")
    assert same_pair(convert(music, tmp_path / "one", "F16"), convert(directory, tmp_path / "both", "F16"))


def test_tied_embeddings_are_stored_once(edited: Callable[..., Path], tmp_path: Path) -> None:
    directory = edited(lambda weights: {name: weight for name, weight in weights.items() if "lm_head" not in name})
    with pytest.raises(QuantError, match=r"lacks language_model\.lm_head\.weight"):
        convert(directory, tmp_path, "F16")
    config = json.loads((directory / "config.json").read_text())
    edit_json(directory / "config.json", text_config=config["text_config"] | {"tie_word_embeddings": True})
    text, _ = convert(directory, tmp_path, "Q4_K_M")
    assert "output.weight" not in contents(text)
    model = llama_cpp.llama_model_load_from_file(str(text).encode(), llama_cpp.llama_model_default_params())
    assert model
    llama_cpp.llama_model_free(model)


def test_keys_carry_all_that_a_runtime_needs(music: Path, tmp_path: Path) -> None:
    directory = tmp_path / "named"
    shutil.copytree(music, directory)
    card = {"name": "mini", "revision": "r7", "abilities": ["key", "caption"], "grounded": True}
    (directory / "mflamingo.json").write_text(json.dumps(card))
    text, audio = convert(directory, tmp_path, "Q8_0")
    assert (text.name, audio.name) == ("mini-Q8_0.gguf", "mmproj-mini-Q8_0.gguf")
    text_keys, keys = reader.read(text).keys, reader.read(audio).keys
    assert text_keys["tokenizer.chat_template"] == (music / "chat_template.jinja").read_text()
    assert text_keys["tokenizer.ggml.tokens"][text_keys["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    expected = {
        "general.architecture": "clip", "clip.projector_type": "musicflamingo_rote", "mflamingo.architecture": "musicflamingo",
        "mflamingo.mel.n_fft": 400, "mflamingo.mel.hop_length": 160, "mflamingo.mel.n_mels": 128, "mflamingo.mel.window_s": 30,
        "mflamingo.rote.theta": 1200.0, "mflamingo.rote.dim": 12, "mflamingo.rote.n_positions": 1200, "mflamingo.max_audio_s": 1200.0,
        "mflamingo.tokens.audio": "<sound>", "mflamingo.tokens.bos": "<|sound_bos|>", "mflamingo.tokens.eos": "<|sound_eos|>",
        "mflamingo.name": "mini", "mflamingo.revision": "r7", "mflamingo.abilities": ["key", "caption"], "mflamingo.grounded": True,
    }  # fmt: skip
    assert {key: keys.get(key) for key in expected} == expected


def test_progress_counts_every_byte_once(music: Path, tmp_path: Path) -> None:
    made = plan(music, tmp_path, "Q8_0")
    assert list(tmp_path.iterdir()) == []  # a plan writes nothing
    steps = list(made.run(n_threads=1))
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].total
    assert made.n_bytes == sum(path.stat().st_size for path in made.paths)


def test_threads_do_not_change_the_files(music: Path, tmp_path: Path) -> None:
    for n_threads, name in ((1, "one"), (3, "three")):
        for _ in plan(music, tmp_path / name, "Q8_0").run(n_threads):
            pass
    one, three = (sorted(path.read_bytes() for path in (tmp_path / name).iterdir()) for name in ("one", "three"))
    assert one == three


def test_memory_is_bounded_by_blocks_not_by_tensors(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_rows = 100_000  # 26 MB: a hundred blocks
    monkeypatch.setattr("quant.convert.BLOCK_WEIGHTS", 1 << 16)
    directory = tmp_path / "big"
    shutil.copytree(music, directory)
    weights = load_file(directory / "model.safetensors")
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        weights[name] = weights[name].repeat(n_rows // len(weights[name]) + 1, 1)[:n_rows]
    save_file(weights, directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    edit_json(directory / "config.json", text_config=config["text_config"] | {"vocab_size": n_rows})
    made = plan(directory, tmp_path, "Q8_0")
    tracemalloc.start()
    for _ in made.run(n_threads=1):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MIB  # three blocks of 256 KiB in flight, their encodings, threads


def test_a_failed_conversion_leaves_nothing(edited: Callable[..., Path], tmp_path: Path) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights["multi_modal_projector.linear_2.weight"][0, 0] = torch.nan
        return weights

    out = tmp_path / "out"
    with pytest.raises(QuantError, match=r"linear_2\.weight: contains NaN"):
        convert(edited(poison), out, "Q8_0")
    assert list(out.iterdir()) == []


def test_missing_extra_and_misshapen_tensors_are_named(edited: Callable[..., Path], tmp_path: Path) -> None:
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    directory = edited(lambda weights: weights)
    whole = load_file(directory / "model.safetensors")
    changes = {
        f"lacks {name}": {key: weight for key, weight in whole.items() if key != name},
        "holds unexpected audio_tower.conv3.weight": whole | {"audio_tower.conv3.weight": torch.zeros(3)},
        r"up_proj\.weight has shape \[7, 64\], but config\.json says \[128, 64\]": whole | {name: torch.zeros(7, 64)},
        "stored as I32": whole | {name: torch.zeros(128, 64, dtype=torch.int32)},
    }
    for message, weights in changes.items():
        save_file(weights, directory / "model.safetensors")
        with pytest.raises(QuantError, match=message):
            convert(directory, tmp_path, "F16")
    ignored = whole | {"audio_tower.pos_emb.freqs": torch.zeros(3)}  # a table, not a weight
    save_file(ignored, directory / "model.safetensors")
    convert(directory, tmp_path, "F16")


def test_directories_that_are_no_checkpoint_are_told_apart(music: Path, tmp_path: Path) -> None:
    broken: dict[str, Callable[[Path], object]] = {
        "config.json is missing": lambda path: (path / "config.json").unlink(),
        "'llama' is not Music Flamingo": lambda path: edit_json(path / "config.json", model_type="llama"),
        "config.json: text_config is 'qwen2', not a JSON object": lambda path: edit_json(path / "config.json", text_config="qwen2"),
        "projector_hidden_act is 'relu'": lambda path: edit_json(path / "config.json", projector_hidden_act="relu"),
        "not readable as JSON": lambda path: (path / "config.json").write_text("{"),
        "no tokenizer.json": lambda path: (path / "tokenizer.json").unlink(),
        "not a byte-level BPE": lambda path: edit_json(path / "tokenizer.json", model={"type": "Unigram"}),
        "pre-tokenizer is none of qwen2, smollm": lambda path: edit_json(path / "tokenizer.json", pre_tokenizer={"type": "Whitespace"}),
        "tokenizer lacks <noise>": lambda path: edit_json(path / "processor_config.json", audio_token="<noise>"),
        "no weights found": lambda path: (path / "model.safetensors").unlink(),
        "cut short": lambda path: (path / "model.safetensors").write_bytes((music / "model.safetensors").read_bytes()[:-9]),
        "not a safetensors file": lambda path: (path / "model.safetensors").write_bytes(b"<html>too small to be true</html>"),
    }
    with pytest.raises(QuantError, match="no such directory"):
        convert(tmp_path / "nowhere", tmp_path, "F16")
    for number, (message, damage) in enumerate(broken.items()):
        directory = tmp_path / str(number)
        shutil.copytree(music, directory)
        damage(directory)
        with pytest.raises(QuantError, match=message):
            convert(directory, tmp_path / "out", "F16")
    assert not (tmp_path / "out").exists()


def test_old_style_configurations_are_read(music: Path, tmp_path: Path) -> None:
    directory = tmp_path / "old"
    shutil.copytree(music, directory)
    config = json.loads((directory / "config.json").read_text())
    audio, text = config["audio_config"], config["text_config"]
    for new, old in {
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
    }.items():
        audio[old] = audio.pop(new)
    del audio["num_mel_bins"], audio["max_source_positions"]  # the class's defaults
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    edit_json(directory / "config.json", audio_config=audio, text_config=text)
    template = (directory / "chat_template.jinja").read_text()
    (directory / "chat_template.jinja").unlink()
    edit_json(directory / "tokenizer_config.json", chat_template=template)
    new = convert(music, tmp_path / "a", "F16")
    old = convert(directory, tmp_path / "b", "F16")
    assert same_pair(new, old)
    for first, second in zip(new, old, strict=True):
        keys = [{**reader.read(path).keys, "general.name": "", "mflamingo.name": ""} for path in (first, second)]
        assert keys[0] == keys[1]


# --- a pair is of one checkpoint ----------------------------------------------------------------------------------------------


def test_parts_of_two_checkpoints_are_not_opened_together(music: Path, edited: Callable[..., Path], tmp_path: Path) -> None:
    """Of whatever types, of the same sizes and the same name."""
    other = edited(lambda weights: {name: -weight for name, weight in weights.items()})
    text, audio = convert(music, tmp_path / "one", "Q8_0")
    text_too, _ = convert(music, tmp_path / "one", "F16")
    _, stranger = convert(other, tmp_path / "two", "F16")
    keys = {path: reader.read(path).keys for path in (text, audio, text_too, stranger)}
    assert geometry_of_keys(keys[audio], keys[text], text) == geometry_of_keys(keys[audio], keys[text_too], text)
    for path in (text, text_too):
        with pytest.raises(QuantError, match="the audio part beside it was made from another checkpoint; convert both again"):
            geometry_of_keys(keys[stranger], keys[path], path)


@pytest.mark.parametrize("unnamed", ["text", "audio", "both"])
def test_a_part_that_names_no_checkpoint_is_opened_with_any_of_its_sizes(music: Path, tmp_path: Path, unnamed: str) -> None:
    """llama.cpp's own converter and earlier versions name none, and both may have made a part of this very checkpoint."""
    pair = zip(("text", "audio"), convert(music, tmp_path, "F16"), strict=True)
    keys = {part: dict(reader.read(path).keys) for part, path in pair}
    whole = geometry_of_keys(keys["audio"], keys["text"], tmp_path)
    for part in keys if unnamed == "both" else [unnamed]:
        del keys[part][KEY_CHECKPOINT]
    assert geometry_of_keys(keys["audio"], keys["text"], tmp_path) == whole


def test_a_kill_between_the_two_names_is_told_and_the_next_run_repairs_it(music: Path, edited: Callable[..., Path], tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other" / music.name
    other.parent.mkdir()
    edited(lambda weights: {name: -weight for name, weight in weights.items()}).rename(other)
    old = convert(music, out, "F16")
    code = f"""
import os, signal
from pathlib import Path
from quant.convert import convert
from quant.writer import GgufWriter
commit = GgufWriter.commit
GgufWriter.commit = lambda writer: (commit(writer), os.kill(os.getpid(), signal.SIGKILL))
convert(Path({str(other)!r}), Path({str(out)!r}), "F16")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert len(list(out.glob(".*.part"))) == 1
    with pytest.raises(QuantError, match="made from another checkpoint"):
        list(verify(out))
    assert convert(other, out, "F16") == old
    assert all(report.problem is None for report in verify(out, against=other))
    assert sorted(out.iterdir()) == sorted(old)
