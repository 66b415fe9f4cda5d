"""Rows of training out of clips whose labels are known: exchanges about excerpts, as `train sft` and `train grpo` read them.

Times are seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli.core.audio import SILENT_PEAK
from mflamingo_cli.train.data.formats import ROWS
from mflamingo_cli.train.mini.dialogue.clip_labels import excerpt_labels
from mflamingo_cli.train.mini.dialogue.exchanges import CAPTIONS, audio_turns, make_turn, text_turn
from mflamingo_cli.train.mini.dialogue.prompt_facts import PromptFacts
from mflamingo_cli.train.mini.frames import Clip
from mflamingo_cli.train.mini.synth.arrange import choose
from mflamingo_cli.train.rewards import claims_judged
from mflamingo_cli.train.rows import Turn

EXCERPTS_S = {30.0: 0.75, 60.0: 0.25}  # with shares: one window of the encoder, or two, as much as the model hears
LEAST_S = 4.0
PLACES = 1  # the seed of where excerpts lie: the same for every seed of the questions, so that each is encoded once
JUDGED = ("key", "meter", "vocals")  # labels that are exact, and that the reward `facts` reads claims of
VOCALS = {"yes": True, "no": False}


def text_rows(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield rows without audio: what the language model learns of words, numbers and given facts."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield {"format": ROWS, "id": f"text/{seed}/{number}", "messages": _messages(text_turn(rng)), "split": "train"}


def exchange_rows(
    clips: Sequence[Clip], seed: int, turns: int, thinking: float, unheard: frozenset[str] = frozenset(), captions: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Yield `turns` rows for an excerpt of every clip, in the order of the clips; `thinking` is the share that asks for reasons.

    Labels of `unheard` kinds are neither asked for nor mentioned, but where they are given as facts;
    `captions` is the share that are captions whatever their turn is.
    """
    for clip, start, end, labels, rng in _excerpts(clips, seed):
        heard = {name: value for name, value in labels.items() if name not in unheard}
        for number, turn in enumerate(audio_turns(rng, heard, turns, thinking, measured=labels, captions=captions)):
            yield _row(clip, start, end, number, turn)


def prompt_rows(clips: Sequence[Clip], seed: int) -> Iterator[dict[str, Any]]:
    """Yield a prompt for an excerpt of every clip whose key, meter or singing is known: no facts in it, no answer, the facts beside it."""
    for clip, start, end, labels, rng in _excerpts(clips, seed):
        known = {name: {"value": VOCALS.get(labels[name], labels[name]), "confidence": 1.0} for name in JUDGED if name in labels}
        turn = make_turn(rng, choose(rng, CAPTIONS), {}, labels, thinking=0.0)
        if known and turn is not None and not claims_judged(turn.question):  # "how do the vocals …" says that there are some
            row = _row(clip, start, end, 0, turn)
            yield row | {"messages": row["messages"][:1], "facts": known}


def _excerpts(clips: Sequence[Clip], seed: int) -> Iterator[tuple[Clip, float, float, PromptFacts, np.random.Generator]]:
    for clip in clips:
        place, rng = (np.random.default_rng([number, clip.row["index"]]) for number in (PLACES, seed))
        length = float(place.choice(list(EXCERPTS_S), p=list(EXCERPTS_S.values())))
        spare = clip.row["duration"] - length
        start = round(float(place.uniform(0, spare)), 2) if spare > 0 else 0.0
        end = min(clip.row["duration"], start + length)
        end -= 0.01 * (end - start > length)  # as sums of floats may be: longer than the model hears
        labels = excerpt_labels(clip.row, clip.labels(), start, end)
        known = labels or clip.row.get("kind") != "recording"  # no label of a recording does not mean that there is no music
        if known and end - start >= LEAST_S and np.abs(clip.samples(start, end)).max() > SILENT_PEAK:  # which no command reads
            yield clip, start, end, labels, rng


def _row(clip: Clip, start: float, end: float, number: int, turn: Turn) -> dict[str, Any]:
    path = Path(clip.folder / clip.row["audio"]).resolve()
    return {
        "format": ROWS, "id": f"{clip.folder.name}/{clip.row['index']}/{number}", "audio": str(path), "start": start, "end": end,
        "messages": _messages(turn), "split": "train",
    }  # fmt: skip


def _messages(turn: Turn) -> list[dict[str, str]]:
    exchanges = [*turn.history, (turn.question, turn.answer)]
    return [{"role": role, "content": said} for pair in exchanges for role, said in zip(("user", "assistant"), pair, strict=True)]
