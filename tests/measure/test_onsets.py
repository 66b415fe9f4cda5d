"""Beats lie on the onsets near their frames, and stay in their frames where none are on a line."""

from __future__ import annotations

import numpy as np
import pytest

from mflamingo_cli.measure import measure
from mflamingo_cli.measure.onsets import nearest_onsets, place_beats

from .synth import RATE, audio, drum, song

CLOSE_S = 0.005  # what is asked of beats on rendered songs
FRAME_S = 0.02


def drums(times: np.ndarray, seconds: float) -> np.ndarray:
    """A drum at each time."""
    rng = np.random.default_rng(0)
    out = 1e-4 * rng.standard_normal(int(seconds * RATE))
    for time in times:
        sound = drum(rng)
        out[round(time * RATE) : round(time * RATE) + len(sound)] += sound
    return out.astype(np.float32)


def frames_of(times: np.ndarray) -> np.ndarray:
    return np.rint(times / FRAME_S).astype(int)


@pytest.mark.parametrize("bpm", [61.7, 128.3, 187.1])
def test_beats_lie_on_the_onsets_and_not_in_the_middle_of_their_frames(bpm: float) -> None:
    times = np.arange(0.313, 19.0, 60 / bpm)
    assert np.abs(frames_of(times) * FRAME_S - times).max() > CLOSE_S
    assert np.abs(place_beats(drums(times, 20.0), frames_of(times)) - times).max() < CLOSE_S


def test_an_early_note_and_a_beat_without_one_do_not_bend_the_line() -> None:
    times = np.arange(0.313, 19.0, 0.4771)
    played = np.delete(times, [9, 20])
    played[5] -= 0.02
    assert np.abs(place_beats(drums(played, 20.0), frames_of(times)) - times).max() < CLOSE_S


def test_beats_follow_a_change_of_tempo() -> None:
    times = np.concatenate([np.arange(0.313, 10.0, 0.6), np.arange(10.0, 19.0, 60 / 140)])
    placed = place_beats(drums(times, 20.0), frames_of(times))
    assert np.abs(placed - times).max() < FRAME_S
    assert np.median(np.abs(placed - times)) < CLOSE_S


def test_beats_without_onsets_stay_where_they_were_found() -> None:
    frames = frames_of(np.arange(0.3, 19.0, 0.5))
    noise = np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    assert np.abs(place_beats(noise, frames) - frames * FRAME_S).max() < FRAME_S
    assert np.allclose(place_beats(np.zeros(20 * RATE, np.float32), frames), frames * FRAME_S)
    assert np.allclose(nearest_onsets(np.zeros(20 * RATE, np.float32), frames), frames * FRAME_S)


def test_few_beats_and_beats_at_both_ends_are_placed_too() -> None:
    times = np.arange(0.0, 10.0, 0.4771)
    sound = drums(times[:-1], 10.0)
    assert place_beats(sound, frames_of(times))[0] >= 0
    assert np.allclose(place_beats(sound, frames_of(times)[:3]), frames_of(times)[:3] * FRAME_S)


@pytest.mark.slow
def test_beats_and_downbeats_of_a_song_are_exact() -> None:
    found = measure(audio(song(["A:min", "F:maj", "C:maj", "G:maj"] * 4, 113.7)))
    beat_s = 60 / 113.7
    times = np.array([time for time, _ in found.beats])
    off = np.abs(times - beat_s * np.rint(times / beat_s))
    assert np.median(off) < CLOSE_S
    firsts = [time for time, place in found.beats[:-4] if place == 1]  # behind it nothing sounds
    assert np.allclose(np.diff(firsts), 4 * beat_s, atol=2 * CLOSE_S)
