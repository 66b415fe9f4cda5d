"""Agreement of two models on songs: one answers, both read the answers, and at each place their likeliest next tokens are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mflamingo_cli import pipeline
from mflamingo_cli.backends.base import Backend, Prompt, complete
from mflamingo_cli.backends.importance import Collector
from mflamingo_cli.errors import ModelError
from mflamingo_cli.requests import PreparedSong, Request


@dataclass(frozen=True)
class ReferenceAnswers:
    """A song with the program's questions and a model's own answers; `choices` are its likeliest tokens along them."""

    song: str
    prepared: PreparedSong
    prompts: list[Prompt]
    answers: list[str]
    choices: list[NDArray[Any]]


@dataclass(frozen=True)
class TokenAgreement:
    """Places in answers, and how many of them another model would have continued with the same token."""

    song: str
    n_tokens: int
    n_same: int


def collect(song: str, backend: Backend, request: Request, collector: Collector | None = None) -> ReferenceAnswers:
    """Let a model answer every question about a song, then read its answers. Raises MFlamingoError.

    A collector sees the reading only: the song once, each question and answer once.
    """
    prepared = pipeline.prepare(song, request, backend.info)
    encoded, prompts = pipeline.encode_and_prompt(prepared, backend, request)
    answers = [completion.text for completion in complete(backend, encoded, prompts, request.options)]
    with collector or nullcontext():
        return ReferenceAnswers(song, prepared, prompts, answers, backend.teacher_force(encoded, prompts, answers))


def compare(references: Sequence[ReferenceAnswers], backend: Backend, request: Request) -> Iterator[TokenAgreement]:
    """Let another model encode the same songs and read the same answers. Raises ModelError when its tokens are others."""
    for reference in references:
        encoded, _ = pipeline.encode_and_prompt(reference.prepared, backend, request)
        choices = backend.teacher_force(encoded, reference.prompts, reference.answers)
        if [len(mine) for mine in choices] != [len(theirs) for theirs in reference.choices]:
            raise ModelError(f"{backend.info.model}: tokenises the answers differently, so it was not made from this checkpoint")
        same = [np.count_nonzero(mine == theirs) for mine, theirs in zip(choices, reference.choices, strict=True)]
        yield TokenAgreement(reference.song, sum(map(len, reference.choices)), int(sum(same)))
