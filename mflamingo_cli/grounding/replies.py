"""What facts answer: one function for each kind of question that they decide, facts and the words of the question in, a sentence out.

Nothing is guessed: what was not measured is said to be unknown. Times are seconds from the start of the file, shown as m:ss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median
from typing import NamedTuple, TypeVar

from mflamingo_cli.core.audio import Sound
from mflamingo_cli.grounding import likely, listed, sure
from mflamingo_cli.grounding.prose import harmony
from mflamingo_cli.grounding.prose.captions import tell
from mflamingo_cli.grounding.prose.slots import COUNTED, FAST_BPM, LOUD_LUFS, QUIET_LUFS, SLOW_BPM, style, turn_of_level
from mflamingo_cli.measure import Facts, Key
from mflamingo_cli.measure.compare import TEMPO_TOLERANCE, compare_keys
from mflamingo_cli.measure.facts import pitch_class
from mflamingo_cli.parsers import find_chords, parse_key, short_chord
from mflamingo_cli.schema import FormPart, Segment, TagKind
from mflamingo_cli.text import clock, number, octave

Span = TypeVar("Span", bound=Segment)
SAME_BPM = 1.0  # a whole number of beats per minute names a tempo that rounds to it
MOST_SPANS = 6  # of singing that are told
BEGINS_S = 3.0  # as exactly as starts of sections are measured
BAR_BEATS = 4  # whose length is exact enough where beats stay in frames of 20 ms: 1 % at 120 BPM
STEADY_BEATS = 16  # beats that have a tempo of their own: the median of so many bars, whatever one missed beat does
WANDERING = 1.6  # times as fast within a song; more is an octave of the pulse, not a change of tempo
MIX_TEMPO = 0.08  # what a player's pitch fader reaches
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth", "thirteenth",
    "fourteenth", "fifteenth", "sixteenth",
)  # fmt: skip
SCALES: Mapping[str, tuple[int, ...]] = {  # semitones
    "major": harmony.SCALES["major"],
    "minor": harmony.SCALES["minor"],
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
SIGNED = {"sharp": "FCGDAEB", "flat": "BEADGCF"}  # in the order of a key signature
PENTATONIC = {"major": (0, 1, 2, 4, 5), "minor": (0, 2, 3, 4, 6)}  # which of those


@dataclass(frozen=True)
class Known:
    """A song as far as it is known: what was measured, and what its file says."""

    facts: Facts
    sound: Sound


class FactAnswer(NamedTuple):
    """A sentence, and whether it answers; where not, it says that nothing is known, and what is."""

    text: str
    answers: bool = True


Words = Mapping[str, str]  # of a question, by what they are: a time, a key, a chord


def unknown(what: str) -> FactAnswer:
    """What could not be measured."""
    return FactAnswer(f"{what} could not be measured.", answers=False)


def _told(known: Known, name: str, missing: str) -> FactAnswer:
    """The sentence of a fact, where it was measured."""
    sentence = tell(name, known.facts)
    return unknown(missing) if sentence is None else FactAnswer(sentence)


def yes_or_no(is_so: bool, confidence: float | None, because: str) -> FactAnswer:
    """Yes or no, with "probably" where it is not sure, and "perhaps" where it is a guess."""
    return FactAnswer(f"{hedged('yes' if is_so else 'no', confidence)}: {because}.")


MORE = ("faster", "quicker", "louder", "longer", "higher", "above", "over", "more")  # than a bound; other words ask for less


def _compared(value: float, bound: float, words: Words, both: tuple[str, str], because: str, confidence: float | None = None) -> FactAnswer:
    """Whether a value is more or less than a bound, or which of the two where a question offers both."""
    if "both" in words:
        return FactAnswer(f"{hedged(both[0] if value > bound else both[1], confidence)}: {because}.")
    return yes_or_no(value > bound if words["than"].lower() in MORE else value < bound, confidence, because)


def hedged(word: str, confidence: float | None) -> str:
    """A word that begins a sentence, after its hedge."""
    return (likely(confidence) + word).capitalize()


# --- tempo -------------------------------------------------------------------------------------------------------------------


def tempo(known: Known, words: Words | None = None) -> FactAnswer:
    """How fast it is, with the octaves it may be felt at where the tempo is not sure."""
    said, found = _told(known, "tempo", "A steady tempo"), known.facts.tempo
    others = listed([octave(other, found.bpm) for other in found.alternatives], "or") if found.bpm else ""
    doubtful = said.answers and others and not sure(known.facts.confidence.tempo)
    return FactAnswer(f"{said.text[:-1]}, or {others}.") if doubtful else said


def tempo_octaves(known: Known, words: Words) -> FactAnswer:
    """Half and double tempo."""
    bpm = known.facts.tempo.bpm
    return (
        unknown("A steady tempo")
        if bpm is None
        else FactAnswer(f"Half the tempo is {octave(bpm / 2, bpm)} BPM, twice the tempo {octave(2 * bpm, bpm)} BPM.")
    )


def tempo_changes(known: Known, words: Words) -> FactAnswer:
    """Whether the tempo changes, by the beats of every four bars."""
    if known.facts.tempo.bpm is None:
        return unknown("A steady tempo")
    said, times = tempo(known).text, [time for time, _ in known.facts.beats]
    bars = [60 * BAR_BEATS / (times[at + BAR_BEATS] - times[at]) for at in range(len(times) - BAR_BEATS)]
    local = [median(bars[at : at + STEADY_BEATS]) for at in range(0, len(bars) - STEADY_BEATS + 1, STEADY_BEATS // 2)]
    if not local or max(local) > WANDERING * min(local) or not sure(known.facts.confidence.tempo):
        return FactAnswer(f"{said} Whether it changes is not sure.")
    if max(local) <= (1 + TEMPO_TOLERANCE) * min(local):
        return FactAnswer(f"{said} It does not change by more than {100 * TEMPO_TOLERANCE:.0f} %.")
    return FactAnswer(f"{said} It changes between {number(min(local))} and {number(max(local))} BPM.")


def tempo_than(known: Known, words: Words) -> FactAnswer:
    """Faster or slower than a number of beats per minute: yes or no, or which of the two."""
    bpm, confidence = known.facts.tempo.bpm, known.facts.confidence.tempo
    if bpm is None:
        return unknown("A steady tempo")
    return _compared(bpm, float(words["bpm"]), words, ("faster", "slower"), f"the tempo is {number(bpm)} BPM", confidence)


def tempo_is(known: Known, words: Words) -> FactAnswer:
    """Whether it is a number of beats per minute."""
    bpm = known.facts.tempo.bpm
    if bpm is None:
        return unknown("A steady tempo")
    return yes_or_no(abs(bpm - float(words["bpm"])) <= SAME_BPM, known.facts.confidence.tempo, f"the tempo is {number(bpm)} BPM")


def pace(known: Known, words: Words) -> FactAnswer:
    """Whether it is fast or slow."""
    bpm = known.facts.tempo.bpm
    if bpm is None:
        return unknown("A steady tempo")
    word = "slow" if bpm < SLOW_BPM else "fast" if bpm >= FAST_BPM else "moderate"
    asked = words["pace"].lower() if words["pace"].lower() == "slow" else "fast"  # quick, upbeat, uptempo
    return yes_or_no(asked == word, known.facts.confidence.tempo, f"it is {word}, at {number(bpm)} BPM")


# --- key ---------------------------------------------------------------------------------------------------------------------


def _of_key(say: Callable[[Key, str], str]) -> Callable[[Known, Words], FactAnswer]:
    """A sentence about the key, where one is known; it is given "probably " where that is not sure."""

    def reply(known: Known, words: Words) -> FactAnswer:
        key = known.facts.key
        return unknown("The key") if key is None else FactAnswer(say(key, likely(known.facts.confidence.key)))

    return reply


def mixing_keys(key: Key) -> list[Key]:
    """Keys that mix: the same and its neighbours on the Camelot wheel."""
    return [key, *key.neighbours.values()]


def spelled(letter: str, pitch: int) -> str:
    """A pitch, semitones above C, as a note with that letter: B, 10 -> Bb."""
    off = (pitch - pitch_class(letter) + 6) % 12 - 6
    return letter + ("#" * off if off > 0 else "b" * -off)


def scale(tonic: str, kind: str) -> list[str]:
    """The notes of a scale, a letter each: Bb, major -> Bb C D Eb F G A."""
    first, letters = harmony.LETTERS.index(tonic[0]), harmony.LETTERS
    return [spelled(letters[(first + degree) % 7], pitch_class(tonic) + step) for degree, step in enumerate(SCALES[kind])]


def key_scale(known: Known, words: Words) -> FactAnswer:
    """The notes to play: of the church mode where there is one, else of the key, with its pentatonic."""
    own, said = known.facts.key, key(known)
    if own is None:
        return said
    tonic, _, mode = (known.facts.scale or "").partition(" ")
    if mode in SCALES:
        return FactAnswer(f"{said.text[:-1]}, and its scale is {tonic} {mode}: play {' '.join(scale(tonic, mode))}.")
    notes = scale(own.tonic, own.mode)
    pentatonic = " ".join(notes[degree] for degree in PENTATONIC[own.mode])
    return FactAnswer(f"{said.text[:-1]}: play {' '.join(notes)}, or the {own.mode} pentatonic {pentatonic}.")


def _signature(key: Key, likely: str) -> str:
    signs = [note for note in scale(key.tonic, key.mode) if len(note) > 1]
    kind = "sharp" if signs and signs[0][1] == "#" else "flat"
    signs.sort(key=lambda note: SIGNED[kind].index(note[0]))
    amount = f"{len(signs)} {kind}{'s' * (len(signs) > 1)}: {' '.join(signs)}" if signs else "no sharps or flats"
    return f"{key.name} has {amount}." if not likely else f"It is {likely}in {key.name}, which has {amount}."


def _camelot(key: Key, likely: str) -> str:
    same, *others = mixing_keys(key)
    named = listed([f"{other.camelot} ({other.name})" for other in others])
    return f"It is {likely}in {same.camelot} ({same.name}), which mixes well with itself, {named}."


_mode = _of_key(lambda key, likely: f"{key.mode.capitalize()}: it is {likely}in {key.name}.")
key_codes = _of_key(lambda key, likely: f"It is {likely}in {key.name}: {key.camelot} on the Camelot wheel, {key.openkey} in Open Key.")
key_signature = _of_key(_signature)
key_mixing = _of_key(_camelot)
key_relative = _of_key(lambda key, likely: f"It is {likely}in {key.name}, whose relative key is {key.neighbours['relative key'].name}.")


def key_mode(known: Known, words: Words) -> FactAnswer:
    """Major or minor, and the church mode where it is one."""
    said, mode = _mode(known, words), known.facts.scale
    return FactAnswer(f"{said.text[:-1]}, and its scale is {mode}.") if said.answers and mode else said


key_parallel = _of_key(
    lambda key, likely: f"It is {likely}in {key.name}, whose parallel key is {key.tonic} {'major' if key.mode == 'minor' else 'minor'}."
)


def key(known: Known, words: Words | None = None) -> FactAnswer:
    """The key."""
    return _told(known, "key", "The key")


def key_changes(known: Known, words: Words) -> FactAnswer:
    """The keys that it goes through."""
    spans = known.facts.keys
    if not spans:
        return unknown("The key")
    if len(spans) == 1:
        return FactAnswer(f"The key does not change: {key(known).text[0].lower()}{key(known).text[1:]}")
    least = min((span.confidence for span in spans if span.confidence is not None), default=None)
    return FactAnswer(f"The key {likely(least)}changes: {listed([f'{span.name} from {clock(span.start)}' for span in spans])}.")


def mixing(known: Known, words: Words) -> FactAnswer:
    """What a song to mix with it should be like."""
    bpm, own = known.facts.tempo.bpm, known.facts.key
    if own is None and bpm is None:
        return unknown("Tempo and key")
    parts = []
    if own is not None:
        parts.append("in " + listed([f"{other.camelot} ({other.name})" for other in mixing_keys(own)], "or"))
    if bpm is not None:
        parts.append(f"at {number(bpm * (1 - MIX_TEMPO))} to {number(bpm * (1 + MIX_TEMPO))} BPM")
    unsure = [name for name, value, confidence in (
        ("the tempo", bpm, known.facts.confidence.tempo), ("the key", own, known.facts.confidence.key)
    ) if value is not None and not sure(confidence)]  # fmt: skip
    doubt = f" {listed(unsure).capitalize()} of this one {'is' if len(unsure) == 1 else 'are'} not sure." if unsure else ""
    return FactAnswer(f"A song {', '.join(parts)}.{doubt}")


def named_key(words: Words) -> Key | None:
    """The key that a question names; None where it names a mode alone, as "a minor key" does, whose article is small."""
    asked = words.get("key", "")
    return None if re.match(r"(?:an? )?(?i:major|minor)", asked) else parse_key(asked)


def key_is(known: Known, words: Words) -> FactAnswer:
    """Whether it is in a key, or in a major or minor one."""
    own = known.facts.key
    if own is None:
        return unknown("The key")
    asked = named_key(words)
    is_so = compare_keys(own, asked).agrees if asked else words["key"].lower().endswith(own.mode)
    return yes_or_no(bool(is_so), known.facts.confidence.key, f"it is in {own.name}")


# --- meter -------------------------------------------------------------------------------------------------------------------


def meter(known: Known, words: Words) -> FactAnswer:
    """The time signature."""
    return _told(known, "meter", "The meter")


def meter_changes(known: Known, words: Words) -> FactAnswer:
    """One meter is measured of a song."""
    said = meter(known, words)
    return FactAnswer(f"{said.text[:-1]} as a whole; whether that changes is not measured.", answers=False) if said.answers else said


def meter_is(known: Known, words: Words) -> FactAnswer:
    """Whether it is in a time signature, or a waltz."""
    value = known.facts.meter
    if value is None:
        return unknown("The meter")
    asked = words.get("meter", "3/4").replace(" ", "")
    same = asked == (value if "/" in asked else value.partition("/")[0])
    return yes_or_no(same, known.facts.confidence.meter, f"it is in {value}")


def first_beat(known: Known, words: Words) -> FactAnswer:
    """Where the first beat of the first bar is."""
    ones = [time for time, place in known.facts.beats if place == 1]
    return unknown("Where bars begin") if not ones else FactAnswer(f"The first downbeat is at {ones[0]:.2f} s.")


# --- chords ------------------------------------------------------------------------------------------------------------------


def progression(segments: Sequence[Segment]) -> list[tuple[str, float]]:
    """Chords in their order with their starts, each once as long as it sounds; pauses left out."""
    named = [(name, segment.start) for segment in segments if (name := short_chord(segment.label))]
    return [next(group) for _, group in groupby(named, key=lambda item: item[0])]


def chords(known: Known, words: Words | None = None) -> FactAnswer:
    """The chords that sound longest."""
    return _told(known, "chords", "Chords")


def chord_at(known: Known, words: Words) -> FactAnswer:
    """The chord at a time."""
    at, end_s = seconds(words["time"]), known.sound.end_s
    if not known.facts.chords:
        return unknown("Chords")
    if not known.sound.start_s <= at < end_s:
        return outside(known, at)
    found = _sounding(known.facts.chords, at)
    name = short_chord(found.label) if found else None
    return FactAnswer(f"{name} at {clock(at)}.") if name else FactAnswer(f"No chord sounds at {clock(at)}.")


def outside(known: Known, at: float) -> FactAnswer:
    """A time at which there is no music."""
    return FactAnswer(f"{clock(at)} is outside: the music runs from {clock(known.sound.start_s)} to {clock(known.sound.end_s)}.")


def chord_nth(known: Known, words: Words) -> FactAnswer:
    """The first, second, last chord, and the one after it."""
    found = progression(known.facts.chords)
    if not found:
        return unknown("Chords")
    word = words.get("nth", "last" if words.get("ends", "").lower().startswith(("end", "clos")) else "first").lower()
    index = place_of(word, len(found)) + ("after" in words)
    if index >= len(found):
        return FactAnswer(f"No chord: it has {len(found)}, and the last one is {found[-1][0]} at {clock(found[-1][1])}.")
    return FactAnswer(f"{found[index][0]}, at {clock(found[index][1])}.")


def chord_after(known: Known, words: Words) -> FactAnswer:
    """What follows a chord, most often first."""
    found, asked = [name for name, _ in progression(known.facts.chords)], find_chords(words["chord"])
    if not found:
        return unknown("Chords")
    name = asked[0].value if asked else words["chord"]
    after = [second for first, second in pairwise(found) if first == name]
    if not after:
        return FactAnswer(f"{name} is {'the last chord' if name in found else 'not among its chords'}.")
    return FactAnswer(f"After {name} comes {listed(sorted(set(after), key=lambda other: -after.count(other)), 'or')}.")


def chord_has(known: Known, words: Words) -> FactAnswer:
    """Whether a chord occurs."""
    found, asked = {name for name, _ in progression(known.facts.chords)}, find_chords(words["chord"])
    if not found or not asked:
        return unknown("Chords")
    first = next((at for name, at in progression(known.facts.chords) if name == asked[0].value), None)
    return (
        FactAnswer(f"No: {asked[0].value} is not among its chords.")
        if first is None
        else FactAnswer(f"Yes: {asked[0].value}, first at {clock(first)}.")
    )


def chord_count(known: Known, words: Words) -> FactAnswer:
    """How many chords there are, and how often they change."""
    found = progression(known.facts.chords)
    if not found:
        return unknown("Chords")
    each = f", on average every {number(known.sound.duration_s / len(found))} s" if "each" in words and len(found) > 1 else ""
    return FactAnswer(f"{len({name for name, _ in found})} different chords, which change {len(found) - 1} times{each}.")


def chords_of_section(known: Known, words: Words) -> FactAnswer:
    """The chords of a section by its letter."""
    parts = lettered(known, words["letter"])
    if not parts:
        return no_section(known, words["letter"].upper())
    inside = [segment for segment in known.facts.chords if segment.end > parts[0].start and segment.start < parts[0].end]
    names = [name for name, _ in progression(inside)]
    return FactAnswer(f"{parts[0].label}, from {clock(parts[0].start)}: {' - '.join(names)}.") if names else unknown("Its chords")


# --- sections ----------------------------------------------------------------------------------------------------------------


def _form(known: Known) -> str:
    return ", ".join(f"{section.label} {clock(section.start)}" for section in known.facts.sections)


def lettered(known: Known, letter: str) -> list[FormPart]:
    """The sections of a letter, in their order."""
    return [section for section in known.facts.sections if section.label == letter.upper()]


def no_section(known: Known, letter: str | None = None) -> FactAnswer:
    """Which sections there are instead of one of a letter or, without it, of a number."""
    count = len(known.facts.sections)
    if not count:
        return unknown("Sections")
    said = f"is no section {letter}" if letter else f"are only {count} sections" if count > 1 else "is only 1 section"
    return FactAnswer(f"There {said}: {_form(known)}.")


def form(known: Known, words: Words) -> FactAnswer:
    """All sections with their starts."""
    count = len(known.facts.sections)
    return FactAnswer(f"{count} section{'s' * (count > 1)}: {_form(known)}.") if count else unknown("Sections")


def section_nth(known: Known, words: Words) -> FactAnswer:
    """When the first, second or last section begins."""
    sections, word = known.facts.sections, words["nth"].lower()
    if not sections:
        return unknown("Sections")
    index = place_of(word, len(sections))
    if index >= len(sections):
        return no_section(known)
    found = sections[index]
    return FactAnswer(f"The {word} section is {found.label}, {clock(found.start)} to {clock(found.end)}.")


def section_start(known: Known, words: Words) -> FactAnswer:
    """When the sections of a letter begin, how often there are, how long they last."""
    letter = words["letter"].upper()
    parts = lettered(known, letter)
    if not parts:
        return no_section(known, letter)
    spans = listed([f"{clock(part.start)} to {clock(part.end)}" for part in parts])
    return (
        FactAnswer(f"Section {letter}: {spans}.") if len(parts) == 1 else FactAnswer(f"Section {letter} comes {len(parts)} times: {spans}.")
    )


def section_back(known: Known, words: Words) -> FactAnswer:
    """Whether a section comes back."""
    said, parts = section_start(known, words), lettered(known, words["letter"])
    if len(parts) == 1:
        return FactAnswer(f"No: section {parts[0].label} comes once, from {clock(parts[0].start)} to {clock(parts[0].end)}.")
    return FactAnswer(f"Yes: {said.text[0].lower() + said.text[1:]}") if parts else said


def section_at(known: Known, words: Words) -> FactAnswer:
    """The section at a time."""
    at = seconds(words["time"])
    found = _sounding(known.facts.sections, at)
    if not known.facts.sections:
        return unknown("Sections")
    return FactAnswer(f"Section {found.label}, {clock(found.start)} to {clock(found.end)}.") if found else outside(known, at)


def section_is(known: Known, words: Words) -> FactAnswer:
    """Whether a time is in a section."""
    at, letter = seconds(words["time"]), words["letter"].upper()
    if not known.facts.sections:
        return unknown("Sections")
    found = _sounding(known.facts.sections, at)
    if found is None:
        return outside(known, at)
    return yes_or_no(found.label == letter, None, f"it is in section {found.label}, {clock(found.start)} to {clock(found.end)}")


def moment(known: Known, words: Words) -> FactAnswer:
    """What begins or goes on at a time: the section, how much louder or softer it is than the one before, and the chord."""
    at = seconds(words["time"])
    if not known.facts.sections and not known.facts.chords:
        return unknown("Sections and chords")
    if not known.sound.start_s <= at < known.sound.end_s:
        return outside(known, at)
    section, chord = _sounding(known.facts.sections, at), _sounding(known.facts.chords, at)
    begins = next((section for section in known.facts.sections[1:] if abs(section.start - at) <= BEGINS_S), None)
    told = [f"Section {begins.label} begins around {clock(begins.start)}{_step(known, begins)}"] if begins else []
    told += [f"It is in section {section.label}, {clock(section.start)} to {clock(section.end)}"] if section and not begins else []
    name = short_chord(chord.label) if chord else None
    told += [f"{'the' if told else 'The'} chord is {name}"] if name else []
    return FactAnswer(f"{'; '.join(told)}.") if told else FactAnswer(f"No chord sounds at {clock(at)}.")


def ends(known: Known, words: Words) -> FactAnswer:
    """How it begins, or how it ends: the section and the chord there."""
    sections, found, last = known.facts.sections, progression(known.facts.chords), "last" in words
    place = -1 if last else 0
    told = []
    if len(sections) > 1:
        section = sections[place]
        span = f"from {clock(section.start)}{_step(known, section)}" if last else f"until {clock(section.end)}"
        told.append(f"It {'ends' if last else 'begins'} with section {section.label}, {span}")
    if found:
        told.append(f"{'the' if told else 'The'} {'last' if last else 'first'} chord is {found[place][0]}")
    return FactAnswer(f"{'; '.join(told)}.") if told else unknown(f"How it {'ends' if last else 'begins'}")


def _step(known: Known, section: FormPart) -> str:
    """How much louder or softer a section is than the one before, where that is measured and can be heard."""
    before = next((one for one in known.facts.sections if one.end == section.start), None)
    if before is None or before.lufs is None or section.lufs is None or not (turn := turn_of_level(before, section)):
        return ""
    return f", {number(abs(section.lufs - before.lufs))} LU {listed(sorted(turn))} than {before.label} before it"


def _sounding(spans: Sequence[Span], at: float) -> Span | None:
    """The span in which a time lies."""
    return next((span for span in spans if span.start <= at < span.end), None)


def named_section(known: Known, words: Words) -> FactAnswer:
    """A chorus, verse or drop: sections have letters, not names."""
    word = words["part"].lower()
    if not known.facts.sections:
        return FactAnswer(f"Where the {word} is could not be measured.", answers=False)
    return FactAnswer(f"Which section is the {word} cannot be told; ask for one by its letter: {_form(known)}.", answers=False)


# --- loudness, length, file ----------------------------------------------------------------------------------------------------


def loudness(known: Known, words: Words) -> FactAnswer:
    """The integrated loudness."""
    level, said = known.facts.loudness.integrated_lufs, _told(known, "loudness", "The loudness")
    word = "" if level is None else "loud" if level >= LOUD_LUFS else "quiet" if level < QUIET_LUFS else ""
    return FactAnswer(f"{said.text[:-1]}, which is {word}.") if word else said


def loudness_than(known: Known, words: Words) -> FactAnswer:
    """Louder or quieter than a level."""
    level = known.facts.loudness.integrated_lufs
    if level is None:
        return unknown("The loudness")
    return _compared(level, -abs(float(words["lufs"])), words, ("louder", "quieter"), f"the loudness is {number(level)} LUFS")


def volume(known: Known, words: Words) -> FactAnswer:
    """Whether it is loud or quiet."""
    level = known.facts.loudness.integrated_lufs
    if level is None:
        return unknown("The loudness")
    if QUIET_LUFS <= level < LOUD_LUFS:
        return FactAnswer(f"Neither loud nor quiet: the loudness is {number(level)} LUFS.")
    return chosen("loud" if level >= LOUD_LUFS else "quiet", words, "volume", f"the loudness is {number(level)} LUFS")


def chosen(word: str, words: Words, slot: str, because: str) -> FactAnswer:
    """Which of two it is, where a question offers both; else whether it is the one that is asked about."""
    if "or" in words:
        return FactAnswer(f"{word.capitalize()}: {because}.")
    return yes_or_no(words[slot].lower() == word, None, because)


def clipping(known: Known, words: Words) -> FactAnswer:
    """Whether samples stay at full scale."""
    clipped = known.facts.loudness.clipped
    if clipped is None:
        return unknown("Clipping")
    times = "once" if clipped.runs == 1 else f"{clipped.runs} times"
    how_often = f"samples stay at full scale or beyond it {times}, {number(1000 * clipped.seconds)} ms in all"
    if "count" in words and clipped.runs:
        return FactAnswer(f"{how_often.capitalize()}.")
    return yes_or_no(bool(clipped.runs), None, how_often if clipped.runs else "no three samples in a row are at full scale")


def true_peak(known: Known, words: Words) -> FactAnswer:
    """The highest level of the waveform between samples."""
    peak = known.facts.loudness.true_peak_dbtp
    if peak is None:
        return unknown("The peak")
    beyond = "above full scale, so a player may clip it" if peak > 0 else "so it stays below full scale"
    return FactAnswer(f"Its true peak is {number(peak)} dBTP, {beyond}.")


def extreme(known: Known, words: Words) -> FactAnswer:
    """Where it is loudest or quietest."""
    word = "loudest" if words["extreme"].lower().startswith("loud") else "quietest"
    part = getattr(known.facts.dynamics, word)
    if part is None:
        return unknown(f"The {word} part")
    return FactAnswer(f"The {word} part is {clock(part.start)} to {clock(part.end)}, at {number(part.lufs)} LUFS.")


def density(known: Known, words: Words) -> FactAnswer:
    """How many sounds begin in a second."""
    found = known.facts.dynamics.onsets_per_s
    return unknown("The density") if found is None else FactAnswer(f"On average, {number(found)} notes or hits begin in a second.")


def brightness(known: Known, words: Words) -> FactAnswer:
    """The spectral centroid."""
    found = known.facts.dynamics.brightness_hz
    return unknown("The brightness") if found is None else FactAnswer(f"The spectral centroid is at {number(found / 1000)} kHz.")


def dynamics(known: Known, words: Words) -> FactAnswer:
    """The loudness range."""
    level = known.facts.loudness.range_lu
    return unknown("The loudness range") if level is None else FactAnswer(f"The loudness range is {number(level)} LU.")


def duration(known: Known, words: Words) -> FactAnswer:
    """How long it is."""
    length_s = known.sound.duration_s
    return FactAnswer(f"It lasts {clock(round(length_s))}{f' ({length_s:.0f} s)' if 'seconds' in words else ''}.")


def duration_than(known: Known, words: Words) -> FactAnswer:
    """Longer or shorter than a time."""
    length_s = known.sound.duration_s
    return _compared(length_s, seconds(words["time"]), words, ("longer", "shorter"), f"it lasts {clock(round(length_s))}")


def file_format(known: Known, words: Words) -> FactAnswer:
    """Codec, sample rate and channels of the file."""
    source = known.sound.source
    channels = {1: "mono", 2: "stereo"}.get(source.channels, f"{source.channels} channels")
    return FactAnswer(f"The file is {source.codec}, {source.sample_rate / 1000:g} kHz, {channels}.")


def tag(known: Known, words: Words, name: str, asked: str) -> FactAnswer:
    """What the file's own tags say."""
    value = getattr(known.sound.source.tags, name, None)
    return (
        FactAnswer(f"The file's tags name the {asked} {value}.")
        if value
        else FactAnswer(f"I cannot tell the {asked} from the sound, and the file names none.", False)
    )


