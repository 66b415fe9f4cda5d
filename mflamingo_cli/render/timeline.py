"""Sections and chords of a song as a timeline of characters, in as many rows as the names of the chords need.

Times are seconds, widths are columns of a terminal. It can be read without colours: a name stands where its part begins, a line is drawn
to where it ends, and what has no room for its name is dotted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from rich.text import Text

from mflamingo_cli.measure.facts import pitch_class
from mflamingo_cli.schema import Segment
from mflamingo_cli.text import clock

MAX_ROWS = 6
NAMED = 0.6  # of the chords have room for their names, else there is one row more
COLUMNS_PER_ROW = 24  # at least: on less nothing can be seen
# by fifths: oklch(0.87 0.075 h) for h = 25, 55 … 355, the colours of the page in its light form; black on them is read in any terminal
TINTS = ["ffc2bc", "fcc8a6", "ebd19c", "d2dba2", "b6e2b6", "9fe5d1", "98e3ec", "a4ddff", "bcd4ff", "d7cbff", "eec4f0", "fdc0d7"]
Block = tuple[int, int, Segment]  # first column, column after the last


def draw(chords: Sequence[Segment], sections: Sequence[Segment], start: float, end: float, width: int) -> list[Text]:
    """Rows of a line of sections, with the times when they begin, over a line of chords; labels are the names to show."""
    if width < COLUMNS_PER_ROW or end <= start or not (chords or sections):
        return []
    rows = _count_rows(chords, start, end, width)
    seconds = (end - start) / rows
    lines = []
    for row in range(rows):
        begins = start + row * seconds
        if sections or rows > 1:
            lines.append(_sections(_blocks(sections, begins, begins + seconds, width), begins, width))
        if chords:
            lines.append(_chords(_blocks(chords, begins, begins + seconds, width), width))
    return lines


def _count_rows(chords: Sequence[Segment], start: float, end: float, width: int) -> int:
    named = [span for span in chords if span.label]
    for rows in range(1, MAX_ROWS):
        column = (end - start) / rows / width
        if sum(int((span.end - span.start) / column) > cell_len(span.label) for span in named) >= NAMED * len(named):
            return rows
    return MAX_ROWS


def _blocks(spans: Sequence[Segment], start: float, end: float, width: int) -> Iterator[Block]:
    """The spans that sound between two times, where they stand on a row; one too short for a column is left out."""
    for span in spans:
        first, last = (round(width * (min(max(time, start), end) - start) / (end - start)) for time in (span.start, span.end))
        if last > first:
            yield first, last, span


def _sections(blocks: Iterator[Block], begins: float, width: int) -> Text:
    text = Text(no_wrap=True, overflow="crop")
    for first, last, span in blocks:
        text.append("─" * (first - text.cell_len), "dim")
        time = f" {clock(max(span.start, begins))}"
        room = last - first - (last < width)  # a gap before what follows
        label = "" if span.start < begins else span.label  # one that goes on is not named again
        label = label if cell_len(label) <= room else set_cell_size(label, room)
        time = time if label else time[1:]
        text.append(label, "bold cyan").append(time if cell_len(label + time) <= room else "", "dim")
        text.append("━" * (first + room - text.cell_len), "cyan").append(" " * (last - first - room))
    return text.append(clock(begins) if not text else "", "dim").append("─" * (width - text.cell_len), "dim")


def _chords(blocks: Iterator[Block], width: int) -> Text:
    text = Text(no_wrap=True, overflow="crop")
    for first, last, span in blocks:
        text.append(" " * (first - text.cell_len))
        room = last - first
        if not span.label:
            text.append(" " * room)
        elif cell_len(span.label) < room or (last == width and cell_len(span.label) == room):
            text.append(span.label + "─" * (room - cell_len(span.label)), _tint(span.label))
        else:
            text.append("·" * room, _tint(span.label))
    return text


def _tint(chord: str) -> Style:
    place = fifths(chord)
    return Style() if place is None else Style(color="black", bgcolor=f"#{TINTS[place]}")


def fifths(chord: str) -> int | None:
    """Steps up the circle of fifths from C to the root of a chord or key, 0 to 11; None where no note is named first."""
    root = re.match("[A-G][#b]?", chord)
    return pitch_class(root[0]) * 7 % 12 if root else None
