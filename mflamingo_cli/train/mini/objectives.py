"""Objectives of the embedded model alone: the encoder from probes, and all of the model from questions about whole windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mflamingo_cli.core.model import Model, encode_crops
from mflamingo_cli.train.mini.crops import Crops, augment, draw_crops
from mflamingo_cli.train.mini.dialogue.exchanges import REASONING_SHARE, audio_turns
from mflamingo_cli.train.mini.encoder import encode_songs
from mflamingo_cli.train.mini.frames import FRAMES_PER_TOKEN, Clip
from mflamingo_cli.train.mini.probes import PROBE_WEIGHTS, LinearProbes, probe_accuracies, probe_losses
from mflamingo_cli.train.objectives import DrawSongs, TextObjective, packed_loss
from mflamingo_cli.train.packing import Packed, pack, rows_that_fit
from mflamingo_cli.train.rows import Branch, Turn


class ProbeObjective:
    """Frame-wise chords, bass, chroma, beats, onsets, families, voice and tags, with key, meter and style, read from audio tokens."""

    def __init__(
        self,
        model: Model,
        sources: Sequence[tuple[Sequence[Clip], float]],
        lengths: Sequence[tuple[int, int]],
        weights: Mapping[str, float] = PROBE_WEIGHTS,
    ) -> None:
        self.model, self.sources, self.lengths = model, sources, lengths  # lengths: (tokens, crops in a batch), drawn in turn
        self.weights = weights
        self.heads = LinearProbes(model)
        self.module = nn.ModuleDict({"audio_tower": model.model.audio_tower, "heads": self.heads})
        model.model.audio_tower.embed_positions.weight.requires_grad_(False)

    def draw(self, rng: np.random.Generator) -> Crops:
        """Draw a batch."""
        length, count = self.lengths[rng.integers(len(self.lengths))]
        return draw_crops(rng, self.sources, length, count)

    def loss(self, batch: Crops) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, and numbers to log."""
        device = self.heads.norm.weight.device
        labels = {name: value.to(device) for name, value in batch.labels.items()}
        logits = self.heads(encode_crops(self.model, batch.frames.to(device), batch.windows, batch.offsets))
        terms = probe_losses(logits, labels)
        total = sum(self.weights[name] * term for name, term in terms.items())
        numbers = {name: float(term.detach()) for name, term in terms.items()}
        return total, {**numbers, **probe_accuracies(logits, labels)}


@dataclass(frozen=True)
class Excerpt:
    """A piece of a clip, encoded: encoder output after RoTE (T, d_audio) float16, and its labels.

    `confident_labels` are those that a caption may mention; times are seconds of the clip.
    """

    clip: Clip
    start: float
    end: float
    tokens: np.ndarray
    clip_labels: dict[str, str]
    confident_labels: dict[str, str]


def excerpt_drawer(sources: Sequence[tuple[dict[int, list[Excerpt]], float]], tokens: int, turns: int, thinking: float) -> DrawSongs:
    """Draws excerpts of one length, all from one source by its share, with `turns` questions about each."""
    usable = [(excerpts, share) for excerpts, share in sources if excerpts]
    shares = np.array([share for _, share in usable])

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[list[Turn]]]:
        excerpts = usable[rng.choice(len(usable), p=shares / shares.sum())][0]
        lengths = sorted(excerpts)
        sizes = np.array([len(excerpts[length]) for length in lengths], dtype=np.float64) ** 0.5
        length = lengths[rng.choice(len(lengths), p=sizes / sizes.sum())]
        chosen = [excerpts[length][rng.integers(len(excerpts[length]))] for _ in range(rows_that_fit(length, tokens, turns))]
        asked = [audio_turns(rng, excerpt.clip_labels, turns, thinking, excerpt.confident_labels) for excerpt in chosen]
        return np.stack([excerpt.tokens for excerpt in chosen]).astype(np.float32), asked

    return draw


@dataclass(frozen=True)
class SongFrames:
    """An excerpt that is still to be encoded: frames (n_mels, 4 T), frame labels (T, …), and labels as in `Excerpt`."""

    frames: np.ndarray
    labels: dict[str, np.ndarray]
    clip_labels: dict[str, str]
    confident_labels: dict[str, str]


class JointObjective:
    """Encoder, projector and language model together: questions about whole windows, probes and rows of `text` beside them."""

    def __init__(
        self,
        model: Model,
        draw_songs: Callable[[np.random.Generator], list[SongFrames]],
        text: TextObjective,
        *,
        turns: int = 6,
        probe_share: float = 0.3,  # weight of the probes' losses
        thinking: float = REASONING_SHARE,
    ) -> None:
        self.model, self.draw_songs, self.text, self.heads = model, draw_songs, text, LinearProbes(model)
        self.turns, self.probe_share, self.thinking = turns, probe_share, thinking
        parts = {"audio_tower": model.model.audio_tower, "multi_modal_projector": model.model.multi_modal_projector, "heads": self.heads}
        self.module = nn.ModuleDict({**parts, **text.module})
        model.model.audio_tower.embed_positions.weight.requires_grad_(False)

    def draw(self, rng: np.random.Generator) -> tuple[list[SongFrames], Packed, list[Branch]]:
        """Draw a batch of songs of one length."""
        songs = self.draw_songs(rng)
        n_audio = songs[0].frames.shape[1] // FRAMES_PER_TOKEN
        songs = [dataclasses.replace(song, frames=augment(rng, song.frames.T).T) for song in songs]
        turns = [audio_turns(rng, song.clip_labels, self.turns, self.thinking, song.confident_labels) for song in songs]
        return songs, pack(self.text.chat, n_audio, turns), self.text.draw(rng)

    def loss(self, batch: tuple[list[SongFrames], Packed, list[Branch]]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, and numbers to log."""
        songs, packed, texts = batch
        device = self.model.device
        frames = torch.from_numpy(np.stack([song.frames for song in songs])).to(device)
        labels = {name: torch.from_numpy(np.stack([song.labels[name] for song in songs])).to(device) for name in songs[0].labels}
        hidden = encode_songs(self.model, frames)
        loss, right = packed_loss(self.model, packed, hidden)
        text_loss, numbers = self.text.loss(texts)
        logits = self.heads(hidden)
        dense = sum(PROBE_WEIGHTS[name] * term for name, term in probe_losses(logits, labels).items())
        known = {"token_acc": right, "text_acc": numbers["token_acc"], "dense": float(dense.detach()), "audio_tokens": hidden.shape[1]}
        return loss + text_loss + self.probe_share * dense, known | probe_accuracies(logits, labels)
