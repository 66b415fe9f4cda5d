"""Loudness of the native multi-channel stream: ITU-R BS.1770-5 integrated loudness and true peak, EBU Tech 3342 range.

Samples are (n, channels) float32 with full scale 1; whatever the sizes of the blocks, the numbers are the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mflamingo_cli.core.decode import layout
from mflamingo_cli.schema import Clipped, Loudness, LoudPart

STEPS = 10  # per second: 400 ms blocks overlap by 75 %, 3 s blocks by 97 %
UNIT_STEPS = (5, 2)  # analysed at a time: the longer one that is whole samples; arrays of half a second stay in a core's cache,
UNIT_SAMPLES = 1 << 20  # and no more of all channels than this, 4 MiB: half a second of ten channels at 192 kHz
FILTERED = 128  # samples that one row of a matrix product weights
FAINT = 1e-15  # what still rings and is less is nothing
OFFSET = -0.691  # dB, BS.1770 eq. 2
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE, RANGE_GATE = -10.0, -20.0  # LU below the mean of what passed the absolute gate (BS.1770; Tech 3342)
SHELF_HZ, SHELF_Q, SHELF_DB = 1681.974450955533, 0.7071752369554196, 3.999843853973347  # analogue form of BS.1770's 48 kHz table
HIGHPASS_HZ, HIGHPASS_Q = 38.13547087602444, 0.5003270373238773
SURROUND = 1.41  # BS.1770 table 3; as in ffmpeg's ebur128 for whatever is beside or behind the listener
GAINS = dict.fromkeys(("BL", "BR", "BC", "SL", "SR", "TBL", "TBC", "TBR"), SURROUND) | {"LFE": 0.0}  # by role; of all others 1
FULL_SCALE = 1 - 2.0**-15  # the highest sample of 16 bits; decoders of lossy files go beyond it, and players clip that
CLIPPED_RUN = 3  # samples in a row at full scale: one may be a peak that just fits; Audacity's Find Clipping counts from three on
SHORT_TERM = 3 * STEPS  # steps of a short-term block (EBU Tech 3341)
ALIKE_LU = 1.0  # between levels that are as loud as each other: the division of EBU's scales
OVERSAMPLING = 4
TAPS = 32  # of each phase: flat within 0.1 dB to 0.42 of the sample rate
BEFORE = TAPS - 1  # samples of the unit before that its first interpolated values depend on
ROW = 64  # samples interpolated by one row of a matrix product


def k_weighting(rate_hz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """BS.1770's two filters, derived again for any sample rate, one after the other in state space: A (4, 4), B (4,), C (4,), D."""
    k = np.tan(np.pi * SHELF_HZ / rate_hz)
    gain = 10 ** (SHELF_DB / 20)
    mid = gain**0.4996667741545416
    shelf = (gain + mid * k / SHELF_Q + k * k, 2 * (k * k - gain), gain - mid * k / SHELF_Q + k * k)
    low = 1 + k / SHELF_Q + k * k
    first = _biquad([b / low for b in shelf], 2 * (k * k - 1) / low, (1 - k / SHELF_Q + k * k) / low)
    k = np.tan(np.pi * HIGHPASS_HZ / rate_hz)
    low = 1 + k / HIGHPASS_Q + k * k
    second = _biquad([1.0, -2.0, 1.0], 2 * (k * k - 1) / low, (1 - k / HIGHPASS_Q + k * k) / low)
    a = np.block([[first[0], np.zeros((2, 2))], [np.outer(second[1], first[2]), second[0]]])
    return a, np.append(first[1], second[1] * first[3]), np.append(second[3] * first[2], second[2]), first[3] * second[3]


