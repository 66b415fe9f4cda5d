"""Crops of clips as the encoder learns from them: drawn anywhere in time, changed in level, spectrum and tempo, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.mini.frames import FRAMES_PER_TOKEN, TOKEN_S, WINDOW_TOKENS, Clip
from mflamingo_cli.train.mini.probes import labels_of

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


def draw_crop(rng: np.random.Generator, clip: Clip, length: int, stretched: bool = False) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A random crop of `length` tokens anywhere in a window of a clip; a stretched one is played up to a quarter faster or slower."""
    total = _n_tokens(clip)
    spans = [(w, min(total - w * WINDOW_TOKENS, WINDOW_TOKENS)) for w in range(total // WINDOW_TOKENS + 1)]
    spans = [(w, size) for w, size in spans if size >= length]
    window, size = spans[rng.integers(len(spans))]
    rate = float(np.exp(rng.uniform(-STRETCH, STRETCH))) if stretched and rng.random() < 0.5 else 1.0
    rate = rate if round(length * rate) <= size else 1.0
    return crop(clip, window * WINDOW_TOKENS + int(rng.integers(size - round(length * rate) + 1)), length, rate)


def draw_crops(
    rng: np.random.Generator, sources: Sequence[tuple[Sequence[Clip], float]], length: int, count: int, augmented: bool = True
) -> Crops:
    """`count` random crops of `length` tokens from `(clips, share)` sources, each placed anywhere in time."""
    usable = [([c for c in clips if min(_n_tokens(c), WINDOW_TOKENS) >= length], share) for clips, share in sources]
    usable = [(clips, share) for clips, share in usable if clips and share]
    if not usable:
        raise UsageError(f"no clip is as long as the stage's crops of {length * TOKEN_S:.0f} s; make more with `train data synth`")
    shares = np.array([share for _, share in usable])
    frames, labels, windows, offsets = [], [], [], []
    for _ in range(count):
        clips = usable[rng.choice(len(usable), p=shares / shares.sum())][0]
        mel, truth = draw_crop(rng, clips[rng.integers(len(clips))], length, stretched=augmented)
        frames.append(augment(rng, mel).T if augmented else mel.T)
        labels.append(truth)
        windows.append(int(rng.integers(2)) if rng.random() < 0.3 else 0)
        offsets.append(int(rng.integers(WINDOW_TOKENS - length + 1)))
    stacked = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]}
    return Crops(torch.from_numpy(np.stack(frames)), torch.tensor(windows), torch.tensor(offsets), stacked)
