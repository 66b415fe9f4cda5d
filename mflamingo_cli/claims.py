"""Reads every claim that a text makes about its song.

A claim is read with what its sentence does to it: denies it ("not in C major"), bounds it ("over 120 BPM"), or says it of a part of the
song, of other music, or as a suspicion. The text of a model is hostile input: everything here is total.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mflamingo_cli.measure import Key
from mflamingo_cli.parsers import (
    MAX_PARSED_CHARS,
    PLAIN_CHARACTERS,
    Found,
    find_chords,
    find_keys,
    find_meters,
    find_tempi,
    parse_key,
)
from mflamingo_cli.schema import ClaimValue


@dataclass(frozen=True)
class Reading:
    """A claim as the text makes it: characters `start` to `end` say that the fact `kind` has, or if `denied` has not, this value."""

    start: int
    end: int
    kind: str
    value: ClaimValue
    denied: bool = False
    judged: bool = True  # False: said of a part, of other music, or as one of several possibilities
    octave: bool = False  # a tempo "felt in half-time"


# --- sentences -------------------------------------------------------------------------------------------------------------

_END = re.compile(r"[.!?\u2026]+[\"')\]\u2019\u201d]*(?=\s|$)|\n+")
_SHORT = re.compile(  # what ends with a full stop and ends no sentence
    r"(?:\b(?:approx|ca|cf|e\.g|i\.e|etc|feat|ft|incl|min|max|mr|mrs|ms|dr|no|nos|op|st|vs|vol)|(?-i:(?:^|[\s(])[I-Z]|^(?:[A-Z]\.\s?)*[A-Z])|^[0-9]{1,2}|[0-9]\s?[ap]\.m)\.$",
    re.IGNORECASE,
)


def sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence starts and ends, the space after it left out; a line is a sentence too."""
    spans, start = [], 0
    for match in _END.finditer(text):
        if match[0][0] == "." and match[0][-1] == "." and _goes_on(text[start : match.end()].lstrip(), text[match.end() :]):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    trimmed = ((low + len(text[low:high]) - len(text[low:high].lstrip()), low + len(text[low:high].rstrip())) for low, high in spans)
    return [(low, high) for low, high in trimmed if low < high]


def _goes_on(before: str, after: str) -> bool:
    """Whether a full stop belongs to an abbreviation, or what follows it begins no sentence."""
    follows = after.lstrip()
    if "\n" in after[: len(after) - len(follows)] or not follows:
        return False
    return follows[0].islower() or (_SHORT.search(before[-12:]) is not None and not before.endswith(("etc.", "min.")))


# --- what stands around a claim ----------------------------------------------------------------------------------------------

REACH = 7  # words from a denial to what it denies
NEAR = 32  # characters before a claim in which a word about a part or a moment is about it
AFTER = 60  # characters behind a claim in which a part may be named


def _any_of(*patterns: str, after: str = r"\b") -> re.Pattern[str]:
    """One of several wordings that begins with a word."""
    return re.compile(rf"\b(?:{'|'.join(patterns)}){after}", re.IGNORECASE)


