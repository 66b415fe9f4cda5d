"""Evidence of genre, instruments and mood: musicnn's two networks (Pons and Serra, arXiv 1909.06654) in NumPy.

They read patches of 3 s. A patch is (frames, bands) float32, and so are the layers: (frames, channels).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mflamingo_cli.core.mel import mel_filters
from mflamingo_cli.measure.networks import Weights, load_weights
from quant.geometry import MelConfig

TAG_NAMES = (  # MagnaTagATune's 50 tags, then the Million Song Dataset's
    "mtt:guitar", "mtt:classical", "mtt:slow", "mtt:techno", "mtt:strings", "mtt:drums", "mtt:electronic", "mtt:rock", "mtt:fast",
    "mtt:piano", "mtt:ambient", "mtt:beat", "mtt:violin", "mtt:vocal", "mtt:synth", "mtt:female", "mtt:indian", "mtt:opera", "mtt:male",
    "mtt:singing", "mtt:vocals", "mtt:no vocals", "mtt:harpsichord", "mtt:loud", "mtt:quiet", "mtt:flute", "mtt:woman", "mtt:male vocal",
    "mtt:no vocal", "mtt:pop", "mtt:soft", "mtt:sitar", "mtt:solo", "mtt:man", "mtt:classic", "mtt:choir", "mtt:voice", "mtt:new age",
    "mtt:dance", "mtt:male voice", "mtt:female vocal", "mtt:beats", "mtt:harp", "mtt:cello", "mtt:no voice", "mtt:weird", "mtt:country",
    "mtt:metal", "mtt:female voice", "mtt:choral",
    "msd:rock", "msd:pop", "msd:alternative", "msd:indie", "msd:electronic", "msd:female vocalists", "msd:dance", "msd:00s",
    "msd:alternative rock", "msd:jazz", "msd:beautiful", "msd:metal", "msd:chillout", "msd:male vocalists", "msd:classic rock",
    "msd:soul", "msd:indie rock", "msd:Mellow", "msd:electronica", "msd:80s", "msd:folk", "msd:90s", "msd:chill", "msd:instrumental",
    "msd:punk", "msd:oldies", "msd:blues", "msd:hard rock", "msd:ambient", "msd:acoustic", "msd:experimental", "msd:female vocalist",
    "msd:guitar", "msd:Hip-Hop", "msd:70s", "msd:party", "msd:country", "msd:easy listening", "msd:sexy", "msd:catchy", "msd:funk",
    "msd:electro", "msd:heavy metal", "msd:Progressive rock", "msd:60s", "msd:rnb", "msd:indie pop", "msd:sad", "msd:House", "msd:happy",
)  # fmt: skip
NETWORKS = ("MTT_musicnn", "MSD_musicnn")  # in the order of TAG_NAMES, 50 tags each
PATCH_MEL = MelConfig(n_fft=512, hop_length=256, n_mels=96)
PATCH_FRAMES = 187  # 3 s, what both were trained on (musicnn, input_length)
PATCH_SAMPLES = (PATCH_FRAMES - 1) * PATCH_MEL.hop_length + PATCH_MEL.n_fft
TIMBRES, RHYTHMS = 2, 3  # convolutions over few frames and many bands, and over many frames of one band
BANDS_AT_ONCE = 8  # of a rhythm's convolution: their frames stay in a core's cache,
FRAMES_AT_ONCE = 24  # and so do those of a timbre's


@cache
def _front_end() -> tuple[np.ndarray, np.ndarray]:
    """Window (512,) and mel filters (257, 96)."""
    n_fft = PATCH_MEL.n_fft
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)  # Hann, periodic
    return window, mel_filters(PATCH_MEL).astype(np.float32)


def mel_patch(samples: np.ndarray) -> np.ndarray:
    """Compressed mel power: (PATCH_SAMPLES,) float32 at 16 kHz -> (187, 96) float32."""
    window, filters = _front_end()
    spectrum = np.fft.rfft(sliding_window_view(samples, PATCH_MEL.n_fft)[:: PATCH_MEL.hop_length] * window)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.asarray(np.log10(10_000 * (power @ filters) + 1))


def _same(x: np.ndarray, taps: int) -> np.ndarray:
    """Frames padded as TensorFlow does, so that a convolution of so many taps keeps their number."""
    return np.pad(x, (((taps - 1) // 2, taps // 2), (0, 0)))


class BandMaximum:
    """The greatest correlation of each frame with kernels that move along the bands, by a Fourier transform over the bands.

    There a shift is a phase: one product for each of 49 frequencies stands for those of 30 or 59 shifts. Shifts are counted from the
    middle one, so those of q and -q bands are a sum of cosines plus and minus one of sines; the greater of both is C + |S|.
    """

    def __init__(self, kernel: np.ndarray) -> None:
        """For kernels (channels, taps, bands), of an odd number of frames."""
        _, self._taps, bands = kernel.shape
        n = PATCH_MEL.n_mels
        frequencies, middle = np.arange(n // 2 + 1), (n - bands) / 2
        turns = np.outer(np.arange(max(n, bands)), frequencies) * (2j * np.pi / n)
        self._transform = np.exp(-turns[:n]).astype(np.complex64)  # of real sound: frequencies from 0 to a half
        weight = np.where(frequencies % (n // 2) == 0, 1.0, 2.0) / n * np.exp(2j * np.pi * frequencies * middle / n)
        response = (kernel.astype(np.float64) @ np.exp(turns[:bands]) * weight).transpose(2, 1, 0)  # (frequencies, taps, channels)
        self._real = np.concatenate([response.real, -response.imag], axis=1).astype(np.float32)
        self._imaginary = np.concatenate([response.imag, response.real], axis=1).astype(np.float32)
        angles = 2 * np.pi * np.outer(np.arange(middle % 1, middle + 0.5), frequencies) / n  # of shifts to one side
        self._cosines, self._sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Frames, zeros beyond both ends: (frames, 96) -> (frames, channels)."""
        spectrum = _same(x, self._taps) @ self._transform.view(np.float32)  # real and imaginary parts in turns
        parts = spectrum.T.reshape(len(self._real), 2, -1)
        rows = sliding_window_view(parts, self._taps, axis=2).transpose(0, 2, 1, 3).reshape(len(parts), len(x), -1)
        top = np.empty((len(x), self._real.shape[2]), np.float32)
        for t in range(0, len(x), FRAMES_AT_ONCE):
            block = rows[:, t : t + FRAMES_AT_ONCE]
            sums = self._cosines @ (block @ self._real).reshape(len(block), -1)
            differences = self._sines @ (block @ self._imaginary).reshape(len(block), -1)
            sums += np.abs(differences, out=differences)
            sums.max(axis=0, out=top[t : t + FRAMES_AT_ONCE].reshape(-1))
        return top


