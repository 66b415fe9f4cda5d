"""Conversations of five turns, and whether a model answers better with the turns before in its prompt; not a test, run by hand.

    python -m tests.bench.chat --talks
    python -m tests.bench.chat [MODEL]

`--talks` puts the twenty conversations of `chat.tsv` to a song whose facts are known, without a model, and counts which answers are right,
each by itself and completed by the turns before. Conversations 11 to 20 were written when 1 to 10 were answered.

With a model, on parts of the songs in tests/data each question is put alone and after three others; an answer is right when it
repeats what was measured. A caption is right when it names the measured tempo, key and all chords that the prompt told.
"""

from __future__ import annotations

import csv
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mflamingo_cli import conversation, grounding, requests, tasks, text
from mflamingo_cli.backends import open_backend
from mflamingo_cli.grounding.follow_ups import completed
from mflamingo_cli.grounding.questions import reply
from mflamingo_cli.measure import Facts
from mflamingo_cli.store.cache import Cache, default_folder
from tests.docs import ROOT

PARTS = [("ocean.opus", 0.0, 30.0), ("rlyeh.opus", 0.0, 60.0)]
QUESTIONS = {
    "tempo": ("How fast is this?", "And the tempo?"),
    "key": ("What key is this in?", "And the key?"),
    "chords": ("Which chords do you hear?", "What are its main chords?"),
    "loudness": ("How loud is it?", "What is its loudness?"),
    "sections": ("When do the sections begin?", "Where do its parts start?"),
    "caption": ("Describe this track in one sentence.", tasks.CAPTION_STYLES["full"]),
}


def told(facts: Facts) -> dict[str, list[str]]:
    """What a right answer holds, as the prompt says it; nothing for what was not measured."""
    words = {
        "tempo": [f"{facts.tempo.bpm:.1f}".removesuffix(".0")] if facts.tempo.bpm else [],
        "key": [facts.key.name] if facts.key else [],
        "chords": grounding.main_chords(facts),
        "loudness": [f"{facts.loudness.integrated_lufs:.1f}".removesuffix(".0")] if facts.loudness.integrated_lufs else [],
        "sections": [f"{section.label} {text.clock(section.start)}" for section in facts.sections][:10],
    }
    words["caption"] = words["tempo"] + words["key"] + words["chords"]
    return {name: found for name, found in words.items() if found}


TALKS = Path(__file__).with_suffix(".tsv")  # talk, expression that a right answer fits or `refused`, question
Verdict = Literal["right", "refused", "wrong"]


def verdicts(follows: bool = True) -> Iterator[tuple[int, str, str, Verdict]]:
    """Yield (talk, question, answer, verdict) for every turn; each is answered by itself unless it `follows`."""
    from tests.grounding.test_questions import SONG

    talk, before = 0, None
    with TALKS.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
            before, talk = before if int(row["talk"]) == talk else None, int(row["talk"])
            question = completed(row["question"], before if follows else None)
            said = reply(question, SONG)
            before = question if said.answers else before
            if row["answer"] == "refused":
                verdict: Verdict = "wrong" if said.answers else "right"
            else:
                verdict = "right" if said.answers and re.search(row["answer"], said.text) else "wrong" if said.answers else "refused"
            yield talk, row["question"], said.text, verdict


def print_talks() -> None:
    """Print how many turns are answered rightly, with and without the turns before, and what was not right."""
    print("| conversations | turns before | turns | right | refused | wrong |\n| --- | --- | --- | --- | --- | --- |")
    for name, talks in (("1 to 10", range(1, 11)), ("11 to 20", range(11, 21))):
        for follows in (False, True):
            found = [verdict for talk, *_, verdict in verdicts(follows) if talk in talks]
            counts = " | ".join(str(found.count(word)) for word in ("right", "refused", "wrong"))
            print(f"| {name} | {'used' if follows else 'not used'} | {len(found)} | {counts} |")
    for talk, question, answer, verdict in verdicts():
        if verdict != "right":
            print(f"{verdict}, {talk}: {question} {answer}")


def main() -> None:
    """Print the share of right answers of each kind, alone and in conversation."""
    if sys.argv[1:] == ["--talks"]:
        print_talks()
        return
    right: Counter[tuple[str, bool]] = Counter()
    asked: Counter[str] = Counter()
    dice = random.Random(0)
    with open_backend(*sys.argv[1:]) as model:
        for file, start_s, end_s in PARTS:
            settings = {"start_s": start_s, "end_s": end_s}
            path, folder = ROOT / "tests" / "data" / file, default_folder()
            begin = conversation.Conversation.begin(
                path, model, requests.ask_request("What is it?", **settings), Cache(folder) if folder else None
            )
            talk = requests.drain(begin)
            expected = told(talk._song.facts)
            for kind, wording in [(name, words) for name in expected for words in QUESTIONS[name]]:
                before = dice.sample([other for other in QUESTIONS if other != kind], 3)
                for follows in (False, True):
                    talk.follows = follows
                    talk._turns.clear()
                    for question in [*(QUESTIONS[other][0] for other in before)] * follows + [wording]:
                        *_, record = talk.say(requests.ask_request(question, **settings))
                    right[kind, follows] += all(word in (record.text or "") for word in expected[kind])
                asked[kind] += 1
    print("right of    n  alone  after three others")
    for kind, count in asked.items():
        print(f"{kind:<8} {count:>4} {right[kind, False] / count:>6.2f} {right[kind, True] / count:>6.2f}")


if __name__ == "__main__":
    main()
