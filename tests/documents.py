"""Sessions pasted into the READMEs: a command after `$ `, then what it printed; found, run, and compared line by line.

A line that is only `…` stands for any number of lines. A block under `<!-- varies: why -->` is run but its text is not compared; one under
`<!-- not run: why -->` is not run. Seconds of timing are masked; nothing else is. `python -m tests.documents` pastes anew.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tests.docs import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted(p for room in ("mflamingo_cli", "quant", "tests") for p in (ROOT / room).rglob("README.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>varies|not run): (?P<why>.+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
TREE = re.compile(r"^```\nmflamingo_cli/.*?^```$", re.MULTILINE | re.DOTALL)
ANY = "…"
TIMING = [
    (re.compile(r"([╭╰]─*) (\S+ \S+) · (?:decode|measure|encode|generate) .*"), r"\1 \2"),  # the foot of a table, as wide as its times
    (re.compile(r'("(?:decode|measure|encode|generate)_s"): ?(?:[\d.]+|null)'), r"\1:0"),
]
FOOT = re.compile(r"^╰─*")
TIMEOUT_S = 300  # a busy machine


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


def playground(folder: Path) -> dict[str, str]:
    """Put a song, a music library and this tree's `mflamingo` into a folder; return the environment of its user."""
    program = folder / "bin" / "mflamingo"
    program.parent.mkdir()
    # As pip writes it: "mflamingo" is the name of the program in its help
    start = "if __name__ == '__main__':\n    from mflamingo_cli.cli import main\n    main()\n"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{start}")
    program.chmod(0o755)
    t = np.arange(8 * 22_050) / 22_050
    sound = sum(np.sin(2 * np.pi * hz * t) for hz in (220.0, 261.6, 329.6)) * np.exp(-6.0 * (t % 0.5)) * 0.2
    album = folder / "Music" / "album"
    album.mkdir(parents=True)
    for path in (folder / "song.mp3", album / "one.flac"):
        soundfile.write(path, sound, 22_050)
    (album / "two.flac").write_text("not audio")
    (folder / "tests").symlink_to(ROOT / "tests")
    return {**os.environ, "COLUMNS": "80", "HOME": str(folder), "PATH": f"{program.parent}:{os.environ['PATH']}"}


def run_line(line: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a line of bash there."""
    command = ["bash", "-c", line]
    settings = {"cwd": folder, "env": env, "capture_output": True, "text": True, "timeout": TIMEOUT_S, "stdin": subprocess.DEVNULL}
    return subprocess.run(command, check=False, **settings)


def tree() -> str:
    """Return the README's tree: every module of the package's top floor and every folder, with the first line that it opens with."""
    package = ROOT / "mflamingo_cli"
    modules = [path for path in package.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    rows = [("mflamingo_cli/", first_line(package / "__init__.py"))]
    rows += [(f"  {path.name}", first_line(path)) for path in sorted(modules, key=lambda path: (path.name != "pipeline.py", path.name))]
    rows += [(f"  {path.parent.name}/", first_line(path)) for path in sorted(package.glob("*/__init__.py"))]
    rows += [("  mini/ small/", "The embedded models and their cards."), ("quant/", first_line(ROOT / "quant" / "__init__.py"))]
    rows += [
        ("tests/", "Mirrors both trees; tests/bench/ holds every timing, tests/golden/ the records."),
        ("man/ completions/", "Generated."),
    ]
    return "".join(f"{name:<18} {line}\n" for name, line in rows)


def first_line(path: Path) -> str:
    """Return the line that a file opens with."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def paste(path: Path) -> str:
    """Return a document with what its commands print now and the tree as it is; texts cut with `…` are left to their author."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = playground(folder) | {"MFLAMINGO_CACHE": f"{name}/cache", "MFLAMINGO_STATE": f"{name}/state"}
        text = path.read_text(encoding="utf-8")
        for session in sessions(path):
            if session.mark == "not run":
                continue
            done = run_line(session.command, folder, env)
            if not mismatch(session.pasted, done.stdout, done.stderr) or ANY in session.pasted:
                continue
            reasons = done.stderr if re.match(r"mflamingo think ", session.command) else ""
            old = "".join(f"{line}\n" for line in (f"$ {session.command}", *session.pasted))
            printed = "".join(f"{line.rstrip()}\n" for line in (reasons + done.stdout).splitlines())
            text = text.replace(old, f"$ {session.command}\n{printed}")
    return TREE.sub(lambda _: f"```\n{tree()}```", text)


def main() -> None:
    """Write every document anew."""
    for path in DOCUMENTS:
        if (text := paste(path)) != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
