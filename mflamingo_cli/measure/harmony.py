"""The keys of a song in their order: the likeliest path through all keys, second by second, which pays for every change.

`key.py` says how well chords and pitches fit a key; here it is asked of each moment, and of the time between two changes as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mflamingo_cli.measure.chords import decode
from mflamingo_cli.measure.confidence import of_key
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.measure.key import choose_key, home, scale_of, shares, sounding, triad_of, weigh
from mflamingo_cli.schema import Segment

CONTEXT_S = 4.0  # standard deviation of the time around a moment that says what key it is in
CHANGE = 100.0  # that a new key must gain, in `key.weigh` times seconds
SURE_TONIC = 0.6  # confidence of the key from which its scale is named
REACH_S = 8  # how far the chords may move a change of key that the context has blurred
SNAP_S = 1.0  # a key changes with a chord, if one changes so near


@dataclass(frozen=True)
class Harmony:
    """What sounds in a song or in parts of it, second by second."""

    starts: np.ndarray  # (n,) s of the file
    ends: np.ndarray  # (n,) s of the file
    pitches: np.ndarray  # (n, 24) as of `key.pitch_energy`
    chords: tuple[Segment, ...]

    def within(self, spans: Sequence[tuple[float, float]]) -> Harmony:
        """What sounds between these times, [start, end] in their order."""
        middle = (self.starts + self.ends) / 2
        inside = np.any([(middle >= start) & (middle < end) for start, end in spans], axis=0)
        cut = (Segment(max(c.start, start), min(c.end, end), c.label) for start, end in spans for c in self.chords)
        return Harmony(self.starts[inside], self.ends[inside], self.pitches[inside], tuple(c for c in cut if c.end > c.start))

    @cached_property
    def whole(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What sounds in all: pitches (24,), seconds of each triad (36,), and where it is at home (24,)."""
        return self.pitches.sum(axis=0), sounding(self.chords), home(self.chords)

    @cached_property
    def key(self) -> Key | None:
        """The key for which most speaks; None where no chord has a third or no key fits."""
        return choose_key(*self.whole)

    def confidence(self, key: Key) -> float:
        """How likely it is that this is the key of all that sounds here."""
        return of_key(key, weigh(*self.whole), self.whole[1])

    def scale(self, key: Key) -> str | None:
        """The church mode on the tonic of the key, where the tonic is sure and the scale not that of major or minor."""
        return scale_of(key, shares(self.whole[0][:12]), self.whole[1]) if self.confidence(key) >= SURE_TONIC else None

    @cached_property
    def keys(self) -> tuple[tuple[float, float, Key], ...]:
        """Every key in its order, (start, end, key) in seconds of the file."""
        found: list[tuple[float, float, Key]] = []
        for start, end in self._spans() if self.chords else ():
            key = self.within([(start, end)]).key
            if key is not None and found and found[-1][2] == key:
                found[-1] = (found[-1][0], end, key)
            elif key is not None:
                found.append((start, end, key))
        if len({key for *_, key in found}) < 2:
            return ((float(self.starts[0]), float(self.ends[-1]), self.key),) if self.key else ()
        return tuple(found)

    def _spans(self) -> list[tuple[float, float]]:
        """The time between two changes of key: [start, end] in seconds of the file."""
        triads = self._triads()
        path = self._path(triads)
        votes = weigh(np.zeros_like(self.pitches), triads) * triads.sum(axis=1, keepdims=True)
        changes = np.array([chord.start for chord in self.chords])
        spans = [(float(self.starts[0]), float(self.ends[-1]))]
        for second in (np.flatnonzero(np.diff(path)) + 1).tolist():
            at = _turn(votes[:, path[second - 1]] - votes[:, path[second]], second)
            start = float(changes[np.abs(changes - self.starts[at]).argmin()])
            start = start if abs(start - self.starts[at]) <= SNAP_S else float(self.starts[at])
            spans[-1:] = [(spans[-1][0], min(start, float(self.ends[at - 1]) + SNAP_S)), (start, float(self.ends[-1]))]
        return spans

    def _path(self, triads: np.ndarray) -> np.ndarray:
        """The likeliest key of each second: `_triads` -> (n,) 12 * mode + tonic."""
        around = np.exp(-0.5 * (np.arange(-3 * CONTEXT_S, 3 * CONTEXT_S + 1) / CONTEXT_S) ** 2)
        score = weigh(*(_smooth(values, around) for values in (self.pitches, triads)))
        return decode(score, np.full(len(score), CHANGE))

    def _triads(self) -> np.ndarray:
        """How long each triad sounds in each second: (n, 36) seconds."""
        found = np.zeros((len(self.starts), 36))
        for chord in self.chords:
            if (triad := triad_of(chord.label)) is not None:
                first, last = np.searchsorted(self.ends, chord.start, "right"), np.searchsorted(self.starts, chord.end)
                found[first:last, triad] += np.minimum(self.ends[first:last], chord.end) - np.maximum(self.starts[first:last], chord.start)
        return found


def _turn(lead: np.ndarray, second: int) -> int:
    """The second near this one up to which the chords speak for the key before, whose lead over the next one this is: (n,) -> 1..n - 1."""
    first, last = max(1, second - REACH_S), min(len(lead), second + REACH_S)
    return first + int(np.argmax(np.concatenate([[0.0], np.cumsum(lead[first : last - 1])])))


def _smooth(values: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Each moment with what is around it: (n, d), (odd,) -> (n, d)."""
    padded = np.pad(values, ((len(around) // 2,) * 2, (0, 0)))
    return np.asarray(np.einsum("ndk,k->nd", np.lib.stride_tricks.sliding_window_view(padded, len(around), axis=0), around))
