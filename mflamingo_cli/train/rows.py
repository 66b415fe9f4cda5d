"""Rows of training text: a question about a song, or without one, and its answer, as ids of a checkpoint's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from mflamingo_cli.core.chat import END_TOKENS, ChatTemplate, build_messages
from quant.config import read_geometry, read_json
from quant.geometry import AudioTokens
from quant.vocabulary import chat_template


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

    def __init__(self, tokenizer: Tokenizer, template: str | None, tokens: AudioTokens) -> None:
        self.tokenizer, self.chat = tokenizer, ChatTemplate(template, tokens)
        self.sound_id: int = tokenizer.token_to_id(tokens.audio)
        self.n_after = int(tokens.eos is not None)  # ids that belong to the audio and stand behind it
        found = [tokenizer.token_to_id(name) for name in reversed(END_TOKENS)]
        self.pad_id: int = next(number for number in found if number is not None)  # masked wherever it stands

    @classmethod
    def of(cls, directory: Path) -> ChatEncoder:
        """Read the tokenizer, the template and the names of the audio tokens of a checkpoint directory."""
        settings = read_json(directory / "tokenizer_config.json", required=False)
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        return cls(tokenizer, chat_template(directory, settings), read_geometry(directory).tokens)

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are recognised by name; nothing is added."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def branch(self, turn: Turn, audio: bool) -> Branch:
        """A whole conversation; with audio, one placeholder stands for all of it."""
        messages = build_messages(turn.question, history=turn.history, audio=audio)
        return Branch(*self.chat.training_ids([*messages, {"role": "assistant", "content": turn.answer}], 1, self.encode))


def answer_weights(mask: Sequence[bool]) -> np.ndarray:
    """Weights of a branch's answer tokens: short answers count for more per token, long ones for more in all."""
    marked = np.asarray(mask, dtype=np.float32)
    return marked / max(1.0, float(marked.sum())) ** 0.5
