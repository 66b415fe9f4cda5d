"""Rows of training text: questions with answers as ids of a checkpoint's own chat template; several about one song share a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn.utils.rnn import pad_sequence

from mflamingo_cli.backends.pytorch_loading import load_tokenizer
from mflamingo_cli.core.chat import END_TOKENS, ChatTemplate, build_messages
from mflamingo_cli.core.model import Model
from mflamingo_cli.train.data.row import TrainingRow
from quant.config import read_geometry
from quant.geometry import AudioTokens


@dataclass(frozen=True)
class Turn:
    """One question with its answer; `history` holds the turns before it."""

    question: str
    answer: str
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Branch:
    """One conversation as ids, and a mask that is True on the assistant's text and its end token."""

    ids: list[int]
    mask: list[bool]


class ChatEncoder:
    """Turns as the ids that inference would read, by the template and the audio tokens of a checkpoint."""

    def __init__(self, tokenizer: Tokenizer, template: str | None, tokens: AudioTokens, where: object = "this model") -> None:
        self.tokenizer, self.chat = tokenizer, ChatTemplate(template, tokens, where)
        self.sound_id: int = tokenizer.token_to_id(tokens.audio)
        self.n_after = int(tokens.eos is not None)  # ids that belong to the audio and stand behind it
        found = [tokenizer.token_to_id(name) for name in reversed(END_TOKENS)]
        self.pad_id: int = next(number for number in found if number is not None)  # masked wherever it stands

    @classmethod
    def of(cls, directory: Path) -> ChatEncoder:
        """Read the tokenizer, the template and the names of the audio tokens of a checkpoint directory."""
        tokenizer, template = load_tokenizer(directory)
        return cls(tokenizer, template, read_geometry(directory).tokens, directory)

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are recognised by name; nothing is added."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def branch(self, turn: Turn, audio: bool) -> Branch:
        """A whole conversation; with audio, one placeholder stands for all of it."""
        messages = build_messages(turn.question, history=turn.history, audio=audio)
        return Branch(*self.chat.training_ids([*messages, {"role": "assistant", "content": turn.answer}], 1, self.encode))

    def row(self, row: TrainingRow, n_audio: int) -> Branch:
        """A row whose song takes `n_audio` tokens; answers that are only read are not marked."""
        ids, mask = self.chat.training_ids(row.messages(), 1, self.encode)
        if row.audio is not None:  # as ids: half an hour as text would be 45,000 placeholders to find
            at = ids.index(self.sound_id)
            ids[at : at + 1], mask[at : at + 1] = [self.sound_id] * n_audio, [False] * n_audio
        answers = iter(exchange.learned for exchange in row.exchanges)
        runs = [(marked and next(answers), len(list(run))) for marked, run in groupby(mask)]
        return Branch(ids, [marked for marked, length in runs for _ in range(length)])


def answer_weights(mask: Sequence[bool]) -> np.ndarray:
    """Weights of a branch's answer tokens: short answers count for more per token, long ones for more in all."""
    marked = np.asarray(mask, dtype=np.float32)
    return marked / max(1.0, float(marked.sum())) ** 0.5


# --- conversations packed into rows ---------------------------------------------------------------------------------------

EXCHANGE_TOKENS = 68  # positions that a question with its answer takes, on average


@dataclass(frozen=True)
class Packed:
    """Places for a song's audio, followed by conversations about it, which see the audio and themselves only."""

    ids: torch.Tensor  # (B, T)
    weights: torch.Tensor  # (B, T)
    positions: torch.Tensor  # (B, T)
    mask: torch.Tensor  # (B, 1, T, T) True where attended
    audio: slice  # of T


def pack(chat: ChatEncoder, n_audio: int, turns: Sequence[Sequence[Turn]]) -> Packed:
    """Rows of one audio length: shared prefix up to the audio's end, then branches that restart their positions after it."""
    rows = [[chat.branch(turn, audio=True) for turn in some] for some in turns]
    at = rows[0][0].ids.index(chat.sound_id)
    after = at + 1 + chat.n_after
    prefix = [*rows[0][0].ids[:at], *[chat.sound_id] * n_audio, *rows[0][0].ids[at + 1 : after]]
    length = len(prefix) + max(sum(len(b.ids) - after for b in row) for row in rows)
    ids = torch.full((len(rows), length), chat.pad_id)
    weights, positions = torch.zeros(len(rows), length), torch.zeros(len(rows), length, dtype=torch.long)
    group = torch.full((len(rows), length), -1)
    for i, row in enumerate(rows):
        ids[i, : len(prefix)], positions[i, : len(prefix)], group[i, : len(prefix)] = torch.tensor(prefix), torch.arange(len(prefix)), 0
        start = len(prefix)
        for number, branch in enumerate(row, 1):
            tail, marks = branch.ids[after:], branch.mask[after:]
            span = slice(start, start + len(tail))
            ids[i, span], group[i, span] = torch.tensor(tail), number
            positions[i, span] = torch.arange(len(prefix), len(prefix) + len(tail))
            weights[i, span] = torch.from_numpy(answer_weights(marks))
            start += len(tail)
    same = (group[:, :, None] == group[:, None, :]) | (group[:, None, :] == 0)
    mask = (same & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
    return Packed(ids, weights, positions, mask, slice(at, at + n_audio))


def packed_hidden(model: Model, packed: Packed, audio: torch.Tensor) -> torch.Tensor:
    """Last hidden states (B, T, d_text) of packed rows with the encoder's output for their songs (B, n, d_audio)."""
    device = audio.device
    embeds = model.model.language_model.embed_tokens(packed.ids.to(device))
    projected = model.model.multi_modal_projector(audio).to(embeds.dtype)
    embeds = torch.cat([embeds[:, : packed.audio.start], projected, embeds[:, packed.audio.stop :]], dim=1)
    return model.model.language_model(
        inputs_embeds=embeds, attention_mask=packed.mask.to(device), position_ids=packed.positions.to(device), use_cache=False
    ).last_hidden_state


def rows_that_fit(length: int, tokens: int, turns: int) -> int:
    """Songs of so many audio tokens in a batch of about `tokens` positions; twelve at most."""
    return max(1, min(12, tokens // (length + EXCHANGE_TOKENS * turns)))


def padded(branches: Sequence[Branch], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows without audio, one conversation each: ids and weights, (B, T)."""
    ids = pad_sequence([torch.tensor(b.ids) for b in branches], batch_first=True, padding_value=pad_id)
    weights = pad_sequence([torch.from_numpy(answer_weights(b.mask)) for b in branches], batch_first=True)
    return ids, weights
