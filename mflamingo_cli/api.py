"""The Python API: open a model once, then ask it about songs.

Times are seconds from the start of the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import Any, TypedDict, Unpack

from mflamingo_cli import pipeline, requests
from mflamingo_cli.backends import open_backend
from mflamingo_cli.backends.base import Backend, BackendInfo
from mflamingo_cli.backends.options import DEFAULT_MODEL, GenerateOptions, OpenOptions
from mflamingo_cli.errors import ModelError
from mflamingo_cli.requests import Path, Piece, Request, Step
from mflamingo_cli.schema import Analysis
from mflamingo_cli.store import cache
from mflamingo_cli.styles import ClaimsMode


class Opening(TypedDict, total=False):
    """How a model is opened: the fields of `OpenOptions`, whose defaults hold for what is left out."""

    backend: str  # "auto", "gguf" or "torch"
    device: str  # "auto", "cpu", "cuda", "cuda:1" or "mps"
    dtype: str  # of torch: "auto", "fp32", "bf16" or "fp16"
    kv_type: str  # of gguf: "auto", "f16", "q8_0" or "f32"
    threads: int | None
    quantize: str  # of torch: "none", "int8", "nf4" or "fp8"


class Asking(TypedDict, total=False):
    """The part of the song, whether the model's words are kept in `raw`, what becomes of wrong claims, and fields of `GenerateOptions`."""

    start_s: float
    end_s: float | None
    keep_raw: bool
    claims: ClaimsMode | None  # "mark", "fix", "drop" or "raw"; None: "fix" for mini, else "mark"
    max_new_tokens: int
    temperature: float  # 0 takes the likeliest word
    top_p: float
    seed: int
    repetition_penalty: float
    stop: tuple[str, ...]
    thinking_budget: int | None


def load(model: str = DEFAULT_MODEL, *, remember: bool = True, **opening: Unpack[Opening]) -> Model:
    """Open a model: "mini", a checkpoint directory, a .gguf file, or a downloaded hub id.

    Parameters
    ----------
    model
        The name, as `--model` takes it.
    remember
        Whether results are cached, as the command line does without `--no-cache`.
    opening
        The fields of `OpenOptions`: backend, device, dtype, kv_type, threads, quantize.

    Raises ModelError when the model cannot be found or run here, UsageError for choices that do not exist.
    """
    folder = cache.default_folder() if remember else None
    return Model(open_backend(model, OpenOptions(**opening)), cache.Cache(folder) if folder else None)


class Model:
    """An open model; use it as a context manager, or `close` it. Not for several threads at the same time.

    A song is a path, `"-"` for stdin, or an open binary stream; None asks about no song, which full checkpoints can answer. With the
    cache, a second question about a file neither decodes nor measures nor encodes it again; its record is the same as that of a first
    question but for `timing`.

    The methods return one record of the schema, or raise: AudioError for a song that cannot be decoded, ModelError for what this model
    cannot do. Keywords are those of `Asking`. The `stream_` methods yield `Step` when a part of the work begins, `Piece` for text as
    the model writes it, and the record last.
    """

    def __init__(self, backend: Backend, remembered: cache.Cache | None = None) -> None:
        self._backend, self._cache, self._closed = backend, remembered, False

    @property
    def info(self) -> BackendInfo:
        """What is loaded, where it runs and why, and what it was taught."""
        return self._backend.info

    def analyze(
        self, song: Path, only: Collection[str] | None = None, tempo_range: tuple[float, float] | None = None, **asking: Unpack[Asking]
    ) -> Analysis:
        """Analyse a song: `record.tempo.bpm`, `record.key.name`, `record.chords` …

        `only` names the facts and answers that are wanted; `tempo_range`, in beats per minute, chooses the octave of the tempo.
        """
        return _last(self._run(song, requests.analyze_request(only, tempo_range=tempo_range, **_settings(asking))))

    def caption(self, song: Path, style: str = "full", **asking: Unpack[Asking]) -> Analysis:
        """Describe a song in words: `record.caption`. Styles are "full", "short", "technical", "critic" and "lyrics"."""
        return _last(self.stream_caption(song, style, **asking))

    def ask(self, song: Path | None, question: str, **asking: Unpack[Asking]) -> Analysis:
        """Answer a free question about a song: `record.text`."""
        return _last(self.stream_ask(song, question, **asking))

    def think(self, song: Path | None, question: str, **asking: Unpack[Asking]) -> Analysis:
        """Answer a free question after reasoning: `record.text`, and the reasoning in `record.thinking`."""
        return _last(self.stream_think(song, question, **asking))

    def stream_caption(self, song: Path, style: str = "full", **asking: Unpack[Asking]) -> Iterator[Step | Piece | Analysis]:
        """`caption`, as it is written."""
        return self._run(song, requests.caption_request(style, **_settings(asking)))

    def stream_ask(self, song: Path | None, question: str, **asking: Unpack[Asking]) -> Iterator[Step | Piece | Analysis]:
        """`ask`, as it is written."""
        return self._run(song, requests.ask_request(question, **_settings(asking)))

    def stream_think(self, song: Path | None, question: str, **asking: Unpack[Asking]) -> Iterator[Step | Piece | Analysis]:
        """`think`, as it is written; pieces hold the marks that the model puts around its reasoning."""
        return self._run(song, requests.think_request(question, **_settings(asking)))

    def close(self) -> None:
        """Give the memory back; nothing can be asked any more."""
        self._closed = True
        self._backend.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, song: Path | None, request: Request) -> Iterator[Step | Piece | Analysis]:
        if self._closed:
            raise ModelError("this model is closed; load it again", code="closed")
        return pipeline.run(song, self._backend, request, cache=self._cache)


def _settings(asking: Asking) -> dict[str, Any]:
    """Keywords of `Asking` as those of `Request`. Raises TypeError for any other, as a function does."""
    of_request = {name: value for name, value in asking.items() if name in _OF_REQUEST}
    return of_request | {"options": GenerateOptions(**{name: value for name, value in asking.items() if name not in of_request})}  # type: ignore[arg-type]


_OF_REQUEST = {field.name for field in fields(Request)} & Asking.__annotations__.keys()


def _last(events: Iterator[Step | Piece | Analysis]) -> Analysis:
    [record] = deque(events, maxlen=1)
    assert isinstance(record, Analysis), "run() ends with an Analysis"
    return record
