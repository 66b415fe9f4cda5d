"""Songs and their prompts on torch: each song read once, then one token of every answer per step.

A step has a constant shape for as long as it can, so that CUDA replays it as one captured graph; elsewhere the same function runs as it is.
Slots and positions as in `core.language`.
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

SLOT_STEP = {"cuda": 1024}  # a step looks at whole blocks of slots: the next block is the next graph, which costs about ten steps
OTHER_SLOT_STEP = 64


class BatchDecoder:
    """Prompts about songs, read and continued together; `rows` are its songs, one each."""

    def __init__(self, model: Any, rows: Sequence[PrefixGroup], n_new: int) -> None:
        self._model, self._language, self._rows = model, model.model.language_model, rows
        self._device = model.get_input_embeddings().weight.device
        self._first_own = max(row.n_shared for row in rows)
        self._used = self._first_own + max(sum(map(len, row.after)) for row in rows)
        self._graphs = self._device.type == "cuda" and len({layer.device for layer in model.parameters()}) == 1
        self._songs = list(range(len(rows)))  # of each row of the memory
        self._next = [[row.n_shared + len(own) for own in row.after] for row in rows]  # position of each prompt's next token
        self._shape: tuple[int, int, int] | None = None  # songs, prompts of each, slots that are looked at
        self._inputs = torch.empty(0)
        self._replay: Callable[[], torch.Tensor] | None = None  # holds no `self`: a cycle would keep the memory until it is collected
        self._n_slots = n_slots(rows, n_new, self._device)
        self.memory = KVCache(self._language, len(rows), self._n_slots)

    def read(self) -> torch.Tensor:
        """Read every song and every prompt; logits after each prompt, (prompts of all songs, vocabulary) float32."""
        logits = []
        for song, row in enumerate(self._rows):
            ends = [end - 1 for end in accumulate(map(len, row.after))]
            logits.append(self._logits(self.read_song(song)[ends]))
        return torch.cat(logits)

    def read_song(self, song: int) -> torch.Tensor:
        """Read one song and its prompts, one behind the other: hidden states of the prompts, (tokens, d)."""
        row = self._rows[song]
        parts = [self._embed(row.before)] if row.before else []
        parts += [row.embeddings.to(self._device)] if row.embeddings is not None else []
        if parts:
            self.memory.read_shared(song, torch.cat(parts))
        tokens = [token for own in row.after for token in own]
        positions = [row.n_shared + place for own in row.after for place in range(len(own))]
        owners = [prompt for prompt, own in enumerate(row.after) for _ in own]
        numbers = torch.tensor([positions, owners], device=self._device)
        return self.memory.read_own(song, self._embed(tokens), numbers[0], numbers[1], self._first_own)

    def step(self, going: Sequence[tuple[int, int, int]]) -> torch.Tensor:
        """Append a token to each named prompt, (song, prompt, token) in ascending order; logits, (len(going), vocabulary) float32."""
        prompts: dict[int, list[tuple[int, int]]] = {}
        for song, prompt, token in going:
            prompts.setdefault(song, []).append((prompt, token))
        self._drop_songs(list(prompts))
        n_prompts = self._fit(max(map(len, prompts.values())))
        inputs = torch.zeros((4, len(self._songs), n_prompts), dtype=torch.long)  # tokens, positions, owners, slots
        inputs[2], inputs[3] = EMPTY, torch.arange(self._used, self._used + n_prompts)
        flat = []
        for song, asked in prompts.items():
            row = self._songs.index(song)
            for column, (prompt, token) in enumerate(asked):
                inputs[:3, row, column] = torch.tensor([token, self._next[song][prompt], prompt])
                self._next[song][prompt] += 1
                flat.append(row * n_prompts + column)
        self._used += n_prompts
        logits = self._steps(inputs)
        return logits if flat == list(range(len(logits))) else logits[flat]

    def _steps(self, inputs: torch.Tensor) -> torch.Tensor:
        block = SLOT_STEP.get(self._device.type, OTHER_SLOT_STEP)
        shape = (*inputs.shape[1:], min(self._n_slots, _up(self._used, block)))
        if shape != self._shape:
            self._shape = shape
            self._inputs = inputs.to(self._device)
            self._replay = None  # before the next is made: with a graph go its libraries' work spaces
            self._replay = captured(self._run, self._device) if self._graphs else None
        else:
            self._inputs.copy_(inputs)
        return self._replay() if self._replay else self._run()

    def _run(self) -> torch.Tensor:
        """One step on what `_inputs` holds; run twice it does the same again."""
        assert self._shape is not None
        tokens, positions, owners, slots = self._inputs
        hidden = self.memory.append(slice(None), self._model.get_input_embeddings()(tokens), positions, owners, slots[0], self._shape[2])
        return self._logits(hidden.flatten(0, 1))

    def _drop_songs(self, wanted: list[int]) -> None:
        """Forget songs whose answers have ended, under graphs only when half of them have."""
        n_kept = self._fit(len(wanted))
        if n_kept < len(self._songs):
            kept = [*wanted, *(song for song in self._songs if song not in wanted)][:n_kept]
            self.memory.keep([self._songs.index(song) for song in kept])
            self._songs = kept

    def _fit(self, n: int) -> int:
        return fit(n, self._device)

    def _embed(self, ids: list[int]) -> torch.Tensor:
        embedded: torch.Tensor = self._model.get_input_embeddings()(torch.tensor(ids, device=self._device))
        return embedded

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model.lm_head(hidden)
        return logits.to(self._device).float()


def captured(run: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], torch.Tensor]:
    """A function of fixed shapes and addresses as one CUDA graph: replayed without Python and without a launch per kernel."""
    with torch.cuda.device(device):  # a thread of its own, or another model, may have chosen another
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            run()  # libraries choose their kernels and take their memory outside of the graph
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):  # which this graph shares with no other
            result = run()

    def replay() -> torch.Tensor:
        with torch.cuda.device(device):
            graph.replay()
        return result

    return replay


def fit(n: int, device: torch.device) -> int:
    """Songs or prompts in a step: as many as there are, for graphs the next power of two, so that few shapes occur."""
    return 1 << (n - 1).bit_length() if device.type == "cuda" else n


def n_slots(rows: Sequence[PrefixGroup], n_new: int, device: torch.device) -> int:
    """Slots of each song's memory: the longest song, the longest prompts, and an answer of `n_new` tokens to each."""
    reading = max(row.n_shared for row in rows) + max(sum(map(len, row.after)) for row in rows)
    writing = n_new * fit(max(len(row.after) for row in rows), device)
    return _up(reading + writing, SLOT_STEP.get(device.type, OTHER_SLOT_STEP))


def longest_answer(rows: Sequence[PrefixGroup], options: GenerateOptions, context_length: int) -> int:
    """Tokens of the longest answer that any prompt may get."""
    return max(min(options.max_new_tokens, context_length - row.n_shared - min(map(len, row.after))) for row in rows)


def room(device: torch.device) -> int | None:
    """Bytes that can still be had on a device, what torch holds in reserve included; None where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return memory.available_memory()


@contextmanager
def memory_errors(what: str, cure: str) -> Iterator[None]:
    """Tell want of memory as ModelError(code="oom") in one sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"no memory {what}; {cure}", code="oom") from error


def _up(n: int, step: int) -> int:
    return -(-n // step) * step
