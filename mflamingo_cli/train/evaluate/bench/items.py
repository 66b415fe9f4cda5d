"""What a benchmark is: items that are asked, and measures of the replies. Times are seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mflamingo_cli.train.multiple_choice import with_options


@dataclass(frozen=True)
class BenchItem:
    """One question about a recording or a part of it; `references` are right answers, of which that to options is the words of one."""

    id: str
    audio: Path
    question: str
    references: tuple[str, ...]
    choices: tuple[str, ...] = ()
    skill: str = ""
    start_s: float = 0.0
    end_s: float | None = None

    def prompt(self) -> str:
        """The question, with its options where it has some."""
        return with_options(self.question, self.choices) if self.choices else self.question


@dataclass(frozen=True)
class Measure:
    """A figure of many replies: numbers of each, (reply, item) -> a row, and the figure of all rows, (items, numbers) -> a number."""

    name: str
    row: Callable[[str, BenchItem], Sequence[float]]
    figure: Callable[[np.ndarray], float]
    higher_is_better: bool = True


@dataclass(frozen=True)
class Benchmark:
    """A set of items: where its layout and its rule are described, how it is read, its measures, the official one first.

    `published` is what the paper of Music Flamingo reports (arXiv 2511.10289, table 1), whose rule for questions is a GPT model that maps
    a reply to an option; `note` says what is left out, or where the official rule cannot be had.
    """

    name: str
    source: str
    read: Callable[[Path], Iterator[BenchItem]]
    measures: tuple[Measure, ...]
    published: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    judged: bool = False  # whether a judge can rate its replies: answers are sentences
