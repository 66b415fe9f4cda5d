"""Answers that follow from the facts by theory or arithmetic: transposed keys, lengths of notes, chords of a part, what mixes.

As in `replies`: facts and the words of the question in, a sentence out; what was not measured is said to be unknown.
"""

from __future__ import annotations

import re
from itertools import groupby, pairwise

from mflamingo_cli.grounding import NO_ANSWER, lasting_chords, likely, listed, main_chords, sure
from mflamingo_cli.grounding.prose import harmony
from mflamingo_cli.grounding.prose.slots import COUNTED, slots_of, style
from mflamingo_cli.grounding.replies import (
    MIX_TEMPO,
    MOST_SPANS,
    FactAnswer,
    Known,
    Words,
    chords,
    chosen,
    key,
    key_mixing,
    lettered,
    mixing_keys,
    named_key,
    no_section,
    ordinal,
    outside,
    place_of,
    progression,
    scale,
    seconds,
    unknown,
    yes_or_no,
)
from mflamingo_cli.measure import Key
from mflamingo_cli.measure.compare import compare_keys
from mflamingo_cli.measure.facts import pitch_class
from mflamingo_cli.parsers import find_chords, short_chord, sounding
from mflamingo_cli.schema import FormPart
from mflamingo_cli.text import clock, number

WHOLE_BEATS = 4  # of a bar whose beats are quarter notes
NOTES = {"whole": 1, "half": 2, "quarter": 4, "eighth": 8, "sixteenth": 16}  # how many of them are a whole note
KINDS_OF_NOTE = {"dotted": 1.5, "triplet": 2 / 3}
SHARES = {"half": 2, "third": 3, "quarter": 4, "eighth": 8, "sixteenth": 16}  # how many of them are a whole
COUNTS = {word: at + 1 for at, word in enumerate(COUNTED)}  # greater numbers are made digits by `wordings`
BORDER_S = 0.2  # before a section a beat may lie that belongs to it
STEPS = {  # semitones
    "semitone": 1, "half step": 1, "minor second": 1, "tone": 2, "whole tone": 2, "whole step": 2, "major second": 2, "minor third": 3,
    "major third": 4, "fourth": 5, "fifth": 7, "minor sixth": 8, "major sixth": 9, "minor seventh": 10, "major seventh": 11, "octave": 12,
}  # fmt: skip
DEGREES = {"tonic": 0, "subdominant": 5, "dominant": 7}  # semitones above the tonic
STREAMING_LUFS = -14.0  # to which Spotify and YouTube turn songs (Spotify for Artists, "Loudness normalization")
BRIGHT_HZ = (700.0, 2100.0)  # between which nine tenths of 63 recordings lie (README of `measure`)
SAME_LU = 0.5
SAME_S = 1.0
ABOUT = 0.1  # of a length that is "about" another
LOSSLESS = ("flac", "pcm", "wav", "alac", "aiff", "wavpack")
TAG_VERBS = {"instruments": "I hear", "genre": "it sounds like", "mood": "it sounds"}
FIRST_CHORDS = 4  # of the beginning


# --- tempo and meter -----------------------------------------------------------------------------------------------------------


def tempo_between(known: Known, words: Words) -> FactAnswer:
    """Whether the tempo is in a range."""
    bpm = known.facts.tempo.bpm
    if bpm is None:
        return unknown("A steady tempo")
    return _between(bpm, words, known.facts.confidence.tempo, f"the tempo is {number(bpm)} BPM")


def _between(value: float, words: Words, confidence: float | None, because: str) -> FactAnswer:
    low, high = sorted((float(words["low"]), float(words["high"])))
    return yes_or_no(low <= value <= high, confidence, because)


