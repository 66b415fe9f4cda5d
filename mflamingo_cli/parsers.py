"""Text -> values: tempi, keys, meters, chords, lists, voices; one parser each.

The text of a model is hostile input: every parser here is total, it returns what it could read or `None` / `()` and never raises,
whatever the text. Tempi are beats per minute.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from mflamingo_cli.measure.facts import Key, Mode, pitch_class
from mflamingo_cli.text import tidy
from mflamingo_cli.thinking import split_thinking

T = TypeVar("T")
MAX_PARSED_CHARS = 20_000  # more than 2048 tokens can hold; bounds the time of every regular expression below
MAX_ITEMS = 12  # of a list answer: a model that loops repeats itself, an honest list is short
MAX_ITEM_CHARS = 48  # a longer "item" is prose
TEMPO_RANGE_BPM = (20.0, 400.0)  # outside it a number is a year, a bar count or a frequency
SHORT_ANSWER_CHARS = 40  # a bare number counts as a tempo only in an answer this short: "87", "About 120."


# --- text -----------------------------------------------------------------------------------------------------

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63"), "-")
_QUOTES = dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032"), "'") | dict.fromkeys(map(ord, "\u201c\u201d\u201e\u2033"), '"')
_MUSIC = {ord("\u266f"): "#", ord("\u266d"): "b", ord("\u266e"): ""}
PLAIN_CHARACTERS = _DASHES | _QUOTES | _MUSIC


def plain(text: str) -> str:
    """Text as the parsers read it: answer part only, ASCII dashes, quotes and accidentals, no Markdown stars."""
    text = split_thinking(text[:MAX_PARSED_CHARS]).answer or ""
    text = unicodedata.normalize("NFKC", tidy(text)).translate(PLAIN_CHARACTERS).replace("*", "").replace("`", "")
    return "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()  # single spaces keep the expressions below linear


_UNKNOWN = re.compile(
    r"^\W*(?:none|n/?a|nil|null|nothing|unknown|not (?:sure|clear|applicable)|unclear|undetermined"
    r"|(?:i )?(?:cannot|can't|can not) (?:tell|say|hear|determine)|i (?:do not|don't) know|i'm not sure|i am not sure)\b[^,]*$",
    re.IGNORECASE,
)


def is_unknown(text: str) -> bool:
    """Whether an answer says that the answer is unknown: `I cannot tell that from the sound.`, `unknown`, nothing at all."""
    text = plain(text)
    return not text or _UNKNOWN.match(text) is not None


def parse_text(text: str) -> str | None:
    """A caption or free answer, tidied; None when nothing is left."""
    answer = split_thinking(text).answer
    return (tidy(answer) or None) if answer else None


# --- numbers and names ------------------------------------------------------------------------------------------

_VALUE = r"([0-9]{2,3}(?:\.[0-9]{1,3}|,[0-9]{1,2}(?![0-9]))?)"  # also with a decimal comma
_NUMBER = r"(?<![0-9.,/:])" + _VALUE
_UNIT = r"(?:\s*-?\s*(?:bpm\b|beats (?:per|a) minute))"
_TEMPO = re.compile(rf"{_NUMBER}(?:-?ish)?(?:{_UNIT}?\s*(?:(-|to|and|or)\s*){_VALUE})?{_UNIT}", re.IGNORECASE)
_RANGE = r"(?:\s?(?:-|to)\s?|(?:(?<=between [0-9]{2})|(?<=between [0-9]{3}))\sand\s)"
_TEMPO_LABEL = re.compile(
    rf"(?<![0-9] )\b(?:bpm|tempo)\b[^0-9\n]{{0,20}}{_NUMBER}(?:{_RANGE}{_VALUE})?"
    rf"(?![0-9:/%]|s\b)(?!\.[0-9])|\u2669\s?=\s?{_NUMBER}",
    re.IGNORECASE,
)
_DECADE = re.compile(
    rf"\b(?:(?P<part>low(?:er)?|mid(?:dle)?|high|upper)[ -])?(?P<tens>[0-9]{{1,2}}0)s(?P<unit>{_UNIT})?(?![A-Za-z0-9])", re.IGNORECASE
)
_DECADE_PARTS = {"l": (0, 4), "m": (3, 7), "h": (6, 9), "u": (6, 9), "": (0, 9)}  # by the first letter: the last digits
_BARE_NUMBER = re.compile(_NUMBER + r"(?!\.?[0-9:/%])(?!\s?(?:s|sec|seconds?|min|minutes?|LUFS|LU|dB\w{0,3}|Hz)\b)")


class Found(NamedTuple, Generic[T]):
    """A value that a text names, and where: characters `start` to `end`."""

    start: int
    end: int
    value: T


def find_tempi(text: str) -> list[Found[tuple[float, ...]]]:
    """Every tempo with its unit or label, in beats per minute: one number, two of a range, or each of several that are joined by "or"."""
    found = [(match.start(), match.end(), match[2], [match[1], match[3]]) for match in _TEMPO.finditer(text)]
    for match in _TEMPO_LABEL.finditer(text):
        if all(match.end() <= start or match.start() >= end for start, end, *_ in found):
            found.append((match.start(), match.end(), None, [match[1] or match[3], match[2]]))
    for match in _DECADE.finditer(text):
        if match["unit"] or (match["part"] and re.search(r"\b(?:tempo|bpm|pace|pulse|beat)\b", text, re.IGNORECASE)):
            low, high = _DECADE_PARTS[(match["part"] or "")[:1].lower()]
            tens = int(match["tens"])
            found.append((match.start(), match.end(), "to", [str(tens + low), str(tens + high)]))
    tempi: list[Found[tuple[float, ...]]] = []
    for start, end, joint, numbers in sorted(found, key=lambda one: one[0]):
        values = [float(number.replace(",", ".")) for number in numbers if number]
        if all(TEMPO_RANGE_BPM[0] <= bpm <= TEMPO_RANGE_BPM[1] for bpm in values):
            tempi += [Found(start, end, (bpm,)) for bpm in values] if joint == "or" else [Found(start, end, tuple(values))]
    return tempi


def parse_tempo(text: str) -> float | None:
    """Beats per minute: `87`, `about 120.5 BPM`, `118-122 bpm` (its middle)."""
    text = plain(text)
    if tempi := find_tempi(text):
        return sum(tempi[0].value) / len(tempi[0].value)
    if len(text) <= SHORT_ANSWER_CHARS and (match := _BARE_NUMBER.search(text)):
        bpm = float(match[1].replace(",", "."))
        return bpm if TEMPO_RANGE_BPM[0] <= bpm <= TEMPO_RANGE_BPM[1] else None
    return None


_ACCIDENTALS = dict.fromkeys(("#", "-sharp", " sharp", "sharp", "is"), "#") | dict.fromkeys(("b", "-flat", " flat", "flat", "es", "s"), "b")
_NOTE = r"(?P<note>[A-H])(?P<accidental>#|b|[ -]?(?:sharp|flat)\b|is(?=[\s-])|es(?=[\s-])|s(?=-?\s?(?:dur|moll)))?"
_MODES: dict[str, Mode] = dict.fromkeys(("major", "maj", "dur", "ionian", "M", ""), "major")
_MODES |= dict.fromkeys(("minor", "min", "moll", "aeolian", "m"), "minor")
_WORDS = r"(?P<mode>major|maj|minor|min|dur|moll|ionian|aeolian)"
_NAMED_KEY = re.compile(rf"(?<![A-Za-z#]){_NOTE}[\s:-]*(?:(?:natural|harmonic|melodic)\s+)?{_WORDS}(?![A-Za-z0-9])", re.IGNORECASE)
_SYLLABLES = {"do": "C", "ut": "C", "re": "D", "r\u00e9": "D", "mi": "E", "fa": "F", "sol": "G", "la": "A", "si": "B"}
_SUNG_KEY = re.compile(  # French, Spanish, Italian; "la menor duda" is no key
    rf"(?<!\w)(?P<syllable>{'|'.join(_SYLLABLES)})(?:[ -](?P<accidental>#|b|di[e\u00e8]se|diesis|sostenido|b[e\u00e9]mol(?:le)?))?"
    r"[ -](?P<mode>majeur|mayor|maggiore|mineur|menor|minore)(?!\w)(?!\s(?!(?:et|y|e|con|avec|a|\u00e0|en|in|mais|ma|pero|sino)\b)[a-z])",
    re.IGNORECASE,
)
_LETTER_KEY = re.compile(r"(?<![A-Za-z#])(?P<note>[A-G])(?P<accidental>#|b)?(?P<mode>m)(?![A-Za-z0-9#])")
_SHORT_KEY = re.compile(r"^(?:\W*key\s*(?:is|of|:|=))?\W*(?P<note>[A-Ga-g])(?P<accidental>#|b)?(?P<mode>m|M|)\W*$")
_BARE_KEY = re.compile(
    r"(?:\bkey\b[^.\n]{0,24}?\b(?:of|is|in|:)\s*|^)(?P<note>[A-G])(?P<accidental>#|b)?(?P<mode>)(?=[.,;\s]*$)", re.MULTILINE
)
_WHEEL = re.compile(r"^\W*(?P<number>1[0-2]|[1-9])(?P<side>[ABabdm])\W*$")
# what may stand before "a minor" when it is a key, in the few characters before it
_INTRODUCED = re.compile(r"(?:\bkey\b[^a-z]*|\b(?:in|of)\s+|[:=(\"'])\s*$", re.IGNORECASE)
_INTRODUCTION_CHARS = 40


def parse_key(text: str | None) -> Key | None:
    """The first key that a text names, spelled as there: `A minor`, `F# min`, `Bbm`, `a-moll`, `B-dur` (German: Bb), `8A`, `1m`.

    A bare `D` after "key" or alone is major; "a minor" in prose is none.
    """
    text = plain(text or "")
    if wheel := _WHEEL.match(text):
        return _on_wheel(int(wheel["number"]), wheel["side"])
    found = [Found(match.start(), match.end(), _key(match)) for match in (_SHORT_KEY.search(text), _LETTER_KEY.search(text)) if match]
    found += find_keys(text)
    return min(found, key=lambda one: one.start).value if found else None


def find_keys(text: str) -> list[Found[Key]]:
    """Every key that is written out, and what stands alone after "key": `A minor`, `a-moll`, `the key of D`."""
    bare = [Found(match.start(), match.end(), _key(match)) for match in _BARE_KEY.finditer(text)]
    named = []
    for match in _NAMED_KEY.finditer(text):
        german = match["mode"].lower() in ("dur", "moll")
        if (match["note"].upper() != "H" or german) and (german or not _is_article(text, match)):
            named.append(Found(match.start(), match.end(), _key(match, german)))
    named += find_sung_keys(text)
    free = [one for one in bare if all(one.end <= other.start or one.start >= other.end for other in named)]
    return sorted(named + free, key=lambda one: one.start)


def find_sung_keys(text: str) -> list[Found[Key]]:
    """Every key whose tonic is a syllable: `la mineur`, `si bemol majeur`, `do maggiore`, `fa sostenido menor`."""
    named = []
    for match in _SUNG_KEY.finditer(text):
        accidental = (match["accidental"] or "")[:1].lower()
        tonic = _SYLLABLES[match["syllable"].lower()] + ("" if not accidental else "b" if accidental == "b" else "#")
        named.append(Found(match.start(), match.end(), Key(tonic, "major" if match["mode"][:2].lower() == "ma" else "minor")))
    return named


def _is_article(text: str, named: re.Match[str]) -> bool:
    """Whether the "a" of "a minor" is no note."""
    if named["note"] != "a" or named["accidental"] or not text[: named.start()].strip():
        return False
    return not _INTRODUCED.search(text[max(0, named.start() - _INTRODUCTION_CHARS) : named.start()])


def _key(match: re.Match[str], german: bool = False) -> Key:
    sign = _ACCIDENTALS[match["accidental"].lower()] if match["accidental"] else ""
    letter = {"H": "B"}.get(match["note"].upper(), match["note"].upper())
    if match["note"] in "Bb" and german and not sign:
        sign = "b"
    mode = match["mode"] if match["mode"] in ("m", "M") else match["mode"].lower()
    return Key(letter + sign, _MODES[mode])


def _on_wheel(number: int, side: str) -> Key:
    """A place on the Camelot (A, B) or the Open Key wheel (d, m)."""
    fifths = number - 8 if side in "ABab" else number - 1
    major = fifths * 7 % 12
    return Key.of(major, "major") if side in "Bbd" else Key.of(major + 9, "minor")


_TIMES = {"common": "4/4", "cut": "2/2"}
_NAMED_METER = re.compile(r"\b(common|cut) time\b", re.IGNORECASE)
_METER = re.compile(r"(?<![0-9/.])(1[0-9]|[2-9])\s?/\s?(2|4|8|16)(?![0-9/])")


def find_meters(text: str) -> list[Found[str]]:
    """Every time signature: `4/4`, `6 / 8`, common and cut time."""
    found = [Found(match.start(), match.end(), f"{match[1]}/{match[2]}") for match in _METER.finditer(text)]
    found += [Found(match.start(), match.end(), _TIMES[match[1].lower()]) for match in _NAMED_METER.finditer(text)]
    return sorted(found)


def parse_meter(text: str) -> str | None:
    """The first time signature of a text, as `4/4`."""
    found = find_meters(plain(text))
    return found[0].value if found else None


_CHORD = re.compile(
    r"(?<![A-Za-z0-9#])([A-G])(#|b)?"
    r"(?::?(maj7|maj9|maj|min7b5|min7|min9|min|mmaj7|m7b5|m7|m9|m6|m|M7|dim7|dim|aug|sus2|sus4|sus|hdim7|add9|13|11|9|7|6|5|\+|°|ø)?)"
    r"(?:\s(major|minor|diminished|augmented)\b)?(?:/[A-G][#b]?)?(?![A-Za-z0-9#])"
)
_CHORD_WORD = {"major": "", "minor": "m", "diminished": "dim", "augmented": "aug", None: ""}
_CHORD_SHORT = {"maj": "", "min": "m", "min7": "m7", "min9": "m9", "min7b5": "m7b5", "M7": "maj7", "hdim7": "m7b5"}
_CHORD_SHORT |= {"ø": "m7b5", "°": "dim", "+": "aug", "maj6": "6", "min6": "m6"}


def short_chord(label: str) -> str | None:
    """A chord label as musicians write it, `A:min/b3` -> `Am`, `C#:maj7` -> `C#maj7`; None for no chord."""
    match = re.match(r"^([A-G][#b]?)(?::([A-Za-z0-9]+))?", label)
    if match is None:
        return None
    quality = match[2] or ""
    return match[1] + _CHORD_SHORT.get(quality, quality)


def sounding(name: str) -> tuple[int, str]:
    """What a chord sounds like however it is spelled: Gbm and F#m -> (6, "m")."""
    root = name[:2] if name[1:2] in ("#", "b") else name[:1]
    return pitch_class(root), name[len(root) :]