def vocals(known: Known, words: Words) -> FactAnswer:
    """Whether somebody sings, and where."""
    voices, sureness = known.facts.vocals, known.facts.confidence.vocals
    if voices.present is None:
        return FactAnswer("Whether somebody sings is not clear.", answers=False)
    spans = [f"{clock(span.start)} to {clock(span.end)}" for span in voices.spans if span.label == "singing"]
    where = (
        f", {listed(spans[:MOST_SPANS])}" if spans and len(spans) <= MOST_SPANS else f", first at {spans[0].split()[0]}" if spans else ""
    )
    if "when" in words and voices.present:
        return FactAnswer(f"Somebody {likely(sureness)}sings{where}.")
    if "who" in words:
        if not voices.present:
            return FactAnswer(f"{hedged('nobody', sureness)} sings.")
        return FactAnswer(f"Somebody {likely(sureness)}sings{where}; more of the voice I cannot tell from the sound.", answers=False)
    because = f"somebody sings{where}" if voices.present else "nobody sings"
    return yes_or_no(voices.present != ("without" in words), sureness, because)


def named(known: Known, words: Words, kind: TagKind) -> FactAnswer:
    """What is heard of instruments, genre or mood; what is not named may be there all the same."""
    names = [tag.name for tag in known.facts.tags if tag.kind == kind]
    if not names:
        return FactAnswer(f"I cannot tell the {kind} from the sound.", answers=False)
    forms = {"instruments": "I hear {}; there may be others.", "genre": "It sounds like {}.", "mood": "It sounds {}."}
    return FactAnswer(forms[kind].format(style(names) if kind == "genre" else listed(names)))


