"""From prompts to tokens and from logits to streamed text, the same in both back ends: shared prefixes, sampling, stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mflamingo_cli.backends.base import (
    Backend,
    BackendInfo,
    Chunk,
    CutThinking,
    Encoded,
    Finish,
    GenerateOptions,
    Prompt,
    SongPrompts,
    Usage,
    no_progress,
)
from mflamingo_cli.core.chat import END_OF_TURN, ChatTemplate, indices_by_prefix
from mflamingo_cli.errors import ModelError
from mflamingo_cli.thinking import CLOSE_THINKING, ThoughtStream
from quant.geometry import Geometry

Logits = npt.NDArray[np.float32]
Rows = TypeVar("Rows")  # logits of several answers, (answers, vocabulary), as a back end holds them
FORCED_BATCH = 64  # positions whose logits are held at once: 40 MB with the real vocabulary
LOOP_TOKENS, LOOP_TIMES = 20, 3  # the same tokens, at least so many, so often in a row are a loop: no musician repeats a sentence twice
LOOP_REACH = 256  # tokens of the longest paragraph that is recognised when it returns


@dataclass(frozen=True)
class PrefixGroup:
    """Prompts that begin alike: with tokens, then a song's embeddings; `names` are (song, prompt), `after` each one's own tokens."""

    names: list[tuple[int, int]]
    before: list[int]
    embeddings: Any = field(repr=False)  # (n, d_model) of the back end that made them, None without a song
    after: list[list[int]]

    @property
    def n_shared(self) -> int:
        """Positions that are computed once for all prompts."""
        return len(self.before) + (0 if self.embeddings is None else len(self.embeddings))

    def n_needed(self, options: GenerateOptions, context_length: int) -> int:
        """Return the positions that are needed when all answers are as long as they may be."""
        left = context_length - self.n_shared
        return self.n_shared + sum(min(len(tokens) + options.max_new_tokens, left) for tokens in self.after)

    def check(self, context_length: int) -> None:
        """Raise ModelError(code="too_long") where no answer would fit."""
        longest = self.n_shared + max(map(len, self.after))
        if longest >= context_length:
            sizes = f"{longest} tokens, but the model's context has {context_length}"
            raise ModelError(f"the prompt has {sizes}; shorten the question, or choose a part with --start and --end", code="too_long")


@dataclass(frozen=True)
class ForcedAnswer:
    """A given answer, read by the model: at each of its tokens and at its end token, (tokens + 1,), what the model expected there."""

    likeliest: npt.NDArray[np.int64]  # token ids
    log_probs: npt.NDArray[np.float32]  # of the tokens that are there


class LocalBackend(Backend):
    """The part of a `Backend` that does not depend on a library; a back end adds tokenizer, encoder and forward pass."""

    on_progress: Callable[[str], None] = staticmethod(no_progress)
    _chat: ChatTemplate
    _end_ids: Collection[int]

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text in which special tokens are recognised by name; nothing is added."""
        raise NotImplementedError

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; special tokens have none."""
        raise NotImplementedError

    def _finite(self, numbers: Any) -> Any:
        """Return embeddings or logits that are numbers. Raises ModelError for NaN and infinity, which would be answered with `!!!!`."""
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
        end = self.tokenize(END_OF_TURN)[:1]
        forced: dict[int, ForcedAnswer] = {}
        for group in self._group_by_prefix([SongPrompts(encoded, prompts)]):
            numbers = [number for _, number in group.names]
            given = [self.tokenize(answers[number]) + end for number in numbers]
            forced |= dict(zip(numbers, self._force_group(group, given), strict=True))
        return [forced[number] for number in range(len(prompts))]

    def _group_by_prefix(self, songs: Sequence[SongPrompts]) -> list[PrefixGroup]:
        """Render the prompts of each song and put together those with the same text in front of the audio."""
        found = []
        for index, song in enumerate(songs):
            rendered = [self._chat.render_prompt(prompt.messages(audio=song.encoded is not None)) for prompt in song.prompts]
            for numbers in indices_by_prefix(rendered):
                embeddings = None if song.encoded is None else song.encoded.payload
                before, after = self.tokenize(rendered[numbers[0]].before), [self.tokenize(rendered[number].after) for number in numbers]
                found.append(PrefixGroup([(index, number) for number in numbers], before, embeddings, after))
        return found

    def _checked_groups(self, songs: Sequence[SongPrompts]) -> list[PrefixGroup]:
        """Group prompts for generation. Raises ModelError(code="too_long") for a prompt that leaves no room to answer."""
        groups = self._group_by_prefix(songs)
        for group in groups:
            group.check(self.info.context_length)
        return groups

    def _stream(
        self,
        groups: Sequence[PrefixGroup],
        options: GenerateOptions,
        logits: Rows,
        choose: Callable[[Rows, Sequence[Sampler]], list[int]],
        step: Callable[[list[tuple[int, int]]], Rows],
    ) -> Iterator[tuple[int, int, Chunk]]:
        """Continue the prompts of all groups from the logits after them, one token of every unfinished answer per step.

        `step` takes (number of the answer, token) and returns the logits after them.
        """
        names = [(group, index) for group in groups for index in range(len(group.after))]
        close_thinking = self.tokenize(CLOSE_THINKING)
        answers = [Answer(*name, options, self._end_ids, self.info.context_length, close_thinking) for name in names]
        running = list(range(len(answers)))
        while running:
            tokens = choose(self._finite(logits), [answers[number].sampler for number in running])
            for number, token in zip(running, tokens, strict=True):
                yield from answers[number].add(token, self.piece(token))
            entries = [(number, token) for number, token in zip(running, tokens, strict=True) if not answers[number].ended]
            running = [number for number, _ in entries]
            if entries:
                logits = step(entries)


def model_info(geometry: Geometry, card: Mapping[str, Any], place: tuple[str, str | None], **loaded: Any) -> BackendInfo:
    """Return what is loaded: what the model's card says of it, and else the name and revision of the place where it was found."""
    name, revision = place
    abilities = card.get("abilities")
    return BackendInfo(
        model=card.get("name", name),
        revision=card.get("revision", revision),
        context_length=geometry.text.context_length,
        geometry=geometry,
        abilities=None if abilities is None else frozenset(abilities),
        grounded=bool(card.get("grounded", False)),
        **loaded,
    )