def find_chords(text: str) -> list[Found[str]]:
    """Every chord as musicians write it; the article "A" is not a chord."""
    chords = []
    for match in _CHORD.finditer(text):
        bare = not (match[2] or match[3] or match[4])
        if bare and re.match(r"\s+[a-z']", text[match.end() :]) and not re.match(r"\s+(?:to|and|then|or|chord)\b", text[match.end() :]):
            continue  # "A slow song", "G is the tonic"
        quality = match[3] or ""
        name = match[1] + (match[2] or "") + (_CHORD_SHORT.get(quality, quality) or _CHORD_WORD[match[4]])
        chords.append(Found(match.start(), match.end(), name))
    return chords


def parse_chords(text: str) -> tuple[str, ...]:
    """Chord names in the order they are named, `C - G - A minor` -> (C, G, Am)."""
    return tuple(chord.value for chord in find_chords(plain(text)))[: 4 * MAX_ITEMS]


# --- lists --------------------------------------------------------------------------------------------------------

_LEAD_IN = re.compile(
    r"^[^,;:\n]{0,80}?(?:\b(?:are|is|includ(?:es?|ing)|featur(?:es?|ing)|feels?|sounds?(?: like)?|contains?)\b|:)\s+", re.IGNORECASE
)
_BULLET = re.compile(r"^\s*(?:[-+\u2022]|[0-9]{1,2}[.)])\s+")
_EDGES = " \t\"'[](){}.!?-_"
_ARTICLE = re.compile(r"^(?:(?:and|or|as well as|also|then|an?|the|some|mostly|mainly|primarily|genre|mood)\b:?\s+)+", re.IGNORECASE)


