"""A Standard MIDI File for DAWs: tempo map, bars, key, markers at sections, and a track of chords with their names.

The file begins where the song does, so that both lie at the same place of an arrangement. Bars begin on downbeats: what is before the first
one is a short bar of its own. Ticks are 1/960 of a quarter note (MIDI 1.0, Standard MIDI Files 1.0, RP-001).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

from mflamingo_cli.measure import grid
from mflamingo_cli.measure.facts import pitch_class
from mflamingo_cli.parsers import parse_key, short_chord
from mflamingo_cli.render import Layout
from mflamingo_cli.render.text import heading
from mflamingo_cli.schema import Analysis, Result

TICKS = 960  # per quarter note
DEFAULT_US = 500_000  # per quarter note: 120 BPM, where the song has no tempo
SIXTEENTHS = 4  # in a quarter note
TEXT, NAME, MARKER, END, TEMPO, METER, KEY = 0x01, 0x03, 0x06, 0x2F, 0x51, 0x58, 0x59  # meta events
NOTE_ON, NOTE_OFF, VELOCITY = 0x90, 0x80, 80  # on channel 1
LOWEST_ROOT = 48  # C3
INTERVALS = {  # semitones above the root by the quality of a chord
    "maj": (0, 4, 7), "min": (0, 3, 7), "sus4": (0, 5, 7), "sus2": (0, 2, 7), "dim": (0, 3, 6), "aug": (0, 4, 8),
    "maj7": (0, 4, 7, 11), "7": (0, 4, 7, 10), "min7": (0, 3, 7, 10), "hdim7": (0, 3, 6, 10), "dim7": (0, 3, 6, 9),
    "maj6": (0, 4, 7, 9), "min6": (0, 3, 7, 9),
}  # fmt: skip
Event = tuple[int, bytes]  # tick, message


class MidiWriter:
    """Writes the file of one song to the bytes under a stream; of a song that failed, nothing."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._stream = stream

    def write(self, record: Analysis) -> None:
        """Write one record."""
        if record.result is not None and record.audio is not None:
            self._stream.flush()
            self._stream.buffer.write(_file(record, record.result, record.audio.end))
            self._stream.buffer.flush()


@dataclass(frozen=True)
class _Tempo:
    """From a tick and its time in the song on, so many microseconds last a quarter note."""

    tick: int
    time_s: float
    us: int

    def after(self, quarters: float) -> tuple[int, float]:
        """The tick and the time so many quarter notes later."""
        return self.tick + round(quarters * TICKS), self.time_s + quarters * self.us / 1e6


class _TempoMap:
    """The tempi of a song in their order, and the ticks of times."""

    def __init__(self, result: Result) -> None:
        self.bar = grid.beats_in_bar(result.beats)
        self.pickup = 0  # sixteenths before the first bar
        self.tempi: list[_Tempo] = []
        anchors = grid.anchors(result.beats, from_downbeat=True)
        if not anchors:
            self.tempi = [_Tempo(0, 0.0, DEFAULT_US)]
            return
        first = anchors[0]
        bar_s = (self.bar or 1) * 60 / first.bpm
        pickup_s = first.time_s % bar_s  # bars go on before the first beat that was found
        if pickup_s > 0:
            self.pickup = max(1, round(pickup_s * first.bpm / 60 * SIXTEENTHS))
            self._add(0, 0.0, self.pickup / SIXTEENTHS, pickup_s)
        at = round(self.pickup / SIXTEENTHS * TICKS), pickup_s
        for anchor, following in zip(anchors, [*anchors[1:], None], strict=True):
            if following is None:
                self.tempi.append(_Tempo(*at, round(6e7 / anchor.bpm)))
                break
            quarters = max(1, round((following.time_s - at[1]) * anchor.bpm / 60))
            at = self._add(*at, quarters, following.time_s)

    def _add(self, tick: int, time_s: float, quarters: float, until_s: float) -> tuple[int, float]:
        """Begin a tempo that lasts so many quarter notes and until a time; return where it ends in whole microseconds."""
        tempo = _Tempo(tick, time_s, max(1, round(1e6 * (until_s - time_s) / quarters)))
        self.tempi.append(tempo)
        return tempo.after(quarters)

    def tick(self, time_s: float) -> int:
        """The tick of a time."""
        tempo = next(tempo for tempo in reversed(self.tempi) if tempo.time_s <= time_s or tempo is self.tempi[0])
        return max(0, round(tempo.tick + (time_s - tempo.time_s) * 1e6 / tempo.us * TICKS))


