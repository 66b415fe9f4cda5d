"""Every question beside its parser: what a song is asked, and how an answer is read.

Tempo is in beats per minute. The text of a model is hostile input: every parser here is total, it returns
what it could read or `None` / `()` and never raises, whatever the text. Prompts marked "documented" are the
ones the public checkpoints were trained and shown with (model cards, demo, paper arXiv 2511.10289, figs 15-24).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from mflamingo_cli.measure import Facts

MAX_PARSED_CHARS = 20_000  # more than 2048 tokens can hold; bounds the time of every regular expression below
MAX_ITEMS = 12  # of a list answer: a model that loops repeats itself, an honest list is short
MAX_ITEM_CHARS = 48  # a longer "item" is prose
TEMPO_RANGE_BPM = (20.0, 400.0)  # outside it a number is a year, a bar count or a frequency
SHORT_ANSWER_CHARS = 40  # a bare number counts as a tempo only in an answer this short: "87", "About 120."


# --- text -----------------------------------------------------------------------------------------------------

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63"), "-")
_QUOTES = dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032"), "'") | dict.fromkeys(map(ord, "\u201c\u201d\u201e\u2033"), '"')
_MUSIC = {ord("\u266f"): "#", ord("\u266d"): "b", ord("\u266e"): ""}
_PLAIN = _DASHES | _QUOTES | _MUSIC
_KEPT_CONTROLS = "\n\t"


def scrub(text: str) -> str:
    """Text without control, direction or surrogate characters: nothing in it can steer a terminal."""
    return "".join(c for c in text if c in _KEPT_CONTROLS or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))


def tidy(text: str) -> str:
    """Free text made safe to store: composed, scrubbed, trimmed."""
    return scrub(unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))).strip()


def plain(text: str) -> str:
    """Text as the parsers read it: answer part only, ASCII dashes, quotes and accidentals, no Markdown stars."""
    text = split_thinking(text[:MAX_PARSED_CHARS]).answer or ""
    text = unicodedata.normalize("NFKC", tidy(text)).translate(_PLAIN).replace("*", "").replace("`", "")
    return "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()  # single spaces keep the expressions below linear


_UNKNOWN = re.compile(
    r"^\W*(?:none|n/?a|nil|null|nothing|unknown|not (?:sure|clear|applicable)|unclear|undetermined"
    r"|(?:i )?(?:cannot|can't|can not) (?:tell|say|hear|determine)|i (?:do not|don't) know|i'm not sure|i am not sure)\b[^,]*$",
    re.IGNORECASE,
)


def is_unknown(text: str) -> bool:
    """Whether an answer says that it cannot be told: `I cannot tell that from the sound.`, `unknown`, nothing at all."""
    text = plain(text)
    return not text or _UNKNOWN.match(text) is not None


def parse_text(text: str) -> str | None:
    """A caption or free answer, tidied; None when nothing is left."""
    answer = split_thinking(text).answer
    return (tidy(answer) or None) if answer else None


# --- numbers and names ------------------------------------------------------------------------------------------

_NUMBER = r"(?<![0-9.,/:])([0-9]{2,3}(?:\.[0-9]{1,3})?)"
_TEMPO = re.compile(_NUMBER + r"(?:\s*(?:-|to)\s*([0-9]{2,3}(?:\.[0-9]{1,3})?))?\s*-?\s*(?:bpm\b|beats per minute)", re.IGNORECASE)
_TEMPO_LABEL = re.compile(r"\b(?:bpm|tempo)\b[^0-9\n]{0,20}" + _NUMBER + r"(?![0-9:/])", re.IGNORECASE)
_BARE_NUMBER = re.compile(_NUMBER + r"(?!\.?[0-9:/%])(?!\s?(?:s|sec|seconds?|min|minutes?|LUFS|LU|dB\w{0,3}|Hz)\b)")


def parse_tempo(text: str) -> float | None:
    """Beats per minute: `87`, `about 120.5 BPM`, `118-122 bpm` (its middle)."""
    text = plain(text)
    match = _TEMPO.search(text) or _TEMPO_LABEL.search(text)
    if match is None and len(text) <= SHORT_ANSWER_CHARS:
        match = _BARE_NUMBER.search(text)
    if match is None:
        return None
    values = [float(value) for value in match.groups() if value]
    bpm = sum(values) / len(values)
    return bpm if TEMPO_RANGE_BPM[0] <= bpm <= TEMPO_RANGE_BPM[1] else None


_NOTE = r"([A-Ga-g])\s?(#|b|-?\s?sharp\b|-?\s?flat\b)?"
_KEY = re.compile(r"(?<![A-Za-z])" + _NOTE + r"[\s:-]*(major|minor|maj|min|dur|moll|m)(?![A-Za-z0-9])", re.IGNORECASE)
_BARE_KEY = re.compile(r"(?:\bkey\b[^.\n]{0,24}?\b(?:of|is|in|:)\s*|^)([A-G])(#|b)?(?=[.,;\s]*$)", re.MULTILINE)


def _accidental(text: str | None) -> str:
    text = (text or "").lower()
    return "#" if text.endswith(("#", "sharp")) else "b" if text.endswith(("b", "flat")) else ""


def parse_key(text: str) -> str | None:
    """A key as `F# minor`: the first one named. A bare `D` after "key" or alone is major."""
    text = plain(text)
    if match := _KEY.search(text):
        mode = match[3] if match[3] in ("m", "M") else match[3].lower()
        minor = mode in ("m", "minor", "min", "moll")
        return f"{match[1].upper()}{_accidental(match[2])} {'minor' if minor else 'major'}"
    if match := _BARE_KEY.search(text):
        return f"{match[1]}{match[2] or ''} major"
    return None


_METER = re.compile(r"(?<![0-9/.])(1[0-9]|[2-9])\s?/\s?(2|4|8|16)(?![0-9/])")


def parse_meter(text: str) -> str | None:
    """A time signature as `4/4`; common and cut time are read too."""
    text = plain(text)
    if match := _METER.search(text):
        return f"{match[1]}/{match[2]}"
    if match := re.search(r"\b(common|cut) time\b", text, re.IGNORECASE):
        return "4/4" if match[1].lower() == "common" else "2/2"
    return None


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


def parse_chords(text: str) -> tuple[str, ...]:
    """Chord names in the order they are named, `C - G - A minor` -> (C, G, Am); the article "A" is not a chord."""
    text = plain(text)
    chords = []
    for match in _CHORD.finditer(text):
        bare = not (match[2] or match[3] or match[4])
        if bare and re.match(r"\s+[a-z']", text[match.end() :]) and not re.match(r"\s+(?:to|and|then|or|chord)\b", text[match.end() :]):
            continue  # "A slow song", "G is the tonic"
        quality = match[3] or ""
        chords.append(match[1] + (match[2] or "") + (_CHORD_SHORT.get(quality, quality) or _CHORD_WORD[match[4]]))
    return tuple(chords[: 4 * MAX_ITEMS])


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
    """Whether somebody sings, and how."""

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


# --- thinking -------------------------------------------------------------------------------------------------------

THINK_SUFFIX: Final = " Output the thinking process in <think> </think> and final answer in <answer> </answer>."  # documented, exact


class Thought(NamedTuple):
    """A reply taken apart; `truncated` says that the reasoning never ended, so there is no answer."""

    thinking: str | None
    answer: str | None
    truncated: bool


_TAG = re.compile(r"<\s{0,2}(/?)\s{0,2}(think|answer)\s{0,2}>", re.IGNORECASE)


def think_prompt(question: str) -> str:
    """The question with the documented suffix that asks for a reasoning trace."""
    return question.rstrip() + THINK_SUFFIX


def split_thinking(text: str) -> Thought:
    """Take a reply apart, leniently: the last <answer>, else what follows </think>, else everything."""
    tags = [(m[2].lower(), bool(m[1]), m.start(), m.end()) for m in _TAG.finditer(text)]
    opened = next((t for t in tags if t[:2] == ("think", False)), None)
    closed = next((t for t in reversed(tags) if t[:2] == ("think", True)), None)
    answers = [t for t in tags if t[:2] == ("answer", False)]
    if opened is None and closed is None and not answers:
        return Thought(None, _TAG.sub("", text).strip() or None, False)
    first_answer = answers[0][2] if answers else len(text)
    start = opened[3] if opened else 0
    end = closed[2] if closed and closed[2] >= start else max(first_answer, start)
    thinking = _TAG.sub("", text[start:end]).strip() or None if opened or closed else None
    if answers:
        body_start = answers[-1][3]
        ends = [t[2] for t in tags if t[:2] == ("answer", True) and t[2] >= body_start]
        answer = text[body_start : ends[0] if ends else len(text)]
    elif closed:
        answer = text[closed[3] :]
    else:
        return Thought(thinking, None, True)
    return Thought(thinking, _TAG.sub("", answer).strip() or None, False)


_SPLIT_TAG = re.compile(r"<\s{0,2}/?\s{0,2}[a-z]{0,6}\s{0,2}$", re.IGNORECASE)


class ThoughtStream:
    """Tells reasoning from answer while a reply arrives: `feed` gives (is_answer, text) pieces, `end` what was held back."""

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"  # start, think, between, answer, done

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Take the next piece; a tag cut in two is held until it is whole."""
        text, self._held = self._held + text, ""
        out: list[tuple[bool, str]] = []
        while match := _TAG.search(text):
            self._add(out, text[: match.start()])
            self._turn(match[2].lower(), bool(match[1]))
            text = text[match.end() :]
        cut = _SPLIT_TAG.search(text)
        keep = cut.start() if cut else len(text)
        if self._state == "between":  # "Hence, the final answer is:" is the answer only if no <answer> follows
            keep = 0
        self._add(out, text[:keep])
        self._held = text[keep:]
        return [piece for piece in out if piece[1]]

    def end(self) -> list[tuple[bool, str]]:
        """What is left when the reply has ended."""
        held, self._held = self._held, ""
        return [(self._state != "think", held)] if held and self._state != "done" else []

    def _turn(self, tag: str, closing: bool) -> None:
        if tag == "think":
            self._state = "between" if closing else "think"
        else:
            self._state = "done" if closing else "answer"

    def _add(self, out: list[tuple[bool, str]], text: str) -> None:
        if self._state == "start" and text.strip():
            self._state = "answer"
        if self._state in ("think", "answer"):
            out.append((self._state == "answer", text))


