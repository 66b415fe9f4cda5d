"""Text that is stored and shown can steer nothing; times are shown as minutes and seconds."""

from __future__ import annotations

import pytest

from mflamingo_cli.text import RECORD_DIGITS, clock, number, octave, tidy


def test_tidy_removes_what_can_steer_a_terminal():
    assert tidy("a\x1b[31m\u202eb\x00\r\nc\ud800 ") == "a[31mb\nc"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.99, "0:59"), (213.4, "3:33"), (3723, "1:02:03")])
def test_times_are_shown_as_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(87.5, "87.5"), (120.0, "120"), (-9.81, "-9.8"), (0.04, "0"), (-0.04, "0")])
def test_numbers_are_shown_with_one_digit_where_they_need_it(value, text):
    assert number(value) == text


@pytest.mark.parametrize("measured", [-0.1521, 0.2504, 139.9496, -16.0549])
def test_a_number_and_what_a_record_keeps_of_it_are_shown_alike(measured: float) -> None:
    assert number(measured) == number(round(measured, RECORD_DIGITS))


@pytest.mark.parametrize(
    ("bpm", "of", "text"), [(247.94, 123.97, "248"), (61.99, 123.97, "62"), (43.73, 87.46, "43.8"), (90.0, 123.97, "90")]
)
def test_half_and_double_of_a_tempo_are_those_of_the_tempo_that_is_shown(bpm: float, of: float, text: str) -> None:
    assert octave(bpm, of) == text
