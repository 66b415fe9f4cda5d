"""The network as training runs it: rows of several songs one behind another in a sequence, and the loss of their answers.

Rows in a sequence do not see each other, and no mask of (T, T) is made for it: attention runs over each of them alone. Rows that begin
alike, with one song, go on from what they share. The output layer is applied to answers only, in chunks, because the scores of 24,576
positions would take 37 GB.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import LinearCrossEntropyOptions
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mflamingo_cli.core.mel import n_audio_tokens
from mflamingo_cli.core.model import Model, encode_audio
from mflamingo_cli.train.rows import Branch
from quant.geometry import Geometry

PACKED = "packed_rows"  # the name of the attention over rows
CHUNK = 1024  # answer tokens whose scores are in memory at once: 0.6 GB of float32 for 151,672 words
WINDOWS_AT_ONCE = 8


@dataclass(frozen=True)
class MelWindows:
    """Windows of one song: mels (windows, n_mels, frames), valid frames (windows,)."""

    mels: torch.Tensor
    n_frames: torch.Tensor


Scores = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any]  # states (n, d), output layer (words, d), targets (n,)
Features = MelWindows | torch.Tensor  # of a song: its windows, or what the encoder made of them (n_tokens, d_audio)


def n_tokens(song: Features) -> int:
    """Return how many tokens a song takes."""
    return len(song) if isinstance(song, torch.Tensor) else sum(n_audio_tokens(int(frames)) for frames in song.n_frames)


@dataclass(frozen=True)
class RowSequence:
    """Rows one behind another: ids, positions and `learned` (T,), their bounds, and the audio of those that have one, in order.

    `roots` are the numbers of rows that begin anew; the others go on from the root before them: they see it and themselves.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    learned: torch.Tensor
    bounds: tuple[int, ...]
    songs: tuple[Features, ...]
    roots: tuple[int, ...]

    @property
    def n_answers(self) -> int:
        """Tokens whose loss counts; the first of a row has no position that could tell it."""
        return int(self.learned.sum())

    def groups(self, device: torch.device) -> list[RowGroup]:
        """Return each root with the rows that go on from it."""
        return [
            RowGroup(self.bounds[first : last + 1], _mask(self.bounds[first : last + 1]).to(device))
            for first, last in pairwise((*self.roots, len(self.bounds) - 1))
        ]


@dataclass(frozen=True)
class RowGroup:
    """The bounds of a root and of the rows that go on from it, and what these attend to: (their tokens, those of all), True where seen."""

    bounds: tuple[int, ...]
    mask: torch.Tensor


def _mask(bounds: Sequence[int]) -> torch.Tensor:
    tails = [torch.ones(end - start, end - start, dtype=torch.bool).tril() for start, end in pairwise(bounds[1:])]
    seen = torch.ones(bounds[-1] - bounds[1], bounds[-1] - bounds[0], dtype=torch.bool)
    seen[:, bounds[1] - bounds[0] :] = torch.block_diag(*tails) if tails else True
    return seen


def sequence_of(branches: Sequence[Branch], songs: Sequence[Features], roots: Sequence[int] | None = None) -> RowSequence:
    """Put rows one behind another; all of them begin anew, or the `roots` alone."""
    lengths = [len(branch.ids) for branch in branches]
    bounds = torch.tensor([0, *lengths]).cumsum(0).tolist()
    learned = torch.tensor([marked for branch in branches for marked in branch.mask])
    learned[bounds[:-1]] = False
    begun = tuple(range(len(branches)) if roots is None else roots)
    starts = [0 if number in begun else lengths[begun[bisect(begun, number) - 1]] for number in range(len(branches))]
    return RowSequence(
        torch.tensor([number for branch in branches for number in branch.ids]),
        torch.cat([torch.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]),
        learned,
        tuple(bounds),
        tuple(songs),
        begun,
    )


