"""Loudness by the book: EBU Tech 3341 and 3342 test signals, computed here."""

from __future__ import annotations

import numpy as np
import pytest

from mflamingo_cli.measure.loudness import LoudnessMeter, integrated, unit_steps
from mflamingo_cli.schema import Clipped, Loudness

LU = 0.1  # tolerance of EBU Tech 3341 and BS.2217
RANGE = 1.0  # tolerance of EBU Tech 3342
PEAK_UP, PEAK_DOWN = 0.2, 0.4  # dB, tolerance of EBU Tech 3341 for true peak


def tones(*parts: tuple[float, float], rate: int = 48_000, channels: int = 2, hertz: float = 1000.0) -> np.ndarray:
    """A sine in all channels, levels in dBFS for seconds each."""
    level = np.concatenate([np.full(int(seconds * rate), 10 ** (db / 20)) for db, seconds in parts])
    sine = level * np.sin(2 * np.pi * hertz * np.arange(len(level)) / rate)
    return np.repeat(sine[:, None], channels, axis=1).astype(np.float32)


def heard(samples: np.ndarray, rate: int = 48_000, block: int = 4096) -> Loudness:
    meter = LoudnessMeter()
    meter.open(rate, samples.shape[1])
    for start in range(0, len(samples), block):
        meter.add(samples[start : start + block])
    return meter.result()


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000])
def test_a_tone_of_minus_23_is_minus_23_at_every_rate(rate: int) -> None:
    assert heard(tones((-23, 6), rate=rate), rate).integrated_lufs == pytest.approx(-23, abs=LU)


@pytest.mark.parametrize(
    ("parts", "lufs"),
    [
        (((-33, 6),), -33),
        (((-36, 10), (-23, 60), (-36, 10)), -23),  # Tech 3341 case 3
        (((-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)), -23),  # case 4
        (((-26, 20), (-20, 20.1), (-26, 20)), -23),  # case 5
    ],
)
def test_gates_leave_out_what_is_quiet(parts: tuple[tuple[float, float], ...], lufs: float) -> None:
    assert heard(tones(*parts)).integrated_lufs == pytest.approx(lufs, abs=LU)


def test_a_block_is_400_ms() -> None:
    steps = np.zeros(20)  # of 100 ms
    steps[10] = 0.1
    assert integrated(steps) == pytest.approx(-0.691 + 10 * np.log10(0.1 / 4), abs=1e-9)  # a quarter of each block that holds it
    assert integrated(steps[:3]) is None


def test_surround_channels_weigh_more_and_lfe_nothing() -> None:
    levels = np.array([-28, -28, -24, 0, -30, -30])  # Tech 3341 case 6, with a loud LFE
    samples = tones((0, 20), channels=6) * (10 ** (levels / 20)).astype(np.float32)
    assert heard(samples).integrated_lufs == pytest.approx(-23, abs=LU)


def test_one_channel_is_three_lu_below_two() -> None:
    assert heard(tones((-23, 5), channels=1)).integrated_lufs == pytest.approx(-26.01, abs=LU)


@pytest.mark.parametrize(("levels", "lu"), [((-20, -30), 10), ((-20, -15), 5), ((-40, -20), 20), ((-50, -35, -20, -35, -50), 15)])
def test_range_of_steps(levels: tuple[float, ...], lu: float) -> None:
    assert heard(tones(*((level, 20) for level in levels))).range_lu == pytest.approx(lu, abs=RANGE)  # Tech 3342 cases 1 to 4


@pytest.mark.parametrize("phase", [0.0, 45.0, 60.0, 67.5])
@pytest.mark.parametrize("divisor", [4, 6, 8])
def test_peak_between_the_samples_is_found(divisor: int, phase: float) -> None:
    t = np.arange(48_000)
    sine = 0.5 * np.sin(2 * np.pi * t / divisor + np.deg2rad(phase)) * np.minimum(1, np.minimum(t, t[::-1]) / 4800)
    peak = heard(sine[:, None].astype(np.float32)).true_peak_dbtp
    assert peak is not None
    assert -6.02 - PEAK_DOWN < peak < -6.02 + PEAK_UP


def test_blocks_of_any_size_give_the_same_numbers() -> None:
    samples = (np.random.default_rng(0).standard_normal((130_001, 2)) * 0.1).astype(np.float32)
    assert heard(samples, 44_100, 977) == heard(samples, 44_100, 10**6)


def test_silence_and_scraps_have_no_loudness() -> None:
    assert heard(np.zeros((96_000, 2), np.float32)) == Loudness(clipped=Clipped(0, 0.0))
    assert heard(tones((-20, 0.3))).integrated_lufs is None
    assert heard(tones((-20, 2))).range_lu is None
    assert LoudnessMeter().result() == Loudness()


def test_agrees_with_pyloudnorm_on_noise() -> None:
    reference = pytest.importorskip("pyloudnorm")
    samples = (np.random.default_rng(1).standard_normal((48_000 * 6, 2)) * 0.1).astype(np.float32)
    assert heard(samples).integrated_lufs == pytest.approx(reference.Meter(48_000).integrated_loudness(samples), abs=LU)


@pytest.mark.parametrize(
    ("rate", "channels", "steps"), [(44_100, 2, 5), (192_000, 8, 5), (48_000, 64, 2), (11_025, 2, 2), (11_025, 640, 2)]
)
def test_units_are_shorter_where_there_are_many_samples(rate: int, channels: int, steps: int) -> None:
    assert unit_steps(rate, channels) == steps


@pytest.mark.slow
def test_many_channels_are_as_loud_as_their_power() -> None:
    samples = tones((-23 - 10 * np.log10(100), 3), channels=200)
    assert heard(samples).integrated_lufs == pytest.approx(-23, abs=LU)


def test_what_rings_into_silence_is_measured_and_digital_silence_as_what_is_almost_silent() -> None:
    sound, gap = tones((-23, 2.3)), np.zeros((48_000 * 9, 2), np.float32)
    silent, faint = (heard(np.concatenate([sound, quiet, sound])) for quiet in (gap, gap + np.float32(1e-9)))
    assert silent.integrated_lufs == pytest.approx(faint.integrated_lufs, abs=1e-6)
    assert silent.range_lu == pytest.approx(faint.range_lu, abs=1e-6)


def test_a_rate_too_low_for_the_filters_has_a_peak_and_no_loudness() -> None:
    found = heard(tones((-20, 5), rate=2_000, hertz=100.0), 2_000)
    assert (found.integrated_lufs, found.range_lu) == (None, None)
    assert found.true_peak_dbtp == pytest.approx(-20, abs=PEAK_DOWN)


@pytest.mark.parametrize("rate", [8_001, 22_257, 44_099, 96_001])
def test_a_rate_that_no_part_of_a_second_divides_is_metered_by_the_second(rate):
    """22 257 Hz was a Macintosh's; every odd rate that 5 does not divide raised IndexError."""
    tone = np.sin(2 * np.pi * 997 * np.arange(5 * rate) / rate).astype(np.float32)[:, None]
    meter = LoudnessMeter()
    meter.open(rate, 1, ("FC",))
    for first in range(0, len(tone), 7_000):
        meter.add(tone[first : first + 7_000])
    assert meter.result().integrated_lufs == pytest.approx(-3.01, abs=0.1)
