"""Treatments keep time: what was on a sample stays there."""

import numpy as np
import pytest

from mflamingo_cli.train.mini.synth import mixing


def clicks():
    samples = np.zeros(3 * mixing.SAMPLE_RATE, np.float32)
    samples[[8000, 21000, 40000]] = 1.0
    return np.convolve(samples, np.hanning(64), "same").astype(np.float32)


def lag(before, after):
    size = 1 << 18
    product = np.fft.irfft(np.fft.rfft(after, size) * np.fft.rfft(before, size).conj())
    at = int(np.argmax(product))
    return at if at < size // 2 else at - size


@pytest.mark.parametrize("seed", range(8))
def test_nothing_moves(seed):
    before = clicks()
    after, done = mixing.master(np.random.default_rng(seed), before)
    assert len(after) == len(before)
    assert np.abs(after).max() == pytest.approx(10 ** (done["peak_db"] / 20), rel=1e-4)
    assert abs(lag(before, after)) <= 8  # half a millisecond


@pytest.mark.parametrize("seed", range(6))
def test_codecs_return_the_same_length_in_place(seed):
    before = clicks()
    after, done = mixing.encode(np.random.default_rng(seed), before)
    assert len(after) == len(before)
    assert abs(lag(before, after)) <= 2, done


def test_a_compressor_narrows_the_range():
    loud = np.concatenate([np.full(16000, 0.02), np.full(16000, 0.8)]).astype(np.float32)
    after, _ = mixing.compress(np.random.default_rng(0), loud)
    assert after[-1] / after[0] < loud[-1] / loud[0]


@pytest.mark.parametrize("kind", ["white", "pink", "brown", "hum"])
def test_noise_has_unit_level(kind):
    found = mixing.noise(np.random.default_rng(0), kind, 20000)
    assert np.sqrt((found**2).mean()) == pytest.approx(1.0, rel=1e-3)


def test_the_same_seed_gives_the_same_mix():
    first, second = (mixing.master(np.random.default_rng(5), clicks())[0] for _ in range(2))
    assert np.array_equal(first, second)
