"""The encoder of a small model on whole songs, and the probes that a checkpoint carries for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mflamingo_cli.core.model import Model, encode_crops, load
from mflamingo_cli.train.mini.frames import FRAMES_PER_TOKEN, WINDOW_TOKENS, window_frames
from mflamingo_cli.train.mini.probes import load_probes, probe_logits


def encode_songs(model: Model, frames: torch.Tensor) -> torch.Tensor:
    """Encoder output after RoTE of songs of one length, window by window: (B, n_mels, 4 T) -> (B, T, d_audio)."""
    parts = []
    for index, window in enumerate(frames.split(FRAMES_PER_TOKEN * WINDOW_TOKENS, dim=2)):
        parts.append(encode_crops(model, window, torch.full((len(frames),), index), torch.zeros(len(frames), dtype=torch.long)))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def encode_samples(model: Model, samples: np.ndarray) -> np.ndarray:
    """Audio as the language model's projector receives it: (n,) -> (T, d_audio) float16, windows of 30 s as at inference."""
    frames = window_frames(samples).astype(np.float32)
    whole = frames[: len(frames) // FRAMES_PER_TOKEN * FRAMES_PER_TOKEN].T[None]
    return encode_songs(model, torch.from_numpy(whole).to(model.device))[0].half().cpu().numpy()


class ProbedEncoder:
    """The encoder of a checkpoint directory that holds `heads.safetensors`, read by these probes."""

    def __init__(self, directory: Path) -> None:
        self.model = load(directory).eval()
        self.probes = load_probes(directory, self.model)

    def logits(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """What each probe reads from audio: (n,) -> (T, classes) each."""
        return probe_logits(self.probes, encode_samples(self.model, samples))
