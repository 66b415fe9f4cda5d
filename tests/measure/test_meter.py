"""A meter is told where the chords or a long clear pulse say it, and never against a chord per bar."""

from __future__ import annotations

import numpy as np
import pytest

from mflamingo_cli.measure import measure
from mflamingo_cli.measure.beats import Bars, BeatTrack
from mflamingo_cli.measure.meter import align_bars, by_chords, choose_meter, settle_bars, spans
from mflamingo_cli.schema import Segment

from .synth import RATE, audio, song

LOOP = ["A:min", "F:maj", "C:maj", "G:maj"] * 4
NONE = np.zeros(0, int)


def pulse(n: int, meter: int, margin: float) -> Bars:
    """Beats half a second apart, with the log-likelihood per beat by which their meter wins."""
    at = np.arange(n)
    return Bars(25 * at, at % meter, meter, {meter: margin * n, 7 - meter: 0.0})


def beats_of(bars: Bars) -> BeatTrack:
    times = bars.frames / 50
    return BeatTrack(120.0, times, times[bars.places == 0])


def changes(every: int, n: int, first: int = 0) -> tuple[Segment, ...]:
    """Chords that last so many beats of half a second."""
    return tuple(Segment((first + every * i) / 2, (first + every * (i + 1)) / 2, "C:maj") for i in range(n))


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [112.0, 120.0, 150.0])
def test_a_waltz_with_a_chord_per_bar_is_not_called_four(bpm: float) -> None:
    found = measure(audio(song(LOOP, bpm, beats=3)))
    assert found.meter == "3/4"
    firsts = [time for time, place in found.beats if place == 1]
    assert len(firsts) > 4
    assert np.allclose(np.diff(firsts), 3 * 60 / bpm, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [90.0, 120.0])
def test_four_beats_with_a_chord_per_bar_are_not_called_three(bpm: float) -> None:
    assert measure(audio(song(LOOP[:12], bpm))).meter == "4/4"


@pytest.mark.parametrize("beats", [3, 4])
def test_a_six_second_cut_has_a_tempo_but_no_meter(beats: int) -> None:
    found = measure(audio(song(LOOP[:6], 120.0, beats=beats)[: 6 * RATE]))
    assert found.tempo.bpm is not None
    assert found.meter is None
    assert found.beats
    assert {place for _, place in found.beats} == {None}


@pytest.mark.parametrize("meter", [3, 4])
def test_chords_overrule_a_pulse_that_is_not_sure(meter: int) -> None:
    bars = pulse(60, 7 - meter, 0.9)
    tempo, told = settle_bars(beats_of(bars), bars, changes(meter, 12, first=1))
    assert told == f"{meter}/4"
    assert np.array_equal(tempo.downbeats, tempo.beats[1::meter])


@pytest.mark.parametrize("meter", [3, 4])
def test_chords_and_a_sure_pulse_that_disagree_tell_nothing(meter: int) -> None:
    assert choose_meter(pulse(60, 7 - meter, 5.0), np.full(12, meter)) is None


def test_without_chords_only_a_long_clear_pulse_tells() -> None:
    assert choose_meter(pulse(60, 4, 2.0), NONE) == 4
    assert choose_meter(pulse(60, 3, 2.0), NONE) == 3
    assert choose_meter(pulse(60, 4, 0.5), NONE) is None
    assert choose_meter(pulse(28, 4, 2.0), NONE) is None


def test_a_pulse_whose_chords_fit_no_bar_tells_nothing() -> None:
    assert choose_meter(pulse(60, 4, 5.0), np.array([1, 2] * 10)[:19]) is None
    assert choose_meter(pulse(60, 4, 5.0), np.array([2] * 10)) == 4


def test_spans_that_fit_both_meters_are_not_counted() -> None:
    tempo = beats_of(pulse(60, 4, 1.0))
    assert len(spans(tempo, changes(12, 4))) == 0
    assert list(spans(tempo, changes(8, 4))) == [8, 8]
    assert by_chords(NONE) is None
    assert len(spans(BeatTrack(), changes(4, 4))) == 0


def test_downbeats_go_where_chords_change() -> None:
    times = np.arange(32) * 0.5
    tempo = BeatTrack(120.0, times, times[::4])
    chords = changes(4, 7, first=2)
    assert np.array_equal(align_bars(tempo, chords, 4).downbeats, times[2::4])
    assert align_bars(tempo, chords[:3], 4) is tempo
