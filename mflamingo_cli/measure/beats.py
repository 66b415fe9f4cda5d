"""Beats and bars from frame-wise evidence: a bar-pointer hidden Markov model, decoded exactly.

The model is the one of Krebs, Böck and Widmer (ISMIR 2015): a beat lasts a whole number of frames, its tempo may change only where the
next beat begins. Inside a beat nothing is decided, so only beat starts are kept (a semi-Markov chain): Viterbi then costs one small
matrix per frame instead of thousands of states.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

SLOWEST, FASTEST = 50.0, 215.0  # beats per minute
TEMPO_CHANGE = 100.0  # lambda of exp(-lambda |ratio - 1|) at each beat
BEAT_PART = 16  # the first sixteenth of a beat is "on the beat"
METERS = (3, 4)  # beats in a bar; the recursion has a row for each place in each meter
PLACES = np.concatenate([np.arange(m) for m in METERS])  # in the bar of each row, 0 = downbeat
ROWS = {m: slice(start, start + m) for m, start in zip(METERS, np.flatnonzero(PLACES == 0).tolist(), strict=True)}
BEFORE = np.concatenate([np.roll(np.arange(m), 1) + ROWS[m].start for m in METERS])  # the row of the beat before
THRESHOLD = 0.05  # evidence below this before the first and after the last beat is not music to count
FLOOR = 1e-7  # of probabilities
KEPT = 64  # spans of the shortest beat between two moves of what is kept


@dataclass(frozen=True)
class Bars:
    """Decoded frames of the beats, their places in the bar (0 = downbeat), and the likelier number of beats in a bar."""

    frames: np.ndarray  # (n,) int
    places: np.ndarray  # (n,) int
    meter: int
    margins: dict[int, float]  # log-likelihood of each meter; `meter.choose_meter` weighs them
    signs: dict[str, float] = field(default_factory=dict)  # of `confidence.beat_signs`


@dataclass(frozen=True)
class BeatTrack:
    """A steady pulse: beats per minute (None: nothing beats steadily), beats and downbeats, both (n,) float64 seconds."""

    bpm: float | None = None
    beats: np.ndarray = field(default_factory=lambda: np.zeros(0))
    downbeats: np.ndarray = field(default_factory=lambda: np.zeros(0))


def _spans(evidence: np.ndarray, intervals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood of a beat of each length ending before each frame: (n, 3) -> other, downbeat: (n + 2 longest, lengths).

    Before the song and after it there is no evidence: those frames count zero.
    """
    longest = int(intervals[-1])
    logs = np.log(np.maximum(evidence, FLOOR)).astype(np.float64)
    logs[:, 2] -= np.log(BEAT_PART - 1)
    total = np.zeros((len(evidence) + 2 * longest + 1, 3))
    total[longest + 1 : longest + 1 + len(logs)] = np.cumsum(logs, axis=0)
    total[longest + 1 + len(logs) :] = total[longest + len(logs)]
    other, down = np.zeros((2, len(total), len(intervals)))
    for column, length in enumerate(intervals.tolist()):  # one at a time: all at once would hold ten arrays of this size
        part = -(-length // BEAT_PART)
        start, on, end = total[:-length], total[part : part - length], total[length:]
        rest = end[:, 2] - on[:, 2]
        other[length:, column] = on[:, 0] - start[:, 0] + rest
        down[length:, column] = on[:, 1] - start[:, 1] + rest
    return other, down


def decode(evidence: np.ndarray, fps: float, fastest: float = FASTEST) -> Bars | None:
    """The likeliest beats: (frames, 3) probabilities of beat, downbeat, neither -> Bars, or None where nothing beats."""
    loud = np.flatnonzero(evidence[:, :2].max(axis=1) >= THRESHOLD)
    if len(loud) == 0:
        return None
    first, last = int(loud[0]), int(loud[-1]) + 1
    intervals = np.arange(round(60 * fps / fastest), round(60 * fps / SLOWEST) + 1)
    if last - first < 2 * intervals[0]:
        return None
    paths, scores = _viterbi(evidence[first:last], intervals)
    meter = max(scores, key=lambda m: scores[m])
    starts, places = paths[meter]
    keep = (starts >= 0) & (starts < last - first)
    frames = _to_peaks(evidence[first:last, :2].sum(axis=1), starts[keep], np.diff(starts, append=starts[-1] + intervals[-1])[keep])
    return Bars(frames + first, places[keep], meter, scores)


def _viterbi(evidence: np.ndarray, intervals: np.ndarray) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], dict[int, float]]:
    """Beat starts and places, and the log-likelihood, of each meter; all meters at once. Time `longest` is the first frame of the song.

    No beat is shorter than the shortest interval: so many times do not depend on each other and are done together.
    """
    change = -TEMPO_CHANGE * np.abs(intervals[:, None] / intervals[None] - 1)
    change -= np.log(np.exp(change).sum(axis=0))  # (to, from) log-probability of the next tempo
    n, longest, n_tempi, block = len(evidence), int(intervals[-1]), len(intervals), int(intervals[0])
    other, down = _spans(evidence, intervals)
    best = np.full((longest + KEPT * block, len(PLACES), n_tempi), -np.inf)  # of beats that start at a time, `longest` before it and more
    back = np.zeros((n + longest, len(PLACES), n_tempi), np.int8)  # tempo of the beat before
    step = np.empty((block, len(PLACES), n_tempi, n_tempi))  # (time, row, to, from)
    flat = np.arange(0, step.size, n_tempi).reshape(step.shape[:-1])
    isdown, at = PLACES[:, None] == 0, longest

    def beats_ending(times: slice) -> np.ndarray:
        return np.where(isdown, down[times, None], other[times, None])

    for first in range(1, n + longest, block):
        now = slice(first, min(first + block, n + longest))
        count = now.stop - first
        if at == len(best):
            best[:longest], at = best[-longest:], longest
        ended = _ended(best, at, count, block) + beats_ending(now)
        value = best[at : at + count]
        np.add(ended[:, BEFORE, None], change, out=step[:count])
        back[now] = likeliest = step[:count].argmax(axis=3)
        value[:] = step.ravel().take(likeliest + flat[:count])
        if first <= longest:  # a first beat may have begun at any time before the song
            time = np.arange(first, now.stop)[:, None, None]
            begins = (time <= longest) & (time > longest - intervals) & (value < 0)
            value[begins], back[now][begins] = 0.0, -1
        at += count
    rest = np.concatenate([best[at - longest : at], np.full_like(best[:longest], -np.inf)])  # nothing starts when the song is over
    return _ends(_ended(rest, longest, longest, block) + beats_ending(slice(n + longest, n + 2 * longest)), back, intervals)