_CLAUSE = re.compile(
    r"[;()\u2014]|:(?![0-9])|\s-\s|(?<!anything)(?<!nothing),?\s\b(?:but|however|although|though|whereas|while|yet|sondern|aber|mais|sino|pero)\b",
    re.IGNORECASE,
)
_ANEW = re.compile(r",\s(?:and\s|so\s)?(?=(?:the (?:song|track|piece|music|whole|key|tempo|tonality)|it|this)\b)", re.IGNORECASE)
_PART_FIRST = re.compile(r"\W*(?:and |then )?(?:in|during|at|by|after|before|from|until|for|on|towards?|over|through)\b", re.IGNORECASE)
_DENIAL = re.compile(
    r"n't\b|\b(?:not|never|neither|nor|no|nothing|without|hardly|rather than|instead of|as opposed to|anything but|far from|"
    r"lack(?:s|ing)|avoid(?:s|ing)?|fail(?:s|ing|ed)? to|devoid of|free (?:of|from)|wrong to|nicht|kein\w*|ohne|pas|sans)\b|"
    r"\b(?:more (?!than\b)|closer|nearer).* than(?= (?:in |at |to |like )?$)",  # "more like A minor than C major"
    re.IGNORECASE,
)
_NO_DENIAL = _any_of(
    *(
        r"(?:no|without (?:any|a)) (?:doubt|question)",
        "not (?:only|just|merely|simply)",
        "not (?:quite|far from|exactly)",
        "not to mention",
        r"(?:no|not|n't|cannot|can't|can not) (?:be )?(?:deny\w*|denied|doubt\w*|mistak\w+|question\w*)",
        "(?:is|are|was)(?:n't| not) (?:not|without)",
        "not that (?:it|this) (?:isn't|is not)",
    ),
    *("no (?:less|more|fewer|slower|faster) than", "no wonder", "no matter", "nothing but", "no sooner"),
)
_LEAVING = _any_of(  # "never leaves A minor" says that it is in A minor
    *("leav", "left", "stray", "depart", "deviat", "wander", "escap", "abandon", "los(?:e|ing|es)", "chang", "drift", "budg"),
    *("mov(?:e|es|ing) (?:away|far)", "let(?:s|ting)? go"),
    after="",
)
_OTHER_MUSIC = _any_of(
    *("unlike", "typical(?:ly)?", "usual(?:ly)?", "commonly", r"most (?:\w+ )?(?:songs|tracks|music|house|techno|pop)"),
    *("compared (?:to|with)", "reminiscent", r"mix(?:es|ed)? (?:well|nicely|cleanly)?\s?with", "if (?:it|this|you|the)"),
    *("original(?:ly)? (?:song|version|recording|key|tempo)?", "would (?:be|suit|sound|work|mix|fit)"),
    "(?:many|some|others|people) (?:hear|say|call|think|feel)",
    "(?<!one )(?<!nobody )(?:might|may|could|would) (?:hear|say|call|think|feel|mistake)",
    *("title", "file ?name", "metadata"),
)
_IN_PASSING = _any_of(  # said of a moment, or as a colour
    *("relative", "parallel", "dominant", "subdominant", "neighbou?ring", "related", "borrow(?:s|ed|ing)?", "hint(?:s|ing)?"),
    *("suggest(?:s|ing)?", "touch(?:es|ing)?", "flirt(?:s|ing)?", r"tonici[sz]\w+", r"modul[ai]\w+", "mistaken for", r"pivot\w*"),
    *(r"moves? (?:up|down|briefly|back)? ?(?:to|into|toward\w*)", "shift(?:s|ing)?", "pass(?:es|ing)", "lift(?:s|ed|ing)?", "detour"),
    *("turn(?:s|ing)? to", r"resolv\w+", r"cadenc\w+", "drops?", "dropping", "slow(?:s|ing)? (?:down )?to", "speed(?:s|ing)?"),
    *(r"accelerat\w+", "ris(?:es|ing)", "climb(?:s|ing)?", "jump(?:s|ing)?", "fall(?:s|ing)?", "builds?", "(?<!far )from(?= $)"),
    *(r"switch\w*", "changes?", "changing", "start(?:s|ing)?", "begin(?:s|ning)?", "open(?:s|ing)", "end(?:s|ing)", "clos(?:es|ing)"),
    *("doubl(?:es|ing)", "halv(?:es|ing)", r"(?:oscillat|fluctuat|waver|sway|toggl|flip|hesitat)\w* between", "visits?", "excursions?"),
    *("briefly", "momentarily", "for a moment", "at times", "sometimes", "occasional(?:ly)?"),
)
_PARTS = (
    "intro|outro|verses?|chorus(?:es)?|pre-chorus|bridge|breakdown|break|solo|interlude|coda|build-up|drop|refrain|middle eight|"
    "strophe|couplet|estrofa|estribillo"
)
_IN_A_PART = _any_of(
    r"(?:in|during|for|by|at|until|after|before|over|under|through(?:out)?|the|its|first|second|last|middle|whose|an?|then|der|die|im|le|el)"
    rf"(?: \w+){{0,2}}? (?:{_PARTS}|section [A-Z])",
    "(?:first|second|third|last|final|other) (?:half|third|quarter|minute)",
    "(?:at|from|after|until|by|around) [0-9]{1,2}:[0-5][0-9]",
    "the end",
)
_PERHAPS = _any_of(
    *("(?:could|might|may) (?:also )?be", "either", "or (?:perhaps|possibly|maybe)", r"ambigu\w+", "unclear", "whether"),
    *(r"(?:not|n't|hardly|never) (?:\w+ )?(?:sure|certain|clear|know)", "(?:hard|difficult|impossible) to (?:say|tell)"),
)
_DENIED_AFTER = re.compile(
    r"\s(?:is|are)(?:n't| not| never| nowhere| hardly)\b(?! (?:only|just))|\s(?:this|it) is not(?=[.,;!]|$)", re.IGNORECASE
)
_OR_BEFORE = re.compile(r"(?:major|minor|[0-9]),? or (?:in |at )?$", re.IGNORECASE)
_OR_AFTER = re.compile(r",? or (?:in |at )?(?:[A-G](?:#|b|-flat|-sharp)? (?:major|minor)\b|[0-9]{1,2}/[0-9])", re.IGNORECASE)
_OCTAVE = _any_of("(?:half|double)[- ]time", "fel[tl]", "feels?", "count(?:ed|s)?", "tapp?(?:ed|s)?", "octave", r"alternativ\w+")
_OVER = _any_of(
    *("over", "above", "(?<!no )more than", "(?<!no )faster than", "no (?:less|slower) than", "at least", "north of"),
    *("exceed(?:s|ing)?", "upwards? of", "louder than", "longer than"),
    after=r"\s(?:about |around )?$",
)
_UNDER = _any_of(
    *("under", "below", "(?<!no )less than", "(?<!no )slower than", "no (?:more|faster) than", "at most", "up to"),
    *("shy of", "short of", "quieter than", "softer than", "shorter than"),
    after=r"\s(?:about |around )?$",
)
PACES: Mapping[str, tuple[float | None, float | None]] = {"slow": (None, 100.0), "fast": (100.0, None)}  # what no listener would call so
_PACE = re.compile(
    rf"\b(?:(?:an?|(?:is|runs?)(?: an?)?(?: very| quite| rather)?)\s)(?P<pace>{'|'.join(PACES)})"
    r"(?=[,.;!]|\sat\b|\s(?:track|song|piece|tempo|pace|pulse|beat)\b)",
    re.IGNORECASE,
)
_BY_SO_MUCH = re.compile(
    r"\b(?:by|within|another|some|twice|double|half(?: of)?|as (?:fast|slow|quick) as|"
    r"(?:chang|differ|deviat|fluctuat|increas|decreas|jump|ris|drop|rang|spread|step|drift|varia)\w* of)"
    r"\s(?:about |around |roughly )?$|[+\u00b1]\s?$",
    re.IGNORECASE,
)
_FASTER = re.compile(r"\s?(?:faster|slower|quicker|more|less|higher|lower|above|below|apart|off)\b", re.IGNORECASE)