# --- the tables -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One question: its name (also the name of an ability), its words, its parser, and an answer in the short form it reads best."""

    name: str
    prompt: str
    parse: Callable[[str], Any]
    example: str


CAPTION_STYLES: Final[dict[str, str]] = {
    "full": "Describe this track in full detail - tell me the genre, tempo, and key, "
    "then dive into the instruments, production style, and overall mood it creates.",  # documented
    "short": "Describe this track in one sentence.",
    "technical": "Write a rich caption that blends the technical details (genre, BPM, key, chords, mix) "
    "with how the song feels emotionally and dynamically as it unfolds.",  # documented
    "critic": "Break the track down like a critic - list its tempo, key, and chordal motion, "
    "then explain the textures, dynamics, and emotional impact of the performance.",  # documented
    "lyrics": "Generate a structured lyric sheet from the input music.",  # documented
}

TASKS: Final[dict[str, Task]] = {
    task.name: task
    for task in (
        Task("tempo", "What's the bpm of this song?", parse_tempo, "87"),  # documented, with the form of its answer
        Task("key", "What's the key of this song?", parse_key, "D major"),  # documented, with the form of its answer
        Task("meter", "What is the time signature of this song?", parse_meter, "4/4"),
        Task("chords", "What is the main chord progression of this song?", parse_chords, "C - G - Am - F"),
        Task("instruments", "What instruments stand out the most?", parse_list, "piano, guitar, bass, drums"),  # documented
        Task("genre", "What is the genre of this song?", parse_genres, "synth pop, disco"),
        Task("mood", "What is the mood of this song?", parse_list, "calm, warm"),
        Task("vocals", "Does this song have vocals? If so, describe the voice.", parse_vocals, "Yes, a warm female voice."),
        Task("caption", CAPTION_STYLES["full"], parse_text, "A slow piano ballad in D minor at 72 BPM."),
    )
}
ANALYZE: Final[tuple[Task, ...]] = tuple(task for task in TASKS.values() if task.name != "chords")
"""What `analyze` asks: every task whose answer has a place in the record (chords there are measured, with times)."""


