"""One song's measurement, computed lazily: a property for every intermediate and every fact, and `FACTS`, the table of facts.

A fact is a property of `Measurement` marked with `@fact`, which names the stages of `SoundStretch` that it needs. What it reads is computed
when it is first read, and kept, so asking for some facts computes only what they need. Intermediates count time from the first sample,
facts from the start of the file.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import get_ident
from typing import Any, TypeVar

import numpy as np

from mflamingo_cli.core.audio import Audio
from mflamingo_cli.measure.activity import REST_S, cut, sounding
from mflamingo_cli.measure.beats import Bars, BeatTrack
from mflamingo_cli.measure.compare import Comparison, compare_keys, compare_meters, compare_tempi, compare_voices
from mflamingo_cli.measure.confidence import of_meter, of_tempo, of_vocals
from mflamingo_cli.measure.dynamics import brightness, onsets_per_s
from mflamingo_cli.measure.facts import Key, Tempo, Voices
from mflamingo_cli.measure.harmony import Harmony
from mflamingo_cli.measure.loudness import LoudnessMeter, extremes, within
from mflamingo_cli.measure.meter import settle_runs
from mflamingo_cli.measure.sections import measure_sections
from mflamingo_cli.measure.spectra import RATE
from mflamingo_cli.measure.stretch import INDEPENDENT, SoundStretch
from mflamingo_cli.measure.tags import name_tags
from mflamingo_cli.measure.tempo import SAME_TEMPO, octaves
from mflamingo_cli.measure.vocals import spans, sung_signs
from mflamingo_cli.schema import Beat, Dynamics, FormPart, KeySpan, Loudness, LoudPart, Segment, Tag

T = TypeVar("T")
NEAR_S = 0.05  # a beat so near to a sound is on it: its frame may begin before
HALF = 0.5  # of a beat: two beats nearer than that are one, on which a song was cut into parts
NO_CHORD = "N"  # in Harte's notation
INSTANT_S = 1e-3  # what is shorter has no length in the record


@dataclass(frozen=True)
class Confidence:
    """The probability that a measured value is right, tempo within 4 %, the others exactly; None: no value, or not estimated."""

    tempo: float | None = None
    key: float | None = None
    meter: float | None = None
    vocals: float | None = None


@dataclass(frozen=True)
class Facts:
    """Everything measured about one song, each by the name that it has in the record; `None` and empty: it cannot be determined."""

    tempo: Tempo = field(default_factory=Tempo)
    key: Key | None = None
    keys: tuple[KeySpan, ...] = ()
    scale: str | None = None
    meter: str | None = None
    beats: tuple[Beat, ...] = ()
    chords: tuple[Segment, ...] = ()
    sections: tuple[FormPart, ...] = ()
    loudness: Loudness = field(default_factory=Loudness)
    dynamics: Dynamics = field(default_factory=Dynamics)
    vocals: Voices = field(default_factory=Voices)
    tags: tuple[Tag, ...] = ()
    confidence: Confidence = Confidence()

    def updated(self, others: Facts, names: Collection[str]) -> Facts:
        """These facts, those of the names and their confidence taken from others."""
        sure = {name: getattr(others.confidence, name) for name in names if hasattr(others.confidence, name)}
        return replace(self, **{name: getattr(others, name) for name in names}, confidence=replace(self.confidence, **sure))


@dataclass(frozen=True)
class Fact:
    """A measured fact: its name in the record, its type as written, how a claim about it is compared (None: it is not), the stages of
    `SoundStretch` that it needs, the facts that its place in the record holds too, and whether its loudness must be metered.
    """

    name: str
    type: str
    compare: Callable[[Any, Any], Comparison] | None = None
    needs: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    metered: bool = False

    def disagrees(self, value: Any, claim: Any) -> bool:
        """Whether a claim contradicts the measured value; not where one of them is missing."""
        return self.compare is not None and self.compare(value, claim).agrees is False


FACTS: dict[str, Fact] = {}
"""Every fact in the order of the record, with an entry for each property of `Measurement` marked with `@fact`."""


def fact(
    *needs: str, compare: Callable[[Any, Any], Comparison] | None = None, holds: tuple[str, ...] = (), metered: bool = False
) -> Callable[[Callable[[Any], T]], cached_property[T]]:
    """Enter a property of `Measurement` that needs these stages into `FACTS`."""

    def enter(function: Callable[[Any], T]) -> cached_property[T]:
        FACTS[function.__name__] = Fact(function.__name__, function.__annotations__["return"], compare, needs, holds, metered)
        return cached_property(function)

    return enter


@dataclass(frozen=True)
class SongPart:
    """A song or a part of it: where it sounds, in seconds of the file, and what is measured of it by itself."""

    start_s: float
    end_s: float
    sounding: tuple[tuple[float, float], ...]
    stretches: tuple[SoundStretch, ...]

    @classmethod
    def of(cls, samples: np.ndarray, start_s: float) -> SongPart:
        """Find out where a part sounds, mono at 16 kHz (n,); what it sounds like is measured when it is asked for."""
        spans = sounding(samples)
        found = (SoundStretch(samples[a:b], start_s + a / RATE) for a, b in cut(spans, len(samples)))
        times = tuple((start_s + a / RATE, start_s + b / RATE) for a, b in spans)
        return cls(start_s, start_s + len(samples) / RATE, times, tuple(found))

    @contextmanager
    def computing(self, names: Collection[str], threads: int) -> Iterator[None]:
        """Compute most of what the facts of these names need on so many threads, while the caller does something else; then it is there.

        One thread computes nothing ahead: what is read later is computed then. The values are the same. Where the caller fails or is
        interrupted, so are the threads.
        """
        stages, working = _stages(names), set[int]()
        wanted = [(stretch, stage) for stage in INDEPENDENT for stretch in self.stretches if stage in stages and threads > 1]

        def compute(stretch: SoundStretch, stage: str) -> None:
            working.add(get_ident())
            try:
                getattr(stretch, stage)
            finally:
                working.discard(get_ident())

        with ThreadPoolExecutor(threads) as pool:
            found = [pool.submit(compute, *one) for one in wanted]
            try:
                yield
                for one in found:
                    one.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                _interrupt(working)
                raise

    def settle(self, names: Collection[str], threads: int = 1) -> None:
        """Let go of the sound; before that, compute what the facts of these names need of it."""
        with self.computing(names, threads):
            pass
        for stretch in self.stretches:
            stretch.settle(_stages(names))


def _interrupt(threads: Collection[int]) -> None:
    """Raise SystemExit in threads at their next step in Python: a stage takes seconds, each of its thousands of steps less than 1 ms."""
    for thread in tuple(threads):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(SystemExit))


def _stages(names: Collection[str]) -> set[str]:
    return {stage for name in names for stage in FACTS[name].needs}


def sounding_of(parts: Sequence[SongPart]) -> tuple[tuple[float, float], ...]:
    """Where a song of these parts sounds, rests included: [start, end] in seconds of the file."""
    joined: list[tuple[float, float]] = []
    for start, end in (span for part in parts for span in part.sounding):
        if joined and start - joined[-1][1] < REST_S:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple(joined)


class Measurement:
    """What signal analysis says of one song: each stretch of sound is measured by itself, facts are those of all together.

    Parameters
    ----------
    audio
        The song, mono at 16 kHz, or its last part.
    meter
        The meter that took its native stream; without one the loudness is not known.
    parts
        The song in its order; without it `audio` is the whole song, of which a long one's is only the last part.
    """

    def __init__(self, audio: Audio, meter: LoudnessMeter | None = None, parts: Sequence[SongPart] | None = None) -> None:
        self._audio, self._meter = audio, meter
        self._parts = parts

    def facts(self, only: Collection[str] | None = None) -> Facts:
        """The facts of these names, all if None; the others stay empty. Raises KeyError for a name not in FACTS."""
        names = FACTS.keys() if only is None else set(only)
        if unknown := names - FACTS.keys():
            raise KeyError(f"{', '.join(sorted(unknown))}: not among the facts {', '.join(FACTS)}")
        return Facts(**{name: getattr(self, name) for name in FACTS if name in names}, confidence=self._confidence(names))

    # --- intermediates ---

    @cached_property
    def parts(self) -> Sequence[SongPart]:
        """The song in its order, with the mask that all facts share."""
        return [SongPart.of(self._audio.samples, self._audio.start_s)] if self._parts is None else self._parts

    @cached_property
    def sounding(self) -> tuple[tuple[float, float], ...]:
        """Where it sounds, rests included: [start, end] in seconds of the file."""
        return sounding_of(self.parts)

    @cached_property
    def stretches(self) -> tuple[SoundStretch, ...]:
        """All sound, without the silence between it."""
        return tuple(stretch for part in self.parts for stretch in part.stretches)

    @cached_property
    def chord_spans(self) -> tuple[Segment, ...]:
        """Chords that cover the song, "N" where there is none; nothing where nothing is harmony."""
        spans: list[Segment] = []

        def add(start: float, end: float, label: str) -> None:
            if spans and spans[-1].label == label:
                spans[-1] = Segment(spans[-1].start, end, label)
            elif end - start > INSTANT_S:
                spans.append(Segment(start, end, label))

        at = self.parts[0].start_s
        for stretch in self.stretches:
            for chord in stretch.chords:
                add(at, stretch.start_s + chord.start, NO_CHORD)
                at = stretch.start_s + chord.end
                add(stretch.start_s + chord.start, at, chord.label)
        add(at, self.parts[-1].end_s, NO_CHORD)
        return tuple(spans) if any(span.label != NO_CHORD for span in spans) else ()

    @cached_property
    def harmony(self) -> Harmony:
        """What sounds where there are chords, second by second, and the keys that it goes through."""
        seconds = [
            (stretch.start_s + at, min(stretch.start_s + at + 1, stretch.start_s + stretch.duration_s), pitches)
            for stretch in self.stretches
            for at, pitches in enumerate(stretch.pitches)
            if at < stretch.duration_s
        ]
        starts, ends = (np.array([second[i] for second in seconds], float) for i in (0, 1))
        return Harmony(starts, ends, np.array([second[2] for second in seconds]).reshape(-1, 24), self.chord_spans)

    @cached_property
    def key_parts(self) -> dict[Key, Harmony]:
        """What sounds in each key of the song."""
        found = self.harmony.keys
        if len(found) == 1:
            return {found[0][2]: self.harmony}
        return {key: self.harmony.within([(start, end) for start, end, other in found if other == key]) for *_, key in found}

    @cached_property
    def pulses(self) -> list[tuple[SoundStretch, BeatTrack, Bars]]:
        """The steady pulse of each stretch that has one, and the likeliest bars by its own evidence."""
        found = [(stretch, *stretch.pulse) for stretch in self.stretches]
        return [(stretch, track, bars) for stretch, track, bars in found if bars is not None]

    @cached_property
    def bpm(self) -> float | None:
        """Beats per minute: the tempo that most beats have."""
        beats: Counter[float] = Counter()
        for _, track, _ in self.pulses:
            if track.bpm is not None:
                beats[track.bpm] += len(track.beats)
        alike = {bpm: (sum(n for other, n in beats.items() if abs(other / bpm - 1) < SAME_TEMPO), beats[bpm]) for bpm in beats}
        return max(alike, key=lambda bpm: alike[bpm], default=None)

    @cached_property
    def beat_signs(self) -> dict[str, float]:
        """The signs of how sure the pulse is, see `confidence.beat_signs`; of several stretches by their beats."""
        total = sum(len(bars.frames) for *_, bars in self.pulses)
        names = self.pulses[0][2].signs if self.pulses else ()
        return {name: sum(bars.signs[name] * (len(bars.frames) / total) for *_, bars in self.pulses) for name in names}

    @cached_property
    def counted(self) -> tuple[list[BeatTrack], str | None]:
        """The pulses with bars on which chords change, in seconds of the file, and the meter where it is clear."""
        tracks, meter = settle_runs([(track, bars, stretch.chords) for stretch, track, bars in self.pulses])
        starts = [stretch.start_s for stretch, *_ in self.pulses]
        return [BeatTrack(t.bpm, t.beats + start, t.downbeats + start) for t, start in zip(tracks, starts, strict=True)], meter

    @cached_property
    def sung(self) -> tuple[bool | None, float | None]:
        """Whether somebody sings, and how likely that is right."""
        found = [stretch.voices for stretch in self.stretches]
        return of_vocals(sung_signs(found)) if any(one.heard_s for one in found) else (None, None)

    @cached_property
    def loudness_steps(self) -> np.ndarray:
        """Weighted mean squares of every 100 ms of the native stream, from the start of what was asked for on; none without a meter."""
        if self._meter is None:
            return np.zeros(0)
        _ = self.loudness  # the meter has its steps as soon as it has a result
        return self._meter.steps

    # --- facts, in the order of the record ---

    @fact("pulse", compare=lambda fact, claim: compare_tempi(fact.bpm, claim))
    def tempo(self) -> Tempo:
        """Beats per minute."""
        return Tempo() if self.bpm is None else Tempo(self.bpm, octaves(self.bpm))

    @fact("chords", "pitches", compare=compare_keys)
    def key(self) -> Key | None:
        """The key that sounds longest, where chords sound and one fits."""
        return max(self.key_parts, key=lambda key: len(self.key_parts[key].starts), default=None)

    @fact("chords", "pitches")
    def keys(self) -> tuple[KeySpan, ...]:
        """Every key in its order."""
        found = [(start, end, key, self.harmony.within([(start, end)]).confidence(key)) for start, end, key in self.harmony.keys]
        share = self._audio.share
        return tuple(KeySpan(round(start, 3), round(end, 3), key.name, round(sure * share, 2)) for start, end, key, sure in found)

    @fact("chords", "pitches")
    def scale(self) -> str | None:
        """The church mode on the tonic of the key, where it is neither major nor minor."""
        return self.key_parts[self.key].scale(self.key) if self.key else None

    @fact("pulse", "chords", compare=compare_meters)
    def meter(self) -> str | None:
        """The time signature."""
        return self.counted[1]

    @fact("pulse", "chords")
    def beats(self) -> tuple[Beat, ...]:
        """Each beat's time and its place in the bar; no place where the meter is not known."""
        tracks, meter = self.counted
        found: list[Beat] = []
        for track in tracks:
            counted = list(zip(track.beats.tolist(), _places(track, meter), strict=True))
            if found and track.bpm and counted[0][0] - found[-1][0] < HALF * 60 / track.bpm:
                del counted[0]
            found += [(round(time, 3), place) for time, place in counted if self._sounds_at(time)]
        return tuple(found)

    @fact("chords")
    def chords(self) -> tuple[Segment, ...]:
        """Chords in Harte's notation."""
        return _rounded(self.chord_spans)

    @fact("pulse", "chords", "units", holds=("vocals",), metered=True)
    def sections(self) -> tuple[FormPart, ...]:
        """Sections by letters, each with its loudness and the one that it repeats."""
        downbeats = np.concatenate([np.zeros(0), *(track.downbeats for track in self.counted[0])])
        found = _rounded(measure_sections([stretch.units for stretch in self.stretches if stretch.units], downbeats))
        firsts: dict[str, int] = {}
        parts = []
        for index, section in enumerate(found):
            first = firsts.setdefault(section.label, index)
            level = within(self.loudness_steps, section.start - self.parts[0].start_s, section.end - self.parts[0].start_s)
            parts.append(FormPart(section.start, section.end, section.label, None, level, None if first == index else first))
        return tuple(parts)

    @fact(metered=True)
    def loudness(self) -> Loudness:
        """Loudness of the native stream."""
        return self._meter.result() if self._meter else Loudness()

    @fact("texture", metered=True)
    def dynamics(self) -> Dynamics:
        """The loudest and the quietest part, onsets a second, brightness."""
        begins = self.parts[0].start_s
        extreme = extremes(self.loudness_steps, [(start - begins, end - begins) for start, end in self.sounding])
        loudest, quietest = (one and LoudPart(one.start + begins, one.end + begins, one.lufs) for one in extreme)
        textures = [stretch.texture for stretch in self.stretches]
        return Dynamics(loudest, quietest, onsets_per_s(textures), brightness(textures))

    @fact("voices", compare=lambda fact, claim: compare_voices(fact.present, claim and claim.present))
    def vocals(self) -> Voices:
        """Who sings or speaks where."""
        present, _ = self.sung
        return Voices(present, spans([stretch.voices for stretch in self.stretches], sung=present is True))

    @fact("tags")
    def tags(self) -> tuple[Tag, ...]:
        """Genre, instruments and mood, where what is named is sure."""
        return name_tags([stretch.tags for stretch in self.stretches if stretch.tags is not None])

    def _confidence(self, names: Collection[str]) -> Confidence:
        """The probability that the tempo is within 4 % of the right one, and that the others are right; None for all but these names.

        Of a damaged song it is that times the share that was decoded: what is missing may be otherwise.
        """
        found = {
            "tempo": of_tempo(self.bpm, self.beat_signs) if "tempo" in names else None,
            "key": self._key_confidence() if "key" in names else None,
            "meter": of_meter(self.meter, self.beat_signs) if "meter" in names else None,
            "vocals": self.sung[1] if "vocals" in names else None,
        }
        return Confidence(**{name: None if value is None else value * self._audio.share for name, value in found.items()})

    def _key_confidence(self) -> float | None:
        """That the key is the right one of the song: of its part, times its share of the time with a key."""
        if self.key is None:
            return None
        lengths = {key: len(part.starts) for key, part in self.key_parts.items()}
        return self.key_parts[self.key].confidence(self.key) * lengths[self.key] / sum(lengths.values())

    def _sounds_at(self, time_s: float) -> bool:
        at = bisect_right(self.sounding, (time_s + NEAR_S, np.inf)) - 1
        return at >= 0 and time_s <= self.sounding[at][1] + NEAR_S


def _places(track: BeatTrack, meter: str | None) -> list[int | None]:
    """Of each beat in its bar, from 1; None where there are no bars."""
    if meter is None or not len(track.downbeats):
        return [None] * len(track.beats)
    first, bar = int(abs(track.beats - track.downbeats[0]).argmin()), int(meter.partition("/")[0])
    return [(index - first) % bar + 1 for index in range(len(track.beats))]


def _rounded(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    return tuple(Segment(round(segment.start, 3), round(segment.end, 3), segment.label) for segment in segments)
