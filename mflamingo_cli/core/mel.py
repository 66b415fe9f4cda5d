"""Log-mel features: one encoder window of mono audio in, what the audio encoder reads out.

Samples are mono float32 at `MelConfig.sample_rate`; frames are `hop_length` samples apart. The numbers equal those of transformers'
`WhisperFeatureExtractor` (openai/whisper, arXiv 2212.04356, sec. 2.2), whatever sizes a checkpoint names.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from quant.geometry import MelConfig

MAX_HZ = 8_000.0  # upper edge of the highest band (WhisperFeatureExtractor; it does not follow the sample rate)
POWER_FLOOR = 1e-10  # of a mel band, before the logarithm (Whisper)
DYNAMIC_RANGE = 8.0  # decades below the loudest band of the window that are kept (Whisper)
LINEAR_HZ = 1_000.0  # Slaney's mel scale (Auditory Toolbox, 1998): linear below, logarithmic above
LINEAR_STEP_HZ = 200.0 / 3.0  # one mel below LINEAR_HZ
LOG_STEP = math.log(6.4) / 27.0  # one mel above LINEAR_HZ
KNEE = LINEAR_HZ / LINEAR_STEP_HZ  # mel
MAX_MEL = KNEE + math.log(MAX_HZ / LINEAR_HZ) / LOG_STEP
BLOCK_BYTES = 1 << 19  # of float64 frames transformed at once: they stay in a core's L2 cache
BANDS_PER_PRODUCT = 16  # neighbouring filters share most of their bins; one small product each replaces a mostly empty large one


class LogMel:
    """The log-mel spectrogram of one window at a time; build once per configuration, safe to share between threads."""

    def __init__(self, config: MelConfig) -> None:
        self.config = config
        self._taper = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(config.n_fft) / config.n_fft)  # Hann, periodic
        self._products = _banded(mel_filters(config))

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Transform one window, zero-padding a short one: (n <= window_samples,) float32 -> (n_mels, n_frames) float32."""
        config = self.config
        assert samples.ndim == 1, f"mono samples, not {samples.shape}"
        assert samples.size <= config.window_samples, f"one window of {config.window_samples} samples, not {samples.size}"
        frames = self._frames(samples)
        mel = np.empty((config.n_mels, config.n_frames), np.float32)
        mel[:, len(frames) :] = 0.0
        step = max(1, BLOCK_BYTES // (8 * config.n_fft))
        for at in range(0, len(frames), step):
            columns = slice(at, min(at + step, len(frames)))
            spectrum = np.fft.rfft(frames[columns] * self._taper)
            power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32).T  # (bins, frames)
            for bands, bins, weights in self._products:
                np.matmul(weights, power[bins], out=mel[bands, columns])
        np.maximum(mel, POWER_FLOOR, out=mel)
        np.log10(mel, out=mel)
        np.maximum(mel, mel.max(initial=-np.inf) - DYNAMIC_RANGE, out=mel)
        mel += 4.0
        mel /= 4.0
        return mel

    def _frames(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return overlapping frames around every hop of the mirrored window, without those of padding only: a view (frames, n_fft)."""
        config = self.config
        half = config.n_fft // 2
        if samples.size + half < config.window_samples:  # the mirror of the far edge is all zero, as is everything before it
            count = min(config.n_frames, -(-(samples.size + half) // config.hop_length))
            padded = np.zeros(half + max(samples.size, half + 1) + config.n_fft + config.hop_length, np.float32)
            padded[half : half + samples.size] = samples
            padded[:half] = padded[half + 1 : 2 * half + 1][::-1]
        else:
            count = config.n_frames
            padded = np.pad(np.pad(samples, (0, config.window_samples - samples.size)), half, mode="reflect")
        return sliding_window_view(padded, config.n_fft)[:: config.hop_length][:count]


def mel_filters(config: MelConfig) -> NDArray[np.float64]:
    """Return triangles of equal area on Slaney's mel scale: (n_fft // 2 + 1, n_mels)."""
    bins_hz = np.linspace(0.0, config.sample_rate // 2, config.n_fft // 2 + 1)[:, None]
    edges = np.linspace(0.0, MAX_MEL, config.n_mels + 2)
    edges_hz = np.minimum(edges, KNEE) * LINEAR_STEP_HZ * np.exp(LOG_STEP * np.maximum(edges - KNEE, 0.0))
    lower, centre, upper = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz - lower) / (centre - lower)
    falling = (upper - bins_hz) / (upper - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (upper - lower))


def valid_frames(n_samples: int, hop_length: int) -> int:
    """Return the frames that the processor's attention mask marks as valid, for `n_samples` of a window that is whole hops long."""
    return -(-n_samples // hop_length)


def n_audio_tokens(n_frames: int) -> int:
    """Return the tokens that the encoder makes of valid frames: a convolution of stride 2, then a mean of pairs; none of fewer than 3."""
    halved = (n_frames - 1) // 2 + 1
    return (halved - 2) // 2 + 1


def _banded(filters: NDArray[np.float64]) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Split (bins, n_mels) into groups of bands, each with only its nonzero bins: (bands, bins, weights (bands, bins))."""
    products = []
    for first in range(0, filters.shape[1], BANDS_PER_PRODUCT):
        bands = slice(first, min(first + BANDS_PER_PRODUCT, filters.shape[1]))
        nonzero = np.flatnonzero(filters[:, bands].any(axis=1))
        bins = slice(int(nonzero[0]), int(nonzero[-1]) + 1) if nonzero.size else slice(0, 1)
        products.append((bands, bins, np.ascontiguousarray(filters[bins, bands].T, dtype=np.float32)))
    return products
