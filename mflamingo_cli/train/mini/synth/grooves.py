"""Accompaniment grooves: which MMA library files there are, their meter, style and tempo range, and their split.

Tempos are felt beats per minute; MMA itself counts eighth notes in 6/8.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mflamingo_cli.train.mini.corpora.debian import unpacked

HELD_OUT_EVERY = 6  # one groove file in six is never trained on
MMA_PACKAGE = "mma"  # Debian package with the program and its style libraries (GPL-2+); used as a tool, never redistributed

# (pattern of the file name, style, slowest, fastest); first match wins
STYLES: tuple[tuple[str, str, int, int], ...] = (
    (r"^metronome|^none$|^count$|^ending$|^intro$", "", 0, 0),
    (r"blues|boggie|boogie", "blues", 52, 170),
    (r"waltz|34", "waltz", 66, 215),
    (r"country|western|bluegrass|hillcountry|cntry", "country", 70, 200),
    (r"bossa|samba|rhumba|mambo|salsa|chacha|merengue|son|tango|bolero|beguine|calypso|latin|cuban|afro|lfusion", "latin", 76, 215),
    (r"ballad|bald|lullaby|hymn|serenade|spiritual|slowbolero", "ballad", 50, 100),
    (r"ska|reggae", "reggae", 62, 165),
    (r"house|techno|trance|rave|dance|dnb|electric|digital", "electronic", 92, 180),
    (r"ambient|amb", "ambient", 50, 110),
    (r"hip|trip|rnb|rb|r\+b|soul|motown|disco", "soul", 58, 136),
    (r"funk|fus", "funk", 72, 136),
    (r"metal|mtl|punk|hrk|thr", "metal", 84, 220),
    (r"march|polka", "march", 80, 160),
    (r"jazz|swing|bebop|bigband|evansish|dixie|charleston|gypsy|foxtrot|quickstep|ragtime|jive|combo|nite", "jazz", 66, 220),
    (r"rock|twist|thrash|strut", "rock", 70, 196),
    (r"folk|softshoe|desert", "folk", 60, 164),
    (r".", "pop", 60, 168),
)
METERS = {"4/4": (4, 1), "3/4": (3, 1), "6/8": (6, 3)}  # MMA beats in a bar, and in a felt beat
OWN_TEMPI = {"4/4": (50, 220), "3/4": (60, 220), "6/8": (50, 132)}  # of songs without a groove; felt beats per minute
SLOWEST = 50
COMPOUND = 2 / 3  # 6/8 is felt in slow dotted quarters: the tempi of a style, times this
FILL_VARIANT = re.compile(r"(?i)fill")


@dataclass(frozen=True)
class Groove:
    """One groove with the file it came from; `variants` and `fills` are other grooves of its file. Without a name: no groove at all."""

    name: str
    file: str
    description: str
    meter: str
    style: str
    slow: float
    fast: float
    variants: tuple[str, ...] = ()
    fills: tuple[str, ...] = ()
    beats: int = 4  # MMA beats in a bar
    felt: int = 1  # MMA beats in a felt beat

    @property
    def held_out(self) -> bool:
        """Split by file, so that variants of one groove never stand on both sides."""
        return zlib.crc32(self.file.encode()) % HELD_OUT_EVERY == 0


def own(meter: str) -> Groove:
    """The absence of a groove: all parts are composed here."""
    return Groove("", "", "", meter, "", *OWN_TEMPI[meter], (), (), *METERS[meter])


def install_mma(home: Path) -> Path:
    """Unpack the Debian package `mma` into a writable `home` and build its groove index; nothing is installed system-wide."""
    program = home / "mma.py"
    if (home / "plugins" / ".ready").exists():
        return program
    if not program.exists():
        files = unpacked(home, MMA_PACKAGE) / "usr"
        shutil.copytree(files / "share/mma", home, dirs_exist_ok=True)
        shutil.copy(files / "bin/mma", program)
    (home / "plugins").mkdir(exist_ok=True)
    subprocess.run([sys.executable, str(program), "-g"], env={"MMA_HOME": str(home)}, check=True, capture_output=True)
    (home / "plugins" / ".ready").touch()
    return program


def _meter(text: str) -> tuple[str, int, int] | None:
    """(meter, MMA beats in a bar, in a felt beat) of a library file, or None where its own declarations are mixed or unusual."""
    times = set(re.findall(r"(?im)^\s*time\s+([0-9/]+)", text)) or {"4"}
    signatures = {re.sub(r"[ /]+", "/", s) for s in re.findall(r"(?im)^\s*timesig\s+([0-9]+[ /]+[0-9]+)", text)}
    if len(times) != 1 or len(signatures) > 1:
        return None
    known = {
        ("4", ""): "4/4", ("4", "4/4"): "4/4", ("4/4", ""): "4/4", ("3", ""): "3/4", ("3", "3/4"): "3/4", ("3/4", ""): "3/4",
        ("3", "4/4"): "3/4", ("6", "6/8"): "6/8", ("6", ""): "6/8", ("6/8", ""): "6/8",
    }  # fmt: skip
    declared = (times.pop(), signatures.pop() if signatures else "")
    if declared == ("2", "6/8"):  # beats are dotted quarters
        return "6/8", 2, 1
    meter = known.get(declared)
    return (meter, *METERS[meter]) if meter else None


@cache
def scan(home: Path) -> list[Groove]:
    """All usable grooves of an unpacked MMA, in a fixed order."""
    found: list[Groove] = []
    for path in sorted((home / "lib").glob("*/*.mma")):
        text = path.read_text(encoding="latin-1")
        meter = _meter(text)
        style, slow, fast = next(rest for pattern, *rest in STYLES if re.search(pattern, path.stem.lower()))
        if meter is None or not style:
            continue
        if meter[0] == "6/8":
            slow, fast = max(SLOWEST, slow * COMPOUND), fast * COMPOUND
        described = dict(re.findall(r"(?im)^\s*defgroove\s+(\S+)[ \t]*(.*)$", text))
        names = [name for name in described if not re.search(r"(?i)intro|end|fill|count|metro", name)]
        file = f"{path.parent.name}/{path.name}"
        for name in names:
            family = re.sub(r"(?i)(sus|plus|\d+)+$", "", name)
            related = [other for other in described if other != name and family and other.startswith(family)]
            variants = tuple(other for other in related if other in names)
            fills = tuple(other for other in related if FILL_VARIANT.search(other))
            found.append(Groove(name, file, described[name].strip(" \\"), meter[0], style, slow, fast, variants, fills, *meter[1:]))
    return found
