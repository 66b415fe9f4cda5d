"""Rewards of GRPO: plain functions of texts and the row they answer, (texts, row) -> for each a number, or None: not for this row.

`format`, `accuracy` and `structured` are the paper's (arXiv 2511.10289, section 3.4), the last one bounded: a category counts from 0 to 1,
a word once, and what stands behind the length of a caption not at all. `facts` is ours: what is claimed is held against what was measured.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mflamingo_cli.claims import read_claims, sentences
from mflamingo_cli.errors import UsageError
from mflamingo_cli.measure.compare import compare_keys, compare_tempi
from mflamingo_cli.parsers import parse_key
from mflamingo_cli.train.data.row import TrainingRow
from mflamingo_cli.train.multiple_choice import final_answer, is_right, normalized
from mflamingo_cli.train.settings import content_hash

Reward = Callable[[Sequence[str], TrainingRow], list[float | None]]

_FORMAT = re.compile(
    r"\s*<think>(?!\s*</think>)((?!</?think>|</?answer>).)*</think>\s*<answer>((?!</?think>|</?answer>).)+</answer>\s*", re.DOTALL
)
_DENIED = re.compile(  # what a sentence denies, as far as it goes on, or to a "but"
    r"(?:\b(?:no|not|never|neither|nor|nobody|nothing(?! but)|without|lack(?:s|ing)|hardly|unlike|(?:instead|rather) (?:of|than)|"
    r"anything but|far from)\b|n['\u2019]t\b)(?:(?!(?<!anything )\bbut\b)[^;])*",
    re.IGNORECASE,
)
CAPTION_WORDS = 300  # longer than any caption that the checkpoints were shown with
SURE = 0.8  # a measured fact below it is no truth to be paid for
JUDGED: Mapping[str, Callable[[Any, Any], bool]] = {  # fact -> whether a claimed value is the measured one
    "tempo": lambda measured, claimed: isinstance(claimed, float | int) and bool(compare_tempi(float(measured), float(claimed)).agrees),
    "key": lambda measured, claimed: bool(compare_keys(parse_key(str(measured)), parse_key(str(claimed))).agrees),
    "meter": lambda measured, claimed: claimed == measured,
    "vocals": lambda measured, claimed: claimed is measured,
}


def claims_judged(text: str) -> bool:
    """Return whether a text claims a fact that answers are rewarded for."""
    return any(reading.kind in JUDGED and not reading.denied for reading in read_claims(text))


def well_formed(texts: Sequence[str], row: TrainingRow) -> list[float | None]:
    """1 for <think>…</think><answer>…</answer> with words in both and nothing around, else 0."""
    return [float(_FORMAT.fullmatch(text) is not None) for text in texts]


def accuracy(texts: Sequence[str], row: TrainingRow) -> list[float | None]:
    """1 for the expected answer of the row, exactly read, else 0."""
    answer = row.extra.get("answer") or row.extra.get("solution")
    if answer is None:
        return [None] * len(texts)
    return [float(is_right(text, str(answer), [str(choice) for choice in row.extra.get("choices") or ()])) for text in texts]


def structured(texts: Sequence[str], row: TrainingRow) -> list[float | None]:
    """The mean over categories of the share of their words that a caption has: `tags` of the row is {category: words}.

    What it denies, or only asks, it does not have.
    """
    tags = row.extra.get("tags")
    wanted = {name: [normalized(str(word)) for word in words] for name, words in tags.items() if words} if isinstance(tags, dict) else {}
    if not wanted:
        return [None] * len(texts)
    found = []
    for text in texts:
        said = f" {' '.join(normalized(_affirmed(final_answer(text))).split()[:CAPTION_WORDS])} "
        shares = [sum(f" {word} " in said for word in set(words)) / len(set(words)) for words in wanted.values()]
        found.append(sum(shares) / len(shares))
    return found


def _affirmed(text: str) -> str:
    """Return the sentences of a text without questions and without what they deny."""
    spoken = (text[start:end] for start, end in sentences(text))
    return " ".join(_DENIED.sub(" ", sentence) for sentence in spoken if not sentence.endswith("?"))


def facts(texts: Sequence[str], row: TrainingRow) -> list[float | None]:
    """The mean over the row's sure facts of 1 for a right claim, 0 for none, -1 for a wrong one or for several.

    What is said of a part, of other music, or as a possibility counts among several, and is never right by itself.
    """
    known = {name: value for name, value in sure_facts(row.extra.get("facts")).items() if name in JUDGED}
    if not known:
        return [None] * len(texts)
    return [sum(_verdict(text, name, value) for name, value in known.items()) / len(known) for text in texts]


def sure_facts(given: Any, least: float = SURE) -> dict[str, Any]:
    """Return the values of facts that are sure enough; a fact is a value, or {"value": …, "confidence": …}."""
    if not isinstance(given, dict):
        return {}
    split = {
        name: (fact.get("value"), fact.get("confidence", 1.0)) if isinstance(fact, dict) else (fact, 1.0) for name, fact in given.items()
    }
    return {name: value for name, (value, confidence) in split.items() if value is not None and (confidence or 0.0) >= least}


def _verdict(text: str, name: str, measured: Any) -> float:
    """Judge what a text claims of one fact; a denial of what was measured is wrong, one of anything else says nothing."""
    same = JUDGED[name]
    readings = [reading for reading in read_claims(final_answer(text)) if reading.kind == name]
    claimed: list[Any] = []
    for reading in readings:
        if reading.denied and same(measured, reading.value):
            return -1.0
        if not reading.denied and not any(same(other, reading.value) for other in claimed):
            claimed.append(reading.value)
    if len(claimed) > 1 or any(not same(measured, value) for value in claimed):
        return -1.0
    return float(any(reading.judged and not reading.denied for reading in readings))


REWARDS: Mapping[str, Reward] = {"format": well_formed, "accuracy": accuracy, "structured": structured, "facts": facts}


def find(names: Sequence[str]) -> dict[str, Reward]:
    """Return rewards by name, or by FILE.py:FUNCTION of the user's own. Raises UsageError."""
    return {name: REWARDS[name] if name in REWARDS else _own(name) for name in names}


def _own(name: str) -> Reward:
    file, _, function = name.rpartition(":")
    if not file.endswith(".py"):
        raise UsageError(f"reward {name} is unknown; choose from {', '.join(REWARDS)}, or write FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise UsageError(f"reward {name}: there is no file {file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, function, None)
    if not callable(found):
        raise UsageError(f"reward {name}: {file} has no function {function}")
    return found  # type: ignore[no-any-return]


def with_hash(name: str) -> str:
    """Return the name of a reward; of the user's own the name of its file, with what tells its content from any other."""
    file, _, function = name.rpartition(":")
    if not file:
        return name
    return f"{Path(file).name}:{function} ({content_hash(Path(file))})"


def total(rewards: Mapping[str, Reward], texts: Sequence[str], row: TrainingRow) -> tuple[list[float], dict[str, list[float]]]:
    """Return the sum of all rewards that are for a row, and each of them. Raises UsageError where one gives no numbers."""
    parts: dict[str, list[float]] = {}
    for name, reward in rewards.items():
        given = reward(texts, row)
        if len(given) != len(texts) or any(value is not None and not math.isfinite(value) for value in given):
            raise UsageError(f"reward {name} gave {len(given)} values for {len(texts)} texts, or a value that is not a number")
        if None not in given:
            parts[name] = [float(value) for value in given if value is not None]
    return [sum(values) for values in zip(*parts.values(), strict=True)] if parts else [0.0] * len(texts), parts
