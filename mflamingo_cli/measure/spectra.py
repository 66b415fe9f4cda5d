"""Spectra that the networks were trained on, from mono audio at 16 kHz: constant-Q for chords, log bands for beats.

Frames are centred on multiples of their hop, with zeros beyond both ends; frequencies are in Hz.
"""

from __future__ import annotations

import numpy as np
import soxr

RATE = 16_000
BINS_PER_OCTAVE = 36
N_OCTAVES = 7
N_CQT = BINS_PER_OCTAVE * N_OCTAVES  # 252 bins, C1 to just below C8
C1 = 440.0 * 2.0 ** (-45 / 12)  # 32.703 Hz
CQT_RATE = 11_025  # half of the published 22 050 Hz; 4 186 Hz is the highest bin
CQT_HOP = 256  # 23.22 ms, the published 512 at 22 050 Hz
CQT_FPS = CQT_RATE / CQT_HOP
N_FULL = 220  # bins below 2.24 kHz see phase; above, their kernels fit in two hops and weigh an STFT (librosa's hybrid CQT)
N_STFT = 512  # 46 ms at CQT_RATE
TUNING_FRAMES = 8192  # of a long song, spread over it, from which its tuning is estimated
AUDIBLE = 1e-6  # of the loudest energy: what is below does not count for the tuning
_WIDTH = 2.0 ** (2 / BINS_PER_OCTAVE)
QUALITY = (_WIDTH + 1) / (_WIDTH - 1)  # 51.9: cycles in a kernel
BLOCK = 1024  # frames whose samples are laid out at a time

BEAT_HOP = 320  # 20 ms
BEAT_FPS = RATE / BEAT_HOP
BEAT_FRAME = 1024  # 64 ms, the published 1411 at 22 050 Hz: bins 15.63 Hz apart in both
N_BEAT_BINS = 705
N_KNOWN = 119  # bands below 7 kHz; the 17 above them, up to 11 kHz, are extrapolated from the seven below
TOP_BANDS = (0.84, 0.84, 0.73, 0.73, 0.66, 0.64, 0.61, 0.61, 0.56, 0.55, 0.53, 0.50, 0.48, 0.46, 0.43, 0.23, 0.02)  # mean ratios in music


def frames(samples: np.ndarray, size: int, hop: int, count: int, first: int = 0) -> np.ndarray:
    """Frames `first`.. of a signal, frame i centred at i * hop: (n,) -> (count, size), contiguous."""
    start = first * hop - size // 2
    stop = start + (count - 1) * hop + size
    padded = np.zeros(stop - start, np.float32)
    low, high = max(start, 0), min(stop, len(samples))
    if high > low:
        padded[low - start : high - start] = samples[low:high]
    return np.lib.stride_tricks.sliding_window_view(padded, size)[::hop].copy()


