"""The input and output of an engine: a plan; steps and finished records; callbacks for everything else."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from mflamingo_cli import backends
from mflamingo_cli.backends import ModelFiles
from mflamingo_cli.backends.base import Backend, BackendInfo, OpenOptions
from mflamingo_cli.backends.no_model import NoModel
from mflamingo_cli.errors import MFlamingoError, ModelError
from mflamingo_cli.requests import Piece, Request, Step
from mflamingo_cli.schema import Analysis


@dataclass(frozen=True)
class RunPlan:
    """What is asked: one request to one model about many songs, and what of earlier runs counts."""

    songs: tuple[str, ...]
    request: Request
    model: str
    opening: OpenOptions
    offline: bool = False
    jobs: int | None = None  # songs decoded at once; None: one per core
    batch_size: int | None = None  # songs answered together; None: as the back end says
    cached: bool = True  # whether the analysis cache is read and written
    resumable: bool = True  # whether finished songs are found by the next run
    force: bool = False
    retry_failed: bool = False
    output: str | None = None  # the folder of an engine that writes one
    ray_address: str | None = None
    keep_raw: bool = False  # whether written records have the model's own text
    hide_thinking: bool = False  # whether they are without the reasoning

    def open_backend(self) -> Backend:
        """Open the model, or the stand-in where no question is put to one. Raises ModelError."""
        return backends.open_backend(self.model, self.opening) if self.request.tasks else NoModel()

    def find_model(self) -> ModelFiles:
        """The files of the model; none where no question is put to one. Raises ModelError."""
        return backends.find_model(self.model) if self.request.tasks else ModelFiles("")

    def describe(self, info: BackendInfo) -> str:
        """What was opened, and why."""
        how = f"{info.model}: {info.backend} on {info.device}, {info.dtype}" if self.request.tasks else "no model is loaded"
        return f"{how} ({info.reason})"


@dataclass(frozen=True)
class Opened:
    """The engine is ready; `resumable` where the next run finds what this one finishes."""

    resumable: bool


@dataclass(frozen=True)
class Working:
    """A step of the work on a song, or a piece of text."""

    song: str
    event: Step | Piece


@dataclass(frozen=True)
class Finished:
    """A song's record, kept for the next run if the run is resumable; `remembered` where nothing was done for it in this one."""

    song: str
    record: Analysis
    failure: MFlamingoError | None = None
    remembered: bool = False


@dataclass(frozen=True)
class Unavailable:
    """There is no model: every song that follows fails for this reason."""

    reason: ModelError


Event = Opened | Working | Finished | Unavailable


@dataclass(frozen=True)
class EngineListener:
    """Takes what an engine says besides its results."""

    working: Callable[[str], None]  # what is being done for all songs: opening a model, joining a cluster
    advance: Callable[[str], None]  # how far the present step is
    detail: Callable[[str], None]  # a decision and its reason
    warn: Callable[[str], None]  # what deserves attention


class Engine(Protocol):
    """RunPlan in, results out."""

    def check(self, plan: RunPlan) -> None:
        """Raise MFlamingoError for what cannot be done, before anything is opened or written."""

    def run(self, plan: RunPlan, listener: EngineListener) -> Generator[Event, None, None]:
        """Yield steps, and one `Finished` per song; to be closed when left early. Raises MFlamingoError where no song can be tried."""