def batches(groups: Iterable[PrefixGroup], fit: Callable[[Sequence[PrefixGroup]], bool]) -> Iterator[list[PrefixGroup]]:
    """Yield as many groups together as fit, in order, at least one; `fit` is asked again when the batch before has been answered."""
    batch: list[PrefixGroup] = []
    for group in groups:
        if batch and not fit([*batch, group]):
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


class Sampler:
    """The choice of the next token of one sequence; seeded, so that equal logits give equal text on either back end.

    Tokens that are given to `force` come next, whatever the logits say.
    """

    def __init__(self, options: GenerateOptions, context_ids: Iterable[int]) -> None:
        self._options = options
        self._random = np.random.default_rng(options.seed)
        self._seen = set(context_ids)
        self._forced: list[int] = []

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, whatever came before."""
        return self._options.temperature <= 0 and self._options.repetition_penalty == 1.0 and not self._forced

    def force(self, tokens: Sequence[int]) -> None:
        """Choose these tokens next."""
        self._forced = list(tokens)

    def pick(self, logits: Logits) -> int:
        """Choose from (vocab,) logits. Temperature 0 takes the first maximum, as transformers' greedy search does."""
        token = self._forced.pop(0) if self._forced else self._choose(self._penalized(logits))
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
        likely = np.flatnonzero(p > (1 - self._options.top_p) / p.size)  # all others together weigh less than what a nucleus leaves out
        order = likely[np.argsort(-p[likely], kind="stable")] if self._options.top_p < 1 else likely
        kept = order[: int(np.searchsorted(np.cumsum(p[order]), self._options.top_p) + 1)]  # nucleus (arXiv 1904.09751)
        return int(self._random.choice(kept, p=p[kept] / p[kept].sum()))


