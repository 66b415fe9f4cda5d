"""The constant-Q spectrum and the beat bands mean what the networks were trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.measure.spectra import C1, CQT_RATE, QUALITY, beat_bands, constant_q, tuning_of

from .synth import RATE, song

SAME_CQT = 0.02  # of the mean magnitude: two resamplers, and librosa's sparse kernels
A_BIN = 0.01  # gain error of a steady sine at the centre of its bin
CENT = 0.03  # semitones


@pytest.mark.parametrize("index", [0, 36 * 3 + 27, 36 * 6])
def test_a_sine_has_the_height_of_its_bin(index: int) -> None:
    hertz = C1 * 2 ** (index / 36)
    samples = 0.5 * np.sin(2 * np.pi * hertz * np.arange(RATE * 5) / RATE).astype(np.float32)
    middle = constant_q(samples)[80:130].mean(axis=0)
    assert int(middle.argmax()) == index
    assert middle[index] == pytest.approx(0.25 * np.sqrt(QUALITY * 2 * CQT_RATE / hertz), rel=A_BIN)


def test_equals_librosas_hybrid_transform() -> None:
    """Every 37th frame of librosa 0.11: abs(hybrid_cqt(y, sr=22050, bins_per_octave=36, fmin=F#0, n_bins=288, tuning=0)).T[:, 18:270]."""
    want = np.load(Path(__file__).with_name("librosa_cqt.npy")).astype(np.float32)
    got = constant_q(song(["C:maj", "A:min", "F:maj", "G:maj"]))[::37]
    assert got.shape == want.shape
    assert np.abs(got - want).mean() < SAME_CQT * want.mean()


@pytest.mark.parametrize("detune", [-0.4, -0.1, 0.0, 0.25])
def test_tuning_is_heard(detune: float) -> None:
    assert tuning_of(constant_q(song(["C:maj", "F:maj"], detune=detune))) == pytest.approx(detune, abs=CENT)


@pytest.mark.parametrize("n", [0, 1, 319, 320, 321, RATE])
def test_any_length_has_its_frames(n: int) -> None:
    bands = beat_bands(np.full(n, 0.1, np.float32))
    assert bands.shape == (-(-n // 320), 272)
    assert np.isfinite(bands).all()