def confidence(known: Known, words: Words) -> FactAnswer:
    """How sure tempo, key and meter are."""
    names = ("tempo", "key", "meter", "vocals")
    asked = [name for name in names if name in f"{words.get('of')} {words.get('about')}".lower()]
    values = [(name, getattr(known.facts.confidence, name)) for name in asked or names]
    shares = [f"{name} {100 * value:.0f} %" for name, value in values if value is not None]
    return FactAnswer(f"Probability of being right: {', '.join(shares)}.") if shares else unknown("Tempo, key and meter")


# --- words -------------------------------------------------------------------------------------------------------------------


def seconds(time: str) -> float:
    """A time as it is asked about: 1:30, 0:30, 90 s, three minutes."""
    if ":" in time:
        return float(sum(float(part) * 60**place for place, part in enumerate(reversed(time.split(":")))))
    amount, unit = re.findall(r"[\d.]+|[a-z]+", time.lower())[:2]
    value = float(amount) if amount[0].isdigit() else 1.0 if amount in ("a", "an") else COUNTED.index(amount) + 1.0
    return value * (60 if unit.startswith("m") else 1)


def place_of(word: str, count: int) -> int:
    """The place of the first, second, last of so many, from 0."""
    return count - 1 if word == "last" else ordinal(word)


def ordinal(word: str) -> int:
    """The index of the first, second, 3rd one."""
    return ORDINALS.index(word) if word in ORDINALS else int(re.sub(r"\D", "", word)) - 1
