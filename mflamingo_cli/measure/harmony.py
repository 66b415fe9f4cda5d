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
from mflamingo_cli.measure.key import (
    CHORD_WEIGHT,
    MINOR,
    choose_key,
    correlations,
    functions_of,
    moves,
    normalised,
    scale_of,
    triads,
    weigh,
)
from mflamingo_cli.schema import Segment

CONTEXT_S = 4.0  # standard deviation of the time around a moment that says what key it is in
CHANGE = 20.0  # that a new key must gain, in `key.weigh` times seconds: 13 s where it is a whole tone away, 40 s where it is a fifth
SURE_TONIC = 0.6  # confidence of the key from which its scale is named
REACH_S = 8  # how far the chords may move a change of key that the context has blurred
SNAP_S = 1.0  # a key changes with a chord, if one changes so near


@dataclass(frozen=True)
class Harmony:
    """What sounds in a song or in parts of it, second by second."""

    starts: np.ndarray  # (n,) s of the file
    ends: np.ndarray  # (n,) s of the file
    pitches: np.ndarray  # (n, 12) as of `key.pitch_energy`
    chords: tuple[Segment, ...]

    def within(self, spans: Sequence[tuple[float, float]]) -> Harmony:
        """What sounds between these times, [start, end] in their order."""
        middle = (self.starts + self.ends) / 2
        inside = np.any([(middle >= start) & (middle < end) for start, end in spans], axis=0)
        cut = (Segment(max(c.start, start), min(c.end, end), c.label) for start, end in spans for c in self.chords)
        return Harmony(self.starts[inside], self.ends[inside], self.pitches[inside], tuple(c for c in cut if c.end > c.start))

    @cached_property
    def fit(self) -> np.ndarray:
        """Correlation of what sounds with each key: (2 modes, 12 tonics)."""
        return correlations(normalised(self.pitches.sum(axis=0)))

    @cached_property
    def weights(self) -> np.ndarray:
        """The same with the vote of the chords: (2 modes, 12 tonics)."""
        return weigh(self.fit, self.chords)

    @cached_property
    def key(self) -> Key | None:
        """The key for which most speaks; None where chords do not move or none fits."""
        return choose_key(self.fit, self.weights) if moves(self.chords) else None

    def confidence(self, key: Key) -> float:
        """How likely it is that this is the key of all that sounds here."""
        return of_key(key, self.weights, self.chords)

    def scale(self, key: Key) -> str | None:
        """The church mode on the tonic of the key, where the tonic is sure and the scale not that of major or minor."""
        return scale_of(key, normalised(self.pitches.sum(axis=0))) if self.confidence(key) >= SURE_TONIC else None

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
        votes, seconds = self._votes()
        path = self._path(votes, seconds)
        changes = np.array([chord.start for chord in self.chords])
        spans = [(float(self.starts[0]), float(self.ends[-1]))]
        for second in (np.flatnonzero(np.diff(path)) + 1).tolist():
            at = _turn(votes[:, path[second - 1]] - votes[:, path[second]], second)
            start = float(changes[np.abs(changes - self.starts[at]).argmin()])
            start = start if abs(start - self.starts[at]) <= SNAP_S else float(self.starts[at])
            spans[-1:] = [(spans[-1][0], min(start, float(self.ends[at - 1]) + SNAP_S)), (start, float(self.ends[-1]))]
        return spans

    def _path(self, votes: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """The likeliest key of each second: `_votes` -> (n,) 12 * mode + tonic."""
        around = np.exp(-0.5 * (np.arange(-3 * CONTEXT_S, 3 * CONTEXT_S + 1) / CONTEXT_S) ** 2)
        pitches, votes, weights = (_smooth(values, around) for values in (self.pitches, votes, seconds[:, None]))
        fit = np.array([correlations(moment).ravel() for moment in pitches])
        score = fit + CHORD_WEIGHT * votes / np.maximum(weights, 1e-6) + np.repeat([0.0, MINOR], 12)
        return decode(score, np.full(len(score), CHANGE))

    def _votes(self) -> tuple[np.ndarray, np.ndarray]:
        """How well the chords of each second belong to each key, times the seconds that they sound: (n, 24), (n,)."""
        votes, seconds = np.zeros((len(self.starts), 24)), np.zeros(len(self.starts))
        named = [chord for chord in self.chords if triads([chord])]
        for chord in named:
            [(root, third, _)] = triads([chord])
            first, last = np.searchsorted(self.ends, chord.start, "right"), np.searchsorted(self.starts, chord.end)
            lasting = np.minimum(self.ends[first:last], chord.end) - np.maximum(self.starts[first:last], chord.start)
            votes[first:last] += lasting[:, None] * functions_of(root, third).ravel()
            seconds[first:last] += lasting
        return votes, seconds


def _turn(lead: np.ndarray, second: int) -> int:
    """The second near this one up to which the chords speak for the key before, whose lead over the next one this is: (n,) -> 1..n - 1."""
    first, last = max(1, second - REACH_S), min(len(lead), second + REACH_S)
    return first + int(np.argmax(np.concatenate([[0.0], np.cumsum(lead[first : last - 1])])))


def _smooth(values: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Each moment with what is around it: (n, d), (odd,) -> (n, d)."""
    padded = np.pad(values, ((len(around) // 2,) * 2, (0, 0)))
    return np.asarray(np.einsum("ndk,k->nd", np.lib.stride_tricks.sliding_window_view(padded, len(around), axis=0), around))