def _ended(best: np.ndarray, at: int, count: int, shortest: int) -> np.ndarray:
    """The scores `best` (times, rows, tempi) at the starts of beats that end at `count` times from `at` on: a view (count, rows, tempi)."""
    time, row, tempo = best.strides
    shape = (count, *best.shape[1:])
    return np.lib.stride_tricks.as_strided(best[at - shortest :], shape, (time, row, tempo - time), writeable=False)


def _ends(ended: np.ndarray, back: np.ndarray, intervals: np.ndarray) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], dict[int, float]]:
    """Beats and log-likelihood of each meter from its likeliest last beat: ended (times after the last frame, rows, tempi)."""
    paths, scores = {}, {}
    for m, part in ROWS.items():
        top = int(ended[:, part].argmax())
        time, state = divmod(top, m * len(intervals))
        scores[m] = float(ended[:, part].flat[top])
        paths[m] = _trace(back, len(back) + time, part.start * len(intervals) + state, intervals)
    return paths, scores


def _trace(back: np.ndarray, end: int, state: int, intervals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beat starts (frames of the song, maybe negative) and places, from the last beat back to the first."""
    row, tempo = divmod(state, len(intervals))
    starts, places, t = [], [], end
    while True:
        t -= int(intervals[tempo])
        starts.append(t - int(intervals[-1]))
        places.append(int(PLACES[row]))
        tempo_before = int(back[t, row, tempo])
        if tempo_before < 0:
            return np.array(starts[::-1]), np.array(places[::-1])
        row, tempo = int(BEFORE[row]), tempo_before


def _to_peaks(evidence: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Each beat at the strongest frame of its first sixteenth: (n,) frames -> (n,) frames."""
    return np.array([s + int(np.argmax(evidence[s : s - (-length // BEAT_PART)])) for s, length in zip(starts, lengths, strict=True)], int)
