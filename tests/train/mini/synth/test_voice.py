"""Sung lines: what is asked for is sung, by somebody who can, and nothing is heard where nobody sings or breathes."""

from dataclasses import replace

import numpy as np
import pytest

from mflamingo_cli.train.mini.synth import voice

RATE = 16_000
STEADY = voice.Singer(
    "man", 45, 67, tract=1.0, words="vocalise", breath=0.0, jitter=0.0, shimmer=0.0, vibrato_cents=0.0, scoop=0.0, drift_cents=0.0
)
NOTES = [(0.8, 1.8, 57), (1.8, 2.6, 60), (3.4, 4.4, 52)]
EXACT_CENTS = 3.0  # of an autocorrelation with parabolic peak over 0.4 s
HUMAN_CENTS = 35.0  # drift of up to 16 cents (standard deviation), jitter, and vibrato that does not end with a whole swing


def rng(seed=0):
    return np.random.default_rng(seed)


def pitch_of(samples, near):
    """MIDI pitch by autocorrelation, looked for within a whole tone."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 4 * len(samples))) ** 2
    lags = np.fft.irfft(spectrum)
    period = RATE / (440 * 2 ** ((near - 69) / 12))
    low, high = int(period / 1.12), int(period * 1.12) + 1
    at = low + int(np.argmax(lags[low:high]))
    left, top, right = lags[at - 1 : at + 2]
    return 69 + 12 * np.log2(RATE / (at + 0.5 * (left - right) / (left - 2 * top + right)) / 440)


def test_a_steady_singer_sings_the_notes():
    samples = voice.sing(rng(), NOTES, 5.0, singer=STEADY)
    for start, _, pitch in NOTES:
        middle = samples[int((start + 0.25) * RATE) : int((start + 0.65) * RATE)]
        assert 100 * abs(pitch_of(middle, pitch) - pitch) < EXACT_CENTS


@pytest.mark.parametrize("seed", range(8))
def test_every_singer_means_the_notes(seed):
    generator = rng(seed)
    singer = replace(voice.draw_singer(generator), words="words")
    syllables = voice.lyrics(generator, singer, voice.in_range([(0.5, 2.5, 60), (2.5, 4.5, 64)], singer))
    curve = voice.draw_pitch(generator, singer, syllables, 1000)
    for syllable in syllables:
        held = curve[round((syllable.start + 0.5) / voice.FRAME_S) : round((syllable.end - 0.3) / voice.FRAME_S)]
        assert 100 * abs(held.mean() - syllable.pitch) < HUMAN_CENTS


def test_outside_notes_consonants_and_breaths_there_is_silence():
    notes = [(2.0, 3.0, 57), (6.0, 7.0, 60)]
    for seed in range(6):
        samples = voice.sing(rng(seed), notes, 9.0)
        for start, end in ((0.0, 1.2), (3.4, 5.2), (7.4, 9.0)):  # a breath takes 0.5 s, a consonant 0.2 s, a tract rings 0.05 s
            assert not samples[int(start * RATE) : int(end * RATE)].any()
        assert np.abs(samples[int(2.2 * RATE) : int(2.8 * RATE)]).max() > 0.01


def test_a_line_is_a_function_of_the_generator():
    assert np.array_equal(voice.sing(rng(3), NOTES, 5.0), voice.sing(rng(3), NOTES, 5.0))
    assert not np.array_equal(voice.sing(rng(3), NOTES, 5.0), voice.sing(rng(4), NOTES, 5.0))


def test_levels_are_those_promised():
    for seed in range(6):
        samples = voice.sing(rng(seed), NOTES, 5.0)
        assert samples.shape == (5 * RATE,)
        assert samples.dtype == np.float32
        assert 0.05 < np.abs(samples).max() <= voice.PEAK + 1e-6


def test_no_notes_are_silence():
    assert not voice.sing(rng(), [], 2.0).any()
    assert not voice.sing(rng(), [(0.1, 0.12, 60), (5.0, 6.0, 60)], 2.0).any()  # too short to sing; after the end


def test_notes_move_by_octaves_into_the_range():
    line = [(0.0, 1.0, 30), (1.0, 2.0, 72), (2.0, 3.0, 74), (3.0, 4.0, 101)]
    for kind, ranges in voice.RANGES.items():
        for low, high in ranges:
            singer = replace(STEADY, kind=kind, low=low, high=high)
            for (*_, asked), (*_, sung) in zip(line, voice.in_range(line, singer), strict=True):
                assert low <= sung <= high
                assert (sung - asked) % 12 == 0


@pytest.mark.parametrize(("company", "count"), [("solo", 0), ("double", 1), ("octave", 1), ("choir", 3)])
def test_others_sing_the_same_pitch_classes(company, count):
    others = voice._company(rng(1), replace(STEADY, company=company))
    assert len(others) == count
    for other, level in others:
        assert (other.low - STEADY.low) % 12 == 0
        assert 0 < level < 1
    if company == "octave":
        assert abs(others[0][0].low - STEADY.low) == 12


def test_every_company_is_tried_above():
    assert set(voice.COMPANY_SHARE) == {"solo", "double", "octave", "choir"}


@pytest.mark.parametrize("vowel", [0, 3, 4, 7])
def test_the_tract_resonates_at_the_formants(vowel):
    size = 2048
    row = np.zeros((1, 8))
    row[0, voice.F1 :] = voice.VOWELS["man"][vowel]
    tract, _ = voice._responses(replace(STEADY, ring=0.0), row, np.array([110.0]), size, RATE)
    gain = np.abs(tract[0])
    peaks = np.flatnonzero((gain[1:-1] > gain[:-2]) & (gain[1:-1] > gain[2:])) + 1
    for formant in row[0, voice.F1 :]:
        assert np.abs(peaks * RATE / size - formant).min() < 40  # neighbours pull at a peak


def test_a_spoken_line_is_syllables_in_the_rhythm_of_the_notes():
    spoken = voice.lyrics(rng(), replace(STEADY, words="spoken"), NOTES)
    assert len(spoken) > len(NOTES)
    assert all(any(start - 1e-6 <= s.start and s.end <= end + 1e-6 for start, end, _ in NOTES) for s in spoken)
