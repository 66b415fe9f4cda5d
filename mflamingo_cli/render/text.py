"""Text that may come from anywhere, made safe for a terminal; numbers as people write them; the answer of a record."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mflamingo_cli.schema import Analysis

CONTROL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of Unicode that a terminal could obey


def safe(text: str) -> str:
    """Return text on one line with what could steer a terminal made visible: escapes, newlines, direction marks, broken bytes."""
    return "".join(_visible(c) if unicodedata.category(c) in CONTROL else c for c in text)


def _visible(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii") if code < 0xD800 or code > 0xDFFF else f"\\u{code:04x}"


def number(value: float, digits: int = 1) -> str:
    """Return 87.50 as 87.5, 120.0 as 120."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def answer(record: Analysis) -> str | None:
    """Return the free text that a command was asked for."""
    return record.result.caption if record.result else record.text
