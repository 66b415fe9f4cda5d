"""What a back end is: encode a song once, then answer any number of prompts about it.

Counts of tokens are counts of language-model positions; times are seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from mflamingo_cli.backends.options import GenerateOptions as GenerateOptions
from mflamingo_cli.backends.options import OpenOptions as OpenOptions

if TYPE_CHECKING:  # the program reads models' names here and must not wait for NumPy
    from numpy.typing import NDArray

    from mflamingo_cli.core.audio import Audio
    from mflamingo_cli.core.chat import Message
    from quant.geometry import Geometry

Finish = Literal["stop", "length", "loop"]  # by the model or a stop string; at the limit; because the text repeated itself
CutThinking = Literal["budget", "loop"]  # why reasoning was closed before the model did so


@dataclass(frozen=True)
class Prompt:
    """One user turn, with the turns before it as (question, answer) pairs; `system=None` is the checkpoint's own."""

    text: str
    system: str | None = None
    history: tuple[tuple[str, str], ...] = ()

    def messages(self, *, audio: bool) -> list[Message]:
        """Return the turns that a chat template renders."""
        from mflamingo_cli.core.chat import build_messages

        return build_messages(self.text, system=self.system, history=self.history, audio=audio)


@dataclass(frozen=True)
class Encoded:
    """A song as embeddings of the language model: `n_tokens` of them; the payload belongs to the back end that made it."""

    n_tokens: int
    payload: Any = field(repr=False)


@dataclass(frozen=True)
class SongPrompts:
    """A song, or none, and the prompts about it; `keep_cache` keeps its KV cache for the next prompts."""

    encoded: Encoded | None
    prompts: Sequence[Prompt]
    keep_cache: bool = False


@dataclass(frozen=True)
class Usage:
    """Tokens of one prompt (text and audio) and of its answer."""

    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Chunk:
    """A piece of streamed text; the last one of a prompt carries `finish`, `usage` and `cut_thinking` (and may carry no text)."""

    text: str
    finish: Finish | None = None
    usage: Usage | None = None
    cut_thinking: CutThinking | None = None


@dataclass(frozen=True)
class Completion:
    """All chunks of one prompt joined."""

    text: str
    finish: Finish
    usage: Usage
    cut_thinking: CutThinking | None = None

    @classmethod
    def of(cls, text: str, last: Chunk) -> Completion:
        """Return the whole text with what its last chunk carries."""
        assert last.finish, "generate() must finish every prompt"
        assert last.usage, "and the last chunk carries the usage"
        return cls(text, last.finish, last.usage, last.cut_thinking)


@dataclass(frozen=True)
class BackendInfo:
    """What is loaded and why it runs the way it does.

    `batch_size` is how many songs of four minutes, with eight questions each, are best answered at once;
    `abilities` are the tasks that the model's card claims (None: all, a full checkpoint);
    `grounded` says that measured facts make its captions truer and belong in the prompt by default;
    `encoder_fingerprint` identifies all that an encoding depends on besides the audio: weights, libraries, device, dtype, threads.
    """

    model: str
    revision: str | None
    backend: Literal["gguf", "torch", "none"]
    device: str
    dtype: str  # "F16", "Q8_0", "fp32" …: the record's `quantization`
    reason: str  # why this device and dtype
    context_length: int
    geometry: Geometry
    abilities: frozenset[str] | None = None
    grounded: bool = False
    encoder_fingerprint: str = ""
    batch_size: int = 1


class Backend(Protocol):
    """What both back ends can do; a context manager that frees the model on exit.

    `on_progress` is called with a phrase on the progress of encoding and prefill; a caller that wants to show it sets it.
    """

    info: BackendInfo
    on_progress: Callable[[str], None]

    def encode(self, audios: Sequence[Audio]) -> list[Encoded]:
        """Encode songs. Raises AudioError(code="too_long") beyond `info.geometry.max_audio_s`."""

    def generate(self, songs: Sequence[SongPrompts], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        """Answer all prompts of all songs together, each song prefilled once; the ints are the song and the prompt of a chunk."""

    def teacher_force(self, encoded: Encoded | None, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[NDArray[Any]]:
        """Return the likeliest token at each place of a given answer to each prompt, and after it: (tokens of the answer + 1,) int each.

        What is likeliest at a place is what greedy decoding would choose after the answer's tokens before it.
        """

    def log_likelihood(self, encoded: Encoded | None, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[NDArray[Any]]:
        """Return the natural log of the probability of each token of a given answer to each prompt, in order, each given all before it.

        (tokens of the answer + 1,) float32 each: the last value is that of `<|im_end|>` after the answer. An answer is tokenized alone,
        as in training; its sum is its log-likelihood, and `[0]` suffices to compare one-token answers such as "Yes" and "No".
        """

    def pack(self, encoded: Encoded) -> NDArray[Any]:
        """Return an encoding as an array to store, without loss: (n_tokens, ...)."""

    def unpack(self, numbers: NDArray[Any]) -> Encoded:
        """Return the encoding of an array that `pack` made in a back end with the same `info.encoder_fingerprint`."""

    def close(self) -> None:
        """Free the model."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def no_progress(phrase: str) -> None:
    """Ignore progress: the default `Backend.on_progress`."""


def stamp(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Return a string that changes with every write to files, also with one that restores the old date; their content is not read.

    The change time (ctime) cannot be set by programs. A copy has another stamp.
    """
    states = [(os.path.realpath(path), os.stat(path)) for path in sorted(os.fspath(path) for path in paths)]
    return repr([(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino) for path, state in states])


def complete(backend: Backend, encoded: Encoded | None, prompts: Sequence[Prompt], options: GenerateOptions) -> list[Completion]:
    """Run `generate` on one song to its end and return the joined chunks of each prompt."""
    answers: list[list[Chunk]] = [[] for _ in prompts]
    for _, index, chunk in backend.generate([SongPrompts(encoded, prompts)], options):
        answers[index].append(chunk)
    return [Completion.of("".join(chunk.text for chunk in chunks), chunks[-1]) for chunks in answers]
