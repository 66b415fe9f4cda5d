"""Density and brightness of sounds whose onsets and frequencies are known; the loudest and the quietest part; clipping."""

from __future__ import annotations

import numpy as np
import pytest

from mflamingo_cli.measure import Loudness, measure
from mflamingo_cli.measure.dynamics import Texture, brightness, onset_frames, onsets_per_s
from mflamingo_cli.measure.loudness import FULL_SCALE, LoudnessMeter
from mflamingo_cli.schema import Clipped, Dynamics

from .synth import RATE, audio, drum, song

BRIGHT = 0.03  # relative; bands are 3 % apart


def metered(samples: np.ndarray, blocks: int = 1) -> LoudnessMeter:
    meter = LoudnessMeter()
    meter.open(RATE, samples.shape[1] if samples.ndim > 1 else 1)
    for block in np.array_split(samples.reshape(len(samples), -1).astype(np.float32), blocks):
        meter.add(block)
    return meter


def dynamics_of(samples: np.ndarray) -> Dynamics:
    return measure(audio(samples), metered(samples), only=["dynamics"]).dynamics


def sine(hertz: float, seconds: float, gain: float = 0.1) -> np.ndarray:
    return gain * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


@pytest.mark.parametrize("hertz", [440.0, 1000.0, 4000.0])
def test_a_tone_is_as_bright_as_it_is_high_whatever_its_level(hertz: float) -> None:
    for gain in (0.1, 0.001):
        assert dynamics_of(sine(hertz, 10.0, gain)).brightness_hz == pytest.approx(hertz, rel=BRIGHT)


def test_white_noise_is_as_bright_as_the_middle_of_its_band() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * RATE)
    assert dynamics_of(noise).brightness_hz == pytest.approx((30 + 7000) / 2, rel=0.06)


def test_loud_moments_weigh_more_and_silence_weighs_nothing() -> None:
    both = np.concatenate([sine(500, 10), 0.01 * sine(4000, 10)])
    assert dynamics_of(both).brightness_hz == pytest.approx(500, rel=0.2)
    apart = np.concatenate([sine(500, 10), np.zeros(20 * RATE), sine(500, 10)])
    found = dynamics_of(apart)
    assert found.brightness_hz == pytest.approx(500, rel=BRIGHT)
    assert found.quietest is not None
    assert found.quietest.end <= 10.0 or found.quietest.start >= 30.0


@pytest.mark.parametrize("per_s", [1.0, 2.5, 6.0])
def test_every_drum_is_an_onset_and_pauses_do_not_count(per_s: float) -> None:
    rng, out = np.random.default_rng(0), np.zeros(20 * RATE)
    for at in np.arange(0.1, 19.5, 1 / per_s):
        sound = drum(rng)
        out[round(at * RATE) : round(at * RATE) + len(sound)] += 0.2 * sound
    found = dynamics_of(np.concatenate([out, np.zeros(20 * RATE), out])).onsets_per_s
    assert found == pytest.approx(per_s, rel=0.1)


def test_of_stretches_onsets_count_by_their_seconds() -> None:
    assert onsets_per_s([Texture(10, 5.0), Texture(2, 15.0)]) == 0.6
    assert (onsets_per_s([]), brightness([]), brightness([Texture()])) == (None, None, None)
    assert len(onset_frames(np.zeros(0))) == len(onset_frames(np.ones(50))) == 0


def test_the_loudest_and_the_quietest_part_are_named_and_a_fade_is_neither() -> None:
    loud, quiet = sine(1000, 12.0, 0.4), sine(1000, 12.0, 0.1)
    fade = sine(1000, 6.0, 0.1) * np.linspace(1, 0, 6 * RATE)
    found = dynamics_of(np.concatenate([quiet, loud, quiet, fade]))
    assert found.loudest is not None
    assert found.quietest is not None
    assert (found.loudest.start, found.loudest.end) == (pytest.approx(12.0, abs=1.0), pytest.approx(24.0, abs=1.0))
    assert found.loudest.lufs - found.quietest.lufs == pytest.approx(20 * np.log10(4), abs=1.0)
    assert found.quietest.end - found.quietest.start > 10.0
    assert dynamics_of(sine(1000, 2.5)).loudest is None
    assert measure(audio(loud), only=["dynamics"]).dynamics.loudest is None  # nobody metered it


@pytest.mark.slow
def test_sections_have_their_loudness_and_the_one_that_they_repeat() -> None:
    samples = song((["C:maj", "F:maj"] * 4 + ["Ab:maj", "Eb:min"] * 4) * 2, 120.0)
    native = samples.copy()
    native[16 * RATE : 32 * RATE] *= 0.25
    found = measure(audio(samples, start_s=5.0), metered(native), only=["sections"]).sections
    assert [section.repeats for section in found] == [None, None, 0, 1]
    assert found[0].lufs - found[1].lufs == pytest.approx(12.0, abs=0.5)
    assert found[2].lufs == pytest.approx(found[0].lufs, abs=0.5)


# --- clipping ---


def clipped(samples: np.ndarray, blocks: int = 1) -> Clipped | None:
    return metered(samples, blocks).result().clipped


def test_three_samples_in_a_row_at_full_scale_are_a_run_and_two_are_none() -> None:
    samples = sine(100, 2.0)
    samples[[100, 101, 300]] = 1.0
    assert clipped(samples) == Clipped(0, 0.0)
    samples[500:503], samples[700:710] = -1.0, FULL_SCALE
    assert clipped(samples) == Clipped(2, 13 / RATE)
    samples[500:503] = 0.999
    assert clipped(samples) == Clipped(1, 10 / RATE)


@pytest.mark.parametrize("blocks", [1, 7, 1000])
def test_a_run_goes_on_from_one_block_to_the_next_and_to_the_end(blocks: int) -> None:
    samples = sine(100, 2.0)
    samples[RATE // 2 - 2 : RATE // 2 + 3] = 1.0  # over the border of what is metered at a time
    samples[-4:] = -1.2
    assert clipped(samples, blocks) == Clipped(2, 9 / RATE)


def test_a_run_is_of_one_channel() -> None:
    samples = np.stack([sine(100, 1.0), sine(100, 1.0)], axis=1)
    samples[[100, 101], 0] = samples[[102, 103], 1] = 1.0
    assert clipped(samples) == Clipped(0, 0.0)
    samples[200:204] = 1.0
    assert clipped(samples) == Clipped(1, 4 / RATE)


def test_a_sine_driven_into_clipping_is_clipped_twice_a_period() -> None:
    found = clipped(np.clip(sine(100, 1.0, 2.0), -1, 1))
    assert found is not None
    assert found.runs == 200
    assert found.seconds == pytest.approx(2 / 3, rel=0.02)  # of each second a sine spends so much above half of its height


def test_without_a_meter_nothing_is_known_of_clipping() -> None:
    assert Loudness().clipped is None
    assert LoudnessMeter().result().clipped is None
