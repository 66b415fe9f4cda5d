"""Pseudo-labels of a recording by published models: tags of musicnn, chords, key and beats of `measure`.

Times are seconds, labels 40 ms apart.

musicnn (Pons and Serra, arXiv 1909.06654; code and weights ISC, see weights/NOTICE) runs in PyTorch. Only what a model is
sure of is kept: the rest is unknown (-1 or 255) or left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mflamingo_cli.core.mel import mel_filters
from mflamingo_cli.measure.beats import BeatTrack
from mflamingo_cli.measure.chords import CHANGE, NO_HARMONY, decode, join, scores
from mflamingo_cli.measure.facts import pitch_class
from mflamingo_cli.measure.key import MODES, STILL, chroma, correlations, measure_key, stillness
from mflamingo_cli.measure.meter import settle_bars
from mflamingo_cli.measure.networks import ChordEvidence, chord_evidence
from mflamingo_cli.measure.song import RETUNE
from mflamingo_cli.measure.spectra import CQT_FPS, constant_q, tuning_of
from mflamingo_cli.measure.tempo import measure_tempo
from mflamingo_cli.schema import Segment
from mflamingo_cli.train.mini.frames import LABEL_S, NO_CHORD, TAG_NAMES, UNKNOWN
from mflamingo_cli.train.mini.synth.harmony import QUALITIES
from quant.geometry import MelConfig

RATE = 16_000
WEIGHTS = Path(__file__).parent / "weights" / "musicnn.npz"  # made by tests/measure/convert_musicnn.py
NETWORKS = ("MTT_musicnn", "MSD_musicnn")  # in the order of TAG_NAMES, 50 tags each
PATCH_FRAMES = 187  # 3 s, what both were trained on (musicnn, input_length)
PATCH_MEL = MelConfig(n_fft=512, hop_length=256, n_mels=96)
PATCH_SAMPLES = (PATCH_FRAMES - 1) * PATCH_MEL.hop_length + PATCH_MEL.n_fft
PATCHES = 6  # per minute, evenly spread
SURE = 0.5  # least mean probability of a chord's triad
CLOSE = 0.05  # of two correlations of a key: nearer ones are a guess
QUALITY_OF = {  # chords of measure.chords -> compose.QUALITIES by their triad or seventh; others have no class
    "maj": "maj", "min": "min", "7": "7", "maj7": "maj7", "min7": "min7", "dim": "dim", "sus4": "sus4", "maj6": "maj", "min6": "min",
    "dim7": "dim", "hdim7": "dim",
}  # fmt: skip
VOICE = ("mtt:vocal", "mtt:vocals", "mtt:singing", "mtt:voice", "mtt:female vocal", "mtt:male vocal", "mtt:female voice",
         "mtt:male voice", "mtt:female", "mtt:male", "mtt:woman", "mtt:man")  # fmt: skip
VOCALISTS = ("msd:female vocalists", "msd:male vocalists")
SUNG = 0.3  # both networks' likeliest tags together: of the clips listened to, speech and Hungarian metal with a singer reach it
NO_VOICE, NO_VOCALISTS = 0.05, 0.08  # at most so much where there surely is none: the 80th percentiles of game music
assert {*QUALITY_OF.values()} == {*QUALITIES}


# ---- musicnn ----


class Norm(nn.Module):
    """Batch normalisation with fixed statistics, over the channels in dimension 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("shift", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, …) -> the same."""
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return torch.addcmul(self.shift.view(shape), x, self.scale.view(shape))


class Front(nn.Module):
    """Convolution over (time, mel), ReLU, normalisation, and the maximum over all bands that are left."""

    def __init__(self, channels: int, time: int, bands: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, (time, bands))
        self.norm = Norm(channels)
        self.pad = ((time - 1) // 2, time // 2)  # TensorFlow's "same"

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, time, mel) -> (batch, channels, time)."""
        y = functional.conv2d(functional.pad(x, (0, 0, *self.pad)), self.conv.weight)
        top = torch.where(self.norm.scale[:, None] > 0, y.amax(3), y.amin(3))  # all that follows rises or falls with y
        return self.norm(functional.relu(top + self.conv.bias[:, None]))


