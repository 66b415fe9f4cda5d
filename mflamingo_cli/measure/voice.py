"""Evidence of voices: FireRedVAD's network for speech, singing and music in NumPy, with the front end of Kaldi that it was trained on.

The network is a deep feed-forward sequential memory network (DFSMN, Zhang et al., ICASSP 2018, arXiv 1803.05030): in each of its eight
memories a frame sees 19 frames before it and 20 after it, each channel weighted alone. Frames are 10 ms apart, the first starts at 0.
"""

from __future__ import annotations

import numpy as np

from mflamingo_cli.measure.networks import Weights, load_weights

FRAMES_PER_S = 100
FRAME, HOP, N_FFT, N_BANDS = 400, 160, 512, 80  # at 16 kHz; `compute-fbank-feats` of Kaldi with 80 bands, its defaults else
LOWEST_HZ, HIGHEST_HZ = 20.0, 8000.0
PREEMPHASIS = 0.97
FULL_SCALE = 32768.0  # Kaldi reads samples as 16-bit integers
FLOOR = float(np.finfo(np.float32).eps)  # of band energies, before their logarithm
LAYERS = 8
TAPS_BEFORE, TAPS_AFTER = 20, 20  # of a memory: frames up to this one, frames after it
LANE = TAPS_BEFORE + TAPS_AFTER  # frames that one small matrix product of a memory writes
BLOCK = 100 * LANE  # frames whose layers are held at a time: 40 s, 4 MB a layer
REACH = LAYERS * TAPS_AFTER  # frames of its neighbours that a block sees


def band_filters() -> np.ndarray:
    """Kaldi's triangles, evenly spaced and linear on its mel scale, nothing at the Nyquist frequency: (257, 80) float32."""
    low, high, bins = (1127.0 * np.log1p(hz / 700.0) for hz in (LOWEST_HZ, HIGHEST_HZ, np.arange(N_FFT // 2 + 1) * HIGHEST_HZ * 2 / N_FFT))
    edges = np.linspace(low, high, N_BANDS + 2)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters[-1] = 0.0
    return filters.astype(np.float32)


def log_bands(samples: np.ndarray) -> np.ndarray:
    """Log mel energies as Kaldi computes them without dither: (n,) float32 at 16 kHz -> (1 + (n - 400) // 160, 80) float32."""
    window = np.power(np.hanning(FRAME), 0.85, dtype=np.float32) * np.float32(FULL_SCALE)  # Povey's, on the scale of 16 bits
    filters = band_filters()
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    out = np.empty((len(frames), N_BANDS), np.float32)
    for first in range(0, len(frames), BLOCK // 4):
        block = frames[first : first + BLOCK // 4]
        centred = block - block.mean(axis=1, keepdims=True)
        emphasised = centred.copy()
        emphasised[:, 1:] -= np.float32(PREEMPHASIS) * centred[:, :-1]
        emphasised[:, 0] *= np.float32(1 - PREEMPHASIS)
        spectrum = np.fft.rfft(emphasised * window, N_FFT)
        energies = (spectrum.real**2 + spectrum.imag**2) @ filters
        out[first : first + len(block)] = np.log(np.maximum(energies, FLOOR))
    return out


def lanes(taps: np.ndarray) -> np.ndarray:
    """A memory and the frame itself as a matrix from two lanes, the first from 20 frames before on, to one: (c, 40) -> (c, 80, 40)."""
    after = np.arange(2 * LANE)[:, None] - np.arange(LANE)  # place among 41 taps, the first of which is never used
    padded = np.pad(taps, ((0, 0), (1, 0)))
    padded[:, TAPS_BEFORE] += 1.0
    inside = (after >= 0) & (after <= LANE)
    return np.where(inside, padded[:, np.clip(after, 0, LANE)], 0.0)


def remember(x: np.ndarray, lane: np.ndarray) -> np.ndarray:
    """Each frame with its memory added: (channels, frames), matrices of `lanes` -> (channels, frames)."""
    channels, n_frames = x.shape
    count = -(-n_frames // LANE)
    padded = np.zeros((channels, count + 1, LANE), np.float32)
    padded.reshape(channels, -1)[:, TAPS_BEFORE : TAPS_BEFORE + n_frames] = x
    out = padded[:, :-1] @ lane[:, :LANE]
    out += padded[:, 1:] @ lane[:, LANE:]
    return np.asarray(out.reshape(channels, -1)[:, :n_frames])


def dense(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    """A layer with ReLU, or without a bias and without it: (n_in, frames) -> (n_out, frames)."""
    out: np.ndarray = weights[name] @ x
    if (bias := weights.get(f"{name}_b")) is not None:
        out += bias[:, None]
        np.maximum(out, 0.0, out=out)
    return out


def _logits(bands: np.ndarray, weights: Weights, memories: list[np.ndarray]) -> np.ndarray:
    """The network on a stretch of a song: (frames, 80) -> (3, frames)."""
    x = ((bands - weights["mean"]) * weights["scale"]).T
    hidden = remember(dense(dense(x, weights, "wide0"), weights, "narrow0"), memories[0])
    for layer in range(1, LAYERS):
        hidden = hidden + remember(dense(dense(hidden, weights, f"wide{layer}"), weights, f"narrow{layer}"), memories[layer])
    return np.asarray(weights["head"] @ dense(hidden, weights, "last") + weights["head_b"][:, None])


def voice_evidence(samples: np.ndarray) -> np.ndarray:
    """Probabilities of speech, singing and music, 100 a second: (n,) float32 at 16 kHz -> (frames, 3) float32."""
    if len(samples) < FRAME:
        return np.zeros((0, 3), np.float32)
    weights = load_weights("firered")
    memories = [lanes(weights[f"memory{layer}"]) for layer in range(LAYERS)]
    bands = log_bands(samples)
    out = np.empty((len(bands), 3), np.float32)
    for first in range(0, len(bands), BLOCK):
        last = min(len(bands), first + BLOCK)
        low = max(0, first - REACH)
        logits = _logits(bands[low : last + REACH], weights, memories)[:, first - low : last - low]
        out[first:last] = 1.0 / (1.0 + np.exp(-logits.T))
    return out
