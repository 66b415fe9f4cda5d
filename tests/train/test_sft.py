"""Laws of fine-tuning: the loss is transformers' own, songs are heard, rows do not see each other, an adapter is what was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mflamingo_cli.backends import find_model, open_backend
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.core.audio import load as load_audio
from mflamingo_cli.core.model import load
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train import sft
from mflamingo_cli.train.adapters import TuneConfig
from mflamingo_cli.train.data.check import RowSize
from mflamingo_cli.train.data.row import QuestionAnswer
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.network import RowSequence, TrainingNetwork, linear_loss, n_tokens, sequence_of, share_beginnings
from mflamingo_cli.train.objectives import Place
from mflamingo_cli.train.parallel import Processes
from mflamingo_cli.train.plan import units_of
from mflamingo_cli.train.rows import Branch, ChatEncoder
from mflamingo_cli.train.songs import SongReader
from quant.config import read_geometry
from quant.convert import plan
from tests import checkpoints

RATE = 16_000
SUMS = 1e-6  # of a loss near 6: float32 sums in another order
CPU = torch.device("cpu")


def write_song(path: Path, seconds: float, seed: int) -> str:
    noise = np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE))
    soundfile.write(path, (noise * np.sin(np.arange(len(noise)) * (0.01 + 0.002 * seed))).astype(np.float32), RATE)
    return path.name


def said(*exchanges: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for pair in exchanges for role, text in zip(("user", "assistant"), pair, strict=True)]


@pytest.fixture(scope="module", params=["musicflamingo", "audioflamingo3"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return checkpoints.write(tmp_path_factory.mktemp("checkpoint"), request.param)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("rows")
    songs = [write_song(folder / f"{number}.wav", seconds, number) for number, seconds in enumerate((3.0, 31.0, 8.0))]
    conversations = [
        {"audio": songs[0], "messages": said(("Which key?", "A minor"), ("And how fast?", "120 BPM"))},
        {"audio": songs[1], "messages": said(("Describe it.", "bright pianos and warm strings"))},
        {"audio": None, "messages": said(("What is a tritone?", "six semitones"))},
        {"audio": songs[2], "messages": said(("Which key?", "C major"))},
    ]
    lines = [json.dumps({"format": "mflamingo-rows/1"} | row) for row in conversations]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return Rows([folder / "rows.jsonl"])


def network_of(checkpoint: Path, **settings: bool) -> TrainingNetwork:
    model, geometry = load(checkpoint), read_geometry(checkpoint)
    model.requires_grad_(True)
    return TrainingNetwork(model, geometry, ChatEncoder.of(checkpoint).sound_id, **({"trains_encoder": True} | settings))


def sequence(checkpoint: Path, rows: Rows, *numbers: int, audio_of: int | None = None) -> RowSequence:
    """Rows packed as training packs them; with `audio_of` the song of another row."""
    chat, reader = ChatEncoder.of(checkpoint), SongReader(read_geometry(checkpoint))
    branches, songs = [], []
    for number in numbers:
        row = rows[number]
        heard = rows[audio_of] if audio_of is not None else row
        if row.audio is not None:
            songs.append(reader.read(heard.audio))
        branches.append(chat.row(row, n_tokens(songs[-1]) if row.audio is not None else 0))
    return sequence_of(branches, songs)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_the_loss_of_a_row_is_that_of_transformers(checkpoint: Path, rows: Rows, number: int) -> None:
    one = sequence(checkpoint, rows, number)
    network = network_of(checkpoint).eval()
    with torch.no_grad():
        ours = float(network(one)[0]) / one.n_answers
        model, labels = load(checkpoint).eval(), torch.where(one.learned, one.ids, -100)[None]
        heard = {}
        if one.songs:
            [song] = one.songs
            frames = torch.arange(song.mels.shape[-1]) < song.n_frames[:, None]
            heard = {"input_features": song.mels, "input_features_mask": frames.long()}
        theirs = float(model(input_ids=one.ids[None], labels=labels, **heard).loss)
    assert one.n_answers > 3
    assert ours == pytest.approx(theirs, rel=SUMS)


def test_what_is_learned_is_the_words_of_the_assistant_and_their_ends(checkpoint: Path, rows: Rows) -> None:
    one = sequence(checkpoint, rows, 0, 2)
    text = ChatEncoder.of(checkpoint).tokenizer.decode(one.ids[one.learned].tolist(), skip_special_tokens=False)
    assert text == "A minor<|im_end|>120 BPM<|im_end|>six semitones<|im_end|>"


def test_packed_rows_are_each_alone(checkpoint: Path, rows: Rows) -> None:
    network = network_of(checkpoint).eval()
    with torch.no_grad():
        together = float(network(sequence(checkpoint, rows, 0, 1, 2, 3))[0])
        alone = sum(float(network(sequence(checkpoint, rows, number))[0]) for number in range(4))
    assert together == pytest.approx(alone, rel=SUMS)


def test_rows_about_one_song_share_it_and_lose_and_learn_as_each_alone(checkpoint: Path, rows: Rows) -> None:
    """Questions that begin alike, and one with two turns of which the first is only read."""
    chat, reader = ChatEncoder.of(checkpoint), SongReader(read_geometry(checkpoint))
    song, texts = reader.read(rows[1].audio), (("Which key?", "A minor"), ("Which key is it?", "C"), ("Describe it.", "bright pianos"))
    exchanges = [
        *((QuestionAnswer(*pair),) for pair in texts),
        (QuestionAnswer("Which", "this", learned=False), QuestionAnswer("Why?", "so")),
    ]
    branches = [chat.row(replace(rows[1], exchanges=some), n_tokens(song)) for some in exchanges]
    alone = [chat.row(rows[2], 0)]
    found = []
    for packed in (share_beginnings([branches, alone], [song]), sequence_of([*branches, *alone], [song] * len(branches))):
        network = network_of(checkpoint)
        loss, right = network(packed)
        loss.backward()
        found.append((packed, loss.detach(), right, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}))
    (one, loss, right, gradients), (copies, wanted, as_right, theirs) = found
    assert one.n_answers == copies.n_answers > 10
    assert len(one.ids) < len(copies.ids) - 2.9 * n_tokens(song)
    assert float(loss) == pytest.approx(float(wanted), rel=SUMS)
    assert int(right) == int(as_right)
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-5, atol=1e-5 * float(theirs[name].abs().max()), msg=name)


@pytest.mark.parametrize("answers", [([7, 8], [9]), ([7, 8], [7, 9]), ([7, 8], [7, 8])], ids=["other", "alike", "same"])
def test_answers_to_one_question_learn_every_token(answers: tuple[list[int], ...]) -> None:
    prompt = [1, 2, 3, 4]
    group = [Branch(prompt + answer, [False] * len(prompt) + [True] * len(answer)) for answer in answers]
    made = share_beginnings([group], [])
    assert made.ids[made.learned].tolist() == [number for answer in answers for number in answer]
    assert made.positions[made.learned].tolist() == [len(prompt) + at for answer in answers for at in range(len(answer))]
    assert made.bounds[1] == len(prompt) - 1  # the last token of the prompt tells the first one of each answer


@pytest.mark.parametrize("context", [1000, 100])
def test_rows_about_one_song_are_a_unit_that_fits(context: int) -> None:
    about = [RowSize(80, 60, "a"), RowSize(90, 70, "b"), RowSize(15), RowSize(75, 60, "a"), RowSize(70, 60, "a"), RowSize(15)]
    units, tokens = units_of(about, context)
    assert units == ([[0, 3, 4], [1], [2], [5]] if context == 1000 else [[0, 3], [1], [2], [4], [5]])
    assert tokens == ([105, 90, 15, 15] if context == 1000 else [95, 90, 15, 70, 15])
    long = [RowSize(1060, 60, "a") for _ in range(5)]
    assert units_of(long, 50_000)[0] == [[0, 1], [2, 3], [4]]  # what stands behind a song has a limit


def test_another_song_is_another_loss_and_another_gradient(checkpoint: Path, rows: Rows) -> None:
    found = []
    for song in (0, 3):
        network = network_of(checkpoint)
        loss, _ = network(sequence(checkpoint, rows, 0, audio_of=song))
        loss.backward()
        heads = ("audio_tower.layers.0.fc1", "multi_modal_projector.linear_1", "language_model.layers.0.mlp.up_proj")
        found.append((float(loss.detach()), [network.model.model.get_submodule(name).weight.grad for name in heads]))
    assert abs(found[0][0] - found[1][0]) > 1e-3
    for first, second in zip(found[0][1], found[1][1], strict=True):
        assert float((first - second).norm() / first.norm()) > 1e-3


def test_scores_in_chunks_give_the_same_loss_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    states, weight, targets = torch.randn(30, 8), torch.randn(50, 8), torch.randint(50, (30,))
    found = []
    for chunk in (1000, 7):
        monkeypatch.setattr("mflamingo_cli.train.network.CHUNK", chunk)
        parts = [states.clone().requires_grad_(), weight.clone().requires_grad_()]
        loss = linear_loss(*parts, targets)
        loss.backward()
        found.append((loss.detach(), *(part.grad for part in parts)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def run(checkpoint: Path, rows: Rows, output: Path, tune: TuneConfig, **settings: object) -> sft.SftRun:
    config = replace(sft.SftConfig(tune, steps=30, lr=5e-3, batch=1, context=1000, bf16=False, save_every=1000), **settings)
    made = sft.prepare(checkpoint, rows, output, config, CPU, Processes())
    losses = [report.loss for report in made.train()]
    assert losses[-1] < 0.7 * losses[0]
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    "tune",
    [
        TuneConfig("lora", ("language",)),
        TuneConfig("lora", dora=True),
        TuneConfig("lora", ("language", "projector", "encoder")),
        TuneConfig("qlora"),
        TuneConfig("full", ("language", "projector", "encoder")),
    ],
    ids=["lora", "dora and projector", "lora of all", "qlora", "full"],
)
def test_what_was_trained_answers_alike_in_both_back_ends(tune: TuneConfig, rows: Rows, tmp_path: Path) -> None:
    base = checkpoints.write(tmp_path / "base")
    made = run(base, rows, tmp_path / "run", tune)
    merged, reader = made.result, rows[0].audio
    files = find_model(str(merged))
    assert (files.adapter is None) == (tune.tune == "full")
    for _ in plan(files.directory, tmp_path / "gguf", "F32", adapter=files.adapter).run():
        pass
    prompts = [Prompt("Which key?"), Prompt("Describe it.")]
    answers = []
    for name, options in ((str(merged), OpenOptions("torch", "cpu", "fp32")), (str(tmp_path / "gguf"), OpenOptions("gguf"))):
        with open_backend(name, options) as backend:
            [song] = backend.encode([load_audio(reader.path)])
            answers.append([reply.text for reply in complete(backend, song, prompts, GenerateOptions(max_new_tokens=12))])
    assert answers[0] == answers[1]
    assert answers[0] != [""] * 2


def test_rows_that_cannot_be_trained_on_are_named_before_the_model_is_loaded(checkpoint: Path, rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"audio": "gone.wav", "messages": said(("a", "b"))}, {"messages": said(("a", "b"))[:1]}]
    path.write_text("\n".join(json.dumps({"format": "mflamingo-rows/1"} | line) for line in lines), encoding="utf-8")
    sentence = (
        r"2 rows cannot be trained on: .*rows\.jsonl:1: no file gone\.wav .*rows\.jsonl:2: the last question has no answer to train on"
    )
    with pytest.raises(UsageError, match=sentence):
        sft.prepare(checkpoint, Rows([path]), tmp_path / "run", sft.SftConfig(), CPU, Processes())
    assert not (tmp_path / "run").exists()


def test_songs_are_encoded_once_where_the_encoder_is_frozen(rows: Rows, tmp_path: Path) -> None:
    base = checkpoints.write(tmp_path / "base")
    made = sft.prepare(base, rows, tmp_path / "run", sft.SftConfig(batch=1, context=1000, bf16=False), CPU, Processes())
    [first], [again] = made.objective.draw(Place(0, 0)), made.objective.draw(Place(0, 0))
    assert all(isinstance(song, torch.Tensor) for song in again.songs)
    with torch.no_grad():
        assert torch.equal(made.network.eval()(first)[0], made.network(again)[0])


def test_a_learning_rate_is_the_one_that_was_asked_for() -> None:
    assert [sft.SftConfig(lr=rate).learning_rate() for rate in (None, 0.0, 1e-3)] == [sft.LORA_LR, 0.0, 1e-3]
    assert sft.SftConfig(TuneConfig("full"), stage="think").learning_rate() == sft.STAGES["think"]