def _items(text: str, separators: str) -> Iterable[str]:
    lines = [line for line in text.split("\n") if line.strip()]
    bullets = [line for line in lines if _BULLET.match(line)]
    if bullets:
        yield from (re.split(r"\s-\s|:|\s\(", _BULLET.sub("", line), maxsplit=1)[0] for line in bullets)
    elif lines:
        first = re.split(r"(?<=[a-z)])\.\s", lines[0], maxsplit=1)[0]  # the list is in the first sentence, what follows comments on it
        yield from re.split(separators, _LEAD_IN.sub("", first))


def _parse_list(text: str, separators: str, lower: bool) -> tuple[str, ...]:
    text = plain(text)
    if _UNKNOWN.match(text):
        return ()
    found: dict[str, str] = {}
    for item in _items(text, separators):
        item = _ARTICLE.sub("", item.strip(_EDGES)).strip(_EDGES)
        if 1 < len(item) <= MAX_ITEM_CHARS and any(c.isalpha() for c in item) and not _UNKNOWN.match(item):
            found.setdefault(item.casefold(), item.lower() if lower else item)
    return tuple(found.values())[:MAX_ITEMS]


def parse_list(text: str) -> tuple[str, ...]:
    """Lower-case items of `Piano, guitar and drums.`, of bullets, of a JSON or Python list; each once."""
    return _parse_list(text, r"[,;|]|\s(?:and|with|&|plus)\s", lower=True)