class TextStream:
    """Text of one answer while it grows: bytes in, complete characters out, ended by a token, a stop string or the limit."""

    def __init__(self, options: GenerateOptions, end_ids: Collection[int], tokens_in: int) -> None:
        self._options = options
        self._end_ids = end_ids
        self._tokens_in = tokens_in
        self._tokens_out = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""  # may be the beginning of a stop string
        self.finish: Finish | None = None

    def add(self, token: int, piece: bytes) -> Chunk:
        """Add a token and its bytes and return what can be shown now, with `finish` set on the final chunk."""
        self._tokens_out += 1
        if token in self._end_ids:
            return self._end("stop", self._pending + self._decoder.decode(b"", final=True))
        text = self._pending + self._decoder.decode(piece)
        found = [at for at in map(text.find, self._options.stop) if at >= 0]
        if found:
            return self._end("stop", text[: min(found)])
        if self._tokens_out >= self._options.max_new_tokens:
            return self._end("length", text + self._decoder.decode(b"", final=True))
        keep = max((_overlap(text, stop) for stop in self._options.stop), default=0)
        self._pending = text[len(text) - keep :]
        return Chunk(text[: len(text) - keep])

    def cut(self, last: Chunk) -> Chunk:
        """End the text for a loop, with what would be shown now and what was held back."""
        return self._end("loop", last.text + self._pending + self._decoder.decode(b"", final=True))

    def _end(self, finish: Finish, text: str) -> Chunk:
        self.finish = finish
        return Chunk(text, finish, Usage(self._tokens_in, self._tokens_out))


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class Loop:
    """Sees when tokens go round: the last LOOP_TOKENS or more were said LOOP_TIMES in a row."""

    _periods = np.arange(1, LOOP_REACH + 1)
    _block = -(-LOOP_TOKENS // _periods) * _periods  # whole periods of LOOP_TOKENS or more
    _needed = LOOP_TIMES * _block - _periods  # tokens that are those one period before, when the block was said LOOP_TIMES

    def __init__(self) -> None:
        self._last = np.full(LOOP_REACH, -1)  # newest first
        self._equal = np.zeros(LOOP_REACH, int)  # for each period, how many of the last tokens are those one period before

    def add(self, token: int) -> bool:
        """Take the next token; whether it closes a loop."""
        self._equal = np.where(self._last == token, self._equal + 1, 0)
        self._last[1:] = self._last[:-1]
        self._last[0] = token
        return bool((self._equal >= self._needed).any())


class Answer:
    """The answer to one prompt of a group while it is generated: its sampler, its text, and when it ends.

    Reasoning that uses up its budget or goes round is closed by the tokens `close_thinking`, once; an answer that goes round ends.
    """

    def __init__(
        self,
        group: PrefixGroup,
        index: int,
        options: GenerateOptions,
        end_ids: Collection[int],
        context_length: int,
        close_thinking: Sequence[int] = (),
    ) -> None:
        own = group.after[index]
        n_prompt = group.n_shared + len(own)
        self.name = group.names[index]
        self.sampler = Sampler(options, group.before + own)
        room = min(options.max_new_tokens, context_length - n_prompt)
        self._stream = TextStream(replace(options, max_new_tokens=room, thinking_budget=None), end_ids, n_prompt)
        self._loop, self._thoughts, self._n_thought = Loop(), ThoughtStream(), 0
        self._close_thinking, self._budget = close_thinking, options.thinking_budget
        self._cut_thinking: CutThinking | None = None

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self._stream.finish is not None

    def add(self, token: int, piece: bytes) -> Iterator[tuple[int, int, Chunk]]:
        """Add the next token and yield what can be shown, as `Backend.generate` does."""
        chunk = self._stream.add(token, piece)
        if not chunk.finish:
            chunk = self._watched(token, chunk)
        if chunk.text or chunk.finish:
            yield (*self.name, replace(chunk, cut_thinking=self._cut_thinking) if chunk.finish else chunk)

    def _watched(self, token: int, chunk: Chunk) -> Chunk:
        """Close reasoning that takes too long, end an answer that goes round; what can be shown then."""
        self._n_thought += self._thoughts.thinks
        self._thoughts.feed(chunk.text)
        looped = self._loop.add(token)
        if self._thoughts.thinks and self._cut_thinking is None:
            spent = self._budget is not None and self._n_thought >= self._budget
            if looped or spent:
                self._cut_thinking, self._loop = "loop" if looped else "budget", Loop()
                self.sampler.force(self._close_thinking)
            return chunk
        return self._stream.cut(chunk) if looped else chunk
