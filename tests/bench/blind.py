"""Blind reading: captions of several writers about the same songs, shuffled and unlabelled, ranked by readers; not a test, run by hand.

    python -m tests.bench.blind sheet FOLDER SHEET.md
    python -m tests.bench.blind score FOLDER

FOLDER holds `facts.txt` (a line for each song: its name, a tab, what was measured) and `WRITER.txt` of each writer, a caption a line in
the same order. `sheet` writes what a reader is given: of each song the facts and the captions under letters drawn anew for each song; the
key is `FOLDER/key.json` and is not shown. A reader writes `FOLDER/reader-NAME.tsv`: song number, the letters from the truest to the least
true, those from the most pleasant to read to the least, e.g. `7<tab>BCA<tab>CAB`. `score` prints how often each writer is ranked before
each other, with the 95 % interval of a bootstrap over songs.
"""

from __future__ import annotations

import argparse
import json
from itertools import permutations
from pathlib import Path
from random import Random

import numpy as np

ASKED = ("truth", "pleasure")
DRAWS = 4000
HEAD = """# {n} songs, {k} captions each

For each song you get what was measured, which is to be taken as the truth, and {k} captions. Rank the captions of each song twice:
first by truth (does it say what was measured, and nothing that contradicts it or was never measured?), then by pleasure (which would
you rather read?). Write one line a song: number, tab, letters from the truest to the least true, tab, letters from the most pleasant to
the least, without spaces between letters. No ties.
"""


def texts_of(folder: Path) -> dict[str, list[str]]:
    """The captions of each writer, in the order of the songs."""
    found = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in sorted(folder.glob("*.txt")) if path.stem != "facts"}
    lengths = {len(texts) for texts in found.values()}
    if len(found) < 2 or len(lengths) != 1 or lengths != {len(songs_of(folder))}:
        raise SystemExit(f"{folder}: every writer needs as many lines as facts.txt, and there must be two writers at least")
    return found


def songs_of(folder: Path) -> list[tuple[str, str]]:
    """The name of each song and what was measured."""
    lines = (folder / "facts.txt").read_text(encoding="utf-8").splitlines()
    return [(name, facts) for name, _, facts in (line.partition("\t") for line in lines)]


def sheet(folder: Path, seed: int) -> tuple[str, list[str]]:
    """The sheet, and for each song the writers in the order of their letters."""
    texts, dice = texts_of(folder), Random(seed)
    parts, key = [HEAD.format(n=len(songs_of(folder)), k=len(texts))], []
    for number, (_, facts) in enumerate(songs_of(folder), 1):
        order = dice.sample(sorted(texts), len(texts))
        captions = [f"**{chr(65 + at)}.** {texts[writer][number - 1]}" for at, writer in enumerate(order)]
        parts.append("\n\n".join([f"## {number}", f"Measured: {facts}", *captions]))
        key.append(" ".join(order))
    return "\n\n".join(parts) + "\n", key


def places(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """By question and writer: the place that each reader gave in each song, (readers, songs), 0 first."""
    key = [line.split() for line in json.loads((folder / "key.json").read_text(encoding="utf-8"))]
    found: dict[str, dict[str, list[list[int]]]] = {asked: {writer: [] for writer in sorted(key[0])} for asked in ASKED}
    for path in sorted(folder.glob("reader-*.tsv")):
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if sorted(int(row[0]) for row in rows) != list(range(1, len(key) + 1)):
            raise SystemExit(f"{path}: every song must be ranked once")
        rows.sort(key=lambda row: int(row[0]))
        for at, asked in enumerate(ASKED, 1):
            ranked = [[order[ord(letter) - 65] for letter in row[at].strip()] for row, order in zip(rows, key, strict=True)]
            for writer, of_songs in found[asked].items():
                of_songs.append([song.index(writer) for song in ranked])
    return {asked: {writer: np.array(of_songs) for writer, of_songs in of.items()} for asked, of in found.items()}


def wins(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """How often the first is ranked before the second, with its 95 % interval over songs: places (readers, songs) each."""
    share = (first < second).mean(axis=0)
    drawn = np.random.default_rng(0).integers(len(share), size=(DRAWS, len(share)))
    low, high = np.quantile(share[drawn].mean(axis=1), [0.025, 0.975])
    return float(share.mean()), float(low), float(high)


def main() -> None:
    """Write a sheet, or print the wins."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make, score = commands.add_parser("sheet"), commands.add_parser("score")
    make.add_argument("folder", type=Path)
    make.add_argument("out", type=Path)
    make.add_argument("--seed", type=int, default=0)
    score.add_argument("folder", type=Path)
    told = parser.parse_args()
    if told.command == "sheet":
        text, key = sheet(told.folder, told.seed)
        told.out.write_text(text, encoding="utf-8")
        (told.folder / "key.json").write_text(json.dumps(key, indent=0) + "\n", encoding="utf-8")
        return
    print("| ranked by | first | before | share | 95 % |\n| --- | --- | --- | --- | --- |")
    for asked, of_writers in places(told.folder).items():
        for first, second in permutations(of_writers, 2):
            share, low, high = wins(of_writers[first], of_writers[second])
            print(f"| {asked} | {first} | {second} | {share:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