@dataclass(frozen=True)
class _Sentence:
    """A sentence as it is read: plain characters, and where each of them stands in the text."""

    plain: str
    at: list[int]

    @classmethod
    def of(cls, text: str, start: int, end: int) -> _Sentence:
        """Make dashes, quotes and accidentals plain, and spaces single; stars of Markdown are left out."""
        plain: list[str] = []
        at: list[int] = []
        for index in range(start, min(end, start + MAX_PARSED_CHARS)):
            for char in unicodedata.normalize("NFKC", text[index]).translate(PLAIN_CHARACTERS):
                space = char.isspace()
                if char in "*`_" or (space and (not plain or plain[-1] == " ")):
                    continue
                plain.append(" " if space else char)
                at.append(index)
        return cls("".join(plain), at)

    def clause(self, start: int) -> str:
        """What stands before a place in its clause."""
        before = self.plain[:start]
        breaks = [match.end() for match in _CLAUSE.finditer(before)]
        return before[breaks[-1] if breaks else 0 :]

    def denies(self, start: int) -> bool:
        """Whether what stands at a place is denied: "not in", "neither", "without"; leaving is a denial too, and two cancel each other."""
        before = _NO_DENIAL.sub(lambda match: " " * len(match[0]), self.clause(start))
        denials = [match.end() for match in _DENIAL.finditer(before)]
        if not denials:
            return False
        after = before[denials[-1] :]
        if "," in after and not re.match(r"[^,]{0,24},\s?(?:nor|or)\s?$", after):
            return False  # the denial was of something else
        return len(after.split()) <= REACH and not _LEAVING.search(after)

    def judged(self, start: int, end: int) -> bool:
        """Whether what stands at a place is said of the whole song."""
        before = self.clause(start)
        for anew in _ANEW.finditer(before):
            if not _PART_FIRST.match(before):
                before = before[anew.end() :]
                break
        around = before + self.plain[start : end + AFTER]
        passing = None if _LEAVING.search(before) and _DENIAL.search(before) else _IN_PASSING.search(before[-NEAR:])
        return not (
            self.plain.rstrip("\"') ").endswith("?")
            or _OTHER_MUSIC.search(around)
            or passing
            or _IN_A_PART.search(around)
            or _PERHAPS.search(before)
        )

    def offered(self, start: int, end: int) -> bool:
        """Whether what stands at a place is one of two that "or" joins."""
        return _OR_BEFORE.search(self.plain[:start]) is not None or _OR_AFTER.match(self.plain[end:]) is not None

    def bounded(self, start: int, value: float) -> tuple[ClaimValue, bool]:
        """The range that a number bounds, "over 120", and whether it is denied; "not over 120" is a range, and no denial."""
        before, denied = self.clause(start), self.denies(start)
        over, under = _OVER.search(before), _UNDER.search(before)
        if not over and not under:
            return value, denied
        return ((value, None) if bool(over) != denied else (None, value)), False

    def reading(self, found: Found[Any], kind: str, value: ClaimValue, **what: Any) -> Reading:
        """A claim by its place in the text."""
        denied = self.denies(found.start) != (_DENIED_AFTER.match(self.plain[found.end :]) is not None)
        what = {"denied": denied, "judged": self.judged(found.start, found.end)} | what
        if kind in ("key", "meter") and not what["denied"] and self.offered(found.start, found.end):
            what["judged"] = False
        return Reading(self.at[found.start], self.at[found.end - 1] + 1, kind, value, **what)