def _file(record: Analysis, result: Result, end_s: float) -> bytes:
    """The two tracks of a song that ends at a time."""
    tempi = _TempoMap(result)
    end = tempi.tick(end_s)
    title = heading(record) or (record.path or "").rpartition("/")[2]
    tracks = [_track([*_conductor(tempi, result, title)], end), _track([*_chords(tempi, result)], end)]
    return _chunk(b"MThd", b"\0\1" + len(tracks).to_bytes(2, "big") + TICKS.to_bytes(2, "big")) + b"".join(tracks)


def _conductor(tempi: _TempoMap, result: Result, title: str) -> Iterator[Event]:
    """Name, tempo map, bars, key and sections."""
    yield 0, _text(NAME, title)
    for tempo in tempi.tempi:
        yield tempo.tick, _meta(TEMPO, tempo.us.to_bytes(3, "big"))
    if tempi.bar is not None:
        if tempi.pickup:
            yield 0, _meter(tempi.pickup, 4)
        yield tempi.pickup * TICKS // SIXTEENTHS, _meter(tempi.bar, 2)
    if result.key.name and (key := parse_key(result.key.name)):
        yield 0, _meta(KEY, ((key.fifths + 5) % 12 - 5).to_bytes(1, "big", signed=True) + bytes([key.mode == "minor"]))
    for section in result.sections:
        yield tempi.tick(section.start), _text(MARKER, section.label)


def _chords(tempi: _TempoMap, result: Result) -> Iterator[Event]:
    """The notes of each chord, the end of the one before first, and its name."""
    yield 0, _text(NAME, "Chords")
    for chord in result.chords:
        root, _, quality = chord.label.partition(":")
        if quality not in INTERVALS:
            continue
        start, end = tempi.tick(chord.start), tempi.tick(chord.end)
        notes = [LOWEST_ROOT + pitch_class(root) + interval for interval in INTERVALS[quality]]
        yield start, _text(TEXT, short_chord(chord.label) or chord.label)
        yield from ((start, bytes([NOTE_ON, note, VELOCITY])) for note in notes)
        yield from ((max(end, start + 1), bytes([NOTE_OFF, note, 0])) for note in notes)


def _meter(numerator: int, denominator_log2: int) -> bytes:
    """A time signature in its lowest terms down to quarters: 4/16 is 1/4."""
    while denominator_log2 > 2 and numerator % 2 == 0:
        numerator, denominator_log2 = numerator // 2, denominator_log2 - 1
    return _meta(METER, bytes([numerator, denominator_log2, 24, 8]))  # clocks per click, 32nd notes in a quarter


def _text(kind: int, text: str) -> bytes:
    return _meta(kind, text.encode("latin-1", "replace"))


def _meta(kind: int, data: bytes) -> bytes:
    return bytes([0xFF, kind]) + _length(len(data)) + data


def _length(number: int) -> bytes:
    """A number in groups of seven bits, the last without its high bit."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))


def _track(events: Iterable[Event], end: int) -> bytes:
    """Events in the order of their ticks, notes that end before those that begin."""
    data, at = b"", 0
    ordered = sorted(events, key=lambda event: (event[0], event[1][0] != 0xFF, event[1][0]))
    for tick, message in [*ordered, (max(end, ordered[-1][0]), _meta(END, b""))]:
        data, at = data + _length(tick - at) + message, tick
    return _chunk(b"MTrk", data)


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "big") + data