def share_beginnings(groups: Sequence[Sequence[Branch]], songs: Sequence[Features]) -> RowSequence:
    """Put groups of rows one behind another; how those of a group begin, with their song, is computed once for all of them."""
    rows: list[Branch] = []
    roots: list[int] = []
    for group in groups:
        n_alike = _n_alike(group) if len(group) > 1 else 0
        roots += range(len(rows), len(rows) + (1 if n_alike else len(group)))
        if n_alike:
            rows.append(Branch(group[0].ids[:n_alike], group[0].mask[:n_alike]))
        rows += [Branch(branch.ids[n_alike:], branch.mask[n_alike:]) for branch in group]
    return sequence_of(rows, songs, roots)


def _n_alike(group: Sequence[Branch]) -> int:
    """How many tokens rows begin with alike; the one before an answer, which tells its first token, stays with the answer."""
    columns = enumerate(zip(*(branch.ids for branch in group), strict=False))
    alike = next((at for at, numbers in columns if len(set(numbers)) > 1), min(len(branch.ids) for branch in group))
    return min(alike, *((*branch.mask, True).index(True) - 1 for branch in group))


def branches_of(prompt: Sequence[int], answers: Sequence[Sequence[int]], song: Features | None) -> RowSequence:
    """Put one prompt, and answers to it that all learn, one behind another; the prompt with its song is computed once for all of them.

    An answer goes on from the last token of the prompt, which tells its first one and so stands before each.
    """
    *before, last = prompt
    rows = [Branch(before, [False] * len(before))]
    rows += [Branch([last, *answer], [False] + [True] * len(answer)) for answer in answers]
    return sequence_of(rows, [] if song is None else [song], roots=(0,))


