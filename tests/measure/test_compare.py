"""Claims are read from any text and compared with what was measured."""

from __future__ import annotations

import pytest

from mflamingo_cli.measure.compare import Comparison, compare_keys, compare_tempi
from mflamingo_cli.parsers import parse_key


@pytest.mark.parametrize(
    ("fact", "claim", "agreement"),
    [
        (100, 104, Comparison(True)),
        (100, 104.5, Comparison(False)),
        (87.5, 175, Comparison(False, "double")),
        (175, 87.5, Comparison(False, "half")),
        (60, 180, Comparison(False, "triple")),
        (90, 135, Comparison(False, "three halves")),
        (None, 100, Comparison(None)),
        (100, None, Comparison(None)),
        (100, 0, Comparison(None)),
    ],
)
def test_tempi_are_compared(fact: float | None, claim: float | None, agreement: Comparison) -> None:
    assert compare_tempi(fact, claim) == agreement


@pytest.mark.parametrize(
    ("fact", "claim", "agreement"),
    [
        ("A minor", "A minor", Comparison(True)),
        ("Db major", "C# major", Comparison(True)),
        ("A minor", "C major", Comparison(False, "relative")),
        ("C major", "A minor", Comparison(False, "relative")),
        ("C major", "C minor", Comparison(False, "parallel")),
        ("C major", "G major", Comparison(False, "fifth")),
        ("C major", "F major", Comparison(False, "fifth")),
        ("C major", "D major", Comparison(False)),
        ("", "D major", Comparison(None)),
    ],
)
def test_keys_are_compared(fact: str, claim: str, agreement: Comparison) -> None:
    assert compare_keys(parse_key(fact), parse_key(claim)) == agreement
