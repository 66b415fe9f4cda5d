"""What any checkpoint can learn from rows of text: answers without audio, and answers about songs whose encoding is given.

An objective draws a batch and gives its loss; a batch is a pure function of (seed, step), so that a resumed run is the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mflamingo_cli.core.model import Model
from mflamingo_cli.train.rows import Branch, ChatEncoder, Packed, Turn, pack, packed_hidden, padded

TEXT_CHUNKS = 3  # of a batch without audio, sorted by length: little of each is padding

DrawTurn = Callable[[np.random.Generator], Turn]
DrawSongs = Callable[[np.random.Generator], tuple[np.ndarray, list[list[Turn]]]]  # encodings of one length (B, T, d_audio), turns of each


@dataclass(frozen=True)
class Place:
    """Where in a run a batch is drawn: what is drawn there is always the same."""

    seed: int
    step: int
    rank: int = 0
    world: int = 1

    def rng(self) -> np.random.Generator:
        """Return the random numbers of this place."""
        return np.random.default_rng([self.seed, self.step, self.rank] if self.rank else [self.seed, self.step])


class Objective(Protocol):
    """One way to learn; `module` holds the parts it trains, by their names in a checkpoint."""

    module: nn.Module

    def draw(self, place: Place) -> Sequence[Any]:
        """Draw the batches of a step, as many in every process."""

    def weight(self, batch: Any) -> float:
        """How much a batch counts beside the others of its step: the number of its answer tokens, or 1."""

    def loss(self, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch times its weight, and numbers to log."""


class SeededObjective(Protocol):
    """An objective whose batch depends on random numbers alone."""

    module: nn.ModuleDict

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw a batch."""

    def loss(self, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean loss of a batch, and numbers to log."""


class EqualBatches:
    """One batch of a seeded objective a step in each process; all count the same."""

    def __init__(self, objective: SeededObjective) -> None:
        self.module, self._objective = objective.module, objective

    def draw(self, place: Place) -> list[Any]:
        """Draw the batch of a step."""
        return [self._objective.draw(place.rng())]

    def weight(self, batch: Any) -> float:
        """How much a batch counts."""
        return 1.0

    def loss(self, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, and numbers to log."""
        return self._objective.loss(batch)


def next_token_loss(model: Model, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Cross-entropy of the marked tokens, summed; their weight; how many are right: hidden (B, T, d), ids and weights (B, T)."""
    marked = weights[:, 1:] > 0
    logits = model.lm_head(hidden[:, :-1][marked]).float()
    target, weight = ids[:, 1:][marked], weights[:, 1:][marked]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum()
    return loss, weight.sum(), int((logits.detach().argmax(-1) == target).sum())


def packed_loss(model: Model, packed: Packed, audio: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Mean loss of the answers and the share of their tokens that is right."""
    hidden = packed_hidden(model, packed, audio)
    loss, weight, right = next_token_loss(model, hidden, packed.ids.to(hidden.device), packed.weights.to(hidden.device))
    return loss / weight, right / int((packed.weights[:, 1:] > 0).sum())


class TextObjective:
    """Rows without audio, `batch` of them at a time; trains the language model."""

    def __init__(self, model: Model, chat: ChatEncoder, draw_turn: DrawTurn, batch: int) -> None:
        self.model, self.chat, self.draw_turn, self.batch = model, chat, draw_turn, batch
        self.module = nn.ModuleDict({"language_model": model.model.language_model, "lm_head": model.lm_head})

    def draw(self, rng: np.random.Generator) -> list[Branch]:
        """Draw a batch."""
        return sorted((self.chat.branch(self.draw_turn(rng), audio=False) for _ in range(self.batch)), key=lambda b: len(b.ids))

    def loss(self, batch: list[Branch]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, and numbers to log."""
        size = -(-len(batch) // TEXT_CHUNKS)
        total, weight, right, count = torch.zeros((), device=self.model.device), 0.0, 0, 0
        for at in range(0, len(batch), size):
            ids, weights = (part.to(self.model.device) for part in padded(batch[at : at + size], self.chat.pad_id))
            hidden = self.model.model.language_model(input_ids=ids, use_cache=False).last_hidden_state
            part, part_weight, part_right = next_token_loss(self.model, hidden, ids, weights)
            total, weight, right, count = total + part, weight + part_weight, right + part_right, count + int((weights[:, 1:] > 0).sum())
        return total / weight, {"token_acc": right / count}


class AudioTextObjective:
    """Rows about songs whose encoding is given, with rows of `text` beside them; trains projector and language model."""

    def __init__(self, model: Model, chat: ChatEncoder, draw_songs: DrawSongs, text: TextObjective) -> None:
        self.model, self.chat, self.draw_songs, self.text = model, chat, draw_songs, text
        self.module = nn.ModuleDict({"multi_modal_projector": model.model.multi_modal_projector, **text.module})

    def draw(self, rng: np.random.Generator) -> tuple[Packed, torch.Tensor, list[Branch]]:
        """Draw a batch."""
        audio, turns = self.draw_songs(rng)
        return pack(self.chat, audio.shape[1], turns), torch.from_numpy(audio), self.text.draw(rng)

    def loss(self, batch: tuple[Packed, torch.Tensor, list[Branch]]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, and numbers to log."""
        packed, audio, texts = batch
        loss, right = packed_loss(self.model, packed, audio.to(self.model.device))
        text_loss, numbers = self.text.loss(texts)
        return loss + text_loss, {"token_acc": right, "text_acc": numbers["token_acc"], "audio_tokens": audio.shape[1]}