# --- readers: one for each kind -----------------------------------------------------------------------------------------------


def _tempi(sentence: _Sentence) -> Iterator[Reading]:
    """Beats per minute; beside them "slow" and "fast" too, which alone may mean the music and not its beat."""
    tempi = find_tempi(sentence.plain)
    for match in _PACE.finditer(sentence.plain) if any(sentence.judged(one.start, one.end) for one in tempi) else ():
        yield sentence.reading(Found(match.start("pace"), match.end("pace"), None), "tempo", PACES[match["pace"].lower()])
    for found in tempi:
        before, after = sentence.clause(found.start), sentence.plain[found.end :]
        if _FASTER.match(after) or _BY_SO_MUCH.search(before):
            continue
        value, denied = sentence.bounded(found.start, found.value[0])
        if len(found.value) > 1:
            value, denied = (min(found.value), max(found.value)), sentence.denies(found.start)
        yield sentence.reading(found, "tempo", value, denied=denied, octave=_OCTAVE.search(sentence.plain) is not None)


_ABOUT_CHORDS = _any_of(
    *("chords?", "progressions?", "triads?", "vamps?", "loops?", r"alternat\w+ between", "cycles? (?:of|through|between)"),
    *("harmon(?:y|ies) (?:moves?|turns?|circles?|cycles?|alternates?|goes)", "moves? (?:between|through)", "changes? (?:between|through)"),
)
_KEY_CUE = re.compile(
    r"\b(?:in|of|is|key|tonality|tonal cent(?:re|er)|cent(?:red|ered) on|tonic)[\s:]*(?:the |an? |likely |clearly )?$", re.IGNORECASE
)
_IN_KEY = re.compile(r"\b(?:in|key|key of|key is)[\s:]*$", re.IGNORECASE)
_A_KIND = re.compile(r"\s(?:key|mode|tonality|feel|mood|sound|sonority|third|triad)\b", re.IGNORECASE)  # "in a minor key"
_NO_KEY = re.compile(  # "A minor chord", "C major 7", "D minor pentatonic", "C major scale"
    r"(?:-|\s)?(?:chords?|triads?|seconds?|thirds?|sixths?|sevenths?|ninths?|intervals?|arpeggi\w+|pentatonic|blues scale|scales?|"
    r"inversion|[0-9]|add|sus|power|relative)\b|'s\s",
    re.IGNORECASE,
)
_TITLE = re.compile(r"[A-G].*\b(?:Major|Minor)")  # and a further capital: "C Minor Blues"
_KEY_GOES_ON = (
    "in|at|and|with|is|for|from|throughout|track|song|piece|ballad|or|it|the|to|but|as|on|by|while|which|that|over|then|so|here|all"
)
_ARTICLE_NOUN = re.compile(rf"\s(?!(?:{_KEY_GOES_ON})\b)[a-z]")  # "A minor detail"
_ARTICLE_BEFORE = re.compile(r"(?:^[\s\"'(]*|\b(?:the|an?)\s)$", re.IGNORECASE)
_LETTER_KEY = re.compile(r"\b(?:in|key(?: is| of|:)?|camelot)\s+([A-G][#b]?)m\b(?!\s*(?:chord|to|,|-|and))")
_WHEEL_KEY = re.compile(r"\b(?:camelot|open key)\b\W{0,3}(?:key |code |of |is )?((?:1[0-2]|[1-9])[ABdm])\b", re.IGNORECASE)