def tempo_scaled(known: Known, words: Words) -> FactAnswer:
    """By how much it has to be faster or slower to reach a tempo; or its tempo when it is so much faster or slower, or a share of it."""
    bpm = known.facts.tempo.bpm
    if bpm is None:
        return unknown("A steady tempo")
    song = f"the song, which is at {likely(known.facts.confidence.tempo)}{number(bpm)} BPM"
    if "bpm" in words:
        percent = 100 * (float(words["bpm"]) / bpm - 1)
        return FactAnswer(f"{words['bpm']} BPM is {number(abs(percent))} % {'faster' if percent >= 0 else 'slower'} than {song}.")
    if "share" in words:
        return FactAnswer(f"{number(bpm * float(words['share']) / 100)} BPM is {words['share']} % of the tempo of {song}.")
    other = bpm * (1 + (-1 if "slower" in words else 1) * float(words["percent"]) / 100)
    return FactAnswer(f"{number(other)} BPM is {words['percent']} % {'slower' if 'slower' in words else 'faster'} than {song}.")


def note_length(known: Known, words: Words) -> FactAnswer:
    """How long a beat, a bar or a note lasts: for delays and loops."""
    bpm = float(words["bpm"]) if "bpm" in words else known.facts.tempo.bpm
    meter, asked = known.facts.meter, words["note"].lower().replace("measure", "bar")
    if bpm is None:
        return unknown("A steady tempo")
    beats: float | None = 1.0
    if asked == "bar":
        beats = float(meter.partition("/")[0]) if meter else None
    elif asked != "beat":
        parts = int(asked[2:]) if asked.startswith("1/") else NOTES[asked]
        beats = WHOLE_BEATS / parts if meter is None or meter.endswith("/4") else None
    if beats is None:
        return unknown(f"How many beats a {asked} has")
    if kind := words.get("kind", "").lower():
        asked, beats = f"{kind} {asked}", KINDS_OF_NOTE[kind] * beats
    name = asked if asked in ("beat", "bar") else f"{asked} note"
    seconds_each, at = 60 * beats / bpm, f"at {'' if 'bpm' in words else likely(known.facts.confidence.tempo)}{number(bpm)} BPM"
    if asked_share := words.get("share", "").lower():
        share, parts = next((word, parts) for word, parts in SHARES.items() if asked_share in (word, f"1/{parts}"))
        part = "half a" if share == "half" else f"{_article(share)} {share} of a"
        return FactAnswer(f"{part.capitalize()} {name} lasts {1000 * seconds_each / parts:.0f} ms {at}.")
    many = words.get("many", "1").lower()
    count = (COUNTS[many] if many in COUNTS else float(many)) + 0.5 * ("half" in words)
    if count == 1:
        return FactAnswer(f"{_article(name).capitalize()} {name} lasts {1000 * seconds_each:.0f} ms {at}.")
    return FactAnswer(f"{number(count)} {name}s last {number(count * seconds_each)} s {at}.")


def _article(name: str) -> str:
    return "an" if name[0] == "e" else "a"


def beat_count(known: Known, words: Words) -> FactAnswer:
    """How many beats or bars there are."""
    of_beats = words["count"].lower() == "beats"
    times = [time for time, place in known.facts.beats if of_beats or place == 1]
    if not times:
        return unknown("The beats" if of_beats else "Where bars begin")
    if "letter" in words or "nth" in words:
        return _counted_in(known, words, times, "beat" if of_beats else "bar")
    return FactAnswer(f"{len(times)} beats were found." if of_beats else f"{len(times)} bars of {known.facts.meter} were found.")


def _counted_in(known: Known, words: Words, times: list[float], what: str) -> FactAnswer:
    """How many beats or bars begin in the sections of a letter or a number, or before the first of them."""
    first = _section(known, words.get("letter"), words.get("nth"))
    if "beyond" in words:
        return FactAnswer(NO_ANSWER, answers=False)
    if first is None:
        return no_section(known, words.get("letter", "").upper())
    same = lettered(known, first.label) if "letter" in words else [first]
    if "until" in words:
        before = sum(time < first.start - BORDER_S for time in times)
        return FactAnswer(f"{_begin(before, what)} before {_bracketed(first)}.")
    counts = [(one, sum(one.start - BORDER_S <= time < one.end - BORDER_S for time in times)) for one in same]
    return FactAnswer(f"{listed([f'{_begin(count, what)} in {_bracketed(one)}' for one, count in counts])}.")