def _biquad(b: Sequence[float], a1: float, a2: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A filter of second order in state space, of the transposed direct form II."""
    return np.array([[-a1, 1.0], [-a2, 0.0]]), np.array([b[1] - a1 * b[0], b[2] - a2 * b[0]]), np.array([1.0, 0.0]), b[0]


def whole_rows(n: int) -> int:
    """So many samples, the last row of `KWeighting` filled up."""
    return -(-n // FILTERED) * FILTERED


class KWeighting:
    """`k_weighting` of a stream in units of `n` samples, by matrix products: rows of samples, and what rings from the row before."""

    def __init__(self, rate_hz: int, channels: int, n: int) -> None:
        a, b, c, d = k_weighting(rate_hz)
        powers = [np.eye(4)]
        while len(powers) <= FILTERED:
            powers.append(powers[-1] @ a)
        rings = np.array([c @ power for power in powers[:FILTERED]])  # (samples, 4): what a state adds to the following samples
        response = np.append(d, rings[:-1] @ b)
        later = np.arange(FILTERED) - np.arange(FILTERED)[:, None]
        self._now = np.where(later >= 0, response[later], 0.0).astype(np.float32)  # of samples themselves: (from, to)
        self._rings = rings.T
        self._state_of = np.array([power @ b for power in reversed(powers[:FILTERED])])  # (samples, 4): after the last of them
        self._rows, self._last = whole_rows(n) // FILTERED, (n - 1) % FILTERED + 1  # samples in the last row
        self._decay, self._decay_of_last = powers[FILTERED].T, powers[self._last].T
        self._state = np.zeros((channels, 4))

    def weight(self, unit: np.ndarray) -> np.ndarray:
        """Weighted samples, (channels, whole_rows(n)) float32, of which those behind the unit are zeros."""
        rows = unit.reshape(len(unit), self._rows, FILTERED)
        ends = rows.astype(np.float64) @ self._state_of
        states = np.concatenate([self._state[:, None], ends[:, :-1]], axis=1)  # before each row, of one row
        step, decay = 1, self._decay
        while step < self._rows:  # of two, four, eight … rows before
            states[:, step:] += states[:, :-step] @ decay
            step, decay = 2 * step, decay @ decay
        last = self._last
        self._state = states[:, -1] @ self._decay_of_last + rows[:, -1, :last] @ self._state_of[FILTERED - last :]
        self._state[np.abs(self._state).max(axis=1) < FAINT] = 0.0
        weighted = rows @ self._now
        weighted += states @ self._rings
        return np.asarray(weighted.reshape(unit.shape))

    def rings(self) -> bool:
        """Whether something of what was is still heard."""
        return bool(self._state.any())


def unit_steps(rate_hz: int, channels: int) -> int:
    """How many steps of 100 ms are analysed together: half a second but for many channels and rates of megahertz, a second at odd rates."""
    whole = [steps for steps in UNIT_STEPS if rate_hz * steps % STEPS == 0] or [STEPS]
    return next((steps for steps in whole if channels * rate_hz * steps <= UNIT_SAMPLES * STEPS), whole[-1])


def _interpolator() -> np.ndarray:
    """Values between the samples, as one matrix: (ROW + TAPS - 1, ROW * 3) float32."""
    bank = np.zeros((ROW + TAPS - 1, ROW, OVERSAMPLING - 1))
    for phase in range(1, OVERSAMPLING):
        at = np.arange(TAPS) - TAPS // 2 + 1 - phase / OVERSAMPLING
        window = np.i0(8.0 * np.sqrt(np.maximum(0.0, 1 - (at / (TAPS / 2)) ** 2))) / np.i0(8.0)
        taps = np.sinc(at) * window
        for column in range(ROW):
            bank[column : column + TAPS, column, phase - 1] = taps / taps.sum()
    return bank.reshape(len(bank), -1).astype(np.float32)


def _lufs(power: np.ndarray | float) -> np.ndarray:
    return np.asarray(OFFSET + 10 * np.log10(np.maximum(power, 1e-20)))


def _blocks(steps: np.ndarray, n_steps: int) -> np.ndarray:
    """Mean squares of overlapping blocks of so many steps: (n,) -> (k,)."""
    if len(steps) < n_steps:
        return np.zeros(0)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(steps, n_steps).mean(axis=1))


def _gated(blocks: np.ndarray, relative_gate: float) -> np.ndarray:
    """The mean squares that pass the absolute and the relative gate: (n,) -> (k,)."""
    blocks = blocks[_lufs(blocks) > ABSOLUTE_GATE]
    return np.asarray(blocks[_lufs(blocks) > _lufs(blocks.mean()) + relative_gate] if len(blocks) else blocks)


def integrated(*tracks: np.ndarray) -> float | None:
    """Gated loudness of 100 ms mean squares, of several tracks as one programme: (n,) each -> LUFS, None for less than 400 ms or silence.

    A block lies within a track, as in libebur128: what follows a track in one playing need not in another.
    """
    blocks = _gated(np.concatenate([_blocks(steps, 4) for steps in tracks]), RELATIVE_GATE)
    return float(_lufs(blocks.mean())) if len(blocks) else None


def loudness_range(steps: np.ndarray) -> float | None:
    """Spread of the short-term loudness of 100 ms mean squares, 10th to 95th percentile: (n,) -> LU, None for less than 3 s or silence."""
    levels = np.sort(_lufs(_gated(_blocks(steps, SHORT_TERM), RANGE_GATE)))
    if not len(levels):
        return None
    low, high = _ends_of_range(levels)
    return high - low


def within(steps: np.ndarray, start_s: float, end_s: float) -> float | None:
    """`integrated` of the part between two times, in seconds from the first of 100 ms mean squares."""
    return integrated(steps[round(start_s * STEPS) : round(end_s * STEPS)])


def extremes(steps: np.ndarray, sounding: Sequence[tuple[float, float]]) -> tuple[LoudPart | None, LoudPart | None]:
    """The loudest and the quietest part of 100 ms mean squares; None where no three seconds sound.

    Each is the longest in which all short-term blocks are within 1 LU of the percentile at which the loudness range ends, or beyond it, so
    that a fade or a hit is neither. `sounding` are [start, end] in seconds from the first step.
    """
    blocks = _blocks(steps, SHORT_TERM)
    starts, inside = np.arange(len(blocks)), np.zeros(len(blocks), bool)
    for start, end in sounding:
        inside |= (starts >= np.ceil(STEPS * start)) & (starts <= STEPS * end - SHORT_TERM)
    passed = np.sort(_gated(blocks[inside], RANGE_GATE))
    if not len(passed):
        return None, None
    low, high = _ends_of_range(passed)
    nearly = 10 ** (ALIKE_LU / 10)
    quiet = inside & (blocks <= low * nearly) & (blocks >= passed[0])
    return _longest(steps, inside & (blocks >= high / nearly)), _longest(steps, quiet)


def _ends_of_range(ordered: np.ndarray) -> tuple[float, float]:
    """The 10th and the 95th percentile: (n,) rising."""
    return float(ordered[round((len(ordered) - 1) * 0.10)]), float(ordered[round((len(ordered) - 1) * 0.95)])


def _longest(steps: np.ndarray, chosen: np.ndarray) -> LoudPart:
    """The longest run of chosen blocks: (n,) mean squares, (n - SHORT_TERM + 1,) bool."""
    runs = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8))).reshape(-1, 2)
    first, after = runs[int(np.diff(runs, axis=1).argmax())].tolist()
    last = after - 1 + SHORT_TERM
    return LoudPart(first / STEPS, last / STEPS, float(_lufs(steps[first:last].mean())))


class LoudnessMeter:
    """A listener of the native stream: `open`, then `add` blocks as they are decoded, then `result`."""

    _rate = 0  # no stream is open
    steps = np.zeros(0)  # mean squares of 100 ms of the stream that has a result: (n,)

    def open(self, rate_hz: int, channels: int, roles: Sequence[str] = ()) -> None:
        """Start a stream; the one before is forgotten. `roles` of the channels are those of `core.decode.layout`."""
        self._rate = rate_hz
        self._gains = np.array([GAINS.get(role, 1.0) for role in roles or layout.named(None, channels)], np.float64)
        self._n_steps = unit_steps(rate_hz, channels)
        self._unit = self._n_steps * rate_hz // STEPS
        self._filter = KWeighting(rate_hz, channels, self._unit) if rate_hz > 2 * SHELF_HZ else None  # else nothing passes the shelf
        self._interpolator = _interpolator()
        self._gain = float(np.abs(self._interpolator).sum(axis=0).max())  # no value between samples is above them times this
        self._rows = -(-self._unit // ROW)
        self._samples = np.zeros((channels, max((self._rows + 1) * ROW, BEFORE + whole_rows(self._unit))), np.float32)
        self._filled = 0  # of the newest unit, which begins behind the last samples of the one before
        self._steps: list[np.ndarray] = []
        self._peak = 0.0
        self._full, self._held = np.zeros((channels, CLIPPED_RUN - 1), bool), False  # of the last samples
        self._clipped_runs = self._clipped_samples = 0

    def add(self, block: np.ndarray) -> None:
        """Take (n, channels) more samples."""
        start = 0
        while start < len(block):
            size = min(len(block) - start, self._unit - self._filled)
            at = BEFORE + self._filled
            self._samples[:, at : at + size] = block[start : start + size].T
            self._filled += size
            start += size
            if self._filled == self._unit:
                self._measure(self._unit)

    def result(self) -> Loudness:
        """The loudness so far; the stream is closed."""
        if self._rate == 0:
            return Loudness()
        if self._filled:
            count = self._filled
            self._samples[:, BEFORE + count :] = 0.0
            self._measure(count)
        self._samples[:, BEFORE:] = 0.0
        self._true_peak()  # between the last sample and silence
        steps = np.concatenate(self._steps) if self._steps else np.zeros(0)
        peak = float(20 * np.log10(self._peak)) if self._peak > 0 else None
        clipped = Clipped(self._clipped_runs, self._clipped_samples / self._rate)
        self._rate = 0
        self.steps = steps
        return Loudness(integrated(steps), loudness_range(steps), peak, clipped)

    def _measure(self, count: int) -> None:
        """Measure the newest unit, of which `count` samples are real."""
        self._filled = 0
        highest = self._true_peak()
        if highest >= FULL_SCALE or self._held or self._full.any():
            self._clipping(self._samples[:, BEFORE : BEFORE + self._unit])
        edges = np.arange(self._n_steps + 1) * self._rate // STEPS
        if self._filter and (highest > 0 or self._filter.rings()):
            weighted = self._filter.weight(self._samples[:, BEFORE : BEFORE + whole_rows(self._unit)])[:, : self._unit]
            power = np.add.reduceat(np.square(weighted, out=weighted), edges[:-1], axis=1, dtype=np.float64) / np.diff(edges)
        else:
            power = np.zeros((len(self._samples), self._n_steps))
        self._steps.append((self._gains @ power)[edges[1:] <= count])
        self._samples[:, :BEFORE] = self._samples[:, self._unit : self._unit + BEFORE]

    def _clipping(self, unit: np.ndarray) -> None:
        """Count runs of full-scale samples of any channel, also those that began in the unit before: (channels, unit)."""
        full = np.concatenate([self._full, np.abs(unit) >= FULL_SCALE], axis=1)
        self._full = full[:, 1 - CLIPPED_RUN :]
        if not full.any():
            self._held = False
            return
        runs = np.lib.stride_tricks.sliding_window_view(full, CLIPPED_RUN, axis=1).all(axis=2)
        held = np.asarray(runs.any(axis=0))  # from a run's third sample on
        began = int((held & ~np.concatenate([[self._held], held[:-1]])).sum())
        self._held = bool(held[-1])
        self._clipped_runs += began
        self._clipped_samples += int(held.sum()) + (CLIPPED_RUN - 1) * began

    def _true_peak(self) -> float:
        """Raise the peak by the samples of the newest unit and the values between them; returns the highest of its samples."""
        samples = self._samples[:, : (self._rows + 1) * ROW]
        highest = np.abs(samples).reshape(len(samples), -1, ROW).max(axis=2)
        level = float(highest.max())
        self._peak = max(self._peak, level)
        loud = np.maximum(highest[:, :-1], highest[:, 1:]) * self._gain > self._peak  # the others cannot hold a higher value
        if loud.any():
            views = np.lib.stride_tricks.sliding_window_view(samples, ROW + TAPS - 1, axis=1)[:, : self._rows * ROW : ROW]
            self._peak = max(self._peak, float(np.abs(views[loud] @ self._interpolator).max()))
        return level
