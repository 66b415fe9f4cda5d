"""The count of a run, and how far it is in seconds of audio: songs differ in length by a hundred times, so their number says little."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mflamingo_cli.errors import ExitCode, MFlamingoError, ModelError
from mflamingo_cli.schema import Analysis, path_of

KINDS = {  # of failures, by code, where the code itself does not read well
    "decode_failed": "not decodable",
    "internal": "internal error",
    "oom": "out of memory",
    "not_finite": "with invalid samples",
    "not_written": "result not written",
}
STEADY_S = 5.0  # of work before the remaining time is shown
UNITS_S = ((48 * 3600.0, 86400.0, "days"), (5400.0, 3600.0, "h"), (90.0, 60.0, "min"))  # from so much on, seconds in one, name


@dataclass
class Tally:
    """How the songs of a run went: the only count, for progress, last words and exit code."""

    total: int
    done: int = 0
    ok: int = 0
    remembered: int = 0  # finished by earlier runs
    errors: int = 0  # records of failures; what was skipped is none
    new_errors: int = 0  # of this run: those of earlier runs stop no run
    failed: int = 0  # songs without a result, or whose result could not be written
    reasons: Counter[str] = field(default_factory=Counter)  # why, by code
    missing: int = 0
    model: int = 0  # failed for want of a model
    resumable: bool = False
    _failed_songs: set[str] = field(default_factory=set, repr=False)

    def add(self, record: Analysis, failure: MFlamingoError | None, *, remembered: bool = False) -> None:
        """Count one record."""
        self.done += 1
        self.ok += record.status == "ok"
        self.remembered += remembered
        self.errors += record.status == "error"
        self.new_errors += record.status == "error" and not remembered
        if failure is not None:
            self.failed += 1
            self.reasons[failure.code] += 1
            self._failed_songs.add(path_of(record))
            self.missing += failure.code == "not_found"
            self.model += isinstance(failure, ModelError) and failure.code != "too_long"  # a question is, and another model may hold it

    def fail(self, song: str, failure: MFlamingoError) -> None:
        """Count what went wrong with a song after it was added; a song fails once."""
        self.failed += song not in self._failed_songs
        self._failed_songs.add(song)
        self.reasons[failure.code] += 1

    @property
    def failures(self) -> str:
        """`3 of 40 songs failed: 2 not audio, 1 too short`."""
        kinds = ", ".join(f"{count} {KINDS.get(code, code.replace('_', ' '))}" for code, count in self.reasons.most_common())
        return f"{self.failed} of {self.total} songs failed: {kinds}"

    @property
    def left(self) -> int:
        """Songs that have no record yet."""
        return self.total - self.done

    def __str__(self) -> str:
        """`12 done, 38 left; run again to resume`."""
        return f"{self.done} done, {self.left} left{'; run again to resume' if self.resumable else ''}"

    @property
    def exit_code(self) -> ExitCode:
        """How the process ends."""
        if not self.failed:
            return ExitCode.OK
        if self.ok:
            return ExitCode.SOME_FAILED
        if self.missing == self.failed:
            return ExitCode.NO_INPUT
        return ExitCode.UNAVAILABLE if self.model == self.failed else ExitCode.ALL_FAILED


class Progress:
    """How far a run is. What is left is guessed from file sizes and from how many seconds a byte of each kind of file lasts."""

    def __init__(self, paths: Sequence[str], tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally, self.audio_s = tally, 0.0
        self._clock = clock
        self._began, self._worked_s = clock(), 0.0
        self._left: dict[str, int] = defaultdict(int)  # by kind of file, bytes that are to come
        self._known: dict[str, int] = defaultdict(int)  # bytes of songs whose length is known
        self._length_s: dict[str, float] = defaultdict(float)  # their length
        for path in paths:
            self._left[_kind(path)] += _size(path)

    def add(self, path: str, record: Analysis, failure: MFlamingoError | None = None, *, remembered: bool) -> None:
        """Count one more song and take its length; a remembered one took no time."""
        self.tally.add(record, failure, remembered=remembered)
        kind, size = _kind(path), _size(path)
        self._left[kind] -= size
        if record.audio is not None:
            length_s = record.audio.end - record.audio.start
            self.audio_s += length_s
            self._known[kind] += size
            self._length_s[kind] += length_s
            self._worked_s += 0.0 if remembered else length_s
        if not self._worked_s:
            self._began = self._clock()

    @property
    def left_audio_s(self) -> float | None:
        """Seconds of audio that are left; None while no length is known."""
        known = sum(self._known.values())
        if not known:
            return None
        usual = sum(self._length_s.values()) / known
        pace = {kind: self._length_s[kind] / size for kind, size in self._known.items() if size}
        return sum(max(0, size) * pace.get(kind, usual) for kind, size in self._left.items())

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at the pace so far; None while there is no pace."""
        spent_s, left = self._clock() - self._began, self.left_audio_s
        return None if left is None or spent_s < STEADY_S or not self._worked_s else left * spent_s / self._worked_s

    def __str__(self) -> str:
        """`120/5000 files, 3.1 h of audio, 2 failed, about 40 min left`."""
        left_s, tally = self.left_s, self.tally
        parts = [f"{tally.done}/{tally.total} files", f"{span(self.audio_s)} of audio"]
        parts += [f"{tally.remembered} done before"] if tally.remembered else []
        parts += [f"{tally.errors} failed"] if tally.errors else []
        parts += [f"about {span(left_s)} left"] if left_s is not None and tally.left else []
        return ", ".join(parts)


def span(seconds: float) -> str:
    """`40 s`, `12 min`, `3.1 h`, `2.5 days`."""
    for least, unit_s, name in UNITS_S:
        if seconds >= least:
            return f"{seconds / unit_s:.{0 if name == 'min' else 1}f} {name}"
    return f"{seconds:.0f} s"


def _kind(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # decoding will report it
        return 0
