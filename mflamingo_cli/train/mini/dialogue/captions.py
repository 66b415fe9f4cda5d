"""Captions of four styles from measured facts and clip labels, and their inverse: the claims a caption makes.

One sentence per fact, its words chosen by the style and by the value (a slow track is described otherwise than a fast one), so that
captions of different songs differ and each can be parsed back. What was not measured is always marked as heard.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from mflamingo_cli.grounding.prose.slots import FAST_BPM, LOUD_LUFS, QUIET_LUFS, SLOW_BPM
from mflamingo_cli.parsers import plain
from mflamingo_cli.train.mini.dialogue.prompt_facts import FIELDS, LABEL_FIELDS, PromptFacts, form_items

NOTHING = "I can tell little about this track."
LONG_S = 300  # from

# --- frames: [style][field] -> words, or words for each case of the value ------------------------------------------

Frames = dict[str, dict[str, str]]  # [field][case]; the case "" is any other
ORDER: dict[str, tuple[str, ...]] = {
    "full": ("genre", "tempo", "meter", "key", "chords", "instruments", "vocals", "sections", "loudness", "duration", "mood"),
    "technical": ("key", "chords", "tempo", "meter", "instruments", "vocals", "sections", "loudness", "duration", "genre", "mood"),
    "critic": ("tempo", "key", "chords", "meter", "genre", "instruments", "vocals", "sections", "loudness", "duration", "mood"),
}
SAID: dict[str, Frames] = {  # of measured facts; "form" replaces "sections" where both are given
    "full": {
        "tempo": {
            "slow": "At {tempo} BPM this is a slow track.",
            "moderate": "This track runs at {tempo} BPM, a moderate tempo.",
            "fast": "This track is fast, at {tempo} BPM.",
        },
        "meter": {"threes": "It is counted in threes, {meter}.", "": "It is counted in {meter}."},
        "key": {"major": "The key is {key}.", "minor": "It stands in {key}."},
        "chords": {
            "one": "The harmony stays on {chords}.",
            "two": "The harmony moves between {chords}.",
            "": "The harmony moves through {chords}.",
        },
        "sections": {"one": "The form has {sections} section.", "": "The form has {sections} sections."},
        "form": {"": "The form has {sections} sections: {form}."},
        "loudness": {
            "loud": "It is loud, at {loudness} LUFS.",
            "quiet": "It is quiet, at {loudness} LUFS.",
            "": "The loudness is {loudness} LUFS.",
        },
        "duration": {"long": "It is long and lasts {duration} s.", "": "It lasts {duration} s."},
    },
    "technical": {
        "key": {"major": "Harmonically the track rests in {key}.", "minor": "Harmonically the track is set in {key}."},
        "chords": {"one": "Its main chord is {chords}.", "": "Its main chords are {chords}."},
        "tempo": {"": "The pulse is {pace}, {tempo} BPM."},
        "meter": {"": "The meter is {meter}."},
        "sections": {"one": "It unfolds in {sections} section.", "": "It unfolds in {sections} sections."},
        "form": {"": "It unfolds in {sections} sections: {form}."},
        "loudness": {
            "loud": "The mix is loud, {loudness} LUFS.",
            "quiet": "The mix is quiet, {loudness} LUFS.",
            "": "The mix measures {loudness} LUFS.",
        },
        "duration": {"": "Its length is {duration} s."},
    },
    "critic": {
        "tempo": {
            "slow": "At {tempo} BPM the track takes its time.",
            "moderate": "At {tempo} BPM the track keeps a moderate pace.",
            "fast": "At {tempo} BPM the track presses on.",
        },
        "key": {"": "Its home is {key}."},
        "chords": {"one": "The harmony stays close to {chords}.", "": "The chords turn around {chords}."},
        "meter": {"threes": "The bars turn in {meter}.", "": "The bars fall in {meter}."},
        "sections": {"one": "It is built from {sections} section.", "": "It is built from {sections} sections."},
        "form": {"": "It is built from {sections} sections: {form}."},
        "loudness": {
            "loud": "It is mastered loud, at {loudness} LUFS.",
            "quiet": "It is mastered softly, at {loudness} LUFS.",
            "": "It is mastered at {loudness} LUFS.",
        },
        "duration": {"long": "It goes on for {duration} s.", "": "It holds for {duration} s."},
    },
}
HEARD: dict[str, Frames] = {  # where no fact was given
    "full": {
        "genre": {"": "The genre sounds like {genre}."},
        "meter": {"": "I count it in {meter}."},
        "key": {"": "I hear it in {key}."},
        "chords": {"one": "I hear the chord {chords}.", "": "I hear the chords {chords}."},
        "instruments": {"": "I hear {instruments}."},
        "vocals": {"yes": "A voice sings.", "no": "Nobody sings."},
        "mood": {"": "It feels {mood}."},
    },
    "technical": {
        "genre": {"": "By ear the genre is {genre}."},
        "meter": {"": "By ear the meter is {meter}."},
        "key": {"": "By ear the key is {key}."},
        "chords": {"one": "By ear the chord is {chords}.", "": "By ear the chords are {chords}."},
        "instruments": {"": "By ear it has {instruments}."},
        "vocals": {"yes": "A voice is heard.", "no": "No voice is heard."},
        "mood": {"": "By ear the mood is {mood}."},
    },
    "critic": {
        "genre": {"": "To my ears the genre is {genre}."},
        "meter": {"": "To my ears the bars fall in {meter}."},
        "key": {"": "To my ears its home is {key}."},
        "chords": {"one": "To my ears the harmony stays close to {chords}.", "": "To my ears the chords turn around {chords}."},
        "instruments": {"one": "The texture rests on {instruments}.", "": "The texture is woven from {instruments}."},
        "vocals": {"yes": "There is singing.", "no": "It stays instrumental."},
        "mood": {"": "The mood strikes me as {mood}."},
    },
}
SHORT: Frames = {  # parts of the one sentence of the short style: facts, then "; by ear: " and labels
    "tempo": {"": "at {tempo} BPM"},
    "meter": {"": "in {meter}"},
    "key": {"": "in {key}"},
    "chords": {"one": "on the chord {chords}", "": "on the chords {chords}"},
    "sections": {"one": "with {sections} section", "": "with {sections} sections"},
    "duration": {"": "lasting {duration} s"},
    "loudness": {"": "at {loudness} LUFS"},
}
SHORT_HEARD: Frames = {
    "genre": {"": "{genre}"},
    "key": {"": "in {key}"},
    "meter": {"": "in {meter}"},
    "chords": SHORT["chords"],
    "instruments": {"": "with {instruments}"},
    "vocals": {"yes": "with singing", "no": "without singing"},
    "mood": {"": "feeling {mood}"},
}
BY_EAR = "y ear: "  # "By ear: " alone, "; by ear: " after facts

# --- cases of a value -----------------------------------------------------------------------------------------------


def pace(tempo: str) -> str:
    """The only words about speed: slow, moderate, fast."""
    bpm = float(tempo)
    return "slow" if bpm < SLOW_BPM else "fast" if bpm >= FAST_BPM else "moderate"


def volume(loudness: str) -> str:
    """The only words about loudness: loud, quiet, or none."""
    lufs = float(loudness)
    return "loud" if lufs >= LOUD_LUFS else "quiet" if lufs < QUIET_LUFS else ""


CASES: dict[str, Callable[[str], str]] = {
    "tempo": pace,
    "meter": lambda meter: "threes" if int(meter.split("/")[0]) % 3 == 0 else "",  # beats or their parts: 3/4, 6/8, 9/8, 12/8
    "key": lambda key: key.split()[-1],
    "chords": lambda chords: {1: "one", 2: "two"}.get(len(chords.split()), ""),
    "instruments": lambda names: "one" if len(names.split()) == 1 else "",
    "sections": lambda count: "one" if count == "1" else "",
    "loudness": volume,
    "duration": lambda seconds: "long" if int(seconds) >= LONG_S else "",
    "vocals": lambda answer: answer,
}


def spoken_list(items: Sequence[str]) -> str:
    """`C, G and Am`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def listed(name: str, value: str) -> list[str]:
    """The items of a fact as they are spoken: chords, instruments, genres, moods, sections with their times."""
    if name == "form":
        return [f"{letter} ({start})" for letter, start in form_items(value)]
    return value.split(", ") if name in ("genre", "mood") else value.split() if name in ("chords", "instruments") else [value]