def _begin(count: int, what: str) -> str:
    return f"{count} {what} begins" if count == 1 else f"{count} {what}s begin"


def bar_at(known: Known, words: Words) -> FactAnswer:
    """Where the bar of a number begins."""
    ones = [time for time, place in known.facts.beats if place == 1]
    if not ones:
        return unknown("Where bars begin")
    asked = int(words["number"]) if "number" in words else len(ones) if words["nth"] == "last" else ordinal(words["nth"]) + 1
    if not 1 <= asked <= len(ones):
        return FactAnswer(f"{len(ones)} bars were found, and bar {asked} is none of them.")
    return FactAnswer(f"Bar {asked} begins at {clock(ones[asked - 1])} ({ones[asked - 1]:.2f} s).")


def bar_of(known: Known, words: Words) -> FactAnswer:
    """In which bar a time lies, or a section begins."""
    ones = [time for time, place in known.facts.beats if place == 1]
    if not ones:
        return unknown("Where bars begin")
    if "time" in words:
        at = seconds(words["time"])
        if not known.sound.start_s <= at < known.sound.end_s:
            return outside(known, at)
        place = next((place for time, place in reversed(known.facts.beats) if time <= at), None)
        bar = sum(time <= at for time in ones)
        return FactAnswer(f"{clock(at)} is in bar {bar}, on beat {place}." if bar else f"{clock(at)} is before the first bar.")
    section = _section(known, words.get("letter"), words.get("nth"))
    if section is None:
        return no_section(known, words.get("letter", "").upper())
    bar = max(1, sum(time <= section.start + BORDER_S for time in ones))
    return FactAnswer(f"{_bracketed(section)} begins in bar {bar}.")


# --- key -----------------------------------------------------------------------------------------------------------------------


def key_note(known: Known, words: Words) -> FactAnswer:
    """Whether a note is in the scale."""
    own = known.facts.key
    if own is None:
        return unknown("The key")
    notes, asked = scale(own.tonic, own.mode), _note(words["note"])
    is_in = pitch_class(asked) in map(pitch_class, notes)
    return yes_or_no(is_in, known.facts.confidence.key, f"{own.name} has {' '.join(notes)}")


def _note(name: str) -> str:
    return name[0].upper() + name[1:].replace(" ", "").replace("-", "").replace("sharp", "#").replace("flat", "b")


def transposed(known: Known, words: Words) -> FactAnswer:
    """The key, moved up or down, and its chords where they are asked for."""
    own, amount = known.facts.key, words.get("amount", "a").lower()
    if own is None:
        return unknown("The key")
    count = int(amount) if amount.isdigit() else COUNTED.index(amount) + 1 if amount in COUNTED else 1
    unit = re.sub(r"[ -]+", " ", words["unit"].lower()).removesuffix("s")
    way = -1 if words["way"].lower() in ("down", "lower", "below") else 1
    steps = way * count * STEPS[unit]
    other = Key.of(own.pitch + steps, own.mode)
    moved = f"{own.name}, {'down' if way < 0 else 'up'} {abs(steps)} semitone{'s' * (abs(steps) != 1)}, is {other.name}"
    chords = [_moved(name, steps, other) for name in main_chords(known.facts)] if words.get("chords") else []
    doubt = "" if sure(known.facts.confidence.key) else " The key of this song is not sure."
    return FactAnswer(f"{moved}{f', with the chords {listed(chords)}' if chords else ''}.{doubt}")


def _moved(chord: str, steps: int, key: Key) -> str:
    root, quality = sounding(chord)
    return harmony.spell(Key.of(root + steps, "major").tonic + quality, key)


