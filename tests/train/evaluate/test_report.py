"""A tiny model of chance weights goes through the whole evaluation, a GGUF pair too; what is answered in a batch is answered alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mflamingo_cli.backends import open_backend
from mflamingo_cli.core.model import save
from mflamingo_cli.errors import UsageError
from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.train.evaluate import caption_metrics
from mflamingo_cli.train.evaluate.inference import SongBatch, Update, questions
from mflamingo_cli.train.evaluate.report import EvalConfig, report
from mflamingo_cli.train.mini import build, probes, tokens
from mflamingo_cli.train.mini.dialogue import exchanges
from mflamingo_cli.train.mini.frames import MINI_MEL
from mflamingo_cli.train.rows import ChatEncoder, Turn

pytestmark = pytest.mark.slow

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
def chat() -> ChatEncoder:
    rng = np.random.default_rng(0)
    turns = [exchanges.text_turn(rng) for _ in range(200)]
    tokenizer = tokens.train_tokenizer((text for turn in turns for text in (turn.question, turn.answer)), 700)
    return ChatEncoder(tokenizer, tokens.CHAT_TEMPLATE, tokens.AUDIO)


@pytest.fixture(scope="module")
def model(chat):
    torch.set_num_threads(1)
    return build.build(SIZES, tokens.special_ids(chat.tokenizer), tokens.padded_vocab(chat.tokenizer), seed=0).eval()


@pytest.fixture(scope="module")
def backend(work):
    with open_backend(str(work / "tiny")) as opened:
        yield opened


def test_answers_in_a_batch_are_those_given_alone(backend) -> None:
    rng = np.random.default_rng(3)
    songs = [rng.normal(0, 0.1, int(seconds * 16_000)).astype(np.float32) for seconds in (1, 2.5, 4)] + [None]
    asked = [(2, "What key is this in?"), (0, "Is there singing?"), (1, "key?"), (3, "What is the meter of this song?"), (2, "bpm?")]
    together = SongBatch(backend, songs).answers(questions(asked, 12))
    assert together == [SongBatch(backend, [songs[song]]).answers(questions([(0, text)], 12))[0] for song, text in asked]
    assert len(set(together)) > 1


def test_what_is_asked_in_one_breath_is_answered_as_if_asked_in_turn(backend) -> None:
    songs, clip_labels = SongBatch(backend, [None]), []

    def asks(*rounds: str) -> Update:
        for text in rounds:
            clip_labels.append((text, (yield questions([(0, text)], 8))))

    def nothing() -> Update:
        yield from ()

    songs.run([asks("key?", "bpm?"), nothing(), asks("meter?")])
    assert sorted(clip_labels) == sorted((text, songs.answers(questions([(0, text)], 8))) for text in ("key?", "bpm?", "meter?"))


def test_yes_is_weighed_against_no_as_transformers_does(backend, model, chat) -> None:
    branch = chat.branch(Turn("Is there singing?", ""), audio=False)
    ids = branch.ids[: branch.mask.index(True)]
    with torch.no_grad():
        logits = model.to(torch.bfloat16).float()(input_ids=torch.tensor([ids])).logits[0, -1]  # as the checkpoint is stored
    yes, no = (chat.encode(word)[0] for word in ("Yes", "No"))
    (found,) = SongBatch(backend, [None]).yes([(0, "Is there singing?")])
    assert found == pytest.approx(float(torch.softmax(logits[[yes, no]], 0)[0]), abs=1e-4)


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
def work(tmp_path_factory, model, chat) -> Path:
    work = tmp_path_factory.mktemp("work")
    clips(work / "data/test", "synth", 4)
    clips(work / "data/real-test", "recording", 6)
    tokens.write_processor(work / "tiny", chat.tokenizer, MINI_MEL, 60, 1024)
    save(model, work / "tiny")
    probes.save_probes(probes.LinearProbes(model), work / "tiny")
    return work


def test_every_group_is_measured_on_both_kinds_of_clips(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(caption_metrics, "CAPTION_TOKENS", 8)
    config = EvalConfig(seconds=(4.0,), captions=2, facts=4, baselines=("measure",), baseline_clips=1)
    found = {(score.ability, score.system, score.clips) for score in report(str(work / "tiny"), work, config)}
    for kind in ("synth", "recordings"):
        for ability in ("key, exact", "chords, F1", "meter, balanced accuracy", "vocals, AUC", "yes or no, balanced accuracy"):
            assert (ability, "model", kind) in found
        for ability in ("chords, majmin", "key, exact", "vocals, AUC", "singing per token, AUC"):
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
    assert [score.ability for score in report(str(work / "tiny"), work, config)] == [
        "key, exact", "key, MIREX", "unanswerable questions admitted",
    ]  # fmt: skip


@pytest.mark.parametrize("config", [EvalConfig(only=("keys",)), EvalConfig(baselines=("essentia",)), EvalConfig(splits=("nowhere",))])
def test_unknown_names_are_refused(work: Path, config: EvalConfig) -> None:
    with pytest.raises(UsageError, match=r"keys|essentia|nowhere"):
        next(report(str(work / "tiny"), work, config))


def test_a_gguf_pair_is_measured_as_well(work: Path) -> None:
    config = EvalConfig(splits=("test",), seconds=(4.0,), only=("vocals", "heads"))
    found = {(score.ability, score.system) for score in report("mini", work, config)}
    assert {("vocals, balanced accuracy", "model"), ("vocals, AUC", "model"), ("style, accuracy", "encoder head")} <= found