def _keys(sentence: _Sentence) -> Iterator[Reading]:
    found = find_keys(sentence.plain)
    found += [Found(m.start(1), m.end(1) + 1, Key(m[1], "minor")) for m in _LETTER_KEY.finditer(sentence.plain)]
    found += [Found(m.start(1), m.end(), key) for m in _WHEEL_KEY.finditer(sentence.plain) if (key := parse_key(m[1]))]
    for one in sorted(found, key=lambda one: one.start):
        if not _is_chord(sentence, one, found):
            yield sentence.reading(one, "key", one.value.name)


def _is_chord(sentence: _Sentence, key: Found[Key], keys: list[Found[Key]]) -> bool:
    """Whether "A minor" is a chord, a scale, or an article and an adjective here, and no key."""
    before, after = sentence.clause(key.start), sentence.plain[key.end :]
    if _NO_KEY.match(after):
        return True
    if _ARTICLE_BEFORE.search(sentence.plain[: key.start]) and key.value.tonic == "A" and _ARTICLE_NOUN.match(after):
        return True
    if sentence.plain[key.start] == "a" and (_A_KIND.match(after) or _ARTICLE_NOUN.match(after)):
        return True
    if _TITLE.match(sentence.plain[key.start : key.end]) and re.match(r"\s[A-Z][a-z]+(?!\w|:)", after):
        return True
    if _ABOUT_CHORDS.search(sentence.plain[: key.start]):
        return not _IN_KEY.search(before)
    row = [one for one in keys if abs(one.start - key.start) < 90]
    return len(row) >= 3 and not _KEY_CUE.search(before)  # three in a row are a progression


