"""Claims of a model beside measured facts: does the text say what was measured, and if not, how is it related?

`parse_key` takes any text and returns None for what it does not understand; model text is hostile input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mflamingo_cli.measure.facts import Key, Mode, pitch_class

TEMPO_TOLERANCE = 0.04 + 1e-9  # relative, 4 % included, as in MIREX tempo estimation
RATIOS = {"double": 2.0, "half": 0.5, "triple": 3.0, "third": 1 / 3, "three halves": 1.5, "two thirds": 2 / 3}  # claim over fact
MAX_TEXT = 4000  # characters that are read


@dataclass(frozen=True)
class Agreement:
    """Whether a claim agrees with a fact (None: one of them is missing), and the musical relation where it does not."""

    agrees: bool | None
    relation: str | None = None


def check_tempo(fact_bpm: float | None, claimed_bpm: float | None) -> Agreement:
    """Equal within 4 %, or an octave or other simple ratio away: check_tempo(87.5, 175) is a "double"."""
    if fact_bpm is None or claimed_bpm is None or fact_bpm <= 0 or claimed_bpm <= 0:
        return Agreement(None)
    ratio = claimed_bpm / fact_bpm
    if abs(ratio - 1) <= TEMPO_TOLERANCE:
        return Agreement(True)
    return Agreement(False, next((name for name, value in RATIOS.items() if abs(ratio / value - 1) <= TEMPO_TOLERANCE), None))


def check_key(fact: Key | None, claim: Key | None) -> Agreement:
    """The same key, or its "relative", "parallel" or a "fifth" away; the spelling does not matter."""
    if fact is None or claim is None:
        return Agreement(None)
    step = (claim.pitch - fact.pitch) % 12
    if fact.mode == claim.mode:
        return Agreement(True) if step == 0 else Agreement(False, "fifth" if step in (5, 7) else None)
    if step == 0:
        return Agreement(False, "parallel")
    return Agreement(False, "relative" if step == (9 if fact.mode == "major" else 3) else None)


_ACCIDENTALS = dict.fromkeys(("#", "♯", "-sharp", " sharp", "is"), "#") | dict.fromkeys(("b", "♭", "-flat", " flat", "es", "s"), "b")
_NOTE = r"(?P<note>[A-H])(?P<accidental>♯|♭|#|b|[ -](?:sharp|flat)\b|is(?=[\s-])|es(?=[\s-])|s(?=-?\s?(?:dur|moll)))?"
_MODES: dict[str, Mode] = dict.fromkeys(("major", "maj", "dur", "ionian", "M", ""), "major")
_MODES |= dict.fromkeys(("minor", "min", "moll", "aeolian", "m"), "minor")
_WORDS = r"(?P<mode>major|maj|minor|min|dur|moll|ionian|aeolian)"
_NAMED = re.compile(rf"(?<![A-Za-z♯♭#]){_NOTE}[\s-]*(?:(?:natural|harmonic|melodic)\s+)?{_WORDS}\b", re.IGNORECASE)
# what may stand before "a minor" when it is a key
_INTRODUCED = re.compile(r"(?:^|\bkey\b[^a-z]*|\b(?:in|of)\s+|[:=(\"'*])\s*$", re.IGNORECASE)
_SHORT = re.compile(r"^(?:\W*key\s*(?:is|of|:|=))?\W*(?P<note>[A-Ga-g])(?P<accidental>♯|♭|#|b)?(?P<mode>m|M|)\W*$")
_CAMELOT = re.compile(r"^\W*(?P<number>1[0-2]|[1-9])(?P<side>[ABabdm])\W*$")


def _key(note: str, accidental: str | None, mode: Mode, german: bool) -> Key:
    sign = _ACCIDENTALS.get((accidental or "").lower(), "")
    letter = note.upper()
    if letter == "H":
        letter = "B"
    elif letter == "B" and german and not sign:
        sign = "b"
    return Key.of(pitch_class(letter + sign), mode)


def parse_key(text: str | None) -> Key | None:
    """The key that a text claims: "A minor", "F♯ min", "Bbm", "a-moll", "8A", "The key is C-sharp minor."; None where none is named."""
    if not isinstance(text, str):
        return None
    text = text[:MAX_TEXT]
    wheel = _CAMELOT.match(text)
    if wheel:
        return _wheel(int(wheel["number"]), wheel["side"])
    for named in _NAMED.finditer(text):
        german = named["mode"].lower() in ("dur", "moll")
        article = named["note"] == "a" and not named["accidental"] and not _INTRODUCED.search(text[: named.start()])
        if (named["note"].upper() != "H" or german) and not (article and not german):
            return _key(named["note"], named["accidental"], _MODES[named["mode"].lower()], german)
    short = _SHORT.match(text)
    return _key(short["note"], short["accidental"], _MODES[short["mode"]], german=False) if short else None


def _wheel(number: int, side: str) -> Key:
    """A place on the Camelot (A, B) or the Open Key wheel (d, m)."""
    fifths = number - 8 if side in "ABab" else number - 1
    major = fifths * 7 % 12
    return Key.of(major, "major") if side in "Bbd" else Key.of(major + 9, "minor")
