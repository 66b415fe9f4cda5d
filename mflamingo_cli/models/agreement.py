"""Songs as trials of a model: what drives its matrices there, and whether a converted one still says what its source says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mflamingo_cli import pipeline
from mflamingo_cli.backends.base import Backend, Prompt, complete
from mflamingo_cli.backends.importance import Collector
from mflamingo_cli.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mflamingo_cli.requests import PreparedSong, Request


@dataclass(frozen=True)
class ReferenceAnswers:
    """A song with the program's questions and a model's own answers; `choices` are its likeliest tokens along them."""

    song: str
    heard: PreparedSong
    prompts: list[Prompt]
    answers: list[str]
    choices: list[NDArray[Any]]


@dataclass(frozen=True)
class Agreement:
    """Places in answers, and how many of them another model would have continued with the same token."""

    song: str
    n_tokens: int
    n_same: int


def collect(song: str, backend: Backend, request: Request, collector: Collector | None = None) -> ReferenceAnswers:
    """Let a model answer every question about a song, then read its answers. Raises MFlamingoError.

    With a collector the reading is collected: the song once, each question and answer once.
    """
    heard = pipeline.prepare(song, request, backend.info)
    encoded, prompts = pipeline.encode_and_prompt(heard, backend, request)
    answers = [completion.text for completion in complete(backend, encoded, prompts, request.options)]
    with collector or nullcontext():
        return ReferenceAnswers(song, heard, prompts, answers, backend.teacher_force(encoded, prompts, answers))


def compare(trials: Sequence[ReferenceAnswers], backend: Backend, request: Request) -> Iterator[Agreement]:
    """Let another model hear the same songs and follow the same answers. Raises ModelError when its tokens are others."""
    for trial in trials:
        encoded, _ = pipeline.encode_and_prompt(trial.heard, backend, request)
        choices = backend.teacher_force(encoded, trial.prompts, trial.answers)
        if [len(mine) for mine in choices] != [len(theirs) for theirs in trial.choices]:
            raise ModelError(f"{backend.info.model}: splits the answers into other tokens; it was not made from this checkpoint")
        same = [np.count_nonzero(mine == theirs) for mine, theirs in zip(choices, trial.choices, strict=True)]
        yield Agreement(trial.song, sum(map(len, trial.choices)), int(sum(same)))
