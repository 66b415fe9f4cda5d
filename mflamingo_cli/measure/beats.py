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
    end = np.arange(len(total))[:, None]
    start = np.maximum(end - intervals, 0)
    on = np.minimum(start + -(-intervals // BEAT_PART), end)
    rest = total[end, 2] - total[on, 2]
    return total[on, 0] - total[start, 0] + rest, total[on, 1] - total[start, 1] + rest


def decode(evidence: np.ndarray, fps: float) -> Bars | None:
    """The likeliest beats: (frames, 3) probabilities of beat, downbeat, neither -> Bars, or None where nothing beats."""
    loud = np.flatnonzero(evidence[:, :2].max(axis=1) >= THRESHOLD)
    if len(loud) == 0:
        return None
    first, last = int(loud[0]), int(loud[-1]) + 1
    intervals = np.arange(round(60 * fps / FASTEST), round(60 * fps / SLOWEST) + 1)
    if last - first < 2 * intervals[0]:
        return None
    paths, scores = _viterbi(evidence[first:last], intervals)
    meter = max(scores, key=lambda m: scores[m])
    starts, places = paths[meter]
    keep = (starts >= 0) & (starts < last - first)
    frames = _to_peaks(evidence[first:last, :2].sum(axis=1), starts[keep], np.diff(starts, append=starts[-1] + intervals[-1])[keep])
    return Bars(frames + first, places[keep], meter, scores)


def _viterbi(evidence: np.ndarray, intervals: np.ndarray) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], dict[int, float]]:
    """Beat starts and places, and the log-likelihood, of each meter; all meters at once. Time `longest` is the first frame of the song."""
    change = -TEMPO_CHANGE * np.abs(intervals[:, None] / intervals[None] - 1)
    change -= np.log(np.exp(change).sum(axis=0))  # (to, from) log-probability of the next tempo
    n, longest, n_tempi = len(evidence), int(intervals[-1]), len(intervals)
    other, down = _spans(evidence, intervals)
    size = len(PLACES) * n_tempi
    best = np.full((longest + 1, len(PLACES), n_tempi), -np.inf)  # of beats that start at a time, a ring
    back = np.zeros((n + longest, len(PLACES), n_tempi), np.int8)  # tempo of the beat before
    offset = np.arange(size).reshape(-1, n_tempi)
    isdown = PLACES[:, None] == 0
    ends = {m: (-np.inf, 0, 0) for m in METERS}  # score, time, state
    for t in range(1, n + 2 * longest):
        ended = best.ravel()[(t - intervals) % (longest + 1) * size + offset] + np.where(isdown, down[t], other[t])
        if t >= n + longest:  # the song is over inside or at the end of this beat
            ended[:, t - intervals >= n + longest] = -np.inf
            for m, part in ROWS.items():
                top = int(ended[part].argmax())
                if ended[part].flat[top] > ends[m][0]:
                    ends[m] = (float(ended[part].flat[top]), t, top + part.start * n_tempi)
            continue
        step = ended[BEFORE][:, None] + change  # (row, to, from)
        back[t] = step.argmax(axis=2)
        value = step.max(axis=2)
        if t <= longest:  # a first beat may have begun at any time before the song
            value = np.where((t > longest - intervals) & (value < 0), 0.0, value)
            back[t][value == 0.0] = -1
        best[t % (longest + 1)] = value
    return {m: _trace(back, *ends[m][1:], intervals) for m in METERS}, {m: ends[m][0] for m in METERS}


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
