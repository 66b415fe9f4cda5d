"""Sessions pasted into the READMEs: a command after `$ `, then what it printed; found, run, and compared line by line.

A line that is only `…` stands for any number of lines. A block under `<!-- varies: why -->` is run but its text is not compared; one under
`<!-- not run: why -->` is not run. Seconds of timing are masked; nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted(p for room in ("mflamingo_cli", "quant", "tests") for p in (ROOT / room).rglob("README.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>varies|not run): (?P<why>.+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
ANY = "…"
TIMING = [
    (re.compile(r"([╭╰]─*) (\S+ \S+) · (?:decode|measure|encode|generate) .*"), r"\1 \2"),  # the foot of a table, as wide as its times
    (re.compile(r'("(?:decode|measure|encode|generate)_s"): ?(?:[\d.]+|null)'), r"\1:0"),
]
FOOT = re.compile(r"^╰─*")


@dataclass(frozen=True)
class Session:
    """One command of a document with what was pasted under it."""

    document: str
    command: str
    pasted: tuple[str, ...]
    mark: str  # "", "varies" or "not run"


def blocks(path: Path) -> Iterator[re.Match[str]]:
    """Yield every fenced block of a document."""
    yield from BLOCK.finditer(path.read_text(encoding="utf-8"))


def sessions(path: Path) -> list[Session]:
    """Return the sessions of a document in their order."""
    found = []
    for block in blocks(path):
        if block["language"] != "console":
            continue
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            command, _, pasted = part.partition("\n")
            found.append(Session(str(path.relative_to(ROOT)), command, tuple(pasted.splitlines()), block["mark"] or ""))
    return found


def masked(line: str) -> str:
    """Return a line without timing and without blanks at its end."""
    for pattern, masked_as in TIMING:
        line = pattern.sub(masked_as, line)
    return FOOT.sub("╰", line).rstrip()


def mismatch(pasted: tuple[str, ...], stdout: str, stderr: str) -> str:
    """Say where what was pasted is not what was printed: all of stdout, and among it lines of stderr; "" where it is."""
    out, err = ([masked(line) for line in text.splitlines()] for text in (stdout, stderr))
    at, skipping = 0, False
    for line in map(masked, pasted):
        if line == ANY:
            skipping = True
        elif line in (out[at:] if skipping else out[at : at + 1]):
            at, skipping = out.index(line, at) + 1, False
        elif line not in err or not line:
            return f"pasted {line!r}, printed {out[at] if at < len(out) else None!r}"
    return "" if skipping or at == len(out) else f"printed, not pasted: {out[at]!r}"
