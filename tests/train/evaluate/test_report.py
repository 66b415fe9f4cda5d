"""A tiny model of chance weights goes through the whole evaluation; what it says in a batch is what it says alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mflamingo_cli.core.model import save
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.evaluate import EvalConfig, report
from mflamingo_cli.train.evaluate.inference import Listener
from mflamingo_cli.train.mini import build, probes, stages, tokens
from mflamingo_cli.train.mini.dialogue import exchanges as data
from mflamingo_cli.train.mini.frames import MINI_MEL, TAG_NAMES
from mflamingo_cli.train.rows import ChatEncoder, Turn

SIZES = build.ModelSizes(
    d_audio=64,
    audio_layers=1,
    audio_heads=1,
    audio_ffn=64,
    n_mels=256,
    d_text=64,
    text_layers=2,
    text_heads=2,
    text_kv_heads=1,
    text_ffn=64,
)
SECONDS, TOKENS = 6, 150


@pytest.fixture(scope="module")
def speech() -> ChatEncoder:
    rng = np.random.default_rng(0)
    turns = [data.text_turn(rng) for _ in range(200)]
    tokenizer = tokens.train_tokenizer((text for turn in turns for text in (turn.question, turn.answer)), 700)
    return stages.chat_encoder(tokenizer)


@pytest.fixture(scope="module")
def model(speech):
    torch.set_num_threads(1)
    return build.build(SIZES, tokens.special_ids(speech.tokenizer), tokens.padded_vocab(speech.tokenizer), seed=0).eval()


def alone(model, speech: ChatEncoder, audio: np.ndarray | None, question: str, count: int) -> str:
    """An answer by transformers' own greedy decoding."""
    branch = speech.branch(Turn(question, ""), audio is not None)
    ids = branch.ids[: branch.mask.index(True)]
    embeds = model.model.language_model.embed_tokens(torch.tensor(ids))
    if audio is not None:
        at = ids.index(speech.sound_id)
        heard = model.model.multi_modal_projector(torch.from_numpy(audio.astype(np.float32)))
        embeds = torch.cat([embeds[:at], heard, embeds[at + 1 :]])
    end = speech.tokenizer.token_to_id("<|im_end|>")
    with torch.no_grad():
        out = model.generate(inputs_embeds=embeds[None], max_new_tokens=count, do_sample=False, eos_token_id=end, pad_token_id=end)
    return speech.tokenizer.decode(out[0].tolist(), skip_special_tokens=True)


def test_answers_in_a_batch_are_those_given_alone(model, speech) -> None:
    rng = np.random.default_rng(3)
    heard = [rng.normal(size=(size, 64)).astype(np.float16) for size in (9, 4, 17)] + [None]
    questions = [(2, "What key is this in?"), (0, "Is there singing?"), (1, "key?"), (3, "What is the meter of this song?"), (2, "bpm?")]
    said = Listener(model, speech, heard).ask(questions, 12)
    assert said == [alone(model, speech, heard[index], question, 12) for index, question in questions]
    assert len(set(said)) > 1


def test_yes_is_weighed_against_no(model, speech) -> None:
    listener = Listener(model, speech, [None])
    (sure,) = listener.yes([(0, "Is there singing?")])
    assert 0 < sure < 1


def clips(folder: Path, kind: str, count: int) -> None:
    """A split of short clips of noise with the labels of music."""
    (folder / "audio").mkdir(parents=True)
    (folder / "cache").mkdir()
    rng, lines = np.random.default_rng(1), []
    for index in range(count):
        soundfile.write(folder / f"audio/{index}.flac", rng.normal(0, 0.1, SECONDS * 16_000), 16_000)
        row = {"index": index, "audio": f"audio/{index}.flac", "kind": kind, "duration": float(SECONDS), "tempo": 90.0 + index}
        row |= {"tonic": index % 12, "mode": "minor", "meter": ("4/4", "3/4")[index % 2], "chords": [[0, 3, 0, "maj"], [3, 6, 9, "min"]]}
        labels = {"root": np.zeros(TOKENS, np.int8), "quality": np.zeros(TOKENS, np.int8)}
        labels["vocals"] = np.full(TOKENS, index % 2, np.uint8)
        if kind == "recording":
            row["key2"] = [index % 12, "minor"]
            labels["tags"] = np.where(rng.random((1, len(TAG_NAMES))) < 0.5, 128, 0).astype(np.uint8).repeat(TOKENS, 0)
        else:
            row |= {"style": ("jazz", "rock")[index % 2], "sections": [[0, 3, "A"], [3, 6, "B"]], "instruments": {"piano": 0.0}}
            labels["families"] = np.eye(12, dtype=np.uint8)[[0]].repeat(TOKENS, 0)
        np.savez(folder / f"cache/{index:06d}.labels.npz", **labels)
        lines.append(json.dumps(row))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def work(tmp_path_factory, model, speech) -> Path:
    work = tmp_path_factory.mktemp("work")
    clips(work / "data/test", "synth", 4)
    clips(work / "data/real-test", "recording", 6)
    tokens.write_processor(work / "tiny", speech.tokenizer, MINI_MEL, 60, 1024)
    save(model, work / "tiny")
    probes.save_probes(probes.LinearProbes(model), work / "tiny")
    return work


def test_every_group_is_measured_on_both_kinds_of_clips(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mflamingo_cli.train.evaluate import caption_metrics as told

    monkeypatch.setattr(told, "CAPTION_TOKENS", 8)
    config = EvalConfig(seconds=(4.0,), captions=2, facts=4, baselines=("measure",), baseline_clips=1)
    found = {(score.ability, score.system, score.clips) for score in report(work / "tiny", work, config)}
    for kind in ("synth", "recordings"):
        for ability in ("key, exact", "chords, F1", "meter, balanced accuracy", "vocals, AUC", "yes or no, balanced accuracy"):
            assert (ability, "model", kind) in found
        for ability in ("chords, majmin", "key, exact", "vocals, AUC"):
            assert (ability, "encoder head", kind) in found
        assert ("captions by ear, recall", "model", kind) in found
        assert ("captions with measured facts, recall", "model", kind) in found
        assert ("facts copied exactly", "model", kind) in found
    assert ("tempo, Acc1", "measure", "synth") in found
    assert ("tempo, Acc1", "measure", "recordings") not in found
    assert ("instruments, micro F1", "model", "synth") in found
    assert ("style, accuracy", "encoder head", "synth") in found
    assert ("facts copied exactly", "model", "text") in found
    assert ("noise: no key named", "model", "noise") in found
    assert ("think format kept", "model", "synth") in found


def test_only_the_groups_asked_for_are_measured(work: Path) -> None:
    config = EvalConfig(splits=("test",), seconds=(4.0,), only=("key", "unknown"))
    assert [score.ability for score in report(work / "tiny", work, config)] == [
        "key, exact", "key, MIREX", "unanswerable questions admitted",
    ]  # fmt: skip


@pytest.mark.parametrize("config", [EvalConfig(only=("keys",)), EvalConfig(baselines=("essentia",)), EvalConfig(splits=("nowhere",))])
def test_unknown_names_are_refused(work: Path, config: EvalConfig) -> None:
    with pytest.raises(UsageError, match=r"keys|essentia|nowhere"):
        next(report(work / "tiny", work, config))
