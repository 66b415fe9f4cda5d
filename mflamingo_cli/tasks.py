"""The table of questions: the prompt of each, and the parser of its answer.

Prompts marked "documented" are the ones the public checkpoints were trained and shown with (model cards, demo, paper arXiv 2511.10289,
figs 15-24).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mflamingo_cli.parsers import parse_chords, parse_genres, parse_key, parse_list, parse_meter, parse_tempo, parse_text, parse_vocals
from mflamingo_cli.styles import CAPTION_STYLES


@dataclass(frozen=True)
class Task:
    """One question: its name (also the name of an ability), its words, its parser, and an answer in the short form it reads best."""

    name: str
    prompt: str
    parse: Callable[[str], Any]
    example: str


TASKS: Final[dict[str, Task]] = {
    task.name: task
    for task in (
        Task("tempo", "What's the bpm of this song?", parse_tempo, "87"),  # documented, with the form of its answer
        Task("key", "What's the key of this song?", parse_key, "D major"),  # documented, with the form of its answer
        Task("meter", "What is the time signature of this song?", parse_meter, "4/4"),
        Task("chords", "What is the main chord progression of this song?", parse_chords, "C - G - Am - F"),
        Task("instruments", "What instruments stand out the most?", parse_list, "piano, guitar, bass, drums"),  # documented
        Task("genre", "What is the genre of this song?", parse_genres, "synth pop, disco"),
        Task("mood", "What is the mood of this song?", parse_list, "calm, warm"),
        Task("vocals", "Does this song have vocals? If so, describe the voice.", parse_vocals, "Yes, a warm female voice."),
        Task("caption", CAPTION_STYLES["full"], parse_text, "A slow piano ballad in D minor at 72 BPM."),
    )
}
ANALYZE: Final[tuple[Task, ...]] = tuple(task for task in TASKS.values() if task.name != "chords")
"""What `analyze` asks: every task whose answer has a place in the record (chords there are measured, with times)."""