def capo(known: Known, words: Words) -> FactAnswer:
    """The shapes to play with a capo."""
    own, fret = known.facts.key, int(words["fret"])
    if own is None:
        return unknown("The key")
    return FactAnswer(f"{key(known).text[:-1]}; with a capo on fret {fret}, play in {Key.of(own.pitch - fret, own.mode).name}.")


def degree(known: Known, words: Words) -> FactAnswer:
    """The chord on a degree of the key."""
    own, name = known.facts.key, words["degree"].lower()
    if own is None:
        return unknown("The key")
    chord = _moved(own.tonic, DEGREES[name], own)
    chords = listed([f"{chord}m", chord] if name == "dominant" else [f"{chord}m"], "or") if own.mode == "minor" else chord
    return FactAnswer(f"{key(known).text[:-1]}; its {name} is {chords}.")


def numerals(known: Known, words: Words) -> FactAnswer:
    """The main chords by their degrees."""
    own, chords = known.facts.key, main_chords(known.facts)
    if own is None or not chords:
        return unknown("The key" if own is None else "Chords")
    played = {short_chord(one.label): chord for one in known.facts.chords if (chord := harmony.played(one))}
    found = [(name, harmony.degree(chord.root, chord.third, own)) for name in chords if (chord := played.get(name))]
    said = ", ".join(f"{name} ({numeral})" for name, numeral in found)
    return FactAnswer(f"{key(known).text[:-1]}: {said}.") if said else unknown("The degrees of its chords")


def mixes_with(known: Known, words: Words) -> FactAnswer:
    """Whether it mixes with a key, a tempo, or both: by the neighbours on the Camelot wheel and what a pitch fader reaches."""
    own, bpm, asked = known.facts.key, known.facts.tempo.bpm, named_key(words)
    fits, because, sureness = [], [], []
    if "key" in words and asked is None:  # "a minor key" may be any
        return key_mixing(known, words)
    if asked is not None:
        if own is None:
            return unknown("The key")
        fits.append(any(compare_keys(near, asked).agrees for near in mixing_keys(own)))
        because.append(f"in {own.camelot} ({own.name})")
        sureness.append(known.facts.confidence.key)
    if "bpm" in words:
        if bpm is None:
            return unknown("A steady tempo")
        fits.append(abs(float(words["bpm"]) / bpm - 1) <= MIX_TEMPO)
        because.append(f"at {number(bpm)} BPM")
        sureness.append(known.facts.confidence.tempo)
    least = min((one for one in sureness if one is not None), default=None)
    return yes_or_no(all(fits), least, f"it is {' '.join(because)}") if fits else unknown("Whether they mix")


# --- chords --------------------------------------------------------------------------------------------------------------------


def chord_most(known: Known, words: Words) -> FactAnswer:
    """The chord that sounds longest, or several."""
    lasting = lasting_chords(known.facts)
    if not lasting:
        return unknown("Chords")
    many = words.get("many", "three" if "several" in words else "one").lower()
    names = sorted(lasting, key=lambda one: -lasting[one])[: COUNTS[many] if many in COUNTS else max(1, int(many))]
    if len(names) > 1:
        return FactAnswer(f"{listed([f'{name} ({clock(round(lasting[name]))})' for name in names])} sound longest.")
    return FactAnswer(f"{names[0]} sounds longest, {clock(round(lasting[names[0]]))} in all.")


def loop(known: Known, words: Words) -> FactAnswer:
    """The chords that go round again and again, with the share of the harmony that they carry."""
    slots = slots_of(known.facts)
    if not known.facts.chords:
        return unknown("Chords")
    whether = "whether" in words
    if "looped" not in slots.conditions:
        return FactAnswer(f"{'No: no' if whether else 'No'} loop of chords carries most of it. {chords(known).text}")
    degrees = f", {slots.values['loop']} in degrees" if "loop" in slots.values else ""
    said = f"{slots.values['loop_chords']} go round for {slots.values['loop_percent']} % of the harmony{degrees}."
    return FactAnswer(f"Yes: {said}" if whether else said)


