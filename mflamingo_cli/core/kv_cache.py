"""The language model's forward pass on a KV cache of our own: several songs, several prompts about each, constant shapes.

transformers' modules do the arithmetic; the attention mask is kept here. A position counts tokens of one conversation (for RoPE). A cache
position is a place in the cache: a song's prefix comes first, then the tokens of all its prompts in the order they were added, and each
cache position has the id of the sequence (prompt) that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

Attend: TypeAlias = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # layer, q, k, v (B, heads, T, d_head) -> as q

SHARED, EMPTY = -1, -2  # sequence ids of cache positions that all prompts of a song attend to, and that none does
MLP_TOKENS = 4096  # computed at once by the widest layers: 20 minutes of music are 30000 and would take 5 GB more of 8 B in bf16
SCORE_BYTES = 1 << 28  # of attention scores at once, where a kernel does not keep them to itself
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # cuDNN plans anew for every length of song


def forward(language: Any, embedded: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
    """Pass (B, T, d) embeddings at (B, T) positions through a text model with `attend` as attention. Layers may lie on several devices."""
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
    """Keys and values of songs, (songs, kv heads, cache length, d_head) per layer, and sequence ids, (songs, cache length)."""

    def __init__(self, language: Any, n_songs: int, length: int) -> None:
        self._language = language
        size = language.config
        shape = (n_songs, size.num_key_value_heads, length, language.layers[0].self_attn.head_dim)
        devices = [layer.self_attn.o_proj.weight.device for layer in language.layers]
        dtype = language.norm.weight.dtype
        # zeros, because masked values are multiplied by 0, and 0 * NaN is NaN
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for device in devices]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for device in devices]
        self.sequence_ids = torch.full((n_songs, length), EMPTY, device=language.embed_tokens.weight.device)

    def prefill_prefix(self, song: int, embedded: torch.Tensor) -> None:
        """Put what all prompts of a song share, (n, d), into its first cache positions."""
        n = len(embedded)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.keys[layer][song, :, :n], self.values[layer][song, :, :n] = k[0], v[0]
            return _causal_attention(q, k, v)

        if n:
            forward(self._language, embedded[None], torch.arange(n, device=embedded.device)[None], attend)
            self.sequence_ids[song, :n] = SHARED

    def prefill_prompts(
        self, song: int, embedded: torch.Tensor, positions: torch.Tensor, sequence_ids: torch.Tensor, start: int
    ) -> torch.Tensor:
        """Append tokens of a song's prompts from cache position `start` on: (n, d), (n,) positions and ids -> (n, d) hidden states."""
        heads, length = self._language.config.num_attention_heads, start + len(embedded)
        step = _max_queries(heads, length, embedded.itemsize)
        parts = []
        for first in range(0, len(embedded), step):
            part = slice(first, first + step)
            at = torch.arange(start + first, start + first + len(embedded[part]), device=embedded.device)
            ids = sequence_ids[None, part]
            parts.append(self.append(slice(song, song + 1), embedded[None, part], positions[None, part], ids, at, length))
        return torch.cat(parts, 1)[0]

    def append(
        self,
        songs: slice,
        embedded: torch.Tensor,
        positions: torch.Tensor,
        sequence_ids: torch.Tensor,
        cache_positions: torch.Tensor,
        length: int,
    ) -> torch.Tensor:
        """Append tokens that each attend to the shared prefix and to what their own sequence has so far.

        Parameters
        ----------
        songs : rows of this cache, B of them
        embedded : (B, T, d)
        positions, sequence_ids : (B, T); no token attends to those whose id is EMPTY
        cache_positions : (T,), the same in all songs
        length : cache positions from here on are not attended to

        Returns
        -------
        (B, T, d) hidden states.
        """
        self.sequence_ids[songs, cache_positions] = sequence_ids  # plain indices: index_copy_ is wrong on MPS (pytorch issue 166237)
        cached = self.sequence_ids[songs, None, :length]
        earlier = torch.arange(length, device=cache_positions.device) <= cache_positions[:, None]
        masked = ~((cached == SHARED) | ((cached == sequence_ids[..., None]) & earlier))  # (B, T, length)
        masked_on = {device: masked.to(device) for device in {keys.device for keys in self.keys}}
        at = {device: cache_positions.to(device) for device in masked_on}

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self.keys[layer][songs], self.values[layer][songs]
            keys[:, :, at[keys.device]], values[:, :, at[keys.device]] = k.to(keys.dtype), v.to(keys.dtype)  # k and v are bf16 in autocast
            return _masked_attention(q, keys[:, :, :length], values[:, :, :length], masked_on[keys.device])

        return forward(self._language, embedded, positions, attend)

    def keep(self, songs: list[int]) -> None:
        """Free the rows of all songs but these."""
        self.sequence_ids = self.sequence_ids[songs]
        for layer in range(len(self.keys)):
            self.keys[layer], self.values[layer] = self.keys[layer][songs], self.values[layer][songs]


def _causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention of (B, heads, T, d) on (B, kv heads, T, d)."""
    if has_fused_attention(q.device, q.dtype):
        with sdpa_kernel(KERNELS):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=k.shape[1] != q.shape[1])
    _, heads, length, _ = q.shape
    step, places = _max_queries(heads, length, q.element_size()), torch.arange(length, device=q.device)
    parts = []
    for first in range(0, length, step):
        part = places[first : first + step]
        end = first + len(part)
        parts.append(_masked_attention(q[:, :, first:end], k[:, :, :end], v[:, :, :end], (places[:end] > part[:, None])[None]))
    return torch.cat(parts, 2)


def has_fused_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether torch has a causal attention kernel there that supports fewer key heads and does not store the score matrix.

    On CUDA only half precision has that, from Ampere on; that of MPS up to torch 2.13 attends to later tokens in half precision
    (pytorch issue 195910).
    """
    if device.type == "cuda":
        return dtype != torch.float32 and torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu"


def _max_queries(heads: int, length: int, n_bytes: int) -> int:
    """Return how many queries of all heads have scores on `length` keys in SCORE_BYTES, at least one; `n_bytes` of each score."""
    return max(1, SCORE_BYTES // (n_bytes * heads * length))


def _masked_attention(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Attention of few queries on a long cache: (B, heads, T, d), (B, kv heads, length, d) twice, (B, T, length) -> as q.

    Two matrix products instead of a fused kernel: those take one block of a GPU per head, these spread the cache over all of it. Query
    heads of one key head become rows of one matrix, so each key is read once for all prompts of its song.
    """
    batch, _, n_queries, d_head = q.shape
    n_kv = keys.shape[1]
    rows = (q * d_head**-0.5).reshape(batch, n_kv, -1, d_head)  # (B, kv heads, group * T, d)
    scores = (rows @ keys.mT).unflatten(2, (-1, n_queries))  # (B, kv heads, group, T, length)
    scores = scores.masked_fill_(masked[:, None, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).flatten(2, 3)  # which torch computes in float32 and rounds once
    return (weights @ values).reshape(q.shape)
