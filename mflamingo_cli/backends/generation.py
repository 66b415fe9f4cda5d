"""From logits to streamed text, the same for both back ends: choosing a token, stop strings, half UTF-8 characters."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from mflamingo_cli.backends.base import Chunk, GenerateOptions, Usage

Logits = npt.NDArray[np.float32]


class Sampler:
    """Chooses the next token of one sequence; seeded, so that equal logits give equal text on either back end."""

    def __init__(self, options: GenerateOptions, context_ids: Iterable[int]) -> None:
        self._options = options
        self._random = np.random.default_rng(options.seed)
        self._seen = set(context_ids)

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
        order = np.argsort(-p, kind="stable")
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
