"""Replies that are sentences held against references: word and character error rates of lyrics, BLEU and ROUGE-L of captions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from mflamingo_cli.claims import read_claims
from mflamingo_cli.train.evaluate.bench.items import BenchItem, Measure
from mflamingo_cli.train.multiple_choice import final_answer
from mflamingo_cli.train.rewards import JUDGED

# --- lyrics ------------------------------------------------------------------------------------------------------------------

_HEADING = re.compile(r"^\s*(?:\[[^\]]*\]|\(?\*\*[^*]*\*\*\)?:?|#+ .*)\s*$", re.MULTILINE)  # "[Chorus]", "**Verse 1**", "## Bridge"


def sung_words(text: str) -> list[str]:
    """Return words in lower case without punctuation but apostrophes; "Don't stop!" -> ["don't", "stop"]."""
    return re.sub(r"[^\w']+", " ", text.lower().replace("’", "'")).split()


def characters(text: str) -> list[str]:
    """Return letters and digits in lower case, without spaces and punctuation."""
    return [character for character in text.lower() if character.isalnum()]


def without_headings(text: str) -> str:
    """Return a lyric sheet without the lines that name its parts."""
    return _HEADING.sub("", text)


def edit_distance(reference: Sequence[str], said: Sequence[str]) -> int:
    """Return how many substitutions, insertions and deletions make one sequence of the other (Levenshtein 1966)."""
    numbers = {word: number for number, word in enumerate({*reference, *said})}
    wanted, given = (np.array([numbers[word] for word in part], dtype=np.int64) for part in (reference, said))
    steps = np.arange(len(given) + 1)
    row = steps
    for at, word in enumerate(wanted, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (given != word))
        row = np.minimum.accumulate(np.concatenate(([at], best)) - steps) + steps  # the least over insertions to the left
    return int(row[-1])


def _errors(units: Callable[[str], list[str]], prepare: Callable[[str], str]) -> Callable[[str, BenchItem], Sequence[float]]:
    def row(text: str, item: BenchItem) -> Sequence[float]:
        reference = units(item.references[0])
        return edit_distance(reference, units(prepare(final_answer(text)))), len(reference)

    return row


def _rate(rows: np.ndarray) -> float:
    """Errors of all replies by units of all references."""
    errors, units = rows.sum(axis=0)
    return float(errors / units) if units else math.nan


def _empty(text: str, item: BenchItem) -> Sequence[float]:
    return (float(not sung_words(without_headings(final_answer(text)))),)


EMPTY = Measure("empty", _empty, lambda rows: float(rows[:, 0].mean()), higher_is_better=False)
WORD_ERRORS = (
    Measure("WER", _errors(sung_words, str), _rate, higher_is_better=False),
    Measure("WER without headings", _errors(sung_words, without_headings), _rate, higher_is_better=False),
)
CHARACTER_ERRORS = (
    Measure("CER", _errors(characters, str), _rate, higher_is_better=False),
    Measure("CER without headings", _errors(characters, without_headings), _rate, higher_is_better=False),
)

# --- captions ----------------------------------------------------------------------------------------------------------------

ORDER = 4
_MTEVAL = (  # the tokenizer 13a of mteval, as BLEU in Hugging Face's evaluate has it
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def mteval_tokens(text: str) -> list[str]:
    """Return tokens of mteval-v13a; case is kept."""
    text = f" {' '.join(text.split())} "
    for pattern, replacement in _MTEVAL:
        text = pattern.sub(replacement, text)
    return text.split()


def bleu_row(text: str, item: BenchItem) -> list[float]:
    """Clipped matches of runs of 1 to 4 tokens, how many runs there are, tokens of the reply and of the shortest reference."""
    said, references = mteval_tokens(final_answer(text)), [mteval_tokens(reference) for reference in item.references]
    matches, possible = [], []
    for n in range(1, ORDER + 1):
        most = Counter[tuple[str, ...]]()
        for reference in references:
            most |= _runs(reference, n)
        matches.append((_runs(said, n) & most).total())
        possible.append(max(0, len(said) - n + 1))
    return [*matches, *possible, len(said), min(map(len, references))]


def _runs(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))


def bleu(rows: np.ndarray, order: int = ORDER) -> float:
    """Corpus BLEU without smoothing (Papineni 2002) of rows by `bleu_row`."""
    sums = rows.sum(axis=0)
    matches, possible, said, reference = sums[:order], sums[ORDER : ORDER + order], sums[-2], sums[-1]
    if not matches.all() or not said:
        return 0.0
    brevity = min(0.0, 1.0 - reference / said)
    return float(math.exp(brevity + np.log(matches / possible).mean()))


def rouge_l(text: str, item: BenchItem) -> tuple[float]:
    """F1 of the longest common subsequence of words with the nearest reference (Lin 2004), words as Google's rouge_score has them."""
    said = re.sub(r"[^a-z0-9]+", " ", final_answer(text).lower()).split()
    best = 0.0
    for reference in item.references:
        words = re.sub(r"[^a-z0-9]+", " ", reference.lower()).split()
        common = _common(words, said)
        best = max(best, 2 * common / (len(words) + len(said)) if common else 0.0)
    return (best,)


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for at, other in enumerate(right, 1):
            before, row[at] = row[at], before + 1 if word == other else max(row[at], row[at - 1])
    return row[-1]


def agreeing_claims(text: str, item: BenchItem) -> tuple[float, float]:
    """How many claims of a caption agree with those of its references, and how many can be compared: tempo, key, meter, singing."""
    known = [reading for reference in item.references for reading in read_claims(reference) if not reading.denied and reading.judged]
    right = compared = 0
    for reading in read_claims(final_answer(text)):
        same = JUDGED.get(reading.kind)
        truths = [other.value for other in known if other.kind == reading.kind]
        if same is not None and truths and reading.judged:
            compared += 1
            right += any(same(truth, reading.value) for truth in truths) != reading.denied
    return right, compared


CAPTION = (
    Measure("BLEU-1", bleu_row, lambda rows: bleu(rows, 1)),
    Measure("BLEU-4", bleu_row, bleu),
    Measure("ROUGE-L", rouge_l, lambda rows: float(rows[:, 0].mean())),
    Measure("claims that agree", agreeing_claims, _rate),
    EMPTY,
)