def borrowed(known: Known, words: Words) -> FactAnswer:
    """Main chords of the parallel key."""
    slots, found = slots_of(known.facts), known.facts.key
    if not known.facts.chords or found is None:
        return unknown("Key and chords")
    if not sure(known.facts.confidence.key):
        return FactAnswer("The key is not sure, so what is borrowed is not either.", answers=False)
    parallel = f"the parallel {slots.values['parallel']} of {found.name}"
    if "borrowed" not in slots.values:
        return FactAnswer(f"None of its main chords is borrowed from {parallel}.")
    return FactAnswer(f"{slots.values['borrowed']} {'is' if 'one_borrowed' in slots.conditions else 'are'} borrowed from {parallel}.")


def cadence(known: Known, words: Words) -> FactAnswer:
    """The chord before the tonic, where it is the same again and again."""
    values, found = slots_of(known.facts).values, known.facts.key
    if not known.facts.chords or found is None:
        return unknown("Key and chords")
    if "home" not in values:
        return FactAnswer(
            "No chord leads home to the tonic often enough to be called its cadence.", answers=sure(known.facts.confidence.key)
        )
    return FactAnswer(f"{values['home']}, {values['home_name']}, leads home to {found.tonic}{'m' * (found.mode == 'minor')}.")


def chord_when(known: Known, words: Words) -> FactAnswer:
    """Where and how often a chord sounds."""
    asked = find_chords(words["chord"])
    if not known.facts.chords or not asked:
        return unknown("Chords")
    name = asked[0].value
    segments = [segment for segment in known.facts.chords if segment.end > segment.start]
    runs = [list(run) for label, run in groupby(segments, key=lambda segment: short_chord(segment.label)) if label == name]
    if not runs:
        return FactAnswer(f"{name} is not among its chords.")
    spans = [f"{clock(run[0].start)} to {clock(run[-1].end)}" for run in runs]
    if len(spans) == 1:
        return FactAnswer(f"{name} sounds once, {spans[0]}.")
    return FactAnswer(f"{name} sounds {len(spans)} times, {f'first {spans[0]}' if len(spans) > MOST_SPANS else listed(spans)}.")


def chord_before(known: Known, words: Words) -> FactAnswer:
    """What stands before a chord, most often first."""
    found, asked = [name for name, _ in progression(known.facts.chords)], find_chords(words["chord"])
    if not found or not asked:
        return unknown("Chords")
    name = asked[0].value
    before = [first for first, second in pairwise(found) if second == name]
    if not before:
        return FactAnswer(f"{name} is {'the first chord' if name in found else 'not among its chords'}.")
    return FactAnswer(f"Before {name} comes {listed(sorted(set(before), key=lambda other: -before.count(other)), 'or')}.")


QUALITIES = {
    "diminished": ("dim", "dim7", "m7b5"),
    "half diminished": ("m7b5",),
    "augmented": ("aug",),
    "suspended": ("sus", "sus2", "sus4"),
    "minor": ("m", "m6", "m7", "m9"),
    "major": ("", "6", "maj7", "maj9", "add9"),
    "seventh": ("7", "m7", "maj7", "dim7", "m7b5", "mmaj7"),
    "dominant seventh": ("7",),
    "major seventh": ("maj7",),
    "minor seventh": ("m7",),
    "diminished seventh": ("dim7",),
    "half diminished seventh": ("m7b5",),
}
"""Kinds of chords, and what stands behind their roots."""