def _meters(sentence: _Sentence) -> Iterator[Reading]:
    for found in find_meters(sentence.plain):
        if sentence.plain.startswith(" of ", found.end):
            continue  # "3/4 of the song"
        yield sentence.reading(found, "meter", found.value)
    for match in _WALTZ.finditer(sentence.plain):
        yield sentence.reading(Found(match.start(), match.end(), ""), "meter", "3/4")


_WALTZ = re.compile(r"\b(?:in waltz time|waltz (?:meter|metre|time)|(?:counted|beats?|is) in three)\b", re.IGNORECASE)
_CHURCH_MODE = re.compile(r"\s(?:ionian|dorian|phrygian|lydian|mixolydian|aeolian|locrian)\b", re.IGNORECASE)
_IS_CHORD = re.compile(r"\s(?:chord|triad|arpeggi)", re.IGNORECASE)
_SECTION_LETTER = re.compile(r"(?<![A-Za-z])[A-Z] \([0-9]+(?::[0-5][0-9]){1,2}\)|\b[Ss]ections? [A-Z]\b(?:(?:,| and) [A-Z]\b)*|^\([A-Z]\)")


def _chords(sentence: _Sentence) -> Iterator[Reading]:
    """Chords where the sentence is about chords; a lone letter elsewhere is a note, a section or a grade."""
    keys = [key for key in find_keys(sentence.plain) if not _is_chord(sentence, key, find_keys(sentence.plain))]
    taken = [(key.start, key.end) for key in keys] + [match.span() for match in _SECTION_LETTER.finditer(sentence.plain)]
    taken += [(m.start(1), m.end(1) + 1) for m in _LETTER_KEY.finditer(sentence.plain)]
    about = _ABOUT_CHORDS.search(sentence.plain)
    found = [one for one in find_chords(sentence.plain) if all(one.end <= low or one.start >= high for low, high in taken)]
    if found and found[0].start == 0 and re.match(r"A [A-G]", sentence.plain):
        del found[0]  # "A C major chord"
    for chord in found:
        if _CHURCH_MODE.match(sentence.plain, chord.end):
            continue
        symbol = sentence.plain[chord.start : chord.end]
        if (
            about
            or len(found) >= 3
            or re.fullmatch(r"[A-G][#b]?:?(?:m|maj|min|dim|aug|sus|add)\w*(?:/[A-G][#b]?)?", symbol)
            or _IS_CHORD.match(sentence.plain, chord.end)
        ):
            yield sentence.reading(chord, "chords", chord.value)


