"""From questions to tokens and from logits to streamed text, the same for both back ends: shared prefixes, choosing, stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mflamingo_cli.backends.base import Chunk, Encoded, GenerateOptions, Prompt, SongPrompts, Usage
from mflamingo_cli.core.chat import END_OF_TURN, ChatTemplate, indices_by_prefix
from mflamingo_cli.errors import ModelError

Logits = npt.NDArray[np.float32]
FORCED_BATCH = 64  # positions whose logits are held at once: 40 MB with the real vocabulary
Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True)
class PrefixGroup:
    """Prompts that begin alike: with tokens, then a song's embeddings; `names` are (talk, prompt), `after` each one's own tokens."""

    names: list[tuple[int, int]]
    before: list[int]
    embeddings: Any = field(repr=False)  # (n, d_model) of the back end that made them, None without a song
    after: list[list[int]]

    @property
    def n_shared(self) -> int:
        """Positions that are read once."""
        return len(self.before) + (0 if self.embeddings is None else len(self.embeddings))

    def n_needed(self, options: GenerateOptions, context_length: int) -> int:
        """Positions when all answers are as long as they may be."""
        room = context_length - self.n_shared
        return self.n_shared + sum(min(len(tokens) + options.max_new_tokens, room) for tokens in self.after)

    def check(self, context_length: int) -> None:
        """Raise ModelError(code="too_long") where no answer would fit."""
        longest = self.n_shared + max(map(len, self.after))
        if longest >= context_length:
            sizes = f"{longest} tokens, the model holds {context_length}"
            raise ModelError(f"the prompt needs {sizes}; shorten the question or use --start/--end", code="too_long")


def group_by_prefix(talks: Sequence[SongPrompts], chat: ChatTemplate, tokenize: Tokenize) -> list[PrefixGroup]:
    """Render the prompts of each song and put together those that have the same text in front of the audio."""
    found = []
    for index, talk in enumerate(talks):
        rendered = [chat.render_prompt(prompt.messages(audio=talk.encoded is not None)) for prompt in talk.prompts]
        for group in indices_by_prefix(rendered):
            embeddings = None if talk.encoded is None else talk.encoded.payload
            after = [tokenize(rendered[number].after) for number in group]
            found.append(PrefixGroup([(index, number) for number in group], tokenize(rendered[group[0]].before), embeddings, after))
    return found


def batches(rows: Iterable[PrefixGroup], fit: Callable[[Sequence[PrefixGroup]], bool]) -> Iterator[list[PrefixGroup]]:
    """As many together as fit, in order, at least one; asked again when the batch before has been answered."""
    batch: list[PrefixGroup] = []
    for row in rows:
        if batch and not fit([*batch, row]):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@dataclass(frozen=True)
class ForcedAnswer:
    """A given answer, read by the model: at each of its tokens and at its end token, (tokens + 1,), what the model expected there."""

    likeliest: npt.NDArray[np.int64]  # token ids
    log_probs: npt.NDArray[np.float32]  # of the tokens that are there


class AnswerReader:
    """Reads given answers instead of generating them; a back end adds `_force_group`."""

    _chat: ChatTemplate

    def tokenize(self, text: str) -> list[int]:
        """Return ids of text in which special tokens are recognised by name; nothing is added."""
        raise NotImplementedError

    def _force_group(self, group: PrefixGroup, answers: list[list[int]]) -> list[ForcedAnswer]:
        """Read a group's prompts, each followed by an answer whose last token is the end token, which itself is not read."""
        raise NotImplementedError

    def teacher_force(self, encoded: Encoded | None, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Return the likeliest tokens along given answers, as `Backend` defines them."""
        return [forced.likeliest for forced in self._force(encoded, prompts, answers)]

    def log_likelihood(self, encoded: Encoded | None, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Return the log-probabilities of given answers' tokens, as `Backend` defines them."""
        return [forced.log_probs for forced in self._force(encoded, prompts, answers)]

    def _force(self, encoded: Encoded | None, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[ForcedAnswer]:
        """Read all answers; prompts with the same text in front of the audio share one prefix."""
        end = self.tokenize(END_OF_TURN)[:1]
        forced: dict[int, ForcedAnswer] = {}
        for group in group_by_prefix([SongPrompts(encoded, prompts)], self._chat, self.tokenize):
            numbers = [number for _, number in group.names]
            given = [self.tokenize(answers[number]) + end for number in numbers]
            forced |= dict(zip(numbers, self._force_group(group, given), strict=True))
        return [forced[number] for number in range(len(prompts))]


class Sampler:
    """Chooses the next token of one sequence; seeded, so that equal logits give equal text on either back end."""

    def __init__(self, options: GenerateOptions, context_ids: Iterable[int]) -> None:
        self._options = options
        self._random = np.random.default_rng(options.seed)
        self._seen = set(context_ids)

    @property
    def plain(self) -> bool:
        """The likeliest token is taken, whatever was said before."""
        return self._options.temperature <= 0 and self._options.repetition_penalty == 1.0

    def pick(self, logits: Logits) -> int:
        """Choose from (vocab,) logits. Temperature 0 takes the first maximum, as transformers' greedy search does."""
        token = self._choose(self._penalized(logits))
        self._seen.add(token)
        return token

    def _penalized(self, logits: Logits) -> Logits:
        """Divide positive and multiply negative logits of seen tokens (CTRL, arXiv 1909.05858, sec. 4.1; transformers' form)."""
        penalty = self._options.repetition_penalty
        if penalty == 1.0:
            return logits
        seen = np.fromiter(self._seen, dtype=np.int64)
        seen = seen[seen < logits.size]
        logits = logits.copy()
        logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        return logits

    def _choose(self, logits: Logits) -> int:
        if self._options.temperature <= 0:
            return int(np.argmax(logits))
        scaled = (logits - logits.max()).astype(np.float64) / self._options.temperature
        p = np.exp(scaled)
        p /= p.sum()
        some = np.flatnonzero(p > (1 - self._options.top_p) / p.size)  # all others together are not worth what may be left out
        order = some[np.argsort(-p[some], kind="stable")] if self._options.top_p < 1 else some
        kept = order[: int(np.searchsorted(np.cumsum(p[order]), self._options.top_p) + 1)]  # nucleus (arXiv 1904.09751)
        return int(self._random.choice(kept, p=p[kept] / p[kept].sum()))


class TextStream:
    """One prompt's answer as it grows: bytes in, complete characters out, ended by a token, a stop string or the limit."""

    def __init__(self, options: GenerateOptions, end_ids: Collection[int], tokens_in: int) -> None:
        self._options = options
        self._end_ids = end_ids
        self._tokens_in = tokens_in
        self._tokens_out = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # might be the beginning of a stop string
        self.finish: Literal["stop", "length"] | None = None

    def add(self, token: int, piece: bytes, *, last: bool = False) -> Chunk:
        """Take a token and its bytes; returns what can be shown now, with `finish` set on the final chunk.

        `last` says that the context has no room for another token.
        """
        self._tokens_out += 1
        if token in self._end_ids:
            return self._end("stop", self._held + self._decoder.decode(b"", final=True))
        text = self._held + self._decoder.decode(piece)
        found = [at for at in map(text.find, self._options.stop) if at >= 0]
        if found:
            return self._end("stop", text[: min(found)])
        if last or self._tokens_out >= self._options.max_new_tokens:
            return self._end("length", text + self._decoder.decode(b"", final=True))
        keep = max((_overlap(text, stop) for stop in self._options.stop), default=0)
        self._held = text[len(text) - keep :]
        return Chunk(text[: len(text) - keep])

    def _end(self, finish: Literal["stop", "length"], text: str) -> Chunk:
        self.finish = finish
        return Chunk(text, finish, Usage(self._tokens_in, self._tokens_out))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class Answer:
    """What one prompt gets to say: chooses its tokens and makes text of them until it ends or the context is full."""

    def __init__(self, shared: PrefixGroup, index: int, options: GenerateOptions, end_ids: Collection[int], context_length: int) -> None:
        own = shared.after[index]
        n_read = shared.n_shared + len(own)
        self.name = shared.names[index]
        self.sampler = Sampler(options, shared.before + own)
        self._stream = TextStream(options, end_ids, n_read)
        self._room = context_length - n_read

    @property
    def ended(self) -> bool:
        """Nothing more will be said."""
        return self._stream.finish is not None

    def add(self, token: int, piece: bytes) -> Iterator[tuple[int, int, Chunk]]:
        """Take the next token; what can be shown of it, as `Backend.generate` yields it."""
        self._room -= 1
        chunk = self._stream.add(token, piece, last=self._room <= 0)
        if chunk.text or chunk.finish:
            yield (*self.name, chunk)
