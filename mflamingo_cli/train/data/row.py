"""The one type of row that training reads: a song, or none, and a conversation about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mflamingo_cli.core.chat import Message, build_messages


class RowError(Exception):
    """A record that cannot be trained on; the message says why, and `place` where it stands, as FILE:LINE."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place, self.reason = place, reason


@dataclass(frozen=True)
class AudioPart:
    """A file, or the part of it between two times in seconds."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True)
class QuestionAnswer:
    """A question with its answer; None for a question that the model itself shall answer, `learned` False for what is only read."""

    question: str
    answer: str | None
    learned: bool = True


@dataclass(frozen=True)
class TrainingRow:
    """A conversation about a song; `extra` holds what else its record has, such as options, an expected answer, facts."""

    exchanges: tuple[QuestionAnswer, ...]
    audio: AudioPart | None
    place: str
    system: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def messages(self) -> list[Message]:
        """Return the turns as the chat template takes them; the last answer is left out where there is none."""
        *before, last = self.exchanges
        history = [(exchange.question, exchange.answer or "") for exchange in before]
        messages = build_messages(last.question, system=self.system, history=history, audio=self.audio is not None)
        return messages if last.answer is None else [*messages, {"role": "assistant", "content": last.answer}]
