"""The language model of Music Flamingo read on memory of our own: several songs side by side, several prompts on each, shapes constant.

transformers' modules do the arithmetic; what each position may see is kept here. Positions count tokens of one conversation, slots are
places in the memory: a song's tokens come first, then the tokens of its prompts as they are read and written, in one row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

Attend: TypeAlias = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # layer, q, k, v (B, heads, T, d_head) -> as q

SHARED, EMPTY = -1, -2  # owners of a slot that is no prompt's: all prompts of the song see it, nobody does
MLP_TOKENS = 4096  # read at once by the widest layers: 20 minutes of music are 30000 and would take 5 GB more of 8 B in bf16
SCORE_BYTES = 1 << 28  # of attention weights at once, where a kernel does not keep them to itself
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # cuDNN plans anew for every length of song


def read(language: Any, embedded: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
    """Pass (B, T, d) embeddings at (B, T) positions through a Qwen2 model; `attend` mixes. Layers may lie on several devices."""
    cos, sin = language.rotary_emb(embedded, positions)
    hidden = embedded
    for index, layer in enumerate(language.layers):
        attention, device = layer.self_attn, layer.input_layernorm.weight.device
        hidden, cos, sin = hidden.to(device), cos.to(device), sin.to(device)
        normed = _norm(layer.input_layernorm, hidden)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (project(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for project in projections)
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        hidden = hidden + attention.o_proj(attend(index, q, k, v).transpose(1, 2).flatten(2))
        parts = _norm(layer.post_attention_layernorm, hidden).split(MLP_TOKENS, 1)
        hidden = hidden + (layer.mlp(parts[0]) if len(parts) == 1 else torch.cat([layer.mlp(part) for part in parts], 1))
    return _norm(language.norm, hidden.to(language.norm.weight.device))


def _norm(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """One kernel instead of the six of transformers' module, and float32 up to the end."""
    return F.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


class KVCache:
    """Keys and values of songs, (songs, kv heads, slots, d_head) per layer, and who owns each slot, (songs, slots)."""

    def __init__(self, language: Any, n_songs: int, n_slots: int) -> None:
        self._language = language
        size = language.config
        shape = (n_songs, size.num_key_value_heads, n_slots, language.layers[0].self_attn.head_dim)
        places = [layer.self_attn.o_proj.weight.device for layer in language.layers]
        dtype = language.norm.weight.dtype
        # zeros, because what nobody sees is multiplied by 0, which makes no number of a NaN
        self.keys = [torch.zeros(shape, dtype=dtype, device=place) for place in places]
        self.values = [torch.zeros(shape, dtype=dtype, device=place) for place in places]
        self.owners = torch.full((n_songs, n_slots), EMPTY, device=language.embed_tokens.weight.device)

    def read_shared(self, song: int, embedded: torch.Tensor) -> None:
        """Put what all prompts of a song share, (n, d), into its first slots."""
        n = len(embedded)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.keys[layer][song, :, :n], self.values[layer][song, :, :n] = k[0], v[0]
            return _causal(q, k, v)

        if n:
            read(self._language, embedded[None], torch.arange(n, device=embedded.device)[None], attend)
            self.owners[song, :n] = SHARED

    def read_own(self, song: int, embedded: torch.Tensor, positions: torch.Tensor, owners: torch.Tensor, first_slot: int) -> torch.Tensor:
        """Append tokens of a song's prompts from a slot on: (n, d) embeddings, (n,) positions and owners -> (n, d) hidden states."""
        heads, width = self._language.config.num_attention_heads, first_slot + len(embedded)
        step = _queries_together(heads, width, embedded.itemsize)
        parts = []
        for first in range(0, len(embedded), step):
            part = slice(first, first + step)
            slots = torch.arange(first_slot + first, first_slot + first + len(embedded[part]), device=embedded.device)
            parts.append(self.append(slice(song, song + 1), embedded[None, part], positions[None, part], owners[None, part], slots, width))
        return torch.cat(parts, 1)[0]

    def append(
        self, songs: slice, embedded: torch.Tensor, positions: torch.Tensor, owners: torch.Tensor, slots: torch.Tensor, width: int
    ) -> torch.Tensor:
        """Append tokens that each see what is shared and what their owner has so far.

        Parameters
        ----------
        songs : rows of this memory, B of them
        embedded : (B, T, d)
        positions, owners : (B, T); tokens whose owner is EMPTY are seen by none
        slots : (T,), the same in all songs
        width : slots from here on are not looked at

        Returns
        -------
        (B, T, d) hidden states.
        """
        self.owners[songs, slots] = owners  # plain indices: index_copy_ is wrong on MPS (pytorch issue 166237)
        held = self.owners[songs, None, :width]
        before = torch.arange(width, device=slots.device) <= slots[:, None]
        unseen = ~((held == SHARED) | ((held == owners[..., None]) & before))  # (B, T, width)
        unseen_at = {device: unseen.to(device) for device in {keys.device for keys in self.keys}}
        slots_at = {device: slots.to(device) for device in unseen_at}

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self.keys[layer][songs], self.values[layer][songs]
            keys[:, :, slots_at[keys.device]], values[:, :, slots_at[keys.device]] = k, v
            return _mix(q, keys[:, :, :width], values[:, :, :width], unseen_at[keys.device])

        return read(self._language, embedded, positions, attend)

    def keep(self, songs: list[int]) -> None:
        """Forget all songs but these."""
        self.owners = self.owners[songs]
        for layer in range(len(self.keys)):
            self.keys[layer], self.values[layer] = self.keys[layer][songs], self.values[layer][songs]