def chord_quality(known: Known, words: Words) -> FactAnswer:
    """Whether chords of a quality occur, and which; or whether all are of it."""
    found = list(lasting_chords(known.facts))
    if not found:
        return unknown("Chords")
    wanted = QUALITIES[re.sub("sevenths?|7ths?", "seventh", words["quality"].lower().replace("-", " "))]
    those = [name for name in found if sounding(name)[1] in wanted]
    all_of_them = f"its chords are {listed(found)}"
    if "count" in words:
        return FactAnswer(f"{len(those)}: {listed(those)}." if those else f"None: {all_of_them}.")
    if "only" in words:
        return yes_or_no(len(those) == len(found), None, all_of_them)
    return yes_or_no(bool(those), None, listed(those) if those else all_of_them)


def chords_in(known: Known, words: Words) -> FactAnswer:
    """The chords of a part of the song by its times, or of its beginning."""
    segments, end_s = known.facts.chords, known.sound.end_s
    if not segments:
        return unknown("Chords")
    if "time" not in words:
        found = progression(segments)[:FIRST_CHORDS]
        return FactAnswer(f"It begins with {listed([f'{name} at {clock(at)}' for name, at in found])}.")
    low, high = sorted((seconds(words["time"]), seconds(words["until"]) if "until" in words else known.sound.start_s))
    if not known.sound.start_s <= low < end_s:
        return outside(known, low)
    inside = [name for name, _ in progression([one for one in segments if one.end > low and one.start < high])]
    span = f"From {clock(low)} to {clock(min(high, end_s))}"
    return FactAnswer(f"{span}: {' - '.join(inside)}.") if inside else FactAnswer(f"{span} no chord sounds.")


# --- sections ------------------------------------------------------------------------------------------------------------------


def _spoken(section: FormPart) -> str:
    return f"{section.label}, {clock(section.start)} to {clock(section.end)}"


def _bracketed(section: FormPart) -> str:
    return f"{section.label} ({clock(section.start)} to {clock(section.end)})"


def section_extreme(known: Known, words: Words) -> FactAnswer:
    """The longest, shortest, loudest or quietest section."""
    word, sections = words["extreme"].lower().replace("softest", "quietest"), known.facts.sections
    if word in ("longest", "shortest"):
        sizes = [section.end - section.start for section in sections]
    else:
        sections = tuple(section for section in sections if section.lufs is not None)
        sizes = [section.lufs for section in sections if section.lufs is not None]
    if not sections:
        return unknown("Sections" if word in ("longest", "shortest") else "The loudness of sections")
    found = sections[sizes.index((max if word in ("longest", "loudest") else min)(sizes))]
    level = f", at {number(found.lufs)} LUFS" if word in ("loudest", "quietest") and found.lufs is not None else ""
    return FactAnswer(f"The {word} section is {_spoken(found)}{level}.")


def section_repeats(known: Known, words: Words) -> FactAnswer:
    """Which sections come back."""
    labels = [section.label for section in known.facts.sections]
    again = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
    if not labels:
        return unknown("Sections")
    if not again:
        return FactAnswer("No section comes back.")
    return FactAnswer(f"{listed([f'{label} comes {labels.count(label)} times' for label in again])}.")


def sections_compared(known: Known, words: Words) -> FactAnswer:
    """Whether one section is louder or longer than another."""
    pair = [_section(known, words.get("letter"), words.get("nth")), _section(known, words.get("other"), words.get("other_nth"))]
    first, second = pair
    if first is None or second is None:
        return no_section(known, words.get("letter" if first is None else "other"))
    than = words["than"].lower()
    if than in ("longer", "shorter"):
        sizes = [section.end - section.start for section in (first, second)]
        said = [f"lasts {clock(round(size))}" for size in sizes]
    elif first.lufs is None or second.lufs is None:
        return unknown("The loudness of sections")
    else:
        sizes = [first.lufs, second.lufs]
        said = [f"is at {number(size)} LUFS" for size in sizes]
    is_so = sizes[0] > sizes[1] if than in ("louder", "longer") else sizes[0] < sizes[1]
    if "which" in words:
        least = SAME_S if than in ("longer", "shorter") else SAME_LU
        word = f"{first.label if is_so else second.label} is {than}" if abs(sizes[0] - sizes[1]) >= least else "Neither"
        return FactAnswer(f"{word}: {_bracketed(first)} {said[0]}, {_bracketed(second)} {said[1]}.")
    return yes_or_no(is_so, None, f"{_bracketed(first)} {said[0]}, {_bracketed(second)} {said[1]}")


