"""The 26 questions that people ask of a song, with what the program answers, unedited; not a test, run by hand.

    python -m tests.bench.questions [SONG ...] [-m MODEL]

Prints a table of Markdown for each song, and all as one JSON line. Without a song the two of `tests/data` are asked about.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

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


def main() -> None:
    """Ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("songs", nargs="*", type=Path, default=[DATA / "ocean.opus", DATA / "rlyeh.opus"])
    parser.add_argument("-m", "--model", default="mini")
    told = parser.parse_args()
    answers: dict[str, dict[str, str]] = {}
    with load(told.model) as model:
        for song in told.songs:
            answers[song.name] = {question: answer(model, song, question) for question in QUESTIONS}
            print(f"| {song.name} | answer |\n| --- | --- |")
            print("\n".join(f"| {question} | {text} |" for question, text in answers[song.name].items()), end="\n\n")
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