def _causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of (B, heads, T, d) on (B, kv heads, T, d) that sees nothing later."""
    if has_fused_attention(q.device, q.dtype):
        with sdpa_kernel(KERNELS):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=k.shape[1] != q.shape[1])
    _, heads, length, _ = q.shape
    step, places = _queries_together(heads, length, q.element_size()), torch.arange(length, device=q.device)
    parts = []
    for first in range(0, length, step):
        part = places[first : first + step]
        end = first + len(part)
        parts.append(_mix(q[:, :, first:end], k[:, :, :end], v[:, :, :end], (places[:end] > part[:, None])[None]))
    return torch.cat(parts, 2)


def has_fused_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch reads a song there in one kernel that has key heads of its own and keeps no matrix of all pairs of tokens.

    On CUDA only half precision has that, from Ampere on; what MPS had up to torch 2.13 lets later tokens through in half precision
    (pytorch issue 195910).
    """
    if device.type == "cuda":
        return dtype != torch.float32 and torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu"


def _queries_together(heads: int, width: int, n_bytes: int) -> int:
    """How many queries of all heads have scores on `width` slots in SCORE_BYTES, at least one; `n_bytes` of each score."""
    return max(1, SCORE_BYTES // (n_bytes * heads * width))


def _mix(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, unseen: torch.Tensor) -> torch.Tensor:
    """Attention of few queries on many slots: (B, heads, T, d), (B, kv heads, slots, d) twice, (B, T, slots) -> as q.

    Two matrix products instead of a fused kernel: those take one block of a GPU per head, these spread the slots over all of it. Query
    heads of one key head become rows of one matrix, so each key is read once for all prompts of its song.
    """
    batch, _, n_queries, d_head = q.shape
    n_kv = keys.shape[1]
    rows = (q * d_head**-0.5).reshape(batch, n_kv, -1, d_head)  # (B, kv heads, group * T, d)
    scores = (rows @ keys.mT).unflatten(2, (-1, n_queries))  # (B, kv heads, group, T, slots)
    scores = scores.masked_fill_(unseen[:, None, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).flatten(2, 3)  # which torch computes in float32 and rounds once
    return (weights @ values).reshape(q.shape)
