"""Excerpts of clips, and a model on any back end that is asked about them: songs are encoded once, questions share them. Greedy."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.backends.base import Backend, Encoded, GenerateOptions, Prompt, SongPrompts
from mflamingo_cli.core.audio import SAMPLE_RATE, Audio, Source
from mflamingo_cli.train.evaluate.ground_truth import Item, item_of
from mflamingo_cli.train.mini.frames import TOKEN_S, Clip

GRID_SAMPLES = round(TOKEN_S * SAMPLE_RATE)  # excerpts begin where labels do


@dataclass(frozen=True)
class Cut:
    """Which part of every clip is asked about: `seconds` from its start, or anywhere in it (shorter clips are left out); or all of it."""

    seconds: float = 20.0
    anywhere: bool = False
    whole: bool = False  # at most `seconds`


def items(clips: Sequence[Clip], how: Cut) -> Iterator[Item]:
    """Excerpts of the clips that are long enough, with what is known of them."""
    for clip in clips:
        total, count = len(clip.samples()), int(how.seconds * SAMPLE_RATE)
        if how.whole:
            yield item_of(clip, 0.0, min(count, total) / SAMPLE_RATE)
        elif total >= count:
            spare = (total - count) // GRID_SAMPLES
            start = GRID_SAMPLES * int(np.random.default_rng(clip.row["index"]).integers(spare + 1)) if how.anywhere else 0
            yield item_of(clip, start / SAMPLE_RATE, (start + count) / SAMPLE_RATE)


@dataclass(frozen=True)
class Question:
    """A question about a song of a batch, by its number, and the most tokens of its answer."""

    song: int
    text: str
    max_new: int


Update = Generator[list[Question], list[str], None]  # yields questions, is sent their answers


def questions(asked: Iterable[tuple[int, str]], max_new: int) -> list[Question]:
    """Questions whose answers may be equally long."""
    return [Question(song, text, max_new) for song, text in asked]


class SongBatch:
    """Songs encoded together (None: no audio), about which a model is asked."""

    def __init__(self, backend: Backend, songs: Sequence[np.ndarray | None]) -> None:
        self.backend, self.count = backend, len(songs)
        sources = [(samples, Source("-", len(samples) / SAMPLE_RATE, SAMPLE_RATE, 1, "pcm")) for samples in songs if samples is not None]
        audios = [Audio(*source) for source in sources]
        encoded = iter(backend.encode(audios) if audios else ())
        self._encoded: list[Encoded | None] = [None if samples is None else next(encoded) for samples in songs]

    def run(self, updates: Iterable[Update]) -> None:
        """Let each take its questions and answers; what they ask at the same time is answered together."""
        waiting = [(update, asked) for update in updates if (asked := next(update, None)) is not None]
        while waiting:
            answers = iter(self.answers([question for _, asked in waiting for question in asked]))
            sent = [(update, [next(answers) for _ in asked]) for update, asked in waiting]
            waiting = [(update, asked) for update, texts in sent if (asked := _send(update, texts)) is not None]

    def answers(self, asked: Sequence[Question]) -> list[str]:
        """Answers in the order of the questions."""
        texts = [""] * len(asked)
        for limit in sorted({question.max_new for question in asked}):
            numbers: dict[int, list[int]] = {}
            for number, question in enumerate(asked):
                if question.max_new == limit:
                    numbers.setdefault(question.song, []).append(number)
            talks = [SongPrompts(self._encoded[song], [Prompt(asked[n].text) for n in some]) for song, some in numbers.items()]
            order = list(numbers.values())
            for talk, prompt, chunk in self.backend.generate(talks, GenerateOptions(max_new_tokens=limit)):
                texts[order[talk][prompt]] += chunk.text
        return texts

    def yes(self, asked: Sequence[tuple[int, str]]) -> list[float]:
        """Probability that the answer to each (song, question) begins with Yes, against No."""
        found = []
        for song, text in asked:
            yes, no = (float(part[0]) for part in self.backend.log_likelihood(self._encoded[song], [Prompt(text)] * 2, ["Yes", "No"]))
            found.append(1 / (1 + float(np.exp(no - yes))))
        return found


def _send(update: Update, texts: list[str]) -> list[Question] | None:
    """Give answers to an update; its next questions, None when it has none."""
    try:
        return update.send(texts)
    except StopIteration:
        return None
