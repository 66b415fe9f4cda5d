"""The bar-pointer decoder finds the likeliest path, and the line through its beats is the tempo."""

from __future__ import annotations

import numpy as np
import pytest

from mflamingo_cli.measure import beats
from mflamingo_cli.measure.confidence import evenness
from mflamingo_cli.measure.tempo import fit_period, octaves, track

FPS = 50.0
SAME = 1e-6  # log-likelihoods, float64
EXACT = 0.001  # relative error of a line through frame-quantised beats


def evidence(bpm: float, meter: int, seconds: float = 30.0, offset: float = 0.2, noise: float = 0.0) -> np.ndarray:
    """What a perfect network says about a metronome."""
    out = np.full((int(seconds * FPS), 3), 0.02)
    for i, time in enumerate(np.arange(offset, seconds - 0.1, 60 / bpm)):
        out[round(time * FPS), 1 if i % meter == 0 else 0] = 0.9
    out[:, :2] += noise * np.random.default_rng(0).random((len(out), 2))
    out[:, 2] = np.maximum(1 - out[:, :2].sum(axis=1), 0.02)
    return out.astype(np.float32)


def beat_of(heard: np.ndarray) -> np.ndarray:
    """The evidence of beats, which stands for onsets too."""
    return heard[:, :2].sum(axis=1)


@pytest.mark.parametrize("meter", [3, 4])
@pytest.mark.parametrize("bpm", [62.0, 97.3, 128.0, 190.0])
def test_a_metronome_has_its_tempo_and_meter(bpm: float, meter: int) -> None:
    heard = evidence(bpm, meter, noise=0.1)
    tempo, bars = track(heard, beat_of(heard))
    assert tempo.bpm == pytest.approx(bpm, rel=EXACT * 2)
    assert bars is not None
    assert bars.meter == meter
    assert set(np.diff(bars.places) % meter) == {1}  # 1, 2, 3, 4, 1 …
    assert np.allclose(np.diff(tempo.downbeats), meter * 60 / bpm, atol=2.1 / FPS)


def uneven(bpm: float, weak: float) -> np.ndarray:
    """What a network says about a metronome whose every second beat may be none."""
    out = evidence(bpm, 4, noise=0.02)
    weaker = np.flatnonzero(out[:, :2].max(axis=1) > 0.5)[1::2]
    out[weaker, :2] *= weak
    out[weaker, 2] = 1 - out[weaker, :2].sum(axis=1)
    return out


@pytest.mark.parametrize(("bpm", "weak", "found"), [(168.0, 0.5, 84.0), (168.0, 0.8, 168.0), (140.0, 0.5, 70.0), (110.0, 0.5, 110.0)])
def test_a_fast_pulse_whose_every_second_beat_is_weak_is_double_the_one_that_is_felt(bpm: float, weak: float, found: float) -> None:
    heard = uneven(bpm, weak)
    tempo, bars = track(heard, beat_of(heard))
    assert tempo.bpm == pytest.approx(found, rel=EXACT * 2)
    assert bars is not None
    assert (evenness(beat_of(heard), bars.frames) > 0.9) == (weak > 0.9 or found < bpm)
    assert np.allclose(np.diff(tempo.beats), 60 / found, atol=1.1 / FPS)


def test_a_fast_pulse_in_bars_of_three_is_not_halved_whatever_the_network_leaves_out() -> None:
    heard = uneven(168.0, 0.5)
    frames = np.flatnonzero(beat_of(heard) > 0.3)
    sounds = np.full(len(heard), 0.1)
    sounds[frames] = np.where(np.arange(len(frames)) % 3 == 0, 3.0, 2.0)
    assert track(heard, sounds)[0].bpm == pytest.approx(168.0, rel=EXACT * 2)
    sounds[frames] = np.where(np.arange(len(frames)) % 2 == 0, 3.0, 2.0)
    assert track(heard, sounds)[0].bpm == pytest.approx(84.0, rel=EXACT * 2)


def _dense(heard: np.ndarray, intervals: np.ndarray, meter: int) -> float:
    """The textbook model: one state for each frame of each beat length and place."""
    logs = np.log(np.maximum(heard, beats.FLOOR)).astype(float)
    logs[:, 2] -= np.log(beats.BEAT_PART - 1)
    change = -beats.TEMPO_CHANGE * np.abs(intervals[:, None] / intervals[None] - 1)
    change -= np.log(np.exp(change).sum(axis=0))
    states = {(place, i): np.zeros(length) for place in range(meter) for i, length in enumerate(intervals)}
    for t, frame in enumerate(logs):
        new = {}
        for (place, i), row in states.items():
            moved = row.copy()
            if t > 0:
                moved[1:] = row[:-1]
                moved[0] = max(states[(place - 1) % meter, j][-1] + change[i, j] for j in range(len(intervals)))
            on = -(-int(intervals[i]) // beats.BEAT_PART)
            moved[:on] += frame[1 if place == 0 else 0]
            moved[on:] += frame[2]
            new[place, i] = moved
        states = new
    return max(row.max() for row in states.values())


def test_equals_the_dense_model(monkeypatch: pytest.MonkeyPatch) -> None:
    intervals = np.arange(4, 9)
    heard = np.random.default_rng(3).dirichlet([0.4, 0.2, 1.0], 60).astype(np.float32)
    _, found = beats._viterbi(heard, intervals)
    for meter in beats.METERS:
        assert found[meter] == pytest.approx(_dense(heard, intervals, meter), abs=SAME)


def test_nothing_beats_in_silence() -> None:
    flat = np.tile(np.array([0.01, 0.01, 0.98], np.float32), (500, 1))
    assert track(flat, beat_of(flat))[0].bpm is None


def test_a_slip_does_not_bend_the_line() -> None:
    times = np.arange(60) * 0.5
    times[50:] += 0.2
    assert 60 / fit_period(times)[0] == pytest.approx(120, rel=EXACT)


def test_a_missed_beat_does_not_change_the_tempo() -> None:
    assert 60 / fit_period(np.delete(np.arange(40) * 0.5, [7, 20]))[0] == pytest.approx(120, rel=EXACT)


def test_octaves_are_those_that_people_tap() -> None:
    assert octaves(87.5) == (43.75, 175.0)
    assert octaves(60.0) == (120.0,)
    assert octaves(160.0) == (80.0,)