def caption_task(style: str) -> Task:
    """The caption task with the words of one of `CAPTION_STYLES`."""
    caption = TASKS["caption"]
    return Task(caption.name, CAPTION_STYLES[style], caption.parse, caption.example)


# --- grounding ----------------------------------------------------------------------------------------------------------

GROUND_PREFIX: Final = "Measured facts: "
GROUND_CHORDS = 4  # a pop progression; more would cost tokens and say little
GROUND_SECTIONS = 10  # a form of more sections would cost tokens and say little; their number is told
SURE = 0.8  # confidence from which a tempo, key or meter is told to a model: what it is told it repeats as true
SECTIONS_RIGHT = 0.57  # how right measured section starts are, F within 3 s (`python -m tests.bench.measure`): captions do without
SECTION_AT = re.compile(r"(?<![A-Za-z])[A-Z] \([0-9]+(?::[0-5][0-9]){1,2}\)")  # "B (0:32)" in a text: a section, not the chord B


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def clock(seconds: float) -> str:
    """A time as it is shown, begun seconds not counted: 73.9 -> "1:13", "1:01:13" from an hour on."""
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"


def main_chords(facts: Facts) -> list[str]:
    """The chords that sound longest, as musicians write them, in the order of their first sound: what a grounded prompt tells."""
    heard: dict[str, float] = {}
    for segment in facts.chords:
        if name := short_chord(segment.label):
            heard[name] = heard.get(name, 0.0) + segment.end - segment.start
    longest = sorted(heard, key=lambda name: -heard[name])[:GROUND_CHORDS]
    return [name for name in heard if name in longest]  # in the order of their first sound


