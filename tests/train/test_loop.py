"""Laws of training: the loss is on the assistant's words only, a resumed run is the same run, a tiny model can learn by heart."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mflamingo_cli.core.model import encode_crops
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train import loop, objectives, rows
from mflamingo_cli.train.mini import build, probes, stages, tokens
from mflamingo_cli.train.mini import objectives as mini_objectives
from mflamingo_cli.train.mini.dialogue import exchanges
from mflamingo_cli.train.mini.frames import Clip
from mflamingo_cli.train.mini.probes import encode_songs
from mflamingo_cli.train.rows import ChatEncoder, Turn

SIZES = build.ModelSizes(
    d_audio=64, audio_layers=1, audio_heads=1, audio_ffn=64, n_mels=16, d_text=64, text_layers=2, text_heads=1, text_kv_heads=1, text_ffn=64
)


@pytest.fixture(scope="module")
def tokenizer():
    rng = np.random.default_rng(0)
    turns = [exchanges.text_turn(rng) for _ in range(200)]
    return tokens.train_tokenizer((text for turn in turns for text in (turn.question, turn.answer)), 700)


@pytest.fixture(scope="module")
def speech(tokenizer):
    return ChatEncoder(tokenizer, tokens.CHAT_TEMPLATE, tokens.AUDIO)


@pytest.fixture
def model(tokenizer):
    torch.set_num_threads(1)
    return build.build(SIZES, tokens.special_ids(tokenizer), tokens.padded_vocab(tokenizer), seed=0)


def excerpts(count=2, n_tokens=5):
    rng, clip_labels = np.random.default_rng(1), {"key": "A minor", "chords": "Am F"}
    clip = Clip({"index": 0, "duration": 0.4}, Path())
    return [
        mini_objectives.Excerpt(clip, 0.0, 0.4, rng.normal(size=(n_tokens, 64)).astype(np.float16), clip_labels, clip_labels)
        for _ in range(count)
    ]


def clip_labels(songs):
    return torch.from_numpy(np.stack([song.tokens for song in songs]).astype(np.float32))


def test_loss_is_on_assistant_text_and_end_token_only(speech):
    turn = Turn("What key is this in?", "A minor", (("Hello?", "D major"),))
    branch = speech.branch(turn, audio=True)
    marked = [i for i, keep in zip(branch.ids, branch.mask, strict=True) if keep]
    assert speech.tokenizer.decode(marked, skip_special_tokens=False) == "D major<|im_end|>A minor<|im_end|>"


def test_digits_are_single_tokens_and_every_byte_can_be_written(tokenizer):
    assert tokenizer.encode("tempo 187.5").tokens[-5:] == ["1", "8", "7", ".", "5"]
    text = "Motörhead \x00 音楽 ♯ 🎵"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_packed_conversations_are_each_alone(model, speech):
    model.eval()
    songs = excerpts()
    turns = [exchanges.audio_turns(np.random.default_rng(i), song.clip_labels, 3) for i, song in enumerate(songs)]
    with torch.no_grad():
        packed = rows.pack(speech, 5, turns)
        hidden = rows.packed_hidden(model, packed, clip_labels(songs))
        together = objectives.next_token_loss(model, hidden, packed.ids, packed.weights)[0]
        alone = torch.zeros(())
        for song, some in zip(songs, turns, strict=True):
            for turn in some:
                one = rows.pack(speech, 5, [[turn]])
                alone += objectives.next_token_loss(model, rows.packed_hidden(model, one, clip_labels([song])), one.ids, one.weights)[0]
    assert float(together) == pytest.approx(float(alone), rel=1e-4)  # float32 sums in another order


def test_crops_are_encoded_as_the_model_itself_encodes(model):
    model.eval()
    mels, length = torch.randn(2, 16, 1500, generator=torch.Generator().manual_seed(0)), 375
    ids = torch.full((1, 2 * length), model.config.audio_token_id)
    with torch.no_grad():
        whole = model.get_audio_features(mels, torch.ones(2, 1500, dtype=torch.long), input_ids=ids).pooler_output.view(2, length, -1)
        ours = model.model.multi_modal_projector(encode_crops(model, mels, torch.tensor([0, 1]), torch.tensor([0, 0])))
        song = encode_songs(model, torch.cat([mels[:1], mels[1:]], dim=2))
    assert torch.allclose(whole, ours, atol=1e-4)  # rotation in float64 there, float32 here
    assert torch.allclose(whole.flatten(0, 1), model.model.multi_modal_projector(song)[0], atol=1e-4)  # two windows of one song


def run(model, speech, folder, config, stop=None):
    draw = mini_objectives.excerpt_drawer([({5: excerpts()}, 1.0)], 200, 2, exchanges.REASONING_SHARE)
    objective = objectives.AudioTextObjective(model, speech, draw, objectives.TextObjective(model, speech, exchanges.text_turn, 2))
    found = []
    for report in loop.fit(objectives.EqualBatches(objective), objective.module, config, folder):
        found.append(report.loss)
        if stop is not None and report.step + 1 == stop:
            break
    return found, objective


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tokenizer, speech, tmp_path):
    config = loop.LoopConfig(steps=6, lr=1e-3, warmup=2, save_every=3, log_every=1)
    models = [build.build(SIZES, tokens.special_ids(tokenizer), tokens.padded_vocab(tokenizer), seed=0) for _ in range(3)]
    losses, whole = run(models[0], speech, tmp_path / "whole", config)
    first, _ = run(models[1], speech, tmp_path / "parts", config, stop=4)  # dies after step 4; the checkpoint is of step 3
    rest, resumed = run(models[2], speech, tmp_path / "parts", config)
    assert first[:3] + rest == losses
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


@pytest.mark.slow
def test_a_tiny_model_learns_its_examples(model, speech, tmp_path):
    class Same(objectives.TextObjective):
        def draw(self, rng):
            return super().draw(np.random.default_rng(0))

    objective = Same(model, speech, exchanges.text_turn, batch=4)
    config = loop.LoopConfig(steps=60, lr=5e-3, warmup=5, save_every=1000, log_every=1, bf16=False)
    losses = [report.loss for report in loop.fit(objectives.EqualBatches(objective), objective.module, config, tmp_path)]
    assert losses[-1] < 0.35 * losses[0]


def songs_of(rng):
    labels = {name: np.full((10, size) if name in probes.FLAGS else 10, 0) for name, size in probes.HEAD_SIZES.items()}
    mels = [rng.normal(size=(16, 40)).astype(np.float32) for _ in range(2)]
    return [mini_objectives.SongFrames(part, labels, {"key": "A minor", "chords": "Am F"}, {"key": "A minor"}) for part in mels]


def test_the_joint_stage_trains_encoder_projector_and_language_model(model, speech):
    objective = mini_objectives.JointObjective(model, songs_of, objectives.TextObjective(model, speech, exchanges.text_turn, 2), turns=2)
    loss, numbers = objective.loss(objective.draw(np.random.default_rng(0)))
    loss.backward()
    for part in ("audio_tower.layers.0.fc1.weight", "multi_modal_projector.linear_1.weight", "language_model.layers.0.mlp.up_proj.weight"):
        assert dict(objective.module.named_parameters())[part].grad.abs().max() > 0, part
    assert numbers["audio_tokens"] == 10


def test_learning_rate_warms_up_and_falls():
    config = loop.LoopConfig(steps=100, lr=1.0, warmup=10)
    rates = [loop.learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.05, abs=0.01)


def test_stage_files_that_come_along_are_valid():
    names = {stages.load_config(path).objective for path in stages.CONFIGS.glob("*.toml")}
    assert names == {"encoder", "text", "speech", "joint"}


def test_an_unknown_key_of_a_stage_file_is_named(tmp_path):
    path = tmp_path / "stage.toml"
    path.write_text('name = "x"\nobjective = "text"\nbatchsize = 3\n[loop]\nsteps = 1\nlr = 0.1\n')
    with pytest.raises(UsageError, match="unknown key batchsize"):
        stages.load_config(path)
    path.write_text('name = "x"\nobjective = "encoder"\nweights = {drums = 2.0}\n[loop]\nsteps = 1\nlr = 0.1\n')
    with pytest.raises(UsageError, match="unknown weight drums"):
        stages.load_config(path)


@pytest.mark.parametrize("fast", [True, False])
def test_a_processor_computes_in_bfloat16_only_where_it_is_faster(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
    assert loop.computes_in_bf16(None, "cpu") is fast
    assert loop.computes_in_bf16(not fast, "cpu") is not fast
    with loop.autocast(None, "cpu"):
        assert torch.is_autocast_enabled("cpu") is fast