def _section(known: Known, letter: str | None, nth: str | None) -> FormPart | None:
    """The first section of a letter, or the one of a number."""
    sections = known.facts.sections
    if letter:
        return next(iter(lettered(known, letter)), None)
    index = place_of(nth or "", len(sections))
    return sections[index] if 0 <= index < len(sections) else None


def section_next(known: Known, words: Words) -> FactAnswer:
    """What comes after a section, or before it."""
    parts, sections = lettered(known, words["letter"]), known.facts.sections
    if not parts:
        return no_section(known, words["letter"].upper())
    way = "before" if words["way"].lower() == "before" else "after"
    pairs = [pair if way == "after" else pair[::-1] for pair in pairwise(sections)]
    said = [f"{way} {_bracketed(one)} comes {_bracketed(other)}" for one, other in pairs if any(one is part for part in parts)]
    if not said:
        return FactAnswer(f"Nothing: {_bracketed(parts[0])} is the {'first' if way == 'before' else 'last'} section.")
    return FactAnswer(f"{listed(said)[0].upper()}{listed(said)[1:]}.")


def chord_beside_section(known: Known, words: Words) -> FactAnswer:
    """The chord that leads into each section of a letter, or out of it."""
    parts, named = lettered(known, words["letter"]), [one for one in known.facts.chords if short_chord(one.label)]
    if not parts:
        return no_section(known, words["letter"].upper())
    if not named:
        return unknown("Chords")
    way, said = "before" if words["way"].lower() == "before" else "after", []
    for part in parts:
        earlier = [one for one in named if one.start < part.start - BORDER_S]
        later = [one for one in named if one.end > part.end + BORDER_S]
        said += [f"{way} {_bracketed(part)} comes {short_chord(one.label)}" for one in (earlier[-1:] if way == "before" else later[:1])]
    text = listed(said) or f"no chord was found {way} {_bracketed(parts[0])}"
    return FactAnswer(f"{text[0].upper()}{text[1:]}.")


def section_share(known: Known, words: Words) -> FactAnswer:
    """How much of the song the sections of a letter take."""
    parts = lettered(known, words["letter"])
    if not parts:
        return no_section(known, words["letter"].upper())
    lasting = sum(part.end - part.start for part in parts)
    return FactAnswer(
        f"Section {parts[0].label} takes {100 * lasting / known.sound.duration_s:.0f} % of the song, {clock(lasting)} in all."
    )


def section_loudness(known: Known, words: Words) -> FactAnswer:
    """How loud sections are, by their letters, or one by its number."""
    asked = set(re.findall(r"(?<![A-Z'])[A-Z](?![A-Z'])", words.get("letters", "").upper()))
    nth = _section(known, None, words["nth"]) if "nth" in words else None
    found = [nth] if nth else [section for section in known.facts.sections if section.label in asked]
    if not found:
        return no_section(known, min(asked, default=None))
    if any(section.lufs is None for section in found):
        return unknown("The loudness of sections")
    return FactAnswer(f"{listed([f'{_bracketed(section)} is at {number(section.lufs or 0.0)} LUFS' for section in found])}.")


def section_sung(known: Known, words: Words) -> FactAnswer:
    """Whether somebody sings in a section."""
    nth = _section(known, None, words["nth"]) if "nth" in words else None
    found = [nth] if nth else lettered(known, words.get("letter", ""))
    if not found:
        return no_section(known, words.get("letter", "").upper())
    if any(section.sung is None for section in found):
        return FactAnswer("Whether somebody sings in it is not clear.", answers=False)
    parts = "; ".join(f"{_spoken(section)}, {'is sung' if section.sung else 'is without singing'}" for section in found)
    return FactAnswer(f"Section {parts}.")


