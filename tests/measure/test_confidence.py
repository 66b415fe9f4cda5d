"""How sure a value is, is a probability; it falls with what speaks against the value, and there is none without a value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mflamingo_cli.measure import Confidence, measure
from mflamingo_cli.measure.confidence import ALWAYS, MOST, MOST_ALONE, WEIGHTS, beat_signs, of_key, of_meter, of_tempo, probability
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.measure.key import sounding
from mflamingo_cli.measure.spectra import beat_bands, onset_strength
from mflamingo_cli.schema import Segment

from .synth import RATE, audio, song

STEP = 25  # frames between beats: half a second
BEATS = np.arange(1, 65) * STEP


def onsets(pattern: tuple[float, ...], between: float = 0.0) -> np.ndarray:
    """Sounds on all beats with stresses that repeat, and sounds half-way between them."""
    out = np.zeros(BEATS[-1] + STEP)
    out[BEATS] = np.resize(pattern, len(BEATS))
    out[BEATS + STEP // 2] = between
    return out / out.mean()


def signs(pattern: tuple[float, ...] = (1.0,), between: float = 0.0, scatter: float = 0.01) -> dict[str, float]:
    evidence = np.zeros((BEATS[-1] + STEP, 3))
    evidence[BEATS, 0] = np.resize(pattern, len(BEATS))
    return beat_signs(onsets(pattern, between), evidence, BEATS, scatter)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("size", [-1e9, -1.0, 0.0, 1.0, 1e9])
def test_it_is_a_probability_whatever_the_signs(name: str, size: float) -> None:
    assert 0 < probability(name, {sign: size for sign in WEIGHTS[name] if sign != ALWAYS}) < 1


def test_without_a_value_nothing_is_sure() -> None:
    assert of_tempo(None, {}) is of_meter(None, {}) is None
    assert measure(audio(np.zeros(20 * RATE))).confidence == Confidence()


def test_stresses_and_sounds_inside_are_those_of_the_pattern() -> None:
    even = signs()
    assert even["pairs"] == pytest.approx(0)
    assert even["threes"] == pytest.approx(0)
    assert signs((1.0, 0.5))["pairs"] == pytest.approx(1 / 3, abs=0.01)
    assert signs((1.0, 0.5, 0.5))["threes"] == pytest.approx(0.5, abs=0.02)
    assert signs(between=1.0)["halves"] == pytest.approx(0, abs=0.01)
    assert even["halves"] < -5


@pytest.mark.parametrize(
    ("bpm", "doubtful"),
    [
        (170.0, signs((1.0, 0.4))),  # half of it
        (170.0, signs((1.0, 0.4, 0.4))),  # a third of it
        (60.0, signs(between=1.0)),  # double
        (120.0, signs(scatter=0.1)),  # free
    ],
)
def test_a_tempo_is_less_sure_where_another_is_felt(bpm: float, doubtful: dict[str, float]) -> None:
    plain = of_tempo(bpm, signs())
    doubted = of_tempo(bpm, doubtful)
    assert plain is not None
    assert doubted is not None
    assert doubted < plain


def test_no_tempo_is_surer_than_clips_have_shown() -> None:
    sure = of_tempo(110.0, signs() | {"bars": 50.0})
    assert sure == MOST["tempo"] < 0.95


def test_a_key_is_less_sure_beside_an_equal_and_of_one_chord() -> None:
    triads = sounding((Segment(0.0, 3.0, "D:maj"), Segment(3.0, 4.0, "G:maj")))
    weights = np.zeros(24)
    weights[2] = 8.0
    sure = of_key(Key("D", "major"), weights, triads)
    weights[23] = 7.9
    beside = of_key(Key("D", "major"), weights, triads)
    assert beside < 0.7 < sure
    weights[23] = 0.0
    assert of_key(Key("D", "major"), weights, sounding((Segment(0.0, 3.0, "D:maj"),))) == MOST_ALONE


@pytest.mark.slow
def test_measuring_tells_how_sure_it_is_whatever_the_level() -> None:
    samples = song(["A:min", "F:maj", "C:maj", "G:maj"] * 3 + ["A:min"], 112.0)
    loud, quiet = measure(audio(samples)).confidence, measure(audio(samples * np.float32(0.02))).confidence
    assert loud.key is not None
    assert loud.tempo is not None
    assert quiet.key == pytest.approx(loud.key, abs=0.1)
    assert quiet.tempo == pytest.approx(loud.tempo, abs=0.1)


def test_onset_strength_is_one_on_average() -> None:
    strength = onset_strength(beat_bands(song(["C:maj"] * 4, 120.0)))
    assert strength.mean() == pytest.approx(1)
    assert not onset_strength(beat_bands(np.zeros(RATE, np.float32))).any()


def test_what_is_missing_of_a_damaged_song_may_be_otherwise() -> None:
    whole = audio(song(["C:maj", "F:maj", "G:maj", "C:maj"] * 2, 120.0))
    sure, less = measure(whole).confidence, measure(replace(whole, damaged=True, share=0.04)).confidence
    assert sure.tempo is not None
    assert less.tempo == pytest.approx(0.04 * sure.tempo)
    assert less.key is not None
    assert less.key < 0.05