def parse_genres(text: str) -> tuple[str, ...]:
    """Genre names as written: `drum and bass` and `R&B` stay whole."""
    return _parse_list(text, r"[,;|]", lower=False)


class Vocals(NamedTuple):
    """Whether there is singing, and what it is like."""

    present: bool | None
    description: str | None


_VOICE = r"(?:vocals?|vocalists?|voices?|sing(?:s|ing|ers?)|sung|lyrics|rap(?:s|ping|pers?|ped)?|choir|chorus)"
_NO_VOICE = re.compile(
    rf"\b(?:no|without|lacks?|lacking|free of|(?:not|n't) (?:have|contain|feature|include)(?: any)?)\s(?:\w+\s){{0,2}}{_VOICE}\b",
    re.IGNORECASE,
)


def parse_vocals(text: str) -> Vocals:
    """`No, instrumental.` -> (False, None); `Yes, a warm female voice.` -> (True, "a warm female voice")."""
    text = plain(text)
    if not text or (_UNKNOWN.match(text) and not re.match(r"^\W*none\b", text, re.IGNORECASE)):
        return Vocals(None, None)
    if re.match(r"^\W*(?:no|none)\b", text, re.IGNORECASE) or _NO_VOICE.search(text):
        return Vocals(False, None)
    yes = re.match(r"^\W*(?:yes)\b[\s,.:;-]*", text, re.IGNORECASE)
    if yes or re.search(rf"\b{_VOICE}\b", text, re.IGNORECASE):
        description = text[yes.end() :] if yes else text
        return Vocals(True, description.rstrip(" .") or None)
    return Vocals(False, None) if re.search(r"\binstrumental\b", text, re.IGNORECASE) else Vocals(None, None)
