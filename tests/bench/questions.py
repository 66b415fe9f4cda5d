"""The 26 questions that people ask of a song, with what the program answers, unedited; not a test, run by hand.

    python -m tests.bench.questions [SONG ...] [-m MODEL]
    python -m tests.bench.questions --kinds

Prints a table of Markdown for each song, and all as one JSON line. Without a song the two of `tests/data` are asked about. `--kinds` puts
the questions of `questions.tsv` to a song whose facts are known, without a model, and counts by kind which answers are right, which are
refused, and which are wrong; questions that no fact decides must be refused.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mflamingo_cli import Model, load
from mflamingo_cli.errors import ModelError

DATA = Path(__file__).parents[1] / "data"
QUESTIONS = (
    "What is the tempo?", "What BPM is this, and does it change?", "What key is it in?", "Which scale should I solo with?",
    "What are the chords of the chorus?", "What chord comes after the first one?", "Which instruments do you hear?", "Is there a guitar?",
    "What genre is this?", "What is the mood?", "Is it sung?", "Is the singer male or female?", "What language is it sung in?",
    "What are the lyrics?", "Who is the artist?", "What is the time signature?", "Is it in 3/4?", "Where does the drop start?",
    "When does the second section begin?", "What would I mix this with?", "Which Camelot keys mix well with this?",
    "How loud is it, and is it clipped?", "How long is the song?", "What chord is playing at 0:30?", "Is it in a major or a minor key?",
    "Tell me about this song.",
)  # fmt: skip


def answer(model: Model, song: Path, question: str) -> str:
    """What is answered, and whether that is a refusal; older versions refused by an error."""
    try:
        record = model.ask(str(song), question)
    except ModelError as error:
        return f"(error) {error}"
    return f"{record.text}{'' if getattr(record, 'answerable', True) is not False else ' (refused)'}"


ASKED = Path(__file__).with_suffix(".tsv")  # kind, expression that a right answer fits or `refused`, question
Verdict = Literal["right", "refused", "wrong"]


def verdicts() -> Iterator[tuple[str, str, str, Verdict]]:
    """Yield (kind, question, answer, verdict) for every question of the table."""
    from mflamingo_cli.grounding.questions import reply
    from tests.grounding.test_questions import SONG

    with ASKED.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
            said = reply(row["question"], SONG)
            if row["answer"] == "refused":
                verdict: Verdict = "wrong" if said.answers else "right"
            else:
                fits = said.answers and re.search(row["answer"], said.text)
                verdict = "right" if fits else "wrong" if said.answers else "refused"
            yield row["kind"], row["question"], said.text, verdict


def print_kinds() -> None:
    """Print a row of counts for each kind, and what was not right."""
    found = list(verdicts())
    print("| kind | questions | right | refused | wrong |\n| --- | --- | --- | --- | --- |")
    for kind in (*dict.fromkeys(kind for kind, *_ in found), "all"):
        of_kind = [verdict for name, *_, verdict in found if kind in (name, "all")]
        print(f"| {kind} | {len(of_kind)} | {' | '.join(str(of_kind.count(word)) for word in ('right', 'refused', 'wrong'))} |")
    for kind, question, answer, verdict in found:
        if verdict != "right":
            print(f"{verdict}, {kind}: {question} {answer}")


def main() -> None:
    """Ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("songs", nargs="*", type=Path, default=[DATA / "ocean.opus", DATA / "rlyeh.opus"])
    parser.add_argument("-m", "--model", default="mini")
    parser.add_argument("--kinds", action="store_true")
    told = parser.parse_args()
    if told.kinds:
        print_kinds()
        return
    answers: dict[str, dict[str, str]] = {}
    with load(told.model) as model:
        for song in told.songs:
            answers[song.name] = {question: answer(model, song, question) for question in QUESTIONS}
            print(f"| {song.name} | answer |\n| --- | --- |")
            print("\n".join(f"| {question} | {text} |" for question, text in answers[song.name].items()), end="\n\n")
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
