"""How far a run is, in seconds of audio: songs differ in length by a hundred times, so their number says little about what is left."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mflamingo_cli.schema import Analysis

STEADY_S = 5.0  # of work before the time that is left is told
UNITS_S = ((48 * 3600.0, 86400.0, "days"), (5400.0, 3600.0, "h"), (90.0, 60.0, "min"))  # from so much on, seconds in one, name


class Progress:
    """Counts songs and their seconds. What is left is guessed from sizes of files and from how long a byte of each kind of file lasted."""

    def __init__(self, paths: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done, self.remembered, self.failed = len(paths), 0, 0, 0
        self.audio_s = 0.0
        self._clock = clock
        self._began, self._worked_s = clock(), 0.0
        self._left: dict[str, int] = defaultdict(int)  # by kind of file, bytes that are to come
        self._known: dict[str, int] = defaultdict(int)  # bytes of songs whose length is known
        self._length_s: dict[str, float] = defaultdict(float)  # their length
        for path in paths:
            self._left[_kind(path)] += _size(path)

    def add(self, path: str, record: Analysis, *, remembered: bool) -> None:
        """One more is done; a remembered one took no time."""
        kind, size = _kind(path), _size(path)
        self.done += 1
        self.remembered += remembered
        self.failed += record.status == "error"
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
        """Seconds of audio that are left; None while nothing is known of any."""
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
        left_s = self.left_s
        parts = [f"{self.done}/{self.total} files", f"{span(self.audio_s)} of audio"]
        parts += [f"{self.remembered} done before"] if self.remembered else []
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"about {span(left_s)} left"] if left_s is not None and self.done < self.total else []
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
    except OSError:  # hearing will say it
        return 0
