"""Stands in for a model where only measured facts are asked for: nothing is loaded, and nothing is answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from mflamingo_cli.backends.base import Backend, BackendInfo, Chunk, Encoded, GenerateOptions, Prompt, SongPrompts, no_progress
from mflamingo_cli.core.audio import Audio
from quant.geometry import AudioTokens, EncoderSizes, Geometry, MelConfig, TextSizes

NOTHING = Geometry("", MelConfig(), 0.0, EncoderSizes(0, 1, 1, 0, 0), TextSizes(0, 1, 1, 1, 0, 0), None, AudioTokens())
UNASKED = "no question is put where there is no model"


class NoModel(Backend):
    """A back end without a model: it has no abilities."""

    def __init__(self) -> None:
        self.info = BackendInfo("", None, "none", "cpu", "", "only measured facts are asked for", 0, NOTHING, frozenset())
        self.on_progress = no_progress

    def encode(self, audios: Sequence[Audio]) -> list[Encoded]:
        """Never called."""
        raise AssertionError(UNASKED)

    def generate(self, songs: Sequence[SongPrompts], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        """Never called."""
        raise AssertionError(UNASKED)

    def teacher_force(self, encoded: Encoded | None, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[NDArray[Any]]:
        """Never called."""
        raise AssertionError(UNASKED)

    def log_likelihood(self, encoded: Encoded | None, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[NDArray[Any]]:
        """Never called."""
        raise AssertionError(UNASKED)

    def pack(self, encoded: Encoded) -> NDArray[Any]:
        """Never called."""
        raise AssertionError(UNASKED)

    def unpack(self, numbers: NDArray[Any]) -> Encoded:
        """Never called."""
        raise AssertionError(UNASKED)

    def close(self) -> None:
        """There is nothing to free."""
