"""Laws of the timeline in a terminal: it fits, it names what it has room for, and each column shows what sounds there."""

from __future__ import annotations

import itertools
import random

import pytest

from mflamingo_cli.render import timeline
from mflamingo_cli.schema import Segment

NAMES = ("F", "Em", "C#m7b5", "", "音楽音楽", "a very long label, longer than a row of any terminal, and then some more of it")


def drawn(chords: list[Segment], sections: list[Segment], end: float, width: int = 76) -> list[str]:
    return [line.plain for line in timeline.draw(chords, sections, 0.0, end, width)]


@pytest.mark.parametrize("width", [24, 36, 76, 96])
@pytest.mark.parametrize("seed", range(20))
def test_every_line_is_as_wide_as_its_row(width, seed):
    dice = random.Random(seed)
    times = sorted({0.0, *(dice.uniform(0, 300) for _ in range(dice.choice([0, 3, 40, 400]))), 300.0})
    spans = [Segment(a, b, dice.choice(NAMES)) for a, b in itertools.pairwise(times)]
    for chords, sections in ((spans, []), ([], spans), (spans, spans)):
        lines = timeline.draw(chords, sections, 0.0, 300.0, width)
        assert {line.cell_len for line in lines} == {width}
        assert len(lines) <= 2 * timeline.MAX_ROWS


def test_names_stand_where_their_parts_begin():
    chords = [
        Segment(0.0, 19.0, "F"),
        Segment(19.0, 20.0, "Em"),
        Segment(20.0, 57.0, ""),
        Segment(57.0, 66.0, "C"),
        Segment(66.0, 76.0, "G"),
    ]
    sections = [Segment(0.0, 38.0, "A"), Segment(38.0, 76.0, "B")]
    above, below = drawn(chords, sections, 76.0)
    assert above == "A 0:00" + "━" * 31 + " B 0:38" + "━" * 32
    assert below == "F" + "─" * 18 + "·" + " " * 37 + "C" + "─" * 8 + "G" + "─" * 9


def test_chords_without_room_for_their_names_get_more_rows():
    chords = [Segment(float(i), i + 1.0, "C#m7b5") for i in range(60)]
    lines = drawn(chords, [], 60.0)
    assert len(lines) == 2 * 6
    assert [line.split("─")[0] for line in lines[::2]] == ["0:00", "0:10", "0:20", "0:30", "0:40", "0:50"]
    assert lines[1].count("C#m7b5") == 10


def test_a_section_that_goes_on_is_not_named_again():
    chords = [Segment(float(i), i + 1.0, "C#m7b5") for i in range(60)]
    lines = drawn(chords, [Segment(0.0, 60.0, "A")], 60.0)
    assert [line[:6] for line in lines[::2]] == ["A 0:00", *(f"0:{ten}0━━" for ten in range(1, 6))]


def test_there_is_no_timeline_of_nothing():
    assert drawn([], [], 60.0) == []
    assert drawn([Segment(0.0, 1.0, "C")], [], 60.0, width=10) == []


def test_every_chord_has_the_colour_of_its_root():
    styles = {root: timeline._tint(root + "m7").bgcolor for root in map("".join, itertools.product("CDEFGAB", ("", "#", "b")))}
    assert None not in styles.values()
    assert len({color.name for color in styles.values()}) == 12
    assert styles["C#"] == styles["Db"]
