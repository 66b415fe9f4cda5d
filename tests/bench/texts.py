"""Whether any text says what the record beside it does not, or says a thing twice: all styles of many songs; not a test, run by hand.

    python -m tests.bench.texts FOLDER [-m MODEL] [--count 200] [--keep FILE.jsonl] [--beside OLD.jsonl]

Each song below FOLDER is analysed, captioned in all styles and thought about; `--beside` prints records and captions of two revisions.
What is counted is read by a reader of its own: it shares nothing with the program's (`claims.py`, `checks.py`), knows no negation but of
singing and no context, and so sees contradictions where there are none rather than the other way round. Every finding is printed.
The program reads older revisions too: copy it beside them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mflamingo_cli import load

SUFFIXES = frozenset({".flac", ".mp3", ".ogg", ".opus", ".wav"})
STYLES = ("full", "short", "technical", "critic")
QUESTIONS = ("Tell me about this song.", "How fast is it, and in what key?", "Is it sung, and how loud is it?")
SAME_TEMPO, SAME_LUFS, SAME_S = 0.01, 0.1, 1.0  # what rounding in a sentence may change
PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
NOTE = r"([A-G])(#|b|\u266f|\u266d|[ -]sharp|[ -]flat)?"
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])|\n+")
BPM = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:BPM|beats (?:per|a) minute)", re.IGNORECASE)
KEY = re.compile(rf"\b{NOTE}[ -](major|minor)\b")
METER = re.compile(r"\b([2-9]|1[0-2])/(4|8)\b")
LUFS = re.compile(r"([-\u2212]?[0-9]+(?:\.[0-9]+)?) LUFS")
CLOCK = re.compile(r"\b([0-9]+):([0-5][0-9])\b")
LONG = re.compile(r"\b(?:lasts|lasting|runs?|running|long|length|duration|holds)\b", re.IGNORECASE)
SECTION = re.compile(r"\b([A-Z]) \(([0-9]+):([0-5][0-9])\)")
HARMONY = re.compile(r"\b(?:chords?|harmony|harmonies|progression)\b", re.IGNORECASE)
CHORD = re.compile(r"(?<![A-Za-z0-9#-])([A-G][#b]?)(maj7|min7|m7|M7|m|dim|aug|7)?(?:/[A-G][#b]?)?(?=[,;.]|$| and | to | or )")
VOICE = re.compile(r"\b(?:sings?|singing|sung|singers?|vocals?|vocalists?|voices?|choir|lyrics)\b", re.IGNORECASE)
NOT_KNOWN = re.compile(r"\b(?:not clear|cannot tell|could not be measured)\b", re.IGNORECASE)
NO_VOICE = re.compile(r"\b(?:nobody|no one|no|not|without|instrumental|never|n't)\b", re.IGNORECASE)
INSTRUMENTAL = re.compile(r"\binstrumental\b", re.IGNORECASE)
JUNK = re.compile(r"\b(?:None|null|nan|True|False)\b|[{}<>|_]|\b([A-Za-z]+) \1\b")
# "measured facts" are the values of the record, whatever their confidence
HEDGE = re.compile(
    r"\b(?:probably|likely|likeliest|is certain|enough to be sure|with a confidence of|[0-9]+ % sure|perhaps|maybe|about|not sure|seems?|"
    r"sounds?|by ear|my ears|I hear|measured facts)\b",
    re.IGNORECASE,
)
SURENESS = ("tempo", "key", "meter", "vocals")
SURE = 0.8  # below it tables say "likely" and "unsure"
Finding = tuple[str, str]  # kind, what was found


def pitch(letter: str, accidental: str | None) -> int:
    """Semitones above C."""
    sign = (accidental or "").strip(" -")
    return (PITCHES[letter] + (sign in ("#", "\u266f", "sharp")) - (sign in ("b", "\u266d", "flat"))) % 12


def contradictions(sentence: str, record: dict[str, Any]) -> Iterator[Finding]:
    """What a sentence says of a value that the record has otherwise, or has not."""
    result, seconds = record["result"], record["audio"]["end"] - record["audio"]["start"]
    tempo = result["tempo"]
    tempi = [bpm for bpm in (tempo["bpm"], *(tempo["alternatives"] if "half" in sentence or "double" in sentence else ())) if bpm]
    for match in BPM.finditer(sentence):
        if not any(abs(float(match[1]) / bpm - 1) <= SAME_TEMPO for bpm in tempi):
            yield "tempo", f"{match[0]}, record {tempo['bpm']}"
    names = [key for key in (result["key"]["name"], *(span["name"] for span in result.get("keys", ()))) if key]
    keys = {(pitch(*match.group(1, 2)), match[3]) for name in names if (match := KEY.search(name))}
    for match in KEY.finditer(sentence):
        if (pitch(*match.group(1, 2)), match[3]) not in keys:
            yield "key", f"{match[0]}, record {names}"
    for match in METER.finditer(sentence):
        if match[0] != result["meter"]["value"]:
            yield "meter", f"{match[0]}, record {result['meter']['value']}"
    level = result["loudness"]["integrated_lufs"]
    for match in LUFS.finditer(sentence):
        if level is None or abs(float(match[1].replace("\u2212", "-")) - level) > SAME_LUFS:
            yield "loudness", f"{match[0]}, record {level}"
    yield from _times(sentence, result, seconds)
    if HARMONY.search(sentence):
        yield from _chords(sentence, result)
    yield from _voices(sentence, result["vocals"]["present"])
    for name, pattern in {"tempo": BPM, "key": KEY, "meter": METER}.items():
        if pattern.search(sentence) and (result[name]["confidence"] or 1.0) < SURE and not HEDGE.search(sentence):
            yield "says as certain what is not", f"{sentence!r}, {name} {result[name]['confidence']}"


def _times(sentence: str, result: dict[str, Any], seconds: float) -> Iterator[Finding]:
    sections = {(part["label"], int(part["start"])) for part in result["sections"]}
    for match in SECTION.finditer(sentence):
        at = 60 * int(match[2]) + int(match[3])
        if not any((match[1], near) in sections for near in (at - 1, at, at + 1)):
            yield "sections", match[0]
    for match in CLOCK.finditer(sentence):
        at = 60 * int(match[1]) + int(match[2])
        lasts = LONG.search(re.split("[;,]", sentence[: match.start()])[-1]) and not SECTION.search(sentence)
        if at > seconds + SAME_S or (lasts and abs(at - seconds) > SAME_S):
            yield "duration", f"{match[0]}, record {seconds:.1f} s"


def _chords(sentence: str, result: dict[str, Any]) -> Iterator[Finding]:
    known = set()
    for label in (chord["label"] for chord in result["chords"]):
        root, _, kind = label.partition(":")
        if root != "N":
            known.add((pitch(root[0], root[1:2] or None), kind.startswith(("min", "dim", "hdim"))))
    for match in CHORD.finditer(sentence):
        minor = (match[2] or "") in ("m", "m7", "min7", "dim")
        if (pitch(match[1][0], match[1][1:] or None), minor) not in known:
            yield "chords", f"{match[0]} in {sentence!r}"


def _voices(sentence: str, present: bool | None) -> Iterator[Finding]:
    if (VOICE.search(sentence) or INSTRUMENTAL.search(sentence)) and not NOT_KNOWN.search(sentence):
        said = not NO_VOICE.search(sentence)
        if said != present:
            yield ("voice" if present is not None else "voice, where the record is silent"), f"{sentence!r}, record {present}"


def words(text: str) -> str:
    """What is compared of two sentences: letters, digits and spaces."""
    return re.sub(r"[^a-z0-9 ]", "", text.lower())


def faults(text: str) -> Iterator[Finding]:
    """What is wrong with a text whatever the record says: repetition, a sentence that breaks off, traces of a program."""
    parts = [part.strip() for part in SENTENCE.split(text) if part.strip()]
    for part, count in Counter(map(words, parts)).items():
        if count > 1:
            yield "repeats a sentence", part
    for name, pattern in {"tempo": BPM, "key": KEY, "meter": METER, "loudness": LUFS}.items():
        said = [match[0] for match in pattern.finditer(text)]
        if len(said) > (len(set(said)) if name == "key" else 1):  # a song may change its key, and each is held against the record
            yield "tells a value twice", f"{name}: {said}"
    row = words(text).split()
    for phrase, count in Counter(zip(*(row[at:] for at in range(5)), strict=False)).items():
        if count > 1:
            yield "repeats five words", " ".join(phrase)
    for part in parts:
        if not re.search(r"[.!?][\"')]*$", part):
            yield "breaks off", part
        if part[0].islower() or part.count("(") != part.count(")"):
            yield "is not whole", part
        if JUNK.search(part):
            yield "holds a trace of a program or a doubled word", part


def examine(record: dict[str, Any], texts: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Findings in every text of a song: style, kind, what."""
    for style, text in texts.items():
        for sentence in (part for part in SENTENCE.split(text) if part.strip()):
            yield from ((style, kind, what) for kind, what in contradictions(sentence, record))
        yield from ((style, kind, what) for kind, what in faults(text))
        if style == "full":
            result = record["result"]
            missing = [name for name, value in (("tempo", result["tempo"]["bpm"]), ("key", result["key"]["name"])) if value]
            yield from ((style, f"{name} is missing", text) for name in missing if not {"tempo": BPM, "key": KEY}[name].search(text))