def attend_within_rows(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None, scaling: float,
    dropout: float = 0.0, row_groups: Sequence[RowGroup] = (), **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Causal attention within rows, (1, heads, T, d) -> (1, T, heads, d): transformers' interface of attention functions."""
    parts = []
    for group in row_groups:
        start, after, *_ = group.bounds
        q, k, v = (part[:, :, start : group.bounds[-1]] for part in (query, key, value))
        k, v = repeat_kv(k, module.num_key_value_groups), repeat_kv(v, module.num_key_value_groups)
        root, n = slice(0, after - start), after - start
        parts.append(
            F.scaled_dot_product_attention(q[:, :, root], k[:, :, root], v[:, :, root], dropout_p=dropout, is_causal=True, scale=scaling)
        )
        if len(group.mask):
            parts.append(F.scaled_dot_product_attention(q[:, :, n:], k, v, group.mask, dropout_p=dropout, scale=scaling))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(PACKED, attend_within_rows)


class TrainingNetwork(nn.Module):
    """A model whose forward pass is the summed loss of a sequence of rows.

    `trains_encoder` lets gradients into the audio tower. With `always_hears` a silence that weighs nothing ends each sequence: without
    songs too the same parameters get a gradient, of zero, and processes that share every layer run each as often; `rounds` tells from this
    process's groups of windows how many the busiest one has.
    """

    def __init__(
        self, model: Model, geometry: Geometry, sound_id: int, *, trains_encoder: bool, always_hears: bool = False,
        rounds: Callable[[int], int] = lambda groups: groups,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.geometry, self.sound_id = model, geometry, sound_id
        self.trains_encoder, self.always_hears, self._rounds = trains_encoder, always_hears, rounds
        self.core.model.language_model.config._attn_implementation = PACKED

    @property
    def core(self) -> Model:
        """The checkpoint's own class, inside of whatever adapters are around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def forward(self, rows: RowSequence, scores: Scores | None = None) -> Any:
        """Return the summed loss of the answers, and how many of their tokens are the likeliest, both (); or what `scores` says."""
        hidden = self.hidden(rows)
        at = rows.learned[1:].nonzero()[:, 0].to(hidden.device)
        states, targets, weight = hidden[:-1][at], rows.ids.to(hidden.device)[1:][at], self.core.lm_head.weight
        if scores is not None:
            return scores(states, weight, targets)
        return linear_loss(states, weight, targets), _count_right(states.detach(), weight.detach(), targets)

    def hidden(self, rows: RowSequence) -> torch.Tensor:
        """Return the last hidden states of a sequence, (T, d_text)."""
        inner, ids = self.core.model, rows.ids.to(self.core.device)
        embedded = inner.language_model.embed_tokens(ids)
        if rows.songs or self.always_hears:
            places = (ids == self.sound_id) & ~rows.learned.to(ids.device)  # a sampled answer may hold the token, too
            audio = inner.multi_modal_projector(self._hear(rows.songs)).to(embedded.dtype)
            heard = sum(map(n_tokens, rows.songs))
            embedded = embedded.masked_scatter(places[:, None], audio[:heard]) + 0.0 * audio[heard:].sum()
        positions = rows.positions.to(ids.device)[None]
        states = inner.language_model(
            inputs_embeds=embedded[None], position_ids=positions, row_groups=rows.groups(ids.device), use_cache=False
        )
        return states.last_hidden_state[0]

    def embed_song(self, song: Features) -> torch.Tensor:
        """Return a song as the language model is given it, (n_tokens, d_text)."""
        return self.core.model.multi_modal_projector(self.encode(song))

    def _hear(self, songs: Sequence[Features]) -> torch.Tensor:
        """Return the projector's input for songs, one behind another, with silence behind them, (n, d_audio)."""
        if self.trains_encoder:
            mels, n_frames, indices = _join([song for song in songs if isinstance(song, MelWindows)], self.geometry)
            groups = -(-len(mels) // WINDOWS_AT_ONCE)
            return self._encode(mels, n_frames, indices, self._rounds(max(int(self.always_hears), groups)))
        silence = torch.zeros(int(self.always_hears), self.geometry.encoder.d_model, device=self.core.device, dtype=self.core.dtype)
        return torch.cat([*map(self.encode, songs), silence])

    def encode(self, song: Features) -> torch.Tensor:
        """Return what a frozen encoder makes of a song, (n_tokens, d_audio)."""
        if isinstance(song, torch.Tensor):
            return song.to(self.core.device, self.core.dtype)
        with torch.no_grad():
            return self._encode(*_join([song], self.geometry), 0)

    def _encode(self, mels: torch.Tensor, n_frames: torch.Tensor, indices: torch.Tensor, rounds: int) -> torch.Tensor:
        """Encode windows in groups, so that a long song does not fill memory; at least `rounds` groups, of silence behind the last."""
        parts = []
        for first in range(0, max(len(mels), rounds * WINDOWS_AT_ONCE), WINDOWS_AT_ONCE):
            group = slice(first, first + WINDOWS_AT_ONCE)
            some, frames, numbers = mels[group], n_frames[group], indices[group]
            if not len(some):
                some, frames, numbers = mels.new_zeros(1, *mels.shape[1:]), n_frames.new_full((1,), mels.shape[-1]), indices.new_zeros(1)
            parts += encode_audio(self.core, self.geometry, some.to(self.core.device, self.core.dtype), frames, numbers)
        return torch.cat(parts)


def _join(songs: Sequence[MelWindows], geometry: Geometry) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the windows of songs one behind another: mels, valid frames, the number of each in its song."""
    mel = geometry.mel
    mels = [torch.zeros(0, mel.n_mels, mel.n_frames), *(song.mels for song in songs)]
    frames = [torch.zeros(0, dtype=torch.long), *(song.n_frames for song in songs)]
    indices = [torch.zeros(0, dtype=torch.long), *(torch.arange(len(song.mels)) for song in songs)]
    return torch.cat(mels), torch.cat(frames), torch.cat(indices)


def linear_loss(states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of (n, d) states by an output layer (words, d), ()."""
    if not len(targets):
        return states.sum() * 0.0
    options = LinearCrossEntropyOptions(batch_chunk_size=min(CHUNK, len(targets)))  # in chunks it holds the scores once, else three times
    return F.linear_cross_entropy(states, weight.to(states.dtype), targets, reduction="sum", options=options)


@torch.no_grad()
def _count_right(states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    chunks = zip(states.split(CHUNK), targets.split(CHUNK), strict=True)
    return sum(
        ((F.linear(part, weight.to(part.dtype)).argmax(-1) == wanted).sum() for part, wanted in chunks), torch.zeros((), dtype=torch.long)
    )