def slots(known: PromptFacts) -> PromptFacts:
    """What frames are filled with."""
    filled = {name: spoken_list(listed(name, value)) for name, value in known.items()}
    return filled | ({"pace": pace(known["tempo"])} if "tempo" in known else {})


# --- writing ----------------------------------------------------------------------------------------------------------


def claims(style: str, facts: PromptFacts, labels: PromptFacts | None = None) -> PromptFacts:
    """What a caption of a style says: every given fact (a short one no form), and labels where no fact was given."""
    only_heard = {name: value for name, value in (labels or {}).items() if name in LABEL_FIELDS and name not in facts}
    given = {name: value for name, value in facts.items() if name in FIELDS and not (name == "form" and style == "short")}
    return {**only_heard, **given}


def caption(style: str, facts: PromptFacts, labels: PromptFacts | None = None) -> str:
    """A caption of one style that makes the claims of `claims`."""
    said = claims(style, facts, labels)
    if style == "short":
        return _one_sentence(said, facts)
    filled, sentences = slots(said), []
    for name in ORDER[style]:
        if name in facts:
            sentences.append(_frame(SAID[style], "form" if name == "sections" and "form" in facts else name, facts[name]).format(**filled))
        elif name in said:
            sentences.append(_frame(HEARD[style], name, said[name]).format(**filled))
    return " ".join(sentences) or NOTHING


def _frame(frames: Frames, name: str, value: str) -> str:
    case = CASES[name](value) if name in CASES else ""
    return frames[name].get(case) or frames[name][""]


