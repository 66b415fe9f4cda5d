"""Holds a text against the facts before it is shown.

Every text of every model passes `Check`, in whole or as it is written: claims that are wrong are marked, or their sentences dropped or put
right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from mflamingo_cli.claims import Reading, read_claims, sentences
from mflamingo_cli.grounding import NO_ANSWER, main_chords, sure, told_chords
from mflamingo_cli.grounding.prose.captions import tell
from mflamingo_cli.measure import Facts
from mflamingo_cli.measure.compare import TEMPO_TOLERANCE, compare_keys
from mflamingo_cli.parsers import parse_key, sounding
from mflamingo_cli.schema import Claim, FactValue
from mflamingo_cli.styles import ClaimsMode
from mflamingo_cli.text import clock
from mflamingo_cli.thinking import ThoughtStream

LOUDNESS_TOLERANCE_LU = 0.5  # half of what EBU R 128 allows a programme to miss its level by
DURATION_TOLERANCE_S = 1.0  # a duration is given in whole seconds,
MINUTES_TOLERANCE_S = 30.0  # or in whole minutes


class Judgement(NamedTuple):
    """What was measured of what a claim is about, whether it is what the claim names (None: not known), and how sure it is."""

    fact: FactValue | None = None
    same: bool | None = None
    confidence: float | None = None


# --- one judge for each kind of claim ------------------------------------------------------------------------------------------


def _ends(reading: Reading) -> tuple[float | None, float | None]:
    """The lowest and the highest number that a claim allows."""
    low, high = reading.value if isinstance(reading.value, tuple) else (reading.value, reading.value)
    return (None if low is None else float(low)), (None if high is None else float(high))


def _tempo(reading: Reading, facts: Facts, duration_s: float) -> Judgement:
    bpm = facts.tempo.bpm
    if bpm is None:
        return Judgement()
    low, high = _ends(reading)

    def within(tempo: float) -> bool:
        return (low is None or tempo * (1 + TEMPO_TOLERANCE) >= low) and (high is None or tempo * (1 - TEMPO_TOLERANCE) <= high)

    same = within(bpm) or (reading.octave and any(map(within, facts.tempo.alternatives)))
    return Judgement(round(bpm, 2), same, facts.confidence.tempo)


def _key(reading: Reading, facts: Facts, duration_s: float) -> Judgement:
    if facts.key is None:
        return Judgement()
    own, claimed = [facts.key], parse_key(str(reading.value))
    if not reading.judged:  # a part may be in any key that was measured
        own += [key for span in facts.keys if (key := parse_key(span.name))]
    return Judgement(facts.key.name, any(compare_keys(key, claimed).agrees for key in own), facts.confidence.key)


def _meter(reading: Reading, facts: Facts, duration_s: float) -> Judgement:
    return Judgement(facts.meter, reading.value == facts.meter, facts.confidence.meter) if facts.meter else Judgement()


def _chords(reading: Reading, facts: Facts, duration_s: float) -> Judgement:
    chords = main_chords(facts)
    known = {sounding(name) for name in [*told_chords(facts), *([facts.key.id3] if facts.key else [])]}
    return Judgement(" ".join(chords), sounding(str(reading.value)) in known) if chords else Judgement()


def _sections(reading: Reading, facts: Facts, duration_s: float) -> Judgement:
    form = [f"{section.label} {clock(section.start)}" for section in facts.sections]
    return Judgement(", ".join(form), reading.value in form) if form else Judgement()


def _loudness(reading: Reading, facts: Facts, duration_s: float) -> Judgement:
    level = facts.loudness.integrated_lufs
    if level is None:
        return Judgement()
    low, high = _ends(reading)
    same = (low is None or level >= low - LOUDNESS_TOLERANCE_LU) and (high is None or level <= high + LOUDNESS_TOLERANCE_LU)
    return Judgement(round(level, 2), same)


def _clipping(reading: Reading, facts: Facts, duration_s: float) -> Judgement:
    found = facts.loudness.clipped
    return Judgement(found.runs > 0, reading.value == (found.runs > 0)) if found else Judgement()


def _duration(reading: Reading, facts: Facts, duration_s: float) -> Judgement:
    low, high = _ends(reading)
    tolerance_s = MINUTES_TOLERANCE_S if low == high and low is not None and low % 60 == 0 else DURATION_TOLERANCE_S
    same = (low is None or duration_s >= low - tolerance_s) and (high is None or duration_s <= high + tolerance_s)
    return Judgement(round(duration_s, 3), same)


def _vocals(reading: Reading, facts: Facts, duration_s: float) -> Judgement:
    present = facts.vocals.present
    return Judgement() if present is None else Judgement(present, reading.value == present, facts.confidence.vocals)


JUDGES: Mapping[str, Callable[[Reading, Facts, float], Judgement]] = {
    "tempo": _tempo,
    "key": _key,
    "meter": _meter,
    "chords": _chords,
    "sections": _sections,
    "loudness": _loudness,
    "clipping": _clipping,
    "vocals": _vocals,
    "duration": _duration,
}
"""How a claim of each kind is compared with the facts."""


BARE_WORDS = 6  # of a sentence that tells a value and nothing else
ALWAYS_TOLD = ("tempo", "key", "vocals")  # in a full caption, where they are known


# --- the check -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckOptions:
    """How strictly a text is held to the facts.

    Attributes
    ----------
    mode
        `mark`: keep every word; `drop`: leave out sentences that contradict, repeat or break off; `fix`: also say what was measured
        instead; `raw`: do not look.
    grounded
        Whether the model was given the facts: then whatever it says of them must be what it was given.
    describes
        Whether the text describes the whole song, so that no sentence may repeat or break off.
    complete
        Whether the text must tell tempo and key.
    """

    mode: ClaimsMode = "mark"
    grounded: bool = False
    describes: bool = False
    complete: bool = False


class Check:
    """A text on its way to be shown: `feed` takes it as it is written and gives whole sentences, `end` the rest; `claims` are theirs."""

    def __init__(self, facts: Facts | None, duration_s: float, options: CheckOptions) -> None:
        self._facts, self._duration_s, self._options = facts, duration_s, options
        self._held = ""  # a sentence that has not ended
        self._seen: set[str] = set()
        self._told: set[str] = set()
        self._missing: list[str] = []  # kinds of which a wrong claim was dropped
        self._shown = False
        self.claims: tuple[Claim, ...] = ()

    @property
    def looks(self) -> bool:
        """Whether anything is read at all."""
        return self._options.mode != "raw"

    @classmethod
    def whole(cls, text: str, facts: Facts | None, duration_s: float, options: CheckOptions) -> tuple[str, tuple[Claim, ...]]:
        """A text as it may be shown, and its claims."""
        check = cls(facts, duration_s, options)
        return (check.feed(text) + check.end()).strip(), check.claims

    def feed(self, text: str) -> str:
        """Take the next piece; what may be shown now."""
        if not self.looks:
            return text
        self._held += text
        shown, at = "", 0
        for start, end in sentences(self._held)[:-1]:
            shown += self._sentence(self._held[at:start], self._held[start:end])
            at = end
        self._held = self._held[at:]
        return shown

    def end(self) -> str:
        """What is left when the text has ended, and what must be said besides."""
        held, self._held = self._held, ""
        bare = held.strip()
        space = held[: len(held) - len(held.lstrip())]
        cut = self._options.describes and self._shown and bool(bare) and bare[-1] not in ".!?\u2026\"')\u201d"
        shown = "" if cut and self._options.mode in ("fix", "drop") else self._sentence(space, bare)
        if self._options.mode != "fix" or self._facts is None:
            return shown
        wanted = dict.fromkeys([*(ALWAYS_TOLD if self._options.complete else ()), *self._missing])
        told = [tell(kind, self._facts) for kind in wanted if kind not in self._told]
        for sentence in filter(None, told):
            shown += (" " if self._shown else "") + sentence
            self._shown = True
            self._note(self._judged(sentence))
        if not self._shown and self._missing and not self._options.describes:
            return NO_ANSWER
        return shown

    def _sentence(self, space: str, sentence: str) -> str:
        """A sentence as it may be shown, after the space before it; nothing where it is dropped."""
        if not sentence:
            return ""
        claims = self._judged(sentence)
        if self._options.mode == "fix" and self._options.grounded:
            sentence = _in_minutes(sentence, claims)
            claims = self._judged(sentence)
        if self._options.mode in ("fix", "drop"):
            wrong = [claim.kind for claim, holds in claims if not holds]
            self._missing += wrong
            words = "".join(char for char in sentence.casefold() if char.isalnum())
            repeated = self._options.describes and (words in self._seen or self._is_told(sentence, claims))
            self._seen.add(words)
            if repeated:
                return ""
            if wrong:
                sentence = _without(sentence, claims)
            if self._options.describes:
                sentence = _once(sentence)
            claims = self._judged(sentence)
            if not sentence:
                return ""
        self._note(claims)
        shown = (space if self._shown else space.lstrip()) + sentence
        self._shown = True
        return shown

    def _is_told(self, sentence: str, claims: Sequence[tuple[Claim, bool]]) -> bool:
        """Whether a sentence says hardly more than values that another has told: `I hear it in G major. The key is G major.`"""
        told = {(claim.kind, claim.value) for claim in self.claims}
        return bool(claims) and len(sentence.split()) <= BARE_WORDS and all((claim.kind, claim.value) in told for claim, _ in claims)

    def _note(self, claims: Sequence[tuple[Claim, bool]]) -> None:
        self.claims += tuple(claim for claim, _ in claims)
        self._told |= {claim.kind for claim, _ in claims}

    def _judged(self, sentence: str) -> list[tuple[Claim, bool]]:
        """The claims of a sentence, each with whether it may be shown."""
        readings = read_claims(sentence)
        judged = [JUDGES[one.kind](one, self._facts, self._duration_s) if self._facts else Judgement() for one in readings]
        if any(one.kind == "tempo" and judgement.same for one, judgement in zip(readings, judged, strict=True)):
            judged = [  # "140 BPM, felt at 70" names two octaves of one tempo
                JUDGES["tempo"](replace(one, octave=True), self._facts or Facts(), self._duration_s) if _is_number(one) else judgement
                for one, judgement in zip(readings, judged, strict=True)
            ]
        return [self._claim(sentence, one, judgement) for one, judgement in zip(readings, judged, strict=True)]

    def _claim(self, sentence: str, reading: Reading, judgement: Judgement) -> tuple[Claim, bool]:
        right = None if judgement.same is None or not reading.judged else judgement.same != reading.denied
        agrees = right if sure(judgement.confidence) else None
        text = sentence[reading.start : reading.end]
        claim = Claim(text, reading.kind, reading.value, reading.denied, judgement.fact, agrees)
        if not self._options.grounded or self._facts is None:
            return claim, agrees is not False
        if reading.judged or not self._options.describes:
            return claim, right is True or not reading.judged
        return claim, judgement.same is True  # a description that was given the facts says nothing else of a part


def _is_number(reading: Reading) -> bool:
    """Whether it names a tempo, and not a range or a pace, which no other octave explains."""
    return reading.kind == "tempo" and isinstance(reading.value, float)


def _in_minutes(sentence: str, claims: Sequence[tuple[Claim, bool]]) -> str:
    """A sentence with the length of the song as it is shown everywhere: `It holds for 128 s.` -> `It runs 2:08.`"""
    for claim, holds in claims:
        if claim.kind == "duration" and holds and isinstance(claim.value, float):
            sentence = sentence.replace(claim.text, _SECONDS.sub(clock(round(claim.value)), _HOLDS.sub("runs ", claim.text)))
    return sentence


_HOLDS = re.compile(r"^holds for ")
_SECONDS = re.compile(r"\d+ ?(?:s|sec|seconds)$")
_ADJUNCT = re.compile(r"\s*(?:and\s)?(?:in|at|on|with|without|lasting|counted|sung|played)\b", re.IGNORECASE)


def _without(sentence: str, claims: Sequence[tuple[Claim, bool]]) -> str:
    """A sentence of many claims without the parts between commas that hold the wrong ones; "" where that leaves no sentence."""
    wrong = [claim for claim, holds in claims if not holds]
    if 2 * len(wrong) >= len(claims) or any(claim.kind == "chords" for claim in wrong):
        return ""
    parts = re.split(r"(?<=[,;:.!?])(?=\s|$)", sentence)
    kept: list[str] = []
    for index, part in enumerate(parts):
        if index and _ADJUNCT.match(part) and any(claim.text in part for claim in wrong):
            if part[-1:] in ".!?":  # it ends the sentence; "by ear:" before it introduces nothing any more
                kept = kept[:-1] if kept[-1].endswith(":") else kept
                kept[-1] = kept[-1].rstrip(",;:") + part[-1]
            continue
        kept.append(part)
    whole = "".join(kept)
    return "" if any(claim.text in whole for claim in wrong) else whole


REPEATED_WORDS = 5  # so many in the same order are said again, fewer are a turn of phrase
_WORD = re.compile(r"[^\s,;:]+(?<![.!?])")
_NOTHING_BEHIND = re.compile(r"[\s,;:]*(?:by ear)?[\s,;:]*$", re.IGNORECASE)


def _once(sentence: str) -> str:
    """A sentence without the words that it says a second time: `In D, on G and A, by ear: on G and A, with bass.`"""
    while found := _said_again(sentence):
        before, after = sentence[: found[0]], sentence[found[1] :].lstrip(",;: ")
        sentence = before + after if after[:1].isalnum() else _NOTHING_BEHIND.sub("", before) + after
    return sentence


def _said_again(sentence: str) -> tuple[int, int] | None:
    """Where the first row of words stands that the sentence has said before."""
    spans = [match.span() for match in _WORD.finditer(sentence)]
    said = [sentence[start:end].casefold() for start, end in spans]
    seen: dict[tuple[str, ...], int] = {}
    for at in range(len(said) - REPEATED_WORDS + 1):
        first, length = seen.setdefault(tuple(said[at : at + REPEATED_WORDS]), at), REPEATED_WORDS
        if at - first < length:
            continue
        while at + length < len(said) and first + length < at and said[first + length] == said[at + length]:
            length += 1
        return spans[at][0], spans[at + length - 1][1]
    return None


class CheckedStream:
    """What a model writes in answer to one question: `feed` takes it as it comes and gives what may be shown, `text` is all of it.

    Reasoning passes as it comes; the answer after it is held until it has ended.
    """

    def __init__(self, check: Check, *, thinks: bool = False) -> None:
        self.text = ""
        self._check = check
        self._thoughts = ThoughtStream() if thinks and check.looks else None
        self._answer, self._thinking = "", False

    def feed(self, text: str, *, ended: bool) -> tuple[str, tuple[str, ...]]:
        """Take the next piece: what may be shown, and the words of it that are wrong."""
        self.text += text
        known = len(self._check.claims)
        shown = self._reply(text, ended) if self._thoughts else self._check.feed(text) + (self._check.end() if ended else "")
        return shown, tuple(claim.text for claim in self._check.claims[known:] if claim.agrees is False)

    def _reply(self, text: str, ended: bool) -> str:
        """Pass on reasoning between its tags; at the end, the answer."""
        assert self._thoughts is not None
        shown = ""
        for is_answer, part in self._thoughts.feed(text) + (self._thoughts.end() if ended else []):
            if is_answer:
                self._answer += part
            else:
                shown += part if self._thinking else f"<think>{part}"
                self._thinking = True
        if ended:
            answer = self._check.feed(self._answer.strip()) + self._check.end()
            shown += f"</think><answer>{answer}</answer>" if self._thinking else answer
        return shown


TRUTHS = {"vocals": ("no singing", "singing"), "clipping": ("no clipping", "clipping")}  # what false and true mean


def wrong(claims: Sequence[Claim]) -> list[str]:
    """A sentence for each claim that contradicts what was measured."""
    said = [f"the text says {_spoken(claim)}, measured {_value(claim.kind, claim.fact)}" for claim in claims if claim.agrees is False]
    return list(dict.fromkeys(said))


def _spoken(claim: Claim) -> str:
    return ("not " if claim.denied else "") + _value(claim.kind, claim.value)


def _value(kind: str, value: Any) -> str:
    """A value of a kind in words."""
    unit = {"tempo": " BPM", "loudness": " LUFS"}.get(kind, "")
    if isinstance(value, list | tuple):
        low, high = (None if end is None else clock(end) if kind == "duration" else f"{end:.4g}" for end in value)
        return (f"{low} to {high}" if low and high else f"over {low}" if low else f"under {high}") + unit
    if isinstance(value, bool):
        return TRUTHS[kind][value]
    if kind == "duration" and value is not None:
        return clock(float(value))
    return f"{value:.4g}{unit}" if isinstance(value, float) else str(value)