def _hann(n: int) -> np.ndarray:
    """Periodic Hann window: (n,) float64."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n))


def _kernels(hertz: np.ndarray, rate: float) -> np.ndarray:
    """Complex kernels, centred, of unit gain: (bins,) -> (bins, size) complex128."""
    lengths = QUALITY * rate / hertz
    size = 2 * int(np.ceil(lengths.max() / 2)) + 2
    rows = np.zeros((len(hertz), size), np.complex128)
    for row, f, length in zip(rows, hertz, lengths, strict=True):
        time = np.arange(-length // 2, length // 2)
        window = _hann(len(time))
        start = size // 2 - len(time) // 2
        row[start : start + len(time)] = window / window.sum() * np.exp(2j * np.pi * f / rate * time)
    return rows


def constant_q(samples: np.ndarray, tuning: float = 0.0) -> np.ndarray:
    """Magnitudes of 36 bins per octave from C1: (n,) at 16 kHz -> (1 + n_11k // 256, 252) float32.

    `tuning` moves all bins, in semitones. Equal to librosa's hybrid_cqt at 22 050 Hz up to its resampling.
    """
    audio = soxr.resample(samples, RATE, CQT_RATE)
    n_frames = 1 + len(audio) // CQT_HOP
    hertz = C1 * 2.0 ** (tuning / 12 + np.arange(N_CQT) / BINS_PER_OCTAVE)
    out = np.empty((n_frames, N_CQT), np.float32)
    out[:, N_FULL:] = _from_stft(audio, hertz[N_FULL:], n_frames)
    rate, hop, top = float(CQT_RATE), CQT_HOP, N_FULL
    for octave in reversed(range(N_OCTAVES)):
        low = octave * BINS_PER_OCTAVE
        out[:, low:top] = _from_samples(audio, hertz[low:top], rate, hop, n_frames)
        audio, rate, hop, top = soxr.resample(audio, 2, 1), rate / 2, hop // 2, low
    return out


def _from_samples(audio: np.ndarray, hertz: np.ndarray, rate: float, hop: int, n_frames: int) -> np.ndarray:
    kernels = _kernels(hertz, rate).conj() * np.sqrt(QUALITY * 2 * CQT_RATE / hertz)[:, None]  # librosa's scale: by the root of the length
    basis = np.concatenate([kernels.real, kernels.imag]).T.astype(np.float32)
    out = np.empty((n_frames, len(hertz)), np.float32)
    for first in range(0, n_frames, BLOCK):
        product = frames(audio, len(basis), hop, min(BLOCK, n_frames - first), first) @ basis
        out[first : first + BLOCK] = np.hypot(product[:, : len(hertz)], product[:, len(hertz) :])
    return out


def _from_stft(audio: np.ndarray, hertz: np.ndarray, n_frames: int) -> np.ndarray:
    kernels = _kernels(hertz, 2.0 * CQT_RATE)
    lengths = QUALITY * 2 * CQT_RATE / hertz
    response = np.abs(np.fft.fft(kernels, 2 * N_STFT, axis=1))[:, : N_STFT // 2 + 1] * (lengths / (2 * N_STFT))[:, None]
    basis = (response.T * 2 / np.sqrt(2 * N_STFT)).astype(np.float32)  # times 2: half the rate, half the STFT
    window = _hann(N_STFT).astype(np.float32)
    out = np.empty((n_frames, len(hertz)), np.float32)
    for first in range(0, n_frames, BLOCK):
        part = frames(audio, N_STFT, CQT_HOP, min(BLOCK, n_frames - first), first)
        part *= window
        out[first : first + BLOCK] = np.abs(np.fft.rfft(part, axis=1)) @ basis
    return out


def tuning_of(spectrogram: np.ndarray) -> float:
    """How far the notes lie from A = 440 Hz, in semitones of (-0.5, 0.5]: (frames, 252) -> semitones.

    The energy of the three bins of each semitone turns around a circle; its mean angle is the deviation.
    """
    low, high = 2 * BINS_PER_OCTAVE, 6 * BINS_PER_OCTAVE  # C3..C7: narrow enough kernels, and still tonal
    spectrogram = spectrogram[:: -(-len(spectrogram) // TUNING_FRAMES)]
    energy = np.square(spectrogram[:, low:high], dtype=np.float64)
    left, mid, right = (np.log(energy[:, i : i + energy.shape[1] - 2] + 1e-30) for i in range(3))
    peak = (mid > left) & (mid > right) & (energy[:, 1:-1] > AUDIBLE * energy.max())
    weight = np.where(peak, spectrogram[:, low + 1 : high - 1], 0.0)
    offset = np.where(peak, 0.5 * (left - right) / np.where(peak, left - 2 * mid + right, 1.0), 0.0)  # of the peak, in bins
    angle = 2 * np.pi / 3 * (np.arange(1, weight.shape[1] + 1) + offset)
    return float(np.angle((weight * np.exp(1j * angle)).sum()) / (2 * np.pi))


def _beat_filters() -> np.ndarray:
    """Triangles on 24 bands per octave, 30 Hz to 11 kHz, of unit area: (705 bins, 136 bands) float32."""
    band = np.arange(np.floor(24 * np.log2(30 / 440)), np.ceil(24 * np.log2(17_000 / 440)))
    hertz = 440 * 2.0 ** (band / 24)
    hertz = hertz[(hertz >= 30) & (hertz <= 17_000)]
    spacing = 22_050 / (2 * N_BEAT_BINS)
    centres = np.unique(np.clip(np.floor(hertz / spacing + 0.5).astype(int), 0, N_BEAT_BINS - 1))
    filters = np.zeros((N_BEAT_BINS, len(centres) - 2), np.float32)
    for column, (left, centre, right) in enumerate(zip(centres[:-2], centres[1:-1], centres[2:], strict=True)):
        if right - left < 2:
            centre, right = left, left + 1
        filters[left:centre, column] = np.arange(centre - left) / max(1, centre - left)
        filters[centre:right, column] = 1 - np.arange(right - centre) / (right - centre)
    return np.asarray(filters / filters.sum(axis=0))


def band_centres() -> np.ndarray:
    """Mean frequency of each band of `beat_bands` that is known: (119,) Hz."""
    return np.asarray((np.arange(N_BEAT_BINS) * (RATE / BEAT_FRAME)) @ _beat_filters()[:, :N_KNOWN])


def beat_bands(samples: np.ndarray, gain: float = 1.0, lead: int = 0) -> np.ndarray:
    """Log band magnitudes and their rise over one frame, 50 a second: (n,) at 16 kHz -> (lead + ceil(n / 320), 272) float32.

    `lead` frames of silence are in front of the first sample.

    The network was trained on bands up to 11 kHz, 16 kHz audio ends at 8: the missing ones follow the highest known ones.
    """
    n_frames = lead - (-len(samples) // BEAT_HOP)
    filters = _beat_filters()
    n_bands = filters.shape[1]
    window = (np.hanning(BEAT_FRAME) * gain * 1411 / BEAT_FRAME).astype(np.float32)  # magnitudes as of the published frame
    out = np.empty((n_frames, 2 * n_bands), np.float32)
    bands, rise = out[:, :n_bands], out[:, n_bands:]
    for first in range(0, n_frames, BLOCK):
        part = frames(samples, BEAT_FRAME, BEAT_HOP, min(BLOCK, n_frames - first), first - lead)
        part *= window
        filtered = np.abs(np.fft.rfft(part, axis=1))[:, : BEAT_FRAME // 2] @ filters[: BEAT_FRAME // 2]
        filtered[:, N_KNOWN:] = filtered[:, N_KNOWN - 7 : N_KNOWN].mean(axis=1, keepdims=True) * np.array(TOP_BANDS, np.float32)
        bands[first : first + BLOCK] = np.log10(filtered + 1)
    rise[:1] = 0.0
    np.maximum(bands[1:] - bands[:-1], 0.0, out=rise[1:])
    return out


def onset_strength(bands: np.ndarray) -> np.ndarray:
    """How much begins in each frame of `beat_bands`, 1 on average: (frames, 272) -> (frames,)."""
    n_bands = bands.shape[1] // 2
    rise = bands[:, n_bands : n_bands + N_KNOWN].sum(axis=1, dtype=np.float64)
    return np.asarray(rise / max(float(rise.mean()), 1e-9))