_VOICE = (
    r"(?:(?:lead|backing|female|male|human|sung|clean|harsh|wordless|any|warm|soft|her|his) )*(?:"
    r"vocals|vocalists?|vocal (?:lines?|performance|melody|part|delivery|hooks?)|singers?|singing|sung|sings?|lyrics|choirs?|"
    r"rapp(?:ers?|ing|ed)|raps?|(?:female|male|human|sung|lead|backing|soprano|tenor|baritone|alto) voices?|"
    r"voices? (?:sings?|enters?|floats?|carr(?:y|ies)|(?:is|are|can be) heard)|(?<=\bno )voices?(?! leading)|(?<=without a )voice)"
)
_SINGING = re.compile(rf"\b{_VOICE}\b", re.IGNORECASE)
_NOBODY_SINGS = _any_of(
    r"(?:nobody|no one|no-one|none)(?: (?!would|will|could|knows)\w+){0,3}? (?:sings?|raps?)(?: (?:or|and) (?:sings?|raps?))?"
)
_ONE_VOICE = re.compile(
    r"lead|back|female|male|clean|harsh|wordless|warm|soft|choir|rap|sopran|alto|tenor|bariton", re.IGNORECASE
)  # of several
_INSTRUMENTAL = _any_of(
    r"(?:is|entirely|purely|fully|completely|wholly|strictly|an?) (?:an? )?(?:\w+ ){0,2}?(?P<what>instrumental)",
    "instrumental (?:track|piece|song|music|composition)",
    "instrumental(?=[.,;!]?$)",
)
_PARTLY = _any_of(
    "mostly", "largely", "mainly", "primarily", "partly", "almost", "nearly", "half", "predominantly", "of the (?:song|track)"
)
_NOT_HEARD = re.compile(
    r"\s?[:-]\s?(?:no|none|not|absent)\b|\s(?:is|are|was|were)(?: \w+ly)? (?:absent|missing|nowhere)\b|"
    r"\s(?:(?:is|are|was|were|can)(?: not|n't)|cannot|do(?:es)?(?: not|n't)|never) (?:be )?"
    r"(?:present|there|heard|used|appears?|occurs?|exists?|features?)\b",
    re.IGNORECASE,
)
_INSTRUMENTAL_PART = re.compile(
    rf"\s(?:{_PARTS}|to|in|for|section|passage|hook|texture|arrangement|backing|parts?|layers?)\b", re.IGNORECASE
)
_LIKENED = _any_of(
    *("like an?", "as if", "(?:role|place|part|manner|style) of an?", "as", r"imitat\w+", r"mimic\w*", r"resembl\w+", "almost"),
    after=r"(?: \w+)?\s$",
)
_THING_THAT_SINGS = _any_of(
    *("guitars?", "violins?", "cello", "sax(?:ophone)?", "synths?", "bass", "lead", "melody", "trumpet", "oboe", "flute", "piano"),
    *("strings?", "clarinet"),
    after=r"\s$",
)
_SINGING_THING = re.compile(r"\s(?:guitar|violin|cello|sax(?:ophone)?|lead|tone|bowl|saw|quality|synth)s?\b(?<!leads)", re.IGNORECASE)


def _vocals(sentence: _Sentence) -> Iterator[Reading]:
    taken: list[tuple[int, int]] = []
    found: list[bool] = []

    def read(match: re.Match[str], sung: bool) -> Iterator[Reading]:
        if all(match.end() <= low or match.start() >= high for low, high in taken):
            taken.append(match.span())
            denied = sentence.denies(match.start("what") if "what" in match.re.groupindex else match.start())
            denied ^= sung and _NOT_HEARD.match(sentence.plain[match.end() :]) is not None
            if sung and denied and (_ONE_VOICE.search(match[0]) or (True in found and match[0].casefold() == "lyrics")):
                return  # "no choir" and "vocals without lyrics" leave room for a singer
            found.append(sung != denied)
            whole = {} if sung or not _PARTLY.search(sentence.plain[: match.end()]) else {"judged": False}
            yield sentence.reading(Found(match.start(), match.end(), None), "vocals", sung != denied, denied=False, **whole)

    for match in _NOBODY_SINGS.finditer(sentence.plain):
        taken.append(match.span())
        yield sentence.reading(Found(match.start(), match.end(), None), "vocals", False, denied=False)
    for match in _INSTRUMENTAL.finditer(sentence.plain):
        if not _INSTRUMENTAL_PART.match(sentence.plain[match.end() :]):
            yield from read(match, False)
    for match in _SINGING.finditer(sentence.plain):
        before = sentence.plain[: match.start()]
        metaphor = _THING_THAT_SINGS.search(before) or _LIKENED.search(before) or _SINGING_THING.match(sentence.plain[match.end() :])
        if not metaphor:
            yield from read(match, True)


_LEVEL = r"(-\s?[0-9]{1,2}(?:[.,][0-9]{1,2})?)"
_LUFS = re.compile(rf"(?<![0-9.]){_LEVEL}(?:\s?(?:LUFS|LKFS))?(?:\s?(?:to|and)\s{_LEVEL})?\s?(?:LUFS|LKFS)\b", re.IGNORECASE)


def _loudness(sentence: _Sentence) -> Iterator[Reading]:
    for match in _LUFS.finditer(sentence.plain):
        levels = sorted(float(level.replace(" ", "").replace(",", ".")) for level in match.groups() if level)
        value, denied = sentence.bounded(match.start(), levels[0])
        if len(levels) > 1:
            value, denied = (levels[0], levels[1]), sentence.denies(match.start())
        yield sentence.reading(Found(match.start(), match.end(), None), "loudness", value, denied=denied)