class Musicnn(nn.Module):
    """The network of musicnn 0.1.0 (its `models.build_musicnn`, 64 filters in the middle, 200 units at the end)."""

    def __init__(self, classes: int = 50, bands: int = PATCH_MEL.n_mels) -> None:
        super().__init__()
        self.norm = Norm(1)
        self.fronts = nn.ModuleList(
            [Front(204, 7, int(0.4 * bands)), Front(204, 7, int(0.7 * bands)), Front(51, 128, 1), Front(51, 64, 1), Front(51, 32, 1)]
        )
        self.convs = nn.ModuleList([nn.Conv1d(n, 64, 7, padding=3) for n in (561, 64, 64)])
        self.norms = nn.ModuleList([Norm(64) for _ in range(3)])
        self.flat_norm = Norm(2 * (561 + 3 * 64))
        self.dense = nn.Linear(2 * (561 + 3 * 64), 200)
        self.dense_norm = Norm(200)
        self.head = nn.Linear(200, classes)

    def forward(self, mel: Tensor) -> Tensor:
        """Compressed mel patches (batch, time, bands) -> probabilities (batch, classes)."""
        x = self.norm(mel[:, None])
        front = torch.cat([part(x) for part in self.fronts], dim=1)  # (B, 561, time)
        layers = [front]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = norm(functional.relu(conv(layers[-1])))
            layers.append(y if len(layers) == 1 else y + layers[-1])
        features = torch.cat(layers, dim=1)
        pooled = torch.stack([features.amax(2), features.mean(2)], dim=2).flatten(1)  # maximum and mean of each channel, in turn
        return torch.sigmoid(self.head(self.dense_norm(functional.relu(self.dense(self.flat_norm(pooled))))))


