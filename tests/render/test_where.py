"""Laws of --where, --sort and --fields: small languages that are either understood or refused with a sentence."""

from __future__ import annotations

import dataclasses

import pytest

from mflamingo_cli import codec
from mflamingo_cli.errors import UsageError
from mflamingo_cli.render.query import fields, where
from mflamingo_cli.schema import Analysis, AudioInfo, KeyInfo, Result, TempoInfo, VocalsInfo
from tests.test_schema import FAILED, FULL


def song(path: str, bpm: float | None, key: tuple[str, str, str] | None, **more: object) -> Analysis:
    named = KeyInfo(key[0], key[1], f"{key[0]} {key[1]}", key[2]) if key else KeyInfo()
    audio = AudioInfo(100.0 + len(path), 44100, 2, "flac", 0.0, 100.0, 1, False)
    return Analysis("analyze", "ok", path, audio=audio, result=Result(tempo=TempoInfo(bpm), key=named, **more))


SONGS = [
    song("a", 128.0, ("A", "minor", "8A"), genre=("Deep House", "Techno"), vocals=VocalsInfo(True)),
    song("b", 124.0, ("E", "minor", "9A"), genre=("Rock",), vocals=VocalsInfo(False)),
    song("c", 90.0, ("C", "major", "8B")),
    song("d", None, None),
    song("e", 174.0, ("C#", "minor", "12A"), caption='Say it\'s "so"'),
    dataclasses.replace(FAILED, path="f"),
]


def paths(records: list[Analysis]) -> str:
    return "".join(record.path for record in records)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("bpm>120 and key in (8A,9A)", "ab"),
        ("bpm >= 124 and bpm <= 128.0", "ab"),
        ("bpm == 90", "c"),
        ("bpm != 90", "abe"),
        ("not bpm > 120", "c"),  # what is not known is neither
        ("not (bpm < 100 or bpm > 130)", "ab"),
        ("bpm < 100 or bpm > 130 and key = 12A", "ce"),
        ("bpm = null", "df"),
        ("bpm != null and not vocals != null", "ce"),
        ("key = 'A minor'", "a"),
        ("key = Am", "a"),
        ('key in ("a-moll", "Dbm")', "ae"),  # the same by another name
        ("key.openkey = 1m", "a"),
        ("key ~ minor", "abe"),
        ("key not in (8A, 9A)", "ce"),
        ("genre = rock", "b"),
        ("genre ~ house", "a"),
        ("genre in (rock, techno)", "ab"),
        ("not genre ~ house", "bcde"),
        ("vocals", "a"),
        ("not vocals", "b"),
        ("vocals = false", "b"),
        ("duration > 100 and path < 3", None),
        ("status = error", "f"),
        ('caption ~ "it\'s"', "e"),
        ("caption ~ 'say \"x\"'", ""),
        ("result.tempo.bpm > 170 AND audio.codec = FLAC", "e"),
        ("path = 'and' or path = \"null\"", ""),
        ("((((bpm > 170))))", "e"),
    ],
)
def test_where(expression, expected):
    if expected is None:
        with pytest.raises(UsageError, match="is not a number"):
            where.parse(expression)
    else:
        test = where.parse(expression)
        assert paths([record for record in SONGS if test(record)]) == expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "expected a field, found the end"),
        ("bmp > 3", "did you mean bpm"),
        ("zzzzzz", "common ones are bpm"),
        ("bpm", "a comparison after bpm"),
        ("bpm >", "expected a value, found the end"),
        ("bpm > fast", "is a number, and 'fast' is not"),
        ("key = 8C", "'8C' is not a key"),
        ("key = A minor", "put quotes around several words"),
        ("bpm in 8A", r"'\(' after in"),
        ("bpm in (1, 2", r"',' or '\)'"),
        ("(bpm > 1", r"expected '\)'"),
        ("bpm > 1)", "or the end"),
        ("bpm ! 3", "is not understood"),
        ("key = '8A", "is not understood"),
        ("tempo > 3", "such as tempo.bpm"),
        ("chords = Am", "chords is not a single value"),
        ("vocals = maybe", "true or false"),
        ("bpm ~ 3", "not text"),
        ("bpm < null", "null works with"),
        ("__class__ = 1", "no field"),
        ("tempo.__class__ = 1", "no field"),
        ("(" * 20_000 + "bpm > 1", "too many"),
    ],
)
def test_what_is_not_understood_is_refused(expression, words):
    with pytest.raises(UsageError, match=words) as refused:
        where.parse(expression)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("bpm", "cbaedf"),
        ("-bpm", "eabcdf"),  # unknown comes last in either direction
        ("key", "acbedf"),  # around the wheel, 12 after 9
        ("vocals,-path", "bafedc"),
        ("path", "abcdef"),
    ],
)
def test_sort(order, expected):
    assert paths(where.ordered(SONGS, where.parse_order(order))) == expected


def test_numbers_in_names_sort_as_numbers():
    tracks = [song(path, 1.0, None) for path in ("10 x", "9 y", "a9", "a10", "²")]
    assert [record.path for record in where.ordered(tracks, where.parse_order("path"))] == ["9 y", "10 x", "a9", "a10", "²"]


@pytest.mark.parametrize("text", ["tempo.bmp", "", "bpm,,key", "chord"])
def test_an_unknown_field_is_refused_with_a_suggestion(text):
    with pytest.raises(UsageError, match="there is no field"):
        fields.parse(text)


def test_what_cannot_be_sorted_is_refused():
    with pytest.raises(UsageError, match="tempo is not a single value"):
        where.parse_order("bpm,-tempo")


def test_every_name_leads_to_a_value_of_a_whole_record_and_to_none_of_a_failed_one():
    for name in fields.names():
        field = fields.find(name)
        field.of(FULL)
        assert field.path in codec.paths(Analysis)
        if field.path.startswith("result"):
            assert field.of(FAILED) is None
    assert fields.find("tempo.bpm").of(FULL) == fields.find("bpm").of(FULL) == 87.5
    assert fields.find("tempo").of(FULL)["alternatives"] == [175.0]
