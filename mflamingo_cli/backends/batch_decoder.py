"""Batched decoding on torch: each song is prefilled once, then every step adds one token to each unfinished answer.

A step has a constant shape for as long as it can, so that CUDA replays it as one captured graph; elsewhere the same function runs as it is.
Sequence ids, positions and cache positions are those of `core.kv_cache`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch

from mflamingo_cli.backends import memory
from mflamingo_cli.backends.base import GenerateOptions
from mflamingo_cli.backends.generation import PrefixGroup
from mflamingo_cli.core.kv_cache import EMPTY, KVCache
from mflamingo_cli.core.model import is_out_of_memory
from mflamingo_cli.errors import ModelError

CACHE_BLOCK = {"cuda": 1024}  # a step attends to whole blocks of the cache: another block is another graph, which costs about ten steps
OTHER_CACHE_BLOCK = 64


class BatchDecoder:
    """Prompts of several groups, one song each, prefilled and continued together."""

    def __init__(self, model: Any, groups: Sequence[PrefixGroup], max_new_tokens: int) -> None:
        self._model, self._groups = model, groups
        self._device = model.get_input_embeddings().weight.device
        self._prompts_start = max(group.n_shared for group in groups)  # cache position of the first prompt's tokens, in every song
        self._used = self._prompts_start + max(sum(map(len, group.after)) for group in groups)
        self._graphs = self._device.type == "cuda" and len({layer.device for layer in model.parameters()}) == 1
        self._songs = list(range(len(groups)))  # that the rows of the cache belong to
        self._names = [(song, prompt) for song, group in enumerate(groups) for prompt in range(len(group.after))]
        self._next = [group.n_shared + len(own) for group in groups for own in group.after]  # position of each answer's next token
        self._shape: tuple[int, int, int] | None = None  # songs, prompts of each, cache positions that are attended to
        self._inputs = torch.empty(0)
        self._replay: Callable[[], torch.Tensor] | None = None  # holds no `self`: a cycle would keep the cache until it is collected
        self._cache_length = cache_length(groups, max_new_tokens, self._device)
        self.cache = KVCache(model.model.language_model, len(groups), self._cache_length)

    def prefill(self) -> torch.Tensor:
        """Prefill every song and its prompts and return the logits after each prompt, (prompts of all songs, vocabulary) float32."""
        logits = []
        for song, group in enumerate(self._groups):
            ends = [end - 1 for end in accumulate(map(len, group.after))]
            logits.append(self._logits(self.prefill_song(song)[ends]))
        return torch.cat(logits)

    def prefill_song(self, song: int) -> torch.Tensor:
        """Prefill one song and its prompts and return the hidden states of the prompts, one behind the other, (tokens, d)."""
        group = self._groups[song]
        parts = [self._embed(group.before)] if group.before else []
        parts += [group.embeddings.to(self._device)] if group.embeddings is not None else []
        if parts:
            self.cache.prefill_prefix(song, torch.cat(parts))
        tokens = [token for own in group.after for token in own]
        positions = [group.n_shared + place for own in group.after for place in range(len(own))]
        sequence_ids = [prompt for prompt, own in enumerate(group.after) for _ in own]
        numbers = torch.tensor([positions, sequence_ids], device=self._device)
        return self.cache.prefill_prompts(song, self._embed(tokens), numbers[0], numbers[1], self._prompts_start)

    def step(self, entries: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Append a token to each named answer, (number, token) in ascending order; logits, (len(entries), vocabulary) float32."""
        by_song: dict[int, list[tuple[int, int]]] = {}
        for number, token in entries:
            by_song.setdefault(self._names[number][0], []).append((number, token))
        self._drop_songs(list(by_song))
        n_prompts = padded(max(map(len, by_song.values())), self._device)
        inputs = torch.zeros((4, len(self._songs), n_prompts), dtype=torch.long)  # tokens, positions, sequence ids, cache positions
        inputs[2], inputs[3] = EMPTY, torch.arange(self._used, self._used + n_prompts)
        flat = []
        for song, asked in by_song.items():
            row = self._songs.index(song)
            for column, (number, token) in enumerate(asked):
                inputs[:3, row, column] = torch.tensor([token, self._next[number], self._names[number][1]])
                self._next[number] += 1
                flat.append(row * n_prompts + column)
        self._used += n_prompts
        logits = self._compute(inputs)
        return logits if flat == list(range(len(logits))) else logits[flat]

    def _compute(self, inputs: torch.Tensor) -> torch.Tensor:
        block = CACHE_BLOCK.get(self._device.type, OTHER_CACHE_BLOCK)
        shape = (*inputs.shape[1:], min(self._cache_length, _round_up(self._used, block)))
        if shape != self._shape:
            self._shape = shape
            self._inputs = inputs.to(self._device)
            self._replay = None  # before the next is made: with a graph go its libraries' work spaces
            self._replay = capture_cuda_graph(self._run, self._device) if self._graphs else None
        else:
            self._inputs.copy_(inputs)
        return self._replay() if self._replay else self._run()

    def _run(self) -> torch.Tensor:
        """Compute one step on what `_inputs` holds; a second run computes the same again."""
        assert self._shape is not None
        tokens, positions, sequence_ids, at = self._inputs
        embedded = self._model.get_input_embeddings()(tokens)
        hidden = self.cache.append(slice(None), embedded, positions, sequence_ids, at[0], self._shape[2])
        return self._logits(hidden.flatten(0, 1))

    def _drop_songs(self, wanted: list[int]) -> None:
        """Free the cache of songs whose answers have ended, under graphs only when half of them have."""
        n_kept = padded(len(wanted), self._device)
        if n_kept < len(self._songs):
            kept = [*wanted, *(song for song in self._songs if song not in wanted)][:n_kept]
            self.cache.keep([self._songs.index(song) for song in kept])
            self._songs = kept

    def _embed(self, ids: list[int]) -> torch.Tensor:
        embedded: torch.Tensor = self._model.get_input_embeddings()(torch.tensor(ids, device=self._device))
        return embedded

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model.lm_head(hidden)
        return logits.to(self._device).float()


