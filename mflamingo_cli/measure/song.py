"""One song's measurement, computed lazily: a property for every intermediate and every fact, and `FACTS`, the table of facts.

A fact is a property of `Measurement` marked with `@fact`. What it reads is computed when it is first read, and kept, so asking for some
facts computes only what they need. Intermediates count time from the first sample, facts from the start of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from mflamingo_cli.core.audio import Audio
from mflamingo_cli.measure.beats import Bars, BeatTrack
from mflamingo_cli.measure.chords import measure_chords
from mflamingo_cli.measure.compare import Comparison, compare_keys, compare_meters, compare_tempi
from mflamingo_cli.measure.confidence import of_key, of_meter, of_tempo
from mflamingo_cli.measure.facts import Key, Tempo
from mflamingo_cli.measure.key import STILL, choose_key, chroma, correlations, stillness, weigh
from mflamingo_cli.measure.loudness import LoudnessMeter
from mflamingo_cli.measure.meter import settle_bars
from mflamingo_cli.measure.sections import measure_sections
from mflamingo_cli.measure.spectra import constant_q, tuning_of
from mflamingo_cli.measure.tempo import SILENT, measure_tempo, octaves
from mflamingo_cli.schema import Beat, Loudness, Segment

T = TypeVar("T")
RETUNE = 0.04  # semitones off A = 440 Hz before the spectrum is taken again in tune
SHORTEST_S = 1.0  # seconds; shorter sounds have no harmony to measure


@dataclass(frozen=True)
class Confidence:
    """The probability that a measured value is right, tempo within 4 %, key and meter exactly; None: no value, or not estimated."""

    tempo: float | None = None
    key: float | None = None
    meter: float | None = None


@dataclass(frozen=True)
class Facts:
    """Everything measured about one song, each by the name that it has in the record; `None` and empty: it cannot be determined."""

    tempo: Tempo = field(default_factory=Tempo)
    key: Key | None = None
    meter: str | None = None
    beats: tuple[Beat, ...] = ()
    chords: tuple[Segment, ...] = ()
    sections: tuple[Segment, ...] = ()
    loudness: Loudness = field(default_factory=Loudness)
    confidence: Confidence = Confidence()


@dataclass(frozen=True)
class Fact:
    """A measured fact: its name in the record, its type as written, and how a claim about it is compared (None: it is not)."""

    name: str
    type: str
    compare: Callable[[Any, Any], Comparison] | None = None

    def disagrees(self, value: Any, claim: Any) -> bool:
        """Whether a claim contradicts the measured value; not where one of them is missing."""
        return self.compare is not None and self.compare(value, claim).agrees is False


FACTS: dict[str, Fact] = {}
"""Every fact in the order of the record, with an entry for each property of `Measurement` marked with `@fact`."""


def fact(compare: Callable[[Any, Any], Comparison] | None = None) -> Callable[[Callable[[Any], T]], cached_property[T]]:
    """Enter a property of `Measurement` into `FACTS`."""

    def enter(function: Callable[[Any], T]) -> cached_property[T]:
        FACTS[function.__name__] = Fact(function.__name__, function.__annotations__["return"], compare)
        return cached_property(function)

    return enter


class Measurement:
    """What signal analysis says of one song.

    Parameters
    ----------
    audio
        The song, mono at 16 kHz.
    meter
        The meter that took its native stream; without one the loudness is not known.
    """

    def __init__(self, audio: Audio, meter: LoudnessMeter | None = None) -> None:
        self._audio, self._meter = audio, meter

    def facts(self, only: Collection[str] | None = None) -> Facts:
        """The facts of these names, all if None; the others stay empty. Raises KeyError for a name not in FACTS."""
        names = FACTS.keys() if only is None else set(only)
        if unknown := names - FACTS.keys():
            raise KeyError(f"{', '.join(sorted(unknown))}: not among the facts {', '.join(FACTS)}")
        return Facts(**{name: getattr(self, name) for name in FACTS if name in names}, confidence=self._confidence(names))

    # --- intermediates ---

    @cached_property
    def sounds(self) -> bool:
        """Whether there is anything to measure: a second or more, above -100 dBFS."""
        level = np.sqrt(np.mean(np.square(self._audio.samples, dtype=np.float64))) if len(self._audio.samples) else 0.0
        return self._audio.duration_s >= SHORTEST_S and float(level) >= SILENT

    @cached_property
    def untuned_spectrogram(self) -> np.ndarray:
        """Constant-Q magnitudes tuned to A = 440 Hz: (frames, 252)."""
        return constant_q(self._audio.samples)

    @cached_property
    def is_harmonic(self) -> bool:
        """Whether harmony can move: something sounds, and it is no drone."""
        return self.sounds and stillness(self.untuned_spectrogram) <= STILL

    @cached_property
    def spectrogram(self) -> np.ndarray:
        """Constant-Q magnitudes in tune with the song: (frames, 252)."""
        tuning = tuning_of(self.untuned_spectrogram)
        return constant_q(self._audio.samples, tuning) if abs(tuning) > RETUNE else self.untuned_spectrogram

    @cached_property
    def chord_spans(self) -> tuple[Segment, ...]:
        """Chords from the first sample on."""
        return measure_chords(self.spectrogram, self._audio.duration_s) if self.is_harmonic else ()

    @cached_property
    def key_fit(self) -> tuple[np.ndarray, np.ndarray]:
        """Correlation of the song's chroma with each key, and the same with the vote of the chords: two (2 modes, 12 tonics)."""
        fit = correlations(chroma(self.spectrogram))
        return fit, weigh(fit, self.chord_spans)

    @cached_property
    def pulse(self) -> tuple[BeatTrack, Bars | None]:
        """The steady pulse and the likeliest bars by its own evidence."""
        return measure_tempo(self._audio.samples) if self.sounds else (BeatTrack(), None)

    @cached_property
    def beat_signs(self) -> dict[str, float]:
        """The signs of how sure the pulse is, see `confidence.beat_signs`."""
        bars = self.pulse[1]
        return bars.signs if bars else {}

    @cached_property
    def counted(self) -> tuple[BeatTrack, str | None]:
        """The pulse with bars on which chords change, and the meter where it is clear."""
        return settle_bars(*self.pulse, self.chord_spans)

    # --- facts, in the order of the record ---

    @fact(lambda fact, claim: compare_tempi(fact.bpm, claim))
    def tempo(self) -> Tempo:
        """Beats per minute."""
        bpm = self.pulse[0].bpm
        return Tempo() if bpm is None else Tempo(bpm, octaves(bpm))

    @fact(compare_keys)
    def key(self) -> Key | None:
        """The key, where chords sound and one fits."""
        return choose_key(*self.key_fit) if self.chord_spans else None

    @fact(compare_meters)
    def meter(self) -> str | None:
        """The time signature."""
        return self.counted[1]

    @fact()
    def beats(self) -> tuple[Beat, ...]:
        """Each beat's time and its place in the bar; no place where the meter is not known."""
        track, meter = self.counted
        times = [round(float(time) + self._audio.start_s, 3) for time in track.beats]
        if meter is None or not len(track.downbeats):
            return tuple((time, None) for time in times)
        first, bar = int(abs(track.beats - track.downbeats[0]).argmin()), int(meter.partition("/")[0])
        return tuple((time, (index - first) % bar + 1) for index, time in enumerate(times))

    @fact()
    def chords(self) -> tuple[Segment, ...]:
        """Chords in Harte's notation."""
        return self._in_file(self.chord_spans)

    @fact()
    def sections(self) -> tuple[Segment, ...]:
        """Sections by letters."""
        track, _ = self.counted
        found = bool(self.chord_spans) or (self.is_harmonic and track.bpm is not None)
        return self._in_file(measure_sections(self.spectrogram, self._audio.duration_s, track)) if found else ()

    @fact()
    def loudness(self) -> Loudness:
        """Loudness of the native stream."""
        return self._meter.result() if self._meter else Loudness()

    def _confidence(self, names: Collection[str]) -> Confidence:
        """The probability that the tempo is within 4 % of the right one, and that key and meter are right; None for all but these names.

        Of a damaged song it is that times the share that was decoded: what is missing may be otherwise.
        """
        found = {
            "tempo": of_tempo(self.pulse[0], self.beat_signs) if "tempo" in names else None,
            "key": of_key(self.key, self.key_fit[1], self.chord_spans) if "key" in names and self.key else None,
            "meter": of_meter(self.meter, self.beat_signs) if "meter" in names else None,
        }
        return Confidence(**{name: None if value is None else value * self._audio.share for name, value in found.items()})

    def _in_file(self, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        start = self._audio.start_s
        return tuple(Segment(round(s.start + start, 3), round(s.end + start, 3), s.label) for s in segments)