class TagNetwork:
    """One of the two networks; its matrices are laid out for products with rows of frames.

    A front convolution is followed by ReLU, a norm and the maximum over bands. All of that rises with its output, or falls where the norm's
    scale is negative: the maximum comes first, over outputs whose sign is that of the scale.
    """

    def __init__(self, weights: Weights, name: str) -> None:
        self._weights = {key.partition("/")[2]: value for key, value in weights.items() if key.startswith(f"{name}/")}
        signs = [np.sign(self._weights[f"fronts.{i}.norm.scale"]) for i in range(TIMBRES + RHYTHMS)]
        kernels = [self._weights[f"fronts.{i}.conv.weight"][:, 0] * sign[:, None, None] for i, sign in enumerate(signs)]
        self._signs = signs
        self._timbres = [BandMaximum(kernel) for kernel in kernels[:TIMBRES]]
        self._rhythms = [np.ascontiguousarray(kernel[:, :, 0].T) for kernel in kernels[TIMBRES:]]  # (taps, channels)
        middle = (self._weights[f"convs.{i}.weight"] for i in range(3))
        self._middle = [kernel.transpose(2, 1, 0).reshape(-1, len(kernel)) for kernel in middle]  # (taps, channels) -> channels

    def __call__(self, patch: np.ndarray) -> np.ndarray:
        """Probabilities of 50 tags: (frames, 96) -> (50,)."""
        x = self._norm("norm", patch)
        layers = [np.concatenate([self._timbre(x, i) for i in range(TIMBRES)] + [self._rhythm(x, i) for i in range(RHYTHMS)], axis=1)]
        for i, kernel in enumerate(self._middle):
            rows = sliding_window_view(_same(layers[-1], 7), 7, axis=0).transpose(0, 2, 1).reshape(len(x), -1)
            y = self._norm(f"norms.{i}", np.maximum(rows @ kernel + self._weights[f"convs.{i}.bias"], 0))
            layers.append(y + layers[-1] if i else y)
        features = np.concatenate(layers, axis=1)
        pooled = self._norm("flat_norm", np.stack([features.max(axis=0), features.mean(axis=0)], axis=1).ravel())
        hidden = self._norm("dense_norm", np.maximum(self._dense("dense", pooled), 0))
        return np.asarray(1 / (1 + np.exp(-self._dense("head", hidden))))

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return x * self._weights[f"{name}.scale"] + self._weights[f"{name}.shift"]

    def _dense(self, name: str, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._weights[f"{name}.weight"] @ x + self._weights[f"{name}.bias"])

    def _front(self, i: int, top: np.ndarray) -> np.ndarray:
        """What follows the maximum of a front convolution."""
        return self._norm(f"fronts.{i}.norm", np.maximum(top * self._signs[i] + self._weights[f"fronts.{i}.conv.bias"], 0))

    def _timbre(self, x: np.ndarray, i: int) -> np.ndarray:
        """Seven frames by many bands: (frames, 96) -> (frames, 204)."""
        return self._front(i, self._timbres[i](x))

    def _rhythm(self, x: np.ndarray, i: int) -> np.ndarray:
        """Many frames of one band: (frames, 96) -> (frames, 51)."""
        kernel = self._rhythms[i]
        rows = sliding_window_view(np.ascontiguousarray(_same(x, len(kernel)).T), len(kernel), axis=1)  # (96, frames, taps)
        top = np.full((len(x), kernel.shape[1]), -np.inf, np.float32)
        for band in range(0, x.shape[1], BANDS_AT_ONCE):
            block = np.ascontiguousarray(rows[band : band + BANDS_AT_ONCE]).reshape(-1, len(kernel)) @ kernel
            np.maximum(top, block.reshape(BANDS_AT_ONCE, len(x), -1).max(axis=0), out=top)
        return self._front(TIMBRES + i, top)


@cache
def _networks() -> tuple[TagNetwork, ...]:
    weights = load_weights("musicnn")
    return tuple(TagNetwork(weights, name) for name in NETWORKS)


def tag_evidence(samples: np.ndarray, patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Tags of so many patches at most, evenly spread over a song: (n,) float32 at 16 kHz -> middles (p,) s, probabilities (p, 100)."""
    samples = np.pad(samples, (0, max(0, PATCH_SAMPLES - len(samples))))
    count = max(1, min(patches, len(samples) // PATCH_SAMPLES))
    middles = (np.arange(count) + 0.5) * len(samples) / count
    starts = (middles - PATCH_SAMPLES / 2).astype(int)
    mels = [mel_patch(samples[start : start + PATCH_SAMPLES]) for start in starts]
    tags = np.array([np.concatenate([network(mel) for network in _networks()]) for mel in mels])
    return (starts + PATCH_SAMPLES / 2) / PATCH_MEL.sample_rate, tags