_CLIPPED = _any_of(  # as chords and vocals are played, "clipped" is no fault of the sound
    r"(?P<clean>unclipped|free (?:of|from) (?:any )?(?:digital |audible )?clipping)",
    r"\w+n't clip(?:ped)?(?! (?:and|chords?|notes?|phras|vocal|guitar))",
    r"(?:is|are|sounds?|gets?|being|was) (?:not |never |\w+ly |a (?:little|bit) )?clipped(?! (?:and|chords?|notes?|phras|vocal|guitar))",
    r"(?:not|never) clip(?:s|ped)?",
    r"(?:digital |audible |any |some |heavy |hard )?clipping",
)


def _clipping(sentence: _Sentence) -> Iterator[Reading]:
    for match in _CLIPPED.finditer(sentence.plain):
        denied = sentence.denies(match.start() if match["clean"] else match.end() - 1)
        is_so = bool(match["clean"]) == (denied ^ (_NOT_HEARD.match(sentence.plain[match.end() :]) is not None))
        yield sentence.reading(Found(match.start(), match.end(), None), "clipping", is_so, denied=False)


_LASTS = re.compile(
    r"\b(?:lasts?|lasting|runs?(?: for| to)?|holds for|running (?:for|to|time(?: of)?)|"
    r"(?:duration|length|run-?time)(?: of| is|:)?|(?P<is>is|are|(?<=')s))\s(?:about |around |roughly |just |for )?"
    r"(?:over\s|more than\s|at least\s|longer than\s|under\s|less than\s|at most\s|shorter than\s|up to\s)?"
    r"(?P<value>(?P<clock>[0-9]{1,2}(?::[0-5][0-9]){1,2})|(?P<count>[0-9]{1,4}(?:[.,][0-9])?)\s?(?:s|seconds?|(?P<min>minutes?|min))\b)"
    r"(?:\s(?:and\s)?(?P<rest>[0-9]{1,2})\s(?:s|seconds?)\b)?(?P<long>\slong)?",
    re.IGNORECASE,
)


def _duration(sentence: _Sentence) -> Iterator[Reading]:
    for match in _LASTS.finditer(sentence.plain):
        if match["is"] and not match["long"]:
            continue
        if match["clock"]:
            seconds = sum(float(part) * 60**place for place, part in enumerate(reversed(match["clock"].split(":"))))
        else:
            seconds = float(match["count"].replace(",", ".")) * (60 if match["min"] else 1) + float(match["rest"] or 0)
        value, denied = sentence.bounded(match.start("value"), seconds)
        yield sentence.reading(Found(match.start(), match.end(), seconds), "duration", value, denied=denied)


def _sections(sentence: _Sentence) -> Iterator[Reading]:
    for match in re.finditer(r"(?<![A-Za-z])([A-Z]) \(([0-9]+(?::[0-5][0-9]){1,2})\)", sentence.plain):
        yield sentence.reading(Found(match.start(), match.end(), ""), "sections", f"{match[1]} {match[2]}", judged=True)


READERS: Mapping[str, Callable[[_Sentence], Iterator[Reading]]] = {
    "tempo": _tempi,
    "key": _keys,
    "meter": _meters,
    "chords": _chords,
    "sections": _sections,
    "loudness": _loudness,
    "clipping": _clipping,
    "vocals": _vocals,
    "duration": _duration,
}
"""How claims about each fact are read."""


def read_claims(text: str) -> list[Reading]:
    """All claims of a text in their order; places are characters of `text`."""
    found = [
        reading
        for start, end in sentences(text)
        for sentence in [_Sentence.of(text, start, end)]
        for read in READERS.values()
        for reading in read(sentence)
    ]
    return sorted(found, key=lambda reading: (reading.start, reading.kind))