def gather(model: Any, song: Path) -> dict[str, Any]:
    """The record of a song and all its texts by style."""
    record = json.loads(model.analyze(str(song)).to_json())
    texts = {"analyze": record["result"]["caption"]} | {style: model.caption(str(song), style).caption for style in STYLES}
    for question in QUESTIONS:
        thought = model.think(str(song), question)
        texts |= {f"think: {question}": thought.text, f"reasoning: {question}": thought.thinking}
    return {"song": song.name, "record": record, "texts": {style: text for style, text in texts.items() if text}}


def main() -> None:
    """Ask, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-m", "--model", default="mini")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="what was asked before, and is not asked again")
    parser.add_argument("--beside", type=Path, help="what another revision kept: records and captions of both are printed as Markdown")
    told = parser.parse_args()
    songs = sorted(path for path in told.folder.rglob("*") if path.suffix in SUFFIXES)[: told.count]
    rows = kept(told.keep) if told.keep and told.keep.exists() else {}
    with load(told.model, remember=True) as model:
        for song in songs:
            if song.name not in rows:
                rows[song.name] = gather(model, song)
                if told.keep:
                    with told.keep.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(rows[song.name]) + "\n")
    asked = [rows[song.name] for song in songs]
    if told.beside:
        before = kept(told.beside)
        print("\n".join(markdown(before[row["song"]], row) for row in asked if row["song"] in before))
    report(asked)


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """What was asked before, by song."""
    return {row["song"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def cells(row: dict[str, Any]) -> dict[str, str]:
    """The main values of a record, how sure they are, and its captions, unedited."""
    result = row["record"]["result"]
    chords = list(dict.fromkeys(chord["label"] for chord in result["chords"]))
    values = {
        "tempo": result["tempo"]["bpm"], "key": result["key"]["name"], "meter": result["meter"]["value"],
        "chords": " ".join(chords[:6]) + (" …" if len(chords) > 6 else ""),
        "sections": " ".join(f"{part['label']} {part['start']:.0f}" for part in result["sections"]),
        "loudness": f"{result['loudness']['integrated_lufs']} LUFS",
        "vocals": {True: "sung", False: "not sung"}.get(result["vocals"]["present"]),
        "tags": ", ".join([*result["genre"], *result["instruments"], *result["mood"]]),
    }  # fmt: skip
    sure = {name: result[name].get("confidence") for name in SURENESS}
    facts = {name: f"{value or ''}{f' ({sure[name]:.2f})' if value and sure.get(name) else ''}" for name, value in values.items()}
    return facts | {style: row["texts"].get(style, "") for style in STYLES}


def markdown(before: dict[str, Any], after: dict[str, Any]) -> str:
    """A song of two revisions side by side."""
    old, new = cells(before), cells(after)
    lines = [f"### {Path(after['song']).stem}", "", "| | before | after |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {old[name]} | {new[name]} |" for name in new), ""])


def report(rows: list[dict[str, Any]]) -> None:
    """Print every finding, how many there are of each kind in each style, and all as one line of JSON."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for style, kind, what in examine(row["record"], row["texts"]):
            print(f"{row['song']}, {style}: {kind}: {what}")
            counts.setdefault(style, Counter())[kind] += 1
    texts = Counter(style for row in rows for style in row["texts"])
    kinds = sorted({kind for found in counts.values() for kind in found})
    for style, count in texts.items():
        found = counts.get(style, Counter())
        told = "".join(f"; {kind} {found[kind]}" for kind in kinds if found[kind])
        print(f"{style}: {count} texts, {sum(found.values())} findings{told}")
    sentences = sum(len(SENTENCE.split(text)) for row in rows for text in row["texts"].values())
    totals = {kind: sum(found[kind] for found in counts.values()) for kind in kinds}
    print(json.dumps({"songs": len(rows), "texts": sum(texts.values()), "sentences": sentences, "findings": totals}))


if __name__ == "__main__":
    main()
