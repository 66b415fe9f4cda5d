"""The encoder windows of a song, with the valid frames and audio tokens of each; both back ends and training use them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mflamingo_cli.core.audio import Audio, split_windows
from mflamingo_cli.core.mel import n_audio_tokens, valid_frames
from mflamingo_cli.errors import AudioError
from quant.geometry import Geometry


@dataclass(frozen=True)
class Window:
    """Up to 30 s of samples (n,) float32, `n_frames` valid mel frames, `n_tokens` audio tokens."""

    samples: npt.NDArray[np.float32]
    n_frames: int
    n_tokens: int


def checked_windows(audio: Audio, geometry: Geometry) -> Iterator[Window]:
    """Cut a song for the encoder. Raises AudioError(code="too_long") beyond the checkpoint's limit: nothing is cut silently."""
    if audio.samples.size > geometry.max_audio_s * geometry.mel.sample_rate:
        lengths = f"{audio.duration_s:.0f} s of audio, but the model takes at most {geometry.max_audio_s:.0f} s"
        raise AudioError(f"{audio.source.path}: {lengths}; use --start/--end", code="too_long")
    for samples in split_windows(audio.samples, geometry.mel.window_s):
        n_frames = valid_frames(samples.size, geometry.mel.hop_length)
        yield Window(samples, n_frames, n_audio_tokens(n_frames))