class Tagger:
    """Both networks of musicnn with their front end; 100 tags in the order of TAG_NAMES."""

    def __init__(self) -> None:
        self.networks = [Musicnn().eval() for _ in NETWORKS]
        with np.load(WEIGHTS) as arrays:
            for name, network in zip(NETWORKS, self.networks, strict=True):
                state = {key.partition("/")[2]: torch.tensor(arrays[key]).float() for key in arrays.files if key.startswith(f"{name}/")}
                network.load_state_dict(state)
        self._filters = mel_filters(PATCH_MEL).astype(np.float32)  # (bins, bands)
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(PATCH_MEL.n_fft) / PATCH_MEL.n_fft)).astype(np.float32)

    def patch(self, samples: np.ndarray) -> np.ndarray:
        """Mel power of 3 s as the networks read it: (PATCH_SAMPLES,) -> (187, 96) float32."""
        frames = np.lib.stride_tricks.sliding_window_view(samples, PATCH_MEL.n_fft)[:: PATCH_MEL.hop_length]
        spectrum = np.fft.rfft(frames * self._window)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        return np.log10(10_000 * (power @ self._filters) + 1)

    def __call__(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tags of patches spread over a clip: (n,) -> their middles (p,) s, probabilities (p, 100)."""
        samples = np.pad(samples, (0, max(0, PATCH_SAMPLES - len(samples))))
        count = max(1, min(round(PATCHES * len(samples) / (60 * RATE)), len(samples) // PATCH_SAMPLES))
        slot = len(samples) / count
        starts = [int((i + 0.5) * slot - PATCH_SAMPLES / 2) for i in range(count)]
        batch = torch.from_numpy(np.stack([self.patch(samples[at : at + PATCH_SAMPLES]) for at in starts]))
        with torch.inference_mode():
            tags = torch.cat([network(batch) for network in self.networks], dim=1).numpy()
        return np.array([at + PATCH_SAMPLES / 2 for at in starts]) / RATE, tags


# ---- what a clip is labelled with ----


def pseudo_labels(samples: np.ndarray, tagger: Tagger) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Everything the models are sure of: (n,) float32 at 16 kHz -> fields of the manifest row, labels of n / 640 tokens."""
    duration, count = len(samples) / RATE, int(len(samples) / RATE / LABEL_S)
    times, tags = tagger(samples)
    row: dict[str, Any] = {"tags": {name: round(float(p), 4) for name, p in zip(TAG_NAMES, tags.mean(0), strict=True)}}
    labels = {"tags": spread(times, tags, count)}
    labels["vocals"] = vocals(labels["tags"])
    spectrogram = constant_q(samples)
    if stillness(spectrogram) > STILL:
        return row, labels
    tuning = tuning_of(spectrogram)
    if abs(tuning) > RETUNE:
        spectrogram = constant_q(samples, tuning)
    evidence = chord_evidence(spectrogram)
    chords = chord_segments(evidence, duration)
    if chords:
        keys(row, spectrogram, chords)
        harmony(row, labels, evidence, chords, count)
    tempo, bars = measure_tempo(samples)
    tempo, meter = settle_bars(tempo, bars, chords)
    rhythm(row, labels, tempo, meter, count)
    return row, labels


def spread(times: np.ndarray, tags: np.ndarray, count: int) -> np.ndarray:
    """Probabilities between the patches: (p,) s, (p, 100) -> (count, 100) uint8, 254 at most (255 is unknown)."""
    middles = (np.arange(count) + 0.5) * LABEL_S
    dense = np.stack([np.interp(middles, times, column) for column in tags.T], axis=1)
    return np.minimum(np.round(dense * 255), 254).astype(np.uint8)


def vocals(tags: np.ndarray) -> np.ndarray:
    """Whether someone sings or speaks, where that is sure: (T, 100) uint8 -> (T,) uint8, 255 unknown."""
    voice, vocalists = (tags[:, [TAG_NAMES.index(name) for name in names]].max(axis=1) / 255 for names in (VOICE, VOCALISTS))
    silent = (voice <= NO_VOICE) & (vocalists <= NO_VOCALISTS)
    return np.where(voice + vocalists >= SUNG, 1, np.where(silent, 0, UNKNOWN)).astype(np.uint8)


def chord_segments(evidence: ChordEvidence, duration: float) -> tuple[Segment, ...]:
    """Chords as `measure.chords` decodes them, from evidence that is kept; nothing where nothing is harmony."""
    names, likelihood = scores(evidence)
    spans = join(decode(likelihood, np.full(len(likelihood), CHANGE)), names)
    spans = [Segment(s.start, min(s.end, duration), s.label) for s in spans if s.start < duration]
    silent = sum(s.end - s.start for s in spans if s.label == "N")
    return () if silent > NO_HARMONY * duration else tuple(spans)


def keys(row: dict[str, Any], spectrogram: np.ndarray, chords: Sequence[Segment]) -> None:
    """Add the measured key and the second estimator's to a row, where there is one."""
    if (key := measure_key(spectrogram, chords)) is not None:
        row.update(tonic=key.pitch, mode=key.mode)
        if (second := second_key(spectrogram)) is not None:
            row["key2"] = second


def harmony(row: dict[str, Any], labels: dict[str, np.ndarray], evidence: ChordEvidence, chords: Sequence[Segment], count: int) -> None:
    """Add chords, those with a sure triad, to a row and to labels."""
    root, quality, bass = (np.full(count, -1, np.int8) for _ in range(3))
    certain = []
    for chord in chords:
        span = slice(round(chord.start / LABEL_S), round(chord.end / LABEL_S))
        frames = slice(round(chord.start * CQT_FPS), max(round(chord.end * CQT_FPS), round(chord.start * CQT_FPS) + 1))
        name, _, kind = chord.label.partition(":")
        mean = evidence.triad[frames].mean(axis=0)
        if name == "N":
            if mean[0] >= SURE:
                root[span] = bass[span] = NO_CHORD
            continue
        pitch, base = pitch_class(name), evidence.bass[frames].mean(axis=0)
        if mean[1 + pitch : 1 + 72 : 12].sum() >= SURE:  # any triad on this root
            root[span] = pitch
        if base[1:].max() >= SURE:
            bass[span] = int(base[1:].argmax())
        if mean[1:].max() >= SURE and kind in QUALITY_OF:
            quality[span] = QUALITIES.index(QUALITY_OF[kind])
            certain.append([round(chord.start, 3), round(chord.end, 3), pitch, QUALITY_OF[kind]])
    row["chords"] = certain
    labels.update(root=root, quality=quality, bass=bass)


def second_key(spectrogram: np.ndarray) -> list[Any] | None:
    """Another estimator's key, from the correlation of the chroma with the profiles alone: -> [tonic, mode], None where two are close."""
    fit = correlations(chroma(spectrogram))
    ranked = np.sort(fit, axis=None)
    mode, tonic = divmod(int(fit.argmax()), 12)
    return [tonic, MODES[mode]] if ranked[-1] - ranked[-2] >= CLOSE else None


def rhythm(row: dict[str, Any], labels: dict[str, np.ndarray], tempo: BeatTrack, meter: str | None, count: int) -> None:
    """Add tempo and beats where there are any, and bars where the meter is sure, to a row and to labels."""
    if tempo.bpm is None:
        return
    row.update(tempo=tempo.bpm, beats=[round(float(beat), 3) for beat in tempo.beats])
    if meter is None:
        return  # without downbeats a token's class is not known
    row["meter"] = meter
    beat = np.zeros(count, np.uint8)
    for times, value in ((tempo.beats, 1), (tempo.downbeats, 2)):
        at = np.round(times / LABEL_S).astype(int)
        beat[at[(at >= 0) & (at < count)]] = value
    labels["beat"] = beat
