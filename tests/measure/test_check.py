"""Claims are read from any text and compared with what was measured."""

from __future__ import annotations

import random

import pytest

from mflamingo_cli.measure.check import Agreement, check_key, check_tempo, parse_key
from mflamingo_cli.measure.facts import Key

KEYS = {
    "A minor": "A minor", "a minor": "A minor", "Am": "A minor", "a-moll": "A minor", "8A": "A minor", "F♯ min": "F# minor",
    "Bbm": "Bb minor", "C-sharp minor": "C# minor", "The key is C-sharp minor.": "C# minor", "**Db Major**": "Db major", "C": "C major",
    "1d": "C major", "12B": "E major", "Es-Dur": "Eb major", "As-Dur": "Ab major", "H-Moll": "B minor", "B-Dur": "Bb major",
    "fis-moll": "F# minor", "G♭ major": "F# major", "in the key of B flat major, 4/4": "Bb major", "E aeolian": "E minor",
    "key of Ebm": "Eb minor", "D harmonic minor": "D minor",
}  # fmt: skip
NO_KEYS = ("", "no idea", "This is a major hit", "13A", "H", "X minor", "atonal", "minor", None)


@pytest.mark.parametrize(("text", "name"), KEYS.items())
def test_keys_are_read(text: str, name: str) -> None:
    key = parse_key(text)
    assert key is not None
    assert key.name == name


@pytest.mark.parametrize("text", NO_KEYS)
def test_what_names_no_key_gives_none(text: str | None) -> None:
    assert parse_key(text) is None


def test_the_parser_never_fails() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choice("ABhH mMaj or#b♭♯-–.,/0123456789bpm\n\x00é") for _ in range(rng.randrange(30)))
        parse_key(text)


@pytest.mark.parametrize("tonic", ["C", "Db", "F#", "B"])
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_every_notation_is_read_back(tonic: str, mode: str) -> None:
    key = Key.of(Key(tonic, mode).pitch, mode)  # type: ignore[arg-type]
    assert all(parse_key(text) == key for text in (key.name, key.camelot, key.openkey, key.id3))
    assert len(key.id3) <= 3


@pytest.mark.parametrize(
    ("fact", "claim", "agreement"),
    [
        (100, 104, Agreement(True)),
        (100, 104.5, Agreement(False)),
        (87.5, 175, Agreement(False, "double")),
        (175, 87.5, Agreement(False, "half")),
        (60, 180, Agreement(False, "triple")),
        (90, 135, Agreement(False, "three halves")),
        (None, 100, Agreement(None)),
        (100, None, Agreement(None)),
        (100, 0, Agreement(None)),
    ],
)
def test_tempi_are_compared(fact: float | None, claim: float | None, agreement: Agreement) -> None:
    assert check_tempo(fact, claim) == agreement


@pytest.mark.parametrize(
    ("fact", "claim", "agreement"),
    [
        ("A minor", "A minor", Agreement(True)),
        ("Db major", "C# major", Agreement(True)),
        ("A minor", "C major", Agreement(False, "relative")),
        ("C major", "A minor", Agreement(False, "relative")),
        ("C major", "C minor", Agreement(False, "parallel")),
        ("C major", "G major", Agreement(False, "fifth")),
        ("C major", "F major", Agreement(False, "fifth")),
        ("C major", "D major", Agreement(False)),
        ("", "D major", Agreement(None)),
    ],
)
def test_keys_are_compared(fact: str, claim: str, agreement: Agreement) -> None:
    assert check_key(parse_key(fact), parse_key(claim)) == agreement