def sure(confidence: float | None, least: float = SURE) -> bool:
    """Whether a value is certain enough to be repeated; one that nobody judged is."""
    return confidence is None or confidence >= least


def fact_phrases(facts: Facts | None, duration_s: float | None = None, least: float = SURE) -> list[str]:
    """What was measured with at least the confidence `least` or judged by nobody, one phrase per field, in the fixed order of a prompt."""
    phrases = []
    if facts is not None:
        if facts.tempo is not None and facts.tempo.bpm and sure(facts.confidence.tempo, least):
            phrases.append(f"tempo {_number(facts.tempo.bpm)} BPM")
        if facts.key is not None and sure(facts.confidence.key, least):
            phrases.append(f"key {facts.key.name}")
        if facts.meter and sure(facts.confidence.meter, least):
            phrases.append(f"meter {facts.meter}")
        if chords := main_chords(facts):
            phrases.append("chords " + " ".join(chords))
        if facts.sections and sure(SECTIONS_RIGHT, least):
            phrases.append(f"sections {len(facts.sections)}")
        if 2 <= len(facts.sections) <= GROUND_SECTIONS and sure(SECTIONS_RIGHT, least):
            phrases.append("form " + " ".join(f"{section.label} {clock(section.start)}" for section in facts.sections))
        if facts.loudness is not None and facts.loudness.integrated_lufs is not None:
            phrases.append(f"loudness {_number(facts.loudness.integrated_lufs)} LUFS")
    if duration_s is not None:
        phrases.append(f"duration {duration_s:.0f} s")
    return phrases


def ground(facts: Facts | None, duration_s: float | None = None, least: float = SURE) -> str:
    """`Measured facts: tempo 87.5 BPM; …; sections 3; form A 0:00 B 0:32 A 1:04; … duration 213 s.`, or "" when nothing is known."""
    phrases = fact_phrases(facts, duration_s, least)
    return f"{GROUND_PREFIX}{'; '.join(phrases)}." if phrases else ""


def grounded_prompt(question: str, facts_text: str) -> str:
    """A question with what was measured before it, one space between; without facts the question itself."""
    return f"{facts_text} {question}" if facts_text else question
