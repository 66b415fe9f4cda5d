"""Roman numerals, loops, borrowed chords and cadences, as a theory book has them."""

from __future__ import annotations

import pytest

from mflamingo_cli.grounding.prose.harmony import borrowed, comes_home, degree, degrees, find_loop, longest, progression, spell, spelled
from mflamingo_cli.measure import Key
from mflamingo_cli.schema import Segment

E_MINOR, C_MAJOR = Key("E", "minor"), Key("C", "major")


def played(names: str, each_s: float = 2.0):
    """Chords in Harte's notation, one after the other."""
    return progression([Segment(at * each_s, (at + 1) * each_s, name) for at, name in enumerate(names.split())])


def names_of(loop):
    return [chord.name for chord in loop.chords]


@pytest.mark.parametrize(("key", "chords", "numerals"), [
    (C_MAJOR, "C D:min E:min F G A:min B:dim", "I-ii-iii-IV-V-vi-vii°"),
    (E_MINOR, "E:min F#:dim G A:min B:min C D", "i-ii°-III-iv-v-VI-VII"),
    (E_MINOR, "B:7 D#:dim A:maj F:maj", "V-vii°-IV-bII"),
    (C_MAJOR, "Bb Ab F:min Eb Db F#:dim C:aug G:sus4", "bVII-bVI-iv-bIII-bII-#iv°-I+-Vsus4"),
    (Key("Eb", "minor"), "Eb:min B Gb Db", "i-VI-III-VII"),
    (C_MAJOR, "A:min7/C D:7 G:9", "vi-II-V"),
])  # fmt: skip
def test_degrees_are_those_of_a_theory_book(key, chords, numerals):
    assert spelled(degrees(played(chords), key)) == numerals


def test_every_chord_of_every_key_has_one_degree():
    for tonic in range(12):
        for mode in ("major", "minor"):
            key = Key.of(tonic, mode)
            assert len({degree(root, third, key) for root in range(12) for third in ("maj", "min", "dim", "aug")}) == 48


@pytest.mark.parametrize(("key", "name", "written"), [
    (Key("Db", "major"), "F#", "Gb"), (Key("F#", "major"), "Bbm", "A#m"), (E_MINOR, "Eb", "D#"), (C_MAJOR, "Bb", "Bb"),
    (Key("Ab", "major"), "C#m7", "Dbm7"), (Key("E", "major"), "D", "D"), (Key("F", "minor"), "Db", "Db"),
])  # fmt: skip
def test_chords_are_spelled_as_the_key_spells_them(key, name, written):
    assert spell(name, key) == written


def test_no_spelling_has_two_accidentals_or_another_sound():
    from mflamingo_cli.parsers import sounding

    for tonic in range(12):
        for mode in ("major", "minor"):
            for root in ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"):
                written = spell(f"{root}m7", Key.of(tonic, mode))
                assert sounding(written) == sounding(f"{root}m7")
                assert len(written) <= 4


def test_a_loop_is_found_with_what_it_carries():
    loop = find_loop(played("E:min C G D " * 4 + "A:min B"))
    assert names_of(loop) == ["Em", "C", "G", "D"]
    assert loop.share == pytest.approx(16 / 18)


def test_the_shortest_loop_is_the_loop():
    assert names_of(find_loop(played("A:min F A:min F A:min F A:min F"))) == ["Am", "F"]


def test_a_loop_that_is_heard_once_is_none():
    assert find_loop(played("C G A:min F D:min")) is None
    assert find_loop(played("C C C C")) is None
    assert find_loop([]) is None


def test_a_loop_begins_where_sections_begin():
    chords = played("G D E:min C " * 4)
    assert names_of(find_loop(chords)) == ["G", "D", "Em", "C"]
    assert names_of(find_loop(chords, [4.0, 12.0])) == ["Em", "C", "G", "D"]


def test_a_passing_chord_does_not_break_a_loop():
    segments = [Segment(2.0 * at, 2.0 * at + 2, name) for at, name in enumerate(("C G A:min F " * 4).split())]
    cut = [*segments[:5], Segment(10.0, 11.6, "G"), Segment(11.6, 12.0, "B:dim"), *segments[6:]]
    assert names_of(find_loop(progression(cut))) == ["C", "G", "Am", "F"]


def test_sevenths_and_pauses_make_no_new_chord():
    chords = played("A:min A:min7 N A:min F")
    assert [chord.name for chord in chords] == ["Am", "F"]
    assert chords[0].seconds == pytest.approx(8.0)


def test_chords_of_the_parallel_key_are_borrowed():
    assert [chord.name for chord in borrowed(played("C F:min C G F:min C"), C_MAJOR)] == ["Fm"]
    assert [chord.name for chord in borrowed(played("E:min A E:min A E:min"), E_MINOR)] == ["A"]
    assert borrowed(played("C F G C D:7 D:7 G"), C_MAJOR) == []  # a secondary dominant is not
    assert borrowed(played("E:min B:7 E:min B:7"), E_MINOR) == []  # nor the dominant of a minor key
    assert borrowed(played("C F:min C", 1.0), C_MAJOR) == []  # too short to be told


def test_the_way_home_is_the_chord_before_the_tonic():
    assert comes_home(played("C F G C F G C F G C"), C_MAJOR).name == "G"
    assert comes_home(played("C F G C"), C_MAJOR) is None  # once is no habit
    assert comes_home(played("C F C G C F C G C"), C_MAJOR) is None  # no chord does it most of the time


def test_the_chord_that_sounds_longest_has_its_share():
    assert longest(played("C C C G")) == ("C", 0.75)
