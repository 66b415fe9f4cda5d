"""Makes text safe to store; formats times and numbers for people."""

from __future__ import annotations

import math
import unicodedata

_KEPT_CONTROLS = "\n\t"
RECORD_DIGITS = 2  # of loudness and tempo in a record: a text from what was measured and a table from the record then round alike
CONTROL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of Unicode that a terminal could obey


def safe(text: str) -> str:
    """Return text on one line with what could steer a terminal made visible: escapes, newlines, direction marks, broken bytes."""
    return "".join(_visible(c) if unicodedata.category(c) in CONTROL else c for c in text)


def _visible(char: str) -> str:
    byte = ord(char) - 0xDC00  # of what was not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else char.encode("unicode_escape").decode("ascii")


def scrub(text: str) -> str:
    """Text without control, direction or surrogate characters: nothing in it can steer a terminal."""
    return "".join(c for c in text if c in _KEPT_CONTROLS or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))


def tidy(text: str) -> str:
    """Free text made safe to store: composed, scrubbed, trimmed."""
    return scrub(unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))).strip()


def clock(seconds: float) -> str:
    """A time as it is shown, begun seconds not counted: 73.9 -> "1:13", "1:01:13" from an hour on."""
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"


def number(value: float) -> str:
    """A number with one digit where it needs it: 87.46 -> "87.5", 120.0 -> "120"; the same of a value and of what a record keeps of it."""
    return f"{round(value, RECORD_DIGITS):z.1f}".removesuffix(".0")


def octave(bpm: float, of: float) -> str:
    """A tempo beside the one that it is a half or a double of, by how that one is shown: 247.94 of 123.97, shown as 124 -> "248"."""
    power = 2.0 ** round(math.log2(bpm / of))
    return number(round(of, 1) * power if abs(bpm / of / power - 1) < 0.001 else bpm)