def _one_sentence(said: PromptFacts, facts: PromptFacts) -> str:
    filled = slots(said)
    parts = [_frame(SHORT, name, said[name]).format(**filled) for name in SHORT if name in facts]
    labels = [_frame(SHORT_HEARD, name, said[name]).format(**filled) for name in SHORT_HEARD if name in said and name not in facts]
    adjective = f"{filled['pace']} " if "tempo" in facts else ""
    sentence = f"A {adjective}track {', '.join(parts)}" if parts else ""
    if labels:
        sentence += ("; b" if parts else "B") + BY_EAR + ", ".join(labels)
    return f"{sentence}." if sentence else NOTHING


# --- reading back -----------------------------------------------------------------------------------------------------

_CHORD = r"[A-G][#b]?[A-Za-z0-9]*"
_SECTION = r"[A-Z] \([0-9]+(?::[0-9]+)+\)"
_WORDS = r"[a-z&][a-z& -]*[a-z&]"
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"


def _listed(item: str) -> str:
    return f"{item}(?:, {item})*(?: and {item})?"


SLOTS = {
    "tempo": _NUMBER, "loudness": _NUMBER, "sections": _NUMBER, "duration": _NUMBER, "pace": "slow|moderate|fast", "meter": "[0-9]+/[0-9]+",
    "key": "[A-G][#b]? (?:major|minor)", "chords": _listed(_CHORD), "form": _listed(_SECTION), "genre": _listed(_WORDS),
    "mood": _listed(_WORDS), "instruments": _listed(_WORDS),
}  # fmt: skip


def _pattern(frame: str) -> str:
    return re.sub(r"\\\{(\w+)\\\}", lambda m: f"(?P<{m[1]}>{SLOTS[m[1]]})", re.escape(frame))


def _patterns(tables: Sequence[Frames]) -> list[tuple[re.Pattern[str], PromptFacts]]:
    """Expressions of all frames with what they claim beside their slots; the vocals' frames have none."""
    frames = [(name, case, frame) for table in tables for name, cases in table.items() for case, frame in cases.items()]
    frames.sort(key=lambda item: item[0] != "vocals")  # "with singing" is no instrument
    return [(re.compile(_pattern(frame)), {"vocals": case} if name == "vocals" else {}) for name, case, frame in frames]


_SENTENCES = _patterns([*SAID.values(), *HEARD.values()])
_PARTS = _patterns([SHORT, {name: cases for name, cases in SHORT_HEARD.items() if name != "genre"}])
_GENRE_PART = re.compile(SLOTS["genre"])


def _value(name: str, text: str) -> str:
    """A slot's text as the fact it says."""
    if name == "form":
        return " ".join(re.findall(r"[A-Z]|[0-9]+(?::[0-9]+)+", text))
    items = re.split(", | and ", text) if name in ("chords", "instruments", "genre", "mood") else [text]
    return (", " if name in ("genre", "mood") else " ").join(items)


def _read(match: re.Match[str], beside: PromptFacts) -> PromptFacts:
    return beside | {name: _value(name, text) for name, text in match.groupdict().items() if name != "pace"}


def _readings(text: str) -> Iterator[tuple[str, PromptFacts | None]]:
    """Each sentence, or part of a short caption, with its claims, or None where it is in no frame."""
    for sentence in re.split(r"(?<=\.)\s+(?=[A-Z])", plain(text)):
        facts, by_ear, labels = sentence.rstrip(".").partition(f"b{BY_EAR}") if f"b{BY_EAR}" in sentence else ("", "", "")
        if sentence.startswith(f"B{BY_EAR}"):
            by_ear, labels = "b", sentence.rstrip(".")[len(BY_EAR) + 1 :]
        lead = re.match(r"A (?:(?:slow|moderate|fast) )?track ", facts or sentence)
        if by_ear or lead:
            yield from ((part, _part(part)) for part in _parts((facts or sentence)[lead.end() :] if lead else ""))
            yield from ((part, _part(part, genre=first == 0)) for first, part in enumerate(_parts(labels)))
        elif sentence and sentence != NOTHING:
            matches = ((pattern.fullmatch(sentence), beside) for pattern, beside in _SENTENCES)
            yield sentence, next((_read(match, beside) for match, beside in matches if match), None)


_PART_STARTS = r"(?:at|in|on the chords?|with|without|lasting|feeling) "


def _parts(text: str) -> list[str]:
    """`at 87 BPM, on the chords C, G and Am, feeling calm` -> its parts."""
    return [part for part in re.split(rf", (?={_PART_STARTS})", text.rstrip(".; ")) if part]


def _part(part: str, genre: bool = False) -> PromptFacts | None:
    for pattern, beside in _PARTS:
        if match := pattern.fullmatch(part):
            return _read(match, beside)
    return {"genre": _value("genre", part)} if genre and _GENRE_PART.fullmatch(part) else None


def parse_caption(text: str) -> PromptFacts:
    """The claims of a caption, in the form of the facts they were written from; total, whatever the text."""
    found: PromptFacts = {}
    for _, said in _readings(text):
        found |= said or {}
    return found


def unread(text: str) -> list[str]:
    """Sentences (or parts of a short caption) that are in no known frame: what a model garbled or invented."""
    return [sentence for sentence, said in _readings(text) if said is None]
