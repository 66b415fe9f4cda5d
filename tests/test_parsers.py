"""Laws of the parsers: exact on the short form, lenient on prose, nothing where nothing is said."""

from __future__ import annotations

import random

import pytest

from mflamingo_cli.measure.facts import Key
from mflamingo_cli.parsers import (
    MAX_ITEMS,
    Vocals,
    parse_chords,
    parse_genres,
    parse_key,
    parse_list,
    parse_meter,
    parse_tempo,
    parse_text,
    parse_vocals,
    short_chord,
)

KEYS = {
    "A minor": "A minor", "a minor": "A minor", "Am": "A minor", "a-moll": "A minor", "8A": "A minor", "F♯ min": "F# minor",
    "Bbm": "Bb minor", "C-sharp minor": "C# minor", "The key is C-sharp minor.": "C# minor", "**Db Major**": "Db major", "C": "C major",
    "1d": "C major", "12B": "E major", "Es-Dur": "Eb major", "As-Dur": "Ab major", "H-Moll": "B minor", "B-Dur": "Bb major",
    "fis-moll": "F# minor", "G♭ major": "Gb major", "in the key of B flat major, 4/4": "Bb major", "E aeolian": "E minor",
    "key of Ebm": "Eb minor", "D harmonic minor": "D minor",
}  # fmt: skip
KEYS |= {
    "D major": "D major", "The key is F\u266f\u2011minor.": "F# minor", "b-flat minor": "Bb minor", "key: C": "C major", "G": "G major",
    "It is in Am, with a lift to C major": "A minor", "a moll": "A minor",
    "A major label released it": "A major", "The key is D.": "D major",
    "B-dur": "Bb major", "<think>maybe C major, no</think><answer>A minor</answer>": "A minor",
}  # fmt: skip
NO_KEYS = ("", "no idea", "This is a major hit", "13A", "H", "X minor", "atonal", "minor", "It plays a minor role", "I cannot tell.", None)


@pytest.mark.parametrize(("text", "name"), KEYS.items())
def test_keys_are_read(text: str, name: str) -> None:
    key = parse_key(text)
    assert key is not None
    assert key.name == name


@pytest.mark.parametrize("text", NO_KEYS)
def test_what_names_no_key_gives_none(text: str | None) -> None:
    assert parse_key(text) is None


def test_the_parser_never_fails() -> None:
    rng, n_keys = random.Random(0), 0
    for _ in range(2000):
        text = "".join(rng.choice("ABhH mMaj or#b♭♯-–.,/0123456789bpm\n\x00é") for _ in range(rng.randrange(30)))
        key = parse_key(text)
        assert key is None or parse_key(key.name) == key
        n_keys += key is not None
    assert 0 < n_keys < 2000


@pytest.mark.parametrize("tonic", ["C", "Db", "F#", "B"])
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_every_notation_is_read_back(tonic: str, mode: str) -> None:
    key = Key.of(Key(tonic, mode).pitch, mode)  # type: ignore[arg-type]
    assert all(parse_key(text) == key for text in (key.name, key.camelot, key.openkey, key.id3))
    assert len(key.id3) <= 3


@pytest.mark.parametrize(
    ("text", "bpm"),
    [
        ("87", 87.0),
        ("87.5 BPM.", 87.5),
        ("The tempo is around 118\u2013122\u202fBPM, in 4/4.", 120.0),
        ("BPM: 128", 128.0),
        ("About 96 beats per minute, 1985 vintage", 96.0),
        ("\uff11\uff12\uff10 bpm", 120.0),
        ("It was recorded in 1985.", None),
        ("at 1:20 the drop lands, 24 bars later the chorus returns in full", None),
        ("999 BPM", None),
        ("", None),
    ],
)
def test_tempo_is_read_from_prose_but_years_and_times_are_not(text, bpm):
    assert parse_tempo(text) == bpm


@pytest.mark.parametrize(
    ("text", "meter"), [("4/4", "4/4"), ("It is in 6 / 8 time", "6/8"), ("common time", "4/4"), ("24/7 party", None), ("9/11", None)]
)
def test_meter_is_a_fraction_of_musical_denominator(text, meter):
    assert parse_meter(text) == meter


@pytest.mark.parametrize(
    ("text", "chords"),
    [
        ("C - G - Am - F", ("C", "G", "Am", "F")),
        ("A slow piece moving from C#m7 to F\u266f/A\u266f and B minor", ("C#m7", "F#", "Bm")),
        ("A:min, D:min7, E7", ("Am", "Dm7", "E7")),
        ("A flute enters", ()),
    ],
)
def test_chords_keep_their_order_and_articles_are_not_chords(text, chords):
    assert parse_chords(text) == chords


@pytest.mark.parametrize(
    ("label", "short"), [("A:min", "Am"), ("C#:maj7", "C#maj7"), ("D:min7/b3", "Dm7"), ("G", "G"), ("N", None), ("X", None), ("", None)]
)
def test_harte_labels_become_musicians_names(label, short):
    assert short_chord(label) == short


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("piano, guitar, bass, drums", ("piano", "guitar", "bass", "drums")),
        ("The instruments that stand out are the piano, a fuzzy guitar and drums. They blend.", ("piano", "fuzzy guitar", "drums")),
        ("- **Piano**: warm\n- Strings\n- piano", ("piano", "strings")),
        ("['Kick', 'Snare']", ("kick", "snare")),
        ("None.", ()),
        ("unknown", ()),
        ("I cannot tell that from the sound.", ()),
        ("", ()),
    ],
)
def test_lists_are_read_from_prose_bullets_and_brackets(text, items):
    assert parse_list(text) == items


def test_a_looping_list_is_cut_and_repeats_nothing():
    assert parse_list("piano, " * 500) == ("piano",)
    assert len(parse_list(", ".join(f"drum {i}x" for i in range(500)))) == MAX_ITEMS


def test_genre_names_keep_their_and():
    assert parse_genres("Drum and Bass, R&B, and Hip Hop") == ("Drum and Bass", "R&B", "Hip Hop")


@pytest.mark.parametrize(
    ("text", "vocals"),
    [
        ("No, instrumental.", Vocals(False, None)),
        ("The track has no lead vocals.", Vocals(False, None)),
        ("It is purely instrumental.", Vocals(False, None)),
        ("Yes, a warm female voice.", Vocals(True, "a warm female voice")),
        ("A male singer over an instrumental bed.", Vocals(True, "A male singer over an instrumental bed")),
        ("yes", Vocals(True, None)),
        ("I cannot tell that from the sound.", Vocals(None, None)),
        ("???", Vocals(None, None)),
        ("", Vocals(None, None)),
    ],
)
def test_vocals_have_three_states(text, vocals):
    assert parse_vocals(text) == vocals


def test_parsers_never_read_the_reasoning():
    assert parse_tempo("<think>it is 120 BPM I guess") is None
    assert parse_text("<think>a</think>b") == "b"
