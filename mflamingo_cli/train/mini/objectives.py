"""Objectives of the embedded model alone: the encoder from probes of random crops, all of the model from questions about whole windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mflamingo_cli.core.model import Model, encode_crops
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.mini.dialogue.exchanges import REASONING_SHARE, audio_turns
from mflamingo_cli.train.mini.frames import FRAMES_PER_TOKEN, TOKEN_S, WINDOW_TOKENS, Clip
from mflamingo_cli.train.mini.probes import PROBE_WEIGHTS, LinearProbes, encode_songs, labels_of, probe_accuracies, probe_losses
from mflamingo_cli.train.objectives import DrawSongs, TextObjective, packed_loss
from mflamingo_cli.train.rows import Branch, Packed, Turn, pack, rows_that_fit

STRETCH = float(np.log(1.25))  # tempo of a crop, its pitches kept: the natural logarithm, up and down


def augment(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """Change level, tilt, equalisation, noise floor and band limit of log-mel frames (T, n_mels); 0.25 is 10 dB."""
    n_mels = frames.shape[1]
    bands = np.arange(n_mels, dtype=np.float32)
    shape = np.interp(bands, np.linspace(0, n_mels - 1, 8), rng.normal(0, 0.07, 8))
    frames = frames + (rng.uniform(-0.4, 0.15) + rng.normal(0, 0.08) * (bands / n_mels - 0.5) + shape).astype(np.float32)
    top = float(frames.max())
    if rng.random() < 0.3:
        cut = int(rng.integers(n_mels * 5 // 8, n_mels))
        frames[:, cut:] -= 1.0
    floor = top - rng.uniform(0.9, 2.0)
    frames = np.maximum(frames, floor + rng.normal(0, 0.04, frames.shape).astype(np.float32))
    if rng.random() < 0.4:
        at, width = int(rng.integers(n_mels - 24)), int(rng.integers(4, 24))
        frames[:, at : at + width] = floor
    return frames.astype(np.float32)


@dataclass(frozen=True)
class Crops:
    """A batch of crops of one length; labels are (B, T, …), unknown ones hold UNKNOWN_CLASS or UNKNOWN_FLAG."""

    frames: torch.Tensor
    windows: torch.Tensor
    offsets: torch.Tensor
    labels: dict[str, torch.Tensor]


def crop(clip: Clip, start: int, length: int, rate: float = 1.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frames and all labels of `length` tokens of a clip from token `start`, played at a rate (tokens never cross a window)."""
    source_length = round(length * rate) * FRAMES_PER_TOKEN
    frames = np.asarray(clip.mel()[start * FRAMES_PER_TOKEN :][:source_length], dtype=np.float32)
    if rate != 1.0:
        at = np.clip((np.arange(length * FRAMES_PER_TOKEN) + 0.5) * rate - 0.5, 0, len(frames) - 1)
        below = np.minimum(at.astype(int), len(frames) - 2)
        frames = frames[below] + (at - below).astype(np.float32)[:, None] * (frames[below + 1] - frames[below])
    return frames, labels_of(clip, start, length, rate)


def _n_tokens(clip: Clip) -> int:
    return int(clip.row["duration"] / TOKEN_S) - 1


def draw_crops(
    rng: np.random.Generator, sources: Sequence[tuple[Sequence[Clip], float]], length: int, count: int, augmented: bool = True
) -> Crops:
    """`count` random crops of `length` tokens from `(clips, share)` sources, each anywhere in a window of its clip.

    Half of the augmented ones are played up to a quarter faster or slower, where that fits into the window.
    """
    usable = [([c for c in clips if min(_n_tokens(c), WINDOW_TOKENS) >= length], share) for clips, share in sources]
    usable = [(clips, share) for clips, share in usable if clips and share]
    if not usable:
        raise UsageError(f"no clip is as long as the stage's crops of {length * TOKEN_S:.0f} s; make more with `train run`, step synth")
    shares = np.array([share for _, share in usable])
    frames, labels, windows, offsets = [], [], [], []
    for _ in range(count):
        clips = usable[rng.choice(len(usable), p=shares / shares.sum())][0]
        clip = clips[rng.integers(len(clips))]
        spans = [(w, min(_n_tokens(clip) - w * WINDOW_TOKENS, WINDOW_TOKENS)) for w in range(_n_tokens(clip) // WINDOW_TOKENS + 1)]
        spans = [(w, size) for w, size in spans if size >= length]
        window, size = spans[rng.integers(len(spans))]
        rate = float(np.exp(rng.uniform(-STRETCH, STRETCH))) if augmented and rng.random() < 0.5 else 1.0
        rate = rate if round(length * rate) <= size else 1.0
        mel, truth = crop(clip, window * WINDOW_TOKENS + int(rng.integers(size - round(length * rate) + 1)), length, rate)
        frames.append(augment(rng, mel).T if augmented else mel.T)
        labels.append(truth)
        windows.append(int(rng.integers(2)) if rng.random() < 0.3 else 0)
        offsets.append(int(rng.integers(WINDOW_TOKENS - length + 1)))
    stacked = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]}
    return Crops(torch.from_numpy(np.stack(frames)), torch.tensor(windows), torch.tensor(offsets), stacked)


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
