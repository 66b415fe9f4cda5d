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
from pathlib import Path

from mflamingo_cli.errors import ModelError

HELD_OUT_EVERY = 6  # one groove file in six is never trained on
MMA_PACKAGE = "mma"  # Debian package with the program and its style libraries (GPL-2+); used as a tool, never redistributed

# (pattern of the file name, style, slowest, fastest); first match wins
STYLES: tuple[tuple[str, str, int, int], ...] = (
    (r"waltz|34", "waltz", 84, 190),
    (r"metronome|^none|count|ending|intro", "", 0, 0),
    (r"blues|boggie|boogie", "blues", 66, 150),
    (r"country|western|bluegrass|hillcountry|cntry", "country", 80, 180),
    (r"bossa|samba|rhumba|mambo|salsa|chacha|merengue|son|tango|bolero|beguine|calypso|latin|cuban|afro|lfusion", "latin", 88, 200),
    (r"ballad|bald|lullaby|hymn|serenade|spiritual|slowbolero", "ballad", 54, 96),
    (r"ska|reggae", "reggae", 72, 150),
    (r"house|techno|trance|rave|dance|dnb|electric|digital", "electronic", 112, 172),
    (r"ambient|amb", "ambient", 60, 104),
    (r"hip|trip|rnb|rb|r\+b|soul|motown|disco", "soul", 66, 124),
    (r"funk|fus", "funk", 84, 128),
    (r"metal|mtl|punk|hrk|thr", "metal", 110, 196),
    (r"march|polka", "march", 92, 140),
    (r"jazz|swing|bebop|bigband|evansish|dixie|charleston|gypsy|foxtrot|quickstep|ragtime|jive|combo|nite", "jazz", 84, 220),
    (r"rock|twist|thrash|strut", "rock", 84, 176),
    (r"folk|softshoe|desert", "folk", 76, 140),
    (r".", "pop", 76, 138),
)
BEATS = {"4/4": 4, "3/4": 3, "6/8": 6}  # MMA beats in a bar; in 6/8 a felt beat is three of them


@dataclass(frozen=True)
class Groove:
    """One groove with the file it came from; `variants` are grooves of the same family (Plus, Sus, Fill …)."""

    name: str
    file: str
    description: str
    meter: str
    style: str
    slow: int
    fast: int
    variants: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Split by file, so that variants of one groove never stand on both sides."""
        return zlib.crc32(self.file.encode()) % HELD_OUT_EVERY == 0


def install_mma(home: Path) -> Path:
    """Unpack the Debian package `mma` into a writable `home` and build its groove index; nothing is installed system-wide."""
    program = home / "mma.py"
    if (home / "plugins" / ".ready").exists():
        return program
    home.mkdir(parents=True, exist_ok=True)
    if not program.exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            raise ModelError(f"{home}: no MMA here; unpack the Debian package `mma` and copy its share/mma and bin/mma (as mma.py) there")
        subprocess.run(["apt-get", "download", MMA_PACKAGE], cwd=home, check=True, capture_output=True)
        subprocess.run(["dpkg", "-x", next(home.glob("mma_*.deb")).name, "unpacked"], cwd=home, check=True)
        shutil.copytree(home / "unpacked/usr/share/mma", home, dirs_exist_ok=True)
        shutil.copy(home / "unpacked/usr/bin/mma", program)
    (home / "plugins").mkdir(exist_ok=True)
    subprocess.run([sys.executable, str(program), "-g"], env={"MMA_HOME": str(home)}, check=True, capture_output=True)
    (home / "plugins" / ".ready").touch()
    return program


def _meter(text: str) -> str | None:
    """Meter of a library file, or None where its own declarations are mixed or unusual."""
    times = set(re.findall(r"(?im)^\s*time\s+([0-9/]+)", text)) or {"4"}
    signatures = {re.sub(r"[ /]+", "/", s) for s in re.findall(r"(?im)^\s*timesig\s+([0-9]+[ /]+[0-9]+)", text)}
    if len(times) != 1 or len(signatures) > 1:
        return None
    time, signature = times.pop(), signatures.pop() if signatures else None
    known = {("4", None): "4/4", ("4", "4/4"): "4/4", ("4/4", None): "4/4", ("3", None): "3/4", ("3", "3/4"): "3/4", ("3/4", None): "3/4",
             ("6", "6/8"): "6/8"}  # fmt: skip
    return known.get((time, signature))


def _style(stem: str) -> tuple[str, int, int]:
    for pattern, style, slow, fast in STYLES:
        if re.search(pattern, stem.lower()):
            return style, slow, fast
    raise AssertionError("the last pattern matches everything")


def scan(home: Path) -> list[Groove]:
    """All usable grooves of an unpacked MMA, in a fixed order."""
    found: list[Groove] = []
    for path in sorted((home / "lib").glob("*/*.mma")):
        text = path.read_text(encoding="latin-1")
        meter, (style, slow, fast) = _meter(text), _style(path.stem)
        if meter is None or not style:
            continue
        defined = re.findall(r"(?im)^\s*defgroove\s+(\S+)[ \t]*(.*)$", text)
        names = [name for name, _ in defined if not re.search(r"(?i)intro|end|fill|count", name)]
        described = dict(defined)
        for name in names:
            family = re.sub(r"(?i)(sus|plus|\d+)+$", "", name)
            variants = tuple(other for other in names if other != name and family and other.startswith(family))
            found.append(Groove(name, f"{path.parent.name}/{path.name}", described[name].strip(" \\"), meter, style, slow, fast, variants))
    return found