def capture_cuda_graph(run: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], torch.Tensor]:
    """Capture a function of fixed shapes and addresses as a CUDA graph, which replays without Python and without a launch per kernel."""
    with torch.cuda.device(device):  # another thread or another model may have chosen another device
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            run()  # libraries choose their kernels and allocate memory outside of the graph
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):  # which this graph shares with no other
            result = run()

    def replay() -> torch.Tensor:
        with torch.cuda.device(device):
            graph.replay()
        return result

    return replay


def padded(n: int, device: torch.device) -> int:
    """Return the songs or prompts of a step: as many as there are, for graphs the next power of two, so that few shapes occur."""
    return 1 << (n - 1).bit_length() if device.type == "cuda" else n


def cache_length(groups: Sequence[PrefixGroup], max_new_tokens: int, device: torch.device) -> int:
    """Return the cache positions of each song: the longest prefix, the longest prompts, and an answer to each of them."""
    prompts = max(group.n_shared for group in groups) + max(sum(map(len, group.after)) for group in groups)
    answers = max_new_tokens * padded(max(len(group.after) for group in groups), device)
    return _round_up(prompts + answers, CACHE_BLOCK.get(device.type, OTHER_CACHE_BLOCK))


def longest_answer(groups: Sequence[PrefixGroup], options: GenerateOptions, context_length: int) -> int:
    """Return the tokens of the longest answer that any prompt may get."""
    return max(min(options.max_new_tokens, context_length - group.n_shared - min(map(len, group.after))) for group in groups)


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is left on a device, torch's own reserve included; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return memory.available_memory()


@contextmanager
def memory_errors(what: str, cure: str) -> Iterator[None]:
    """Raise an out-of-memory error as ModelError(code="oom") in one sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"not enough memory {what}; {cure}", code="oom") from error


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step
