"""Facts -> slots: everything that the phrase grammar may say of a song, in words, and the conditions under which lines are said.

A slot is there only where its fact is known; what is not sure has slots of its own (`likely_key`), so that no line can say it as if it
were. Times are m:ss, levels as `-9.8`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from mflamingo_cli.grounding import likely, listed, main_chords, sure, told_chords
from mflamingo_cli.grounding.prose import harmony
from mflamingo_cli.measure import Facts
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.measure.grid import describe
from mflamingo_cli.schema import FormPart, LoudPart, Segment
from mflamingo_cli.text import clock, number

COUNTED = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SLOW_BPM, FAST_BPM = 80, 120  # below, and from
VERY_SLOW_BPM, VERY_FAST_BPM = 60, 160  # below, and from
LOUD_LUFS, QUIET_LUFS = -11, -20  # from, and below
NARROW_LU, WIDE_LU = 4.0, 10.0  # of loudness range: up to, and from (EBU Tech 3342; pop masters lie around 4 to 7)
VERY_LOUD_LUFS = -8.0  # from: louder than any streaming service plays
LOOPED, ALL_LOOP = 0.5, 0.9  # share of the harmony from which a loop carries it, and from which it is all of it
WANDERS, MANY_CHORDS = 0.3, 8  # share of a loop below which no loop settles in, where so many chords follow each other
EARLY_S, LATE_S = 8.0, 30.0  # of the first singing: up to, and from
THROUGHOUT = 0.6  # share of the song that is sung
ONE_CHORD = 0.85  # share of the harmony of one chord
CENTRED = 0.5  # the same, from which the others are told beside it
CLIPS = 10  # runs at full scale from which they are told: fewer are single peaks, 1 ms in all, which nobody hears
FULL_SCALE_DB = 0.05  # a peak nearer to full scale is shown as 0 dBTP: neither above nor below it
EDGE_S = 1.0  # of the quietest part from an end of the song: it is its fade
SEVERAL_BARS = {0.5: "twice a bar", 1.0: "every bar", 2.0: "every two bars", 4.0: "every four bars"}
RATE_TOLERANCE = 0.12  # of the median length of a chord
DEGREE_NAMES = {
    "V": "the dominant", "v": "the minor dominant", "IV": "the subdominant", "iv": "the minor subdominant", "VII": "the subtonic",
    "bVII": "the flat seventh", "VI": "the submediant", "vi": "the submediant", "ii": "the supertonic", "III": "the mediant",
    "iii": "the mediant", "vii°": "the leading tone", "bII": "the Neapolitan", "ii°": "the supertonic",
}  # fmt: skip
PIECES = ("classical", "ambient", "jazz")  # genres of pieces rather than tracks
ADJECTIVES = ("classical", "electronic", "ambient", "latin", "country")  # genres that need a noun
PLURAL = ("strings", "drums", "vocals")
STEP_LU = 3.0  # between two sections: a change of level that everybody hears
MOST_LETTERS = 12  # of a form that is written out
MODULATION = 5.0  # how much a change of key matters among the moments of a song; a voice that enters has 3

SLOTS: Mapping[str, str] = {
    "tempo": "bpm likely_bpm",
    "key": "key likely_key key_spans",
    "wheel": "camelot open_key",
    "scale": "scale",
    "meter": "meter likely_meter",
    "chords": "loop loop_chords loop_count loop_percent chords chord others",
    "cadence": "home home_name",
    "borrowed": "borrowed parallel",
    "rate": "rate",
    "genre": "genre style",
    "mood": "mood",
    "instruments": "instruments",
    "vocals": "voice sung_from sung_until sung_part",
    "sections": "shape section_count ideas form returning return_count",
    "loudness": "lufs",
    "range": "range",
    "peak": "peak",
    "clipping": "clipped",
    "dynamics": "loudest_at quietest_at",
    "density": "onsets",
    "brightness": "brightness",
    "duration": "duration",
    "": "thing at letter here step key_second key_second_at "
    "maybe maybe_bpm maybe_key maybe_meter tempo_sure key_sure meter_sure vocals_sure",
}
"""Every slot by the fact that it tells; those of "" tell none, or one of a moment."""

TELLS: Mapping[str, str] = {slot: fact for fact, slots in SLOTS.items() for slot in slots.split()}
CONDITIONS = frozenset({
    "very_slow", "slow", "moderate", "fast", "very_fast", "constant", "drifts", "threes", "modal", "keyed", "looped", "wanders",
    "all_loop", "two_chords", "one_chord", "centred", "one_borrowed", "sung", "unsung", "maybe_sung", "maybe_unsung", "throughout",
    "late", "early", "plural", "one_mood", "one_section", "economical", "onward", "returns", "one_returns", "anchored", "long",
    "loud", "very_loud", "quiet",
    "level", "narrow", "wide", "over", "under", "clips", "clean", "changes_key", "steady_key", "new", "back", "last", "enters",
    "leaves", "louder", "softer",
})  # fmt: skip
"""Every condition; the last seven are those of a moment."""


@dataclass(frozen=True)
class Slots:
    """What is known of a song, as the grammar says it."""

    values: dict[str, str]
    conditions: frozenset[str]
    scenes: tuple[Scene, ...] = ()

    @property
    def facts(self) -> set[str]:
        """The facts that can be told."""
        return {TELLS[slot] for slot in self.values} - {""}


@dataclass(frozen=True)
class Scene:
    """A moment of the song at which a section begins: its slots, what changes there, and how much it matters."""

    values: dict[str, str]
    conditions: frozenset[str]
    weight: float
    start_s: float
    rule: str = "scene"


def slots_of(facts: Facts, duration_s: float | None = None) -> Slots:
    """Everything that can be said of a song."""
    song = _Song(facts, duration_s)
    said = [*song.pulse(), *song.tonality(), *song.harmony(), *song.sound(), *song.form(), *song.level(), *song.sureness()]
    values = dict(one for one in said if isinstance(one, tuple))
    conditions = frozenset(one for one in said if isinstance(one, str))
    return Slots(values, conditions, tuple(song.scenes()))


def style(genres: Sequence[str]) -> str:
    """Genres as nouns: "jazz and electronic music"."""
    nouns = sorted(genres, key=lambda name: name in ADJECTIVES)
    return listed(nouns) + " music" * (nouns[-1] in ADJECTIVES)


Said = Iterator[tuple[str, str] | str]  # slots with their words, and conditions


@dataclass(frozen=True)
class _Song:
    """One song on its way into slots: each method gives what one kind of facts lets one say."""

    facts: Facts
    duration_s: float | None

    def sureness(self) -> Said:
        """How sure each value is, and the keys that it goes through."""
        for name, confidence in vars(self.facts.confidence).items():
            if confidence is not None:
                yield f"{name}_sure", f"{100 * confidence:.0f} %"
        tempo, key, meter = (getattr(self.facts.confidence, name) for name in ("tempo", "key", "meter"))
        for slot, confidences in (("maybe_bpm", [tempo]), ("maybe_key", [key]), ("maybe_meter", [meter]), ("maybe", [tempo, key])):
            least = min((confidence for confidence in confidences if confidence is not None), default=None)
            yield slot, likely(least).strip()
        if len(self.facts.keys) == 1:
            yield "steady_key"
        elif self.facts.keys:
            yield "changes_key"
            starts: dict[str, list[str]] = {}
            for span in self.facts.keys:
                starts.setdefault(span.name, []).append(clock(span.start))
            yield "key_spans", listed([f"{name} (from {listed(times)})" for name, times in starts.items()])

    # --- tempo, meter -------------------------------------------------------------------------------------------------------

    def pulse(self) -> Said:
        """Tempo and meter."""
        bpm, confidence = self.facts.tempo.bpm, self.facts.confidence
        if bpm is not None and sure(confidence.tempo):
            yield "bpm", number(bpm)
            yield from _pace(bpm)
            grid, segments = describe(self.facts.beats)
            if len(segments) > 1:
                yield "drifts"
            elif grid is not None and grid.constant:
                yield "constant"
        elif bpm is not None:
            yield "likely_bpm", number(bpm)
        if self.facts.meter:
            yield ("meter" if sure(confidence.meter) else "likely_meter"), self.facts.meter
            if int(self.facts.meter.split("/")[0]) % 3 == 0:
                yield "threes"

    # --- key and chords -----------------------------------------------------------------------------------------------------

    @property
    def key(self) -> Key | None:
        """The key where it is sure: only then degrees are counted from it."""
        return self.facts.key if sure(self.facts.confidence.key) else None

    @cached_property
    def chords(self) -> list[harmony.PlayedChord]:
        """The chords in their order."""
        return [replace(chord, name=self._spelled(chord.name)) for chord in harmony.progression(self.facts.chords)]

    def _spelled(self, name: str) -> str:
        """A chord as the key spells it, sure or not: F# in D flat major is Gb."""
        return harmony.spell(name, self.facts.key) if self.facts.key else name

    @cached_property
    def loop(self) -> harmony.ChordLoop | None:
        """The loop that carries the harmony."""
        loop = harmony.find_loop(self.chords, [section.start for section in self.facts.sections])
        return loop if loop and loop.share >= WANDERS else None

    def tonality(self) -> Said:
        """Key, mode and changes of key."""
        key = self.facts.key
        if key is None:
            return
        if self.key is None:
            yield "likely_key", key.name
            return
        yield "key", key.name
        yield "camelot", key.camelot
        yield "open_key", key.openkey
        yield "parallel", harmony.PARALLEL[key.mode]
        if self.facts.scale:
            yield "modal"
            yield "scale", self.facts.scale

    def harmony(self) -> Said:
        """Chords, their loop and what the key makes of them."""
        names = [self._spelled(name) for name in main_chords(self.facts)]
        if not self.chords or not names:
            return
        first, share = harmony.longest(self.chords)
        if len(names) == 1 or share >= ONE_CHORD:
            yield "one_chord"
            yield "chord", first
        else:
            yield "chords", listed(names)
            if len(names) == 2:
                yield "two_chords"
            elif share >= CENTRED and (others := self._beside(first, names)):
                yield "centred"
                yield "chord", first
                yield "others", listed(others)
        yield from self._degrees(names)
        yield from self._rate()

    def _beside(self, first: str, names: Sequence[str]) -> list[str]:
        """The chords beside the first that are not the same one with other notes on top: Am7 is not beside Am."""
        alone = (chord for segment in self.facts.chords for chord in harmony.progression([segment]))
        triads = {self._spelled(chord.name): chord.triad for chord in alone}
        return [name for name in names if triads.get(name) != triads.get(first)]

    def _degrees(self, names: Sequence[str]) -> Said:
        """The loop, its degrees where the key is sure, and what the key makes of the chords."""
        loop = self.loop
        told = {self._spelled(name) for name in told_chords(self.facts)}
        if loop and loop.share >= LOOPED and all(chord.name in told for chord in loop.chords):
            yield "looped"
            yield "loop_chords", listed([chord.name for chord in loop.chords])
            if len({chord.triad for chord in loop.chords}) == len(loop.chords):
                yield "loop_count", _count(len(loop.chords))
            yield "loop_percent", f"{100 * loop.share:.0f}"
            if self.key:
                yield "loop", harmony.spelled(harmony.degrees(loop.chords, self.key))
            if len(loop.chords) == 2:
                yield "two_chords"
            if loop.share >= ALL_LOOP:
                yield "all_loop"
        elif len(self.chords) >= MANY_CHORDS and loop is None:
            yield "wanders"
        if self.key is None:
            return
        yield "keyed"
        foreign = [chord.name for chord in harmony.borrowed(self.chords, self.key) if chord.name in names]
        if foreign:
            yield "borrowed", listed(foreign)
            if len(foreign) == 1:
                yield "one_borrowed"
        home = harmony.comes_home(self.chords, self.key)
        name = DEGREE_NAMES.get(harmony.degree(home.root, home.third, self.key)) if home else None
        if home and name and home.name in names:
            yield "home", home.name
            yield "home_name", name

    def _rate(self) -> Said:
        """How often chords change, in bars, where that is regular."""
        bars = [time for time, place in self.facts.beats if place == 1]
        if len(bars) < 8 or len(self.chords) < 8:
            return
        bar_s = sorted(after - before for before, after in pairwise(bars))[len(bars) // 2 - 1]
        chord_s = sorted(chord.seconds for chord in self.chords)[len(self.chords) // 2]
        for bars_each, words in SEVERAL_BARS.items():
            if abs(chord_s / bar_s / bars_each - 1) <= RATE_TOLERANCE:
                yield "rate", words

    # --- what it sounds like ------------------------------------------------------------------------------------------------

    def sound(self) -> Said:
        """Genre, mood, instruments and voice."""
        for kind in ("genre", "mood", "instruments"):
            if names := self._tagged(kind):
                yield kind, listed(names)
        if len(self._tagged("mood")) == 1:
            yield "one_mood"
        if len(names := self._tagged("instruments")) > 1 or (names[:1] and names[0] in PLURAL):
            yield "plural"
        genres = self._tagged("genre")
        if genres:
            yield "style", style(genres)
        sung = self.facts.vocals.present
        is_sure = sure(self.facts.confidence.vocals)
        yield "thing", "song" if sung and is_sure else "piece" if genres and genres[0] in PIECES else "track"
        if sung is None:
            return
        yield ("" if is_sure else "maybe_") + ("sung" if sung else "unsung")
        yield "voice", "sung" if sung else "instrumental"
        if sung and is_sure:
            yield from self._singing()

    def _tagged(self, kind: str) -> list[str]:
        """The names of a kind, each once."""
        return list(dict.fromkeys(tag.name for tag in self.facts.tags if tag.kind == kind))

    def _singing(self) -> Said:
        spans = [span for span in self.facts.vocals.spans if span.label == "singing"]
        if not spans or not self.duration_s:
            return
        first, last = spans[0].start, spans[-1].end
        yield "sung_from", clock(first)
        yield "sung_until", clock(last)
        share = sum(span.end - span.start for span in spans) / self.duration_s
        yield "sung_part", "most of it" if share >= THROUGHOUT else "about half of it" if share >= 0.4 else "parts of it"
        if share >= THROUGHOUT:
            yield "throughout"
        if first >= LATE_S:
            yield "late"
        elif first <= EARLY_S:
            yield "early"

    # --- form ---------------------------------------------------------------------------------------------------------------

    def form(self) -> Said:
        """The sections and what comes back among them."""
        sections = self.facts.sections
        if self.duration_s:
            yield "duration", clock(round(self.duration_s))
            if self.duration_s >= 300:
                yield "long"
        if not sections:
            return
        letters = [section.label for section in sections]
        counts = Counter(letters)
        if len(sections) == 1:
            yield "one_section"
            yield "shape", letters[0]
            return
        yield "section_count", _count(len(sections))
        yield "ideas", _count(len(counts))
        if len(sections) <= MOST_LETTERS:
            yield "form", listed([f"{section.label} ({clock(section.start)})" for section in sections])
        letter, times = counts.most_common(1)[0]
        if times > 1:
            yield "returns"
            if sum(count > 1 for count in counts.values()) == 1:
                yield "one_returns"
            if 3 * times >= len(sections):
                yield "anchored"
            yield "returning", letter
            yield "return_count", _times(times)
        if len(sections) >= 4 and 2 * len(counts) <= len(sections):
            yield "economical"
        if len(sections) >= 3 and len(counts) == len(sections):
            yield "onward"

    def scenes(self) -> Iterator[Scene]:
        """Each section after the first with which something changes, and each new key."""
        for old, new in pairwise(span for span in self.facts.keys if self.key and sure(span.confidence)):
            if old.name != new.name:
                values = {"key_second": new.name, "key_second_at": clock(new.start)}
                yield Scene(values, frozenset(), MODULATION, new.start, "modulation")
        seen: set[str] = set()
        returned: set[str] = set()
        sections = self.facts.sections
        for before, section in pairwise(sections):
            seen.add(before.label)
            last = section is sections[-1]
            conditions = {"back" if section.label in seen else "new", *(["last"] if last else [])}
            conditions |= self._voice_turns(before, section)
            values = {"at": clock(section.start), "letter": section.label}
            values |= self._turn_of_chords(before, section, seen)
            conditions |= turn_of_level(before, section)
            if conditions == {"new"} and "here" not in values:
                continue  # that a section begins says nothing to who does not hear what is new in it
            if conditions == {"back"}:
                if section.label in returned:
                    continue  # a return with which nothing changes is told once
                returned.add(section.label)
            if conditions & {"louder", "softer"}:
                values["step"] = number(abs((section.lufs or 0.0) - (before.lufs or 0.0)))
            weight = 1.0 + 2 * bool(conditions & {"enters", "leaves"}) + ("new" in conditions) + ("here" in values) + 0.5 * last
            weight += 1.5 * ("step" in values)
            yield Scene(values, frozenset(conditions), weight, section.start)

    def _voice_turns(self, before: Segment, section: Segment) -> set[str]:
        """Whether a voice enters or leaves with a section."""
        if not self.facts.vocals.present or not sure(self.facts.confidence.vocals):
            return set()
        was, now = (self._sung(part) for part in (before, section))
        return {"enters"} if now and not was else {"leaves"} if was and not now else set()

    def _sung(self, part: Segment) -> bool:
        spans = (span for span in self.facts.vocals.spans if span.label == "singing")
        lasting = sum(max(0.0, min(span.end, part.end) - max(span.start, part.start)) for span in spans)
        return lasting >= 0.5 * (part.end - part.start)

    def _turn_of_chords(self, before: Segment, section: Segment, seen: set[str]) -> dict[str, str]:
        """The degrees of a new section whose chords are others than those before it."""
        if self.key is None or section.label in seen:
            return {}
        was, now = (self._loop_of(part) for part in (before, section))
        if not now or not was or set(now) <= set(was):
            return {}
        if self.loop and self.loop.share >= LOOPED and set(now) == set(harmony.degrees(self.loop.chords, self.key)):
            return {}  # what carries the song is no news
        return {"here": harmony.spelled(now)}

    def _loop_of(self, part: Segment) -> tuple[str, ...]:
        """Degrees of the loop of a section, or of its chords where they are few."""
        assert self.key is not None
        inside = [chord for chord in self.chords if part.start - 0.5 <= chord.start and chord.end <= part.end + 0.5]
        loop = harmony.find_loop(inside)
        chosen = loop.chords if loop and loop.share >= LOOPED else inside if 2 <= len(inside) <= 4 else ()
        return harmony.degrees(chosen, self.key)

    # --- level --------------------------------------------------------------------------------------------------------------

    def _at_an_end(self, part: LoudPart) -> bool:
        """Whether a part is the beginning or the end of the song, which most songs fade into and out of."""
        return part.start < EDGE_S or (self.duration_s is not None and part.end > self.duration_s - EDGE_S)

    def level(self) -> Said:
        """Loudness, its range, and the peak."""
        loudness = self.facts.loudness
        if (lufs := loudness.integrated_lufs) is not None:
            yield "lufs", number(lufs)
            yield "loud" if lufs >= LOUD_LUFS else "quiet" if lufs < QUIET_LUFS else "level"
            if lufs >= VERY_LOUD_LUFS:
                yield "very_loud"
        if (lu := loudness.range_lu) is not None:
            yield "range", number(lu)
            yield "narrow" if lu <= NARROW_LU else "wide" if lu >= WIDE_LU else ""
        if (peak := loudness.true_peak_dbtp) is not None:
            yield "peak", number(peak)
            yield "over" if peak >= FULL_SCALE_DB else "under" if peak <= -FULL_SCALE_DB else ""
        if (clipped := loudness.clipped) is not None:
            yield "clips" if clipped.runs >= CLIPS else "" if clipped.runs else "clean"
            yield "clipped", _times(clipped.runs) if clipped.runs else "nowhere"
        dynamics = self.facts.dynamics
        if dynamics.loudest and dynamics.quietest and not self._at_an_end(dynamics.quietest):
            yield "loudest_at", clock(dynamics.loudest.start)
            yield "quietest_at", clock(dynamics.quietest.start)
        if dynamics.onsets_per_s is not None:
            yield "onsets", number(dynamics.onsets_per_s)
        if dynamics.brightness_hz is not None:
            yield "brightness", number(dynamics.brightness_hz / 1000)


def turn_of_level(before: FormPart, section: FormPart) -> set[str]:
    """Whether a section is clearly louder or softer than the one before it."""
    if before.lufs is None or section.lufs is None or abs(section.lufs - before.lufs) < STEP_LU:
        return set()
    return {"louder" if section.lufs > before.lufs else "softer"}


def _pace(bpm: float) -> Iterator[str]:
    yield "slow" if bpm < SLOW_BPM else "fast" if bpm >= FAST_BPM else "moderate"
    if bpm < VERY_SLOW_BPM:
        yield "very_slow"
    if bpm >= VERY_FAST_BPM:
        yield "very_fast"


def _count(n: int) -> str:
    return COUNTED[n - 1] if n <= len(COUNTED) else str(n)


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{_count(n)} times")