# --- loudness, length, file ------------------------------------------------------------------------------------------------------


def streaming(known: Known, words: Words) -> FactAnswer:
    """Louder or quieter than what streaming services turn songs to."""
    level = known.facts.loudness.integrated_lufs
    if level is None:
        return unknown("The loudness")
    off, target = level - STREAMING_LUFS, f"{number(STREAMING_LUFS)} LUFS, to which streaming services usually turn songs"
    if abs(off) <= SAME_LU:
        return FactAnswer(f"At {number(level)} LUFS it is about at {target}.")
    return FactAnswer(f"At {number(level)} LUFS it is {number(abs(off))} LU {'louder' if off > 0 else 'quieter'} than {target}.")


def loudness_is(known: Known, words: Words) -> FactAnswer:
    """Whether it is at a level."""
    level = known.facts.loudness.integrated_lufs
    if level is None:
        return unknown("The loudness")
    return yes_or_no(abs(level - float(words["lufs"])) <= SAME_LU, None, f"the loudness is {number(level)} LUFS")


def loudness_between(known: Known, words: Words) -> FactAnswer:
    """Whether the loudness is in a range; levels are below full scale whether or not a sign says so."""
    level = known.facts.loudness.integrated_lufs
    if level is None:
        return unknown("The loudness")
    below = {name: f"-{words[name].lstrip('-')}" for name in ("low", "high")}
    return _between(level, below, None, f"the loudness is {number(level)} LUFS")


def distortion(known: Known, words: Words) -> FactAnswer:
    """Distortion is not measured, clipping is."""
    clipped = known.facts.loudness.clipped
    also = "" if clipped is None else f" {'Some' if clipped.runs else 'No'} samples are clipped."
    return FactAnswer(f"I cannot tell distortion from the sound.{also}", answers=False)


def bright(known: Known, words: Words) -> FactAnswer:
    """Whether it is brighter or darker than most."""
    hertz = known.facts.dynamics.brightness_hz
    if hertz is None:
        return unknown("The brightness")
    at, (low, high) = f"the spectral centroid is at {number(hertz / 1000)} kHz", BRIGHT_HZ
    if low <= hertz <= high:
        return FactAnswer(f"Neither clearly bright nor dark: {at}, and no fixed border parts the two.")
    return chosen("bright" if hertz > high else "dark", words, "bright", at)


def duration_is(known: Known, words: Words) -> FactAnswer:
    """Whether it is so long."""
    length_s, asked_s = known.sound.duration_s, seconds(words["time"])
    tolerance_s = ABOUT * asked_s if "about" in words else SAME_S
    return yes_or_no(abs(length_s - asked_s) <= tolerance_s, None, f"it lasts {clock(round(length_s))}")


def file_is(known: Known, words: Words) -> FactAnswer:
    """Whether the file has a format."""
    codec, asked = known.sound.source.codec.lower(), words["codec"].lower()
    lossless = codec.startswith(LOSSLESS)
    is_so = {"lossless": lossless, "lossy": not lossless, "wav": codec.startswith(("pcm", "wav"))}.get(asked, asked in codec)
    return yes_or_no(is_so, None, f"the file is {known.sound.source.codec}")


def has_tag(known: Known, words: Words) -> FactAnswer:
    """Whether a genre, an instrument or a mood is heard; where it is not named, it may be there all the same."""
    asked = words["tag"].lower().rstrip("s")
    for tag in known.facts.tags:
        if tag.name.rstrip("s") == asked:
            return FactAnswer(f"Yes: {TAG_VERBS[tag.kind]} {style([tag.name]) if tag.kind == 'genre' else tag.name}.")
    return FactAnswer(NO_ANSWER, answers=False)
