"""The core trains a checkpoint of any family: its own template, its audio tokens, and the loss that transformers itself computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mflamingo_cli.core.model import encode_crops, load
from mflamingo_cli.train import loop, objectives, rows
from mflamingo_cli.train.rows import ChatEncoder, Turn
from tests import checkpoints

TURN = Turn("What is the tempo of this song?", "120 BPM", (("Which key?", "A minor"),))
TOKENS = 750  # of a window
SUMS = 1e-4  # float32 sums in another order; time tables in float64 there, in float32 here


@pytest.fixture(scope="module", params=["musicflamingo", "audioflamingo3", "llama"])
def checkpoint(request, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return checkpoints.write(tmp_path_factory.mktemp("checkpoints") / request.param, request.param)


def test_the_loss_of_a_packed_row_is_that_of_transformers(checkpoint: Path) -> None:
    model, chat = load(checkpoint).eval(), ChatEncoder.of(checkpoint)
    mels = torch.randn(1, 128, 4 * TOKENS, generator=torch.Generator().manual_seed(0))
    branch = chat.branch(TURN, audio=True)
    at = branch.ids.index(chat.sound_id)
    ids = torch.tensor([branch.ids[:at] + [chat.sound_id] * TOKENS + branch.ids[at + 1 :]])
    mask = torch.tensor([[False] * (at + TOKENS) + branch.mask[at + 1 :]])
    with torch.no_grad():
        frames = torch.ones(1, 4 * TOKENS, dtype=torch.long)
        theirs = model(input_ids=ids, input_features=mels, input_features_mask=frames, labels=torch.where(mask, ids, -100)).loss
        audio = encode_crops(model, mels, torch.tensor([0]), torch.tensor([0]))
        ours, _ = objectives.packed_loss(model, rows.pack(chat, TOKENS, [[TURN]]), audio)
    assert mask.sum() > 5
    assert float(ours) == pytest.approx(float(theirs), rel=SUMS)


def test_other_music_is_another_loss(checkpoint: Path) -> None:
    model, chat, rng = load(checkpoint).eval(), ChatEncoder.of(checkpoint), np.random.default_rng(0)
    packed = rows.pack(chat, 9, [[TURN]])
    songs = [torch.tensor(rng.normal(size=(1, 9, 64)), dtype=torch.float32) for _ in range(2)]
    with torch.no_grad():
        first, second = (float(objectives.packed_loss(model, packed, song)[0]) for song in songs)
    assert abs(first - second) > SUMS


def test_answers_are_learned(checkpoint: Path, tmp_path: Path) -> None:
    model, chat = load(checkpoint), ChatEncoder.of(checkpoint)
    audio = np.random.default_rng(1).normal(size=(1, 9, 64)).astype(np.float32)
    text = objectives.TextObjective(model, chat, lambda rng: TURN, 2)
    objective = objectives.AudioTextObjective(model, chat, lambda rng: (audio, [[TURN]]), text)
    config = loop.LoopConfig(steps=30, lr=5e-3, warmup=3, save_every=1000, log_every=1, bf16=False)
    losses = [report.loss for report in loop.fit(objectives.EqualBatches(objective), objective.module, config, tmp_path)]
    assert losses[-1] < 0.3 * losses[0]
