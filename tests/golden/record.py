"""The commands whose output is kept, how they are run, and what of their output is compared. `python -m tests.golden` writes it anew."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs import ROOT

FOLDER = Path(__file__).parent
OCEAN, BOTH = "tests/data/ocean.opus", "tests/data"
COMMANDS: dict[str, tuple[str, ...]] = {  # file of the folder: arguments
    "analyze.jsonl": ("analyze", "--json", "-v", BOTH),
    "caption-full.jsonl": ("caption", "--json", "-v", "--style", "full", BOTH),
    "caption-short.jsonl": ("caption", "--json", "--style", "short", BOTH),
    "caption-technical.jsonl": ("caption", "--json", "--style", "technical", BOTH),
    "caption-critic.jsonl": ("caption", "--json", "--style", "critic", BOTH),
    "caption-lyrics.jsonl": ("caption", "--json", "--style", "lyrics", BOTH),
    "ask-tempo.jsonl": ("ask", "--json", "-v", "How fast is this?", BOTH),
    "ask-instruments.jsonl": ("ask", "--json", "-v", "Which instruments do you hear?", BOTH),
    "think.jsonl": ("think", "--json", "-v", "What key is this in?", BOTH),
    "table.txt": ("analyze", "-f", "table", BOTH),
    "text.txt": ("analyze", "-f", "text", OCEAN),
    "csv.txt": ("analyze", "-f", "csv", BOTH),
    "markdown.txt": ("analyze", "-f", "markdown", BOTH),
    "labels.txt": ("analyze", "-f", "labels", OCEAN),
    "beats.txt": ("analyze", "-f", "beats", OCEAN),
    "lab.txt": ("analyze", "-f", "lab", OCEAN),
    "jams.jsonl": ("analyze", "-f", "jams", OCEAN),
    "m3u.txt": ("analyze", "-f", "m3u", BOTH),
    "where.txt": ("analyze", "-f", "tsv", "--fields", "path,bpm,key.camelot", "--where", "bpm < 100", BOTH),
}
MASKED = {"decode_s", "measure_s", "encode_s", "generate_s"}  # how long it took, and whether it was in the cache
FOOTER = re.compile(r"[╭╰]─+ (\S+ \S+) · (?:decode|measure|encode|generate) .*─╯")
TOLERANCE = (
    0.02  # of seconds, BPM, LUFS and confidences: one beat frame, which another processor's rounding can move; words and names never
)
TIMEOUT_S = 120


def run(arguments: tuple[str, ...], folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program in the root of the tree with a cache and a run store of its own in a folder."""
    own = {"MFLAMINGO_CACHE": str(folder / "cache"), "MFLAMINGO_STATE": str(folder / "state"), "COLUMNS": "80", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "mflamingo_cli", *arguments]
    env = {**os.environ, **own, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)


def output(arguments: tuple[str, ...], folder: Path) -> str:
    """Return what a command prints, its timing masked. Raises AssertionError where it does not end well."""
    done = run(arguments, folder)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode("utf-8")
    if not text.startswith("{"):
        return FOOTER.sub(r"footer: \1", text)
    return "".join(json.dumps(masked(json.loads(line)), ensure_ascii=False) + "\n" for line in text.splitlines())


def masked(value: Any) -> Any:
    """Return JSON with None for each number of seconds that the work took."""
    if isinstance(value, dict):
        return {key: None if key in MASKED else masked(item) for key, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


def differences(kept: Any, now: Any, where: str = "") -> list[str]:
    """Name every place where two JSON values differ: keys and words exactly, floats beyond the tolerance."""
    if isinstance(kept, dict) and isinstance(now, dict):
        keys = [*kept, *(key for key in now if key not in kept)]
        missing = [f"{where}.{key}: only in one" for key in keys if (key in kept) != (key in now)]
        return missing + [d for key in keys if key in kept and key in now for d in differences(kept[key], now[key], f"{where}.{key}")]
    if isinstance(kept, list) and isinstance(now, list):
        if len(kept) != len(now):
            return [f"{where}: {len(kept)} items, now {len(now)}"]
        return [d for i, (a, b) in enumerate(zip(kept, now, strict=True)) for d in differences(a, b, f"{where}[{i}]")]
    if isinstance(kept, float) and isinstance(now, float):
        return [] if math.isclose(kept, now, rel_tol=0.0, abs_tol=TOLERANCE) else [f"{where}: {kept}, now {now}"]
    return [] if type(kept) is type(now) and kept == now else [f"{where}: {kept!r}, now {now!r}"]


def write(folder: Path) -> None:
    """Write the outputs of this tree into the folder of this file."""
    for name, arguments in COMMANDS.items():
        (FOLDER / name).write_text(output(arguments, folder), encoding="utf-8")
