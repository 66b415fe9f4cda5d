"""What is asked of a song, and what happens on the way.

Times are seconds from the start of the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO, TypeVar

from numpy.typing import NDArray

from mflamingo_cli.backends.base import BackendInfo, Completion, Encoded, GenerateOptions
from mflamingo_cli.checks import Check, CheckedStream, CheckOptions
from mflamingo_cli.core.audio import Audio, Sound
from mflamingo_cli.errors import MFlamingoError, ModelError, UsageError
from mflamingo_cli.grounding import questions
from mflamingo_cli.grounding.prose.captions import STYLES
from mflamingo_cli.measure import FACTS, Facts
from mflamingo_cli.parsers import parse_text
from mflamingo_cli.schema import Analysis, Command, TagKind
from mflamingo_cli.store.cache import CacheEntry
from mflamingo_cli.styles import CAPTION_STYLES, ClaimsMode
from mflamingo_cli.tasks import ANALYZE, TASKS, Task
from mflamingo_cli.thinking import split_thinking, think_prompt

T = TypeVar("T")
Path = str | os.PathLike[str] | BinaryIO
FREE_TEXT = ("caption", "ask", "think")  # tasks whose answers are sentences, not a value
TAG_KINDS: tuple[TagKind, ...] = ("instruments", "genre", "mood")  # of names that are measured, and asked for too
YES_OR_NO = "yesno"  # the ability to answer such questions better than a constant does


@dataclass(frozen=True)
class Request:
    """What is asked of every song: a command with its questions, the part of the song, and how to generate."""

    command: Command
    tasks: tuple[Task, ...]
    start_s: float = 0.0
    end_s: float | None = None
    options: GenerateOptions = field(default_factory=GenerateOptions)
    keep_raw: bool = False
    claims: ClaimsMode | None = None  # what becomes of wrong claims; None: `fix` for a grounded model, `mark` for others
    question: str = ""  # of ask and think, as it was put
    only: tuple[str, ...] | None = None  # names of facts and answers in the record, in its order; None: all
    tempo_range: tuple[float, float] | None = None  # beats per minute, which choose the octave of the tempo

    @property
    def part(self) -> str:
        """The part of a file that is asked about, as a name."""
        return repr((self.start_s, self.end_s))

    @property
    def deciding(self) -> tuple[object, ...]:
        """What of it decides a record, as JSON can write it."""
        asked = [(task.name, task.prompt) for task in self.tasks]
        return (self.command, asked, self.part, asdict(self.options), self.claims, self.only, self.tempo_range)

    def facts(self, info: BackendInfo) -> tuple[str, ...]:
        """The facts that must be measured: those of the record, and all where a text is given them or held against them."""
        if self.command != "analyze" and not info.grounded:
            return ()
        texts = any(task.name in FREE_TEXT for task in answerable(self, info)) or bool(styles_of_facts(self, info))
        if texts or self.only is None:
            return tuple(FACTS)
        held = {"tags"} if any(kind in self.only for kind in TAG_KINDS) else set()
        held |= {other for name in self.only if name in FACTS for other in FACTS[name].holds}
        return tuple(name for name in FACTS if name in self.only or name in held)

    def check_of(self, task: Task, grounded: bool) -> CheckOptions:
        """How the text that answers a question is held to the facts."""
        style = caption_style(task.prompt)
        mode = "raw" if style == "lyrics" or task.name not in FREE_TEXT else self.claims or ("fix" if grounded else "mark")
        return CheckOptions(mode, grounded, describes=style is not None, complete=style == "full")


def caption_style(prompt: str) -> str | None:
    """The style of the caption that a prompt asks for, with or without reasoning before it; None for every other prompt."""
    return next((style for style, words in CAPTION_STYLES.items() if prompt in (words, think_prompt(words))), None)


@dataclass(frozen=True)
class Step:
    """A step of the work has begun."""

    name: str  # "decoding", "measuring", "listening", "writing"


@dataclass(frozen=True)
class Piece:
    """Text of one task as it is generated, by whole sentences where it is held against the facts."""

    task: str
    text: str
    wrong: tuple[str, ...] = ()  # words in it that contradict what was measured


Event = tuple[int, Step | Piece | Analysis | MFlamingoError]  # which song of several, and what became of it


@dataclass(frozen=True)
class PreparedSong:
    """A song decoded and, where facts are wanted, measured, now or in an earlier run; with the seconds it took now.

    `audio` is set where the model must still encode the song, `encoded` where it did so while the song was measured, `encoding` where the
    cache has it, none of them where the model is not asked; `answers`, by task, where it has answered meanwhile too; `entry` is where a
    new encoding is cached. Without `sound` there is no song at all: `NO_SONG`.
    """

    sound: Sound | None
    facts: Facts | None
    audio: Audio | None = None
    encoding: NDArray[Any] | None = None
    decode_s: float | None = None
    measure_s: float | None = None
    entry: CacheEntry | None = None
    encoded: Encoded | None = None
    encode_s: float | None = None
    answers: Mapping[str, Completion] | None = None
    generate_s: float | None = None

    @property
    def duration_s(self) -> float | None:
        """Length of the part that is asked about; None without a song."""
        return self.sound.duration_s if self.sound else None


NO_SONG = PreparedSong(None, None)
WITHOUT_SONG = "no_song"  # the ability to answer a question about music where there is no song


def analyze_request(only: Collection[str] | None = None, *, with_model: bool = True, **settings: Any) -> Request:
    """Ask for an analysis of a song, or only for some of its facts and answers: what is measured needs no model then.

    Names of a kind are measured as tags, and a model adds its own unless it is left out. Raises UsageError for names that are neither.
    """
    if only is None and with_model:
        return Request("analyze", ANALYZE, **settings)
    answers = {task.name: task for task in ANALYZE if task.name not in FACTS}
    only = (*FACTS, *TAG_KINDS) if only is None else only
    if unknown := [name for name in only if name not in FACTS and name not in answers]:
        raise UsageError(f"{', '.join(unknown)}: no such fact or answer; choose from {', '.join([*FACTS, *answers])}")
    asked = tuple(task for name, task in answers.items() if with_model and name in only)
    return Request("analyze", asked, only=tuple(name for name in [*FACTS, *answers] if name in only), **settings)


def caption_request(style: str = "full", **settings: Any) -> Request:
    """Ask for one caption in one of `CAPTION_STYLES`. Raises UsageError for another."""
    if style not in CAPTION_STYLES:
        raise UsageError(f"caption style {style}: choose one of {', '.join(CAPTION_STYLES)}")
    return Request("caption", (replace(TASKS["caption"], prompt=CAPTION_STYLES[style]),), **settings)


def ask_request(question: str, **settings: Any) -> Request:
    """Ask one free question."""
    return Request("ask", (Task("ask", _checked(question), parse_text, "Yes."),), question=question, **settings)


def think_request(question: str, **settings: Any) -> Request:
    """Ask one free question, answered after reasoning."""
    task = Task("think", think_prompt(_checked(question)), split_thinking, "<think>a</think> b")
    return Request("think", (task,), question=question, **settings)


def agreement_request(**settings: Any) -> Request:
    """Ask every question of the program, to compare models rather than to learn about the song."""
    return Request("caption", tuple(TASKS.values()), **settings)


def _checked(question: str) -> str:
    if not question.strip():
        raise UsageError("the question is empty; write what you want to know")
    try:
        question.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("the question is not UTF-8 text") from error
    return question


def without_song(request: Request, info: BackendInfo) -> PreparedSong:
    """What stands for the song where there is none. Raises ModelError for a model that knows of music only what it hears."""
    if request.command not in ("ask", "think"):
        raise UsageError(f"{request.command} needs a song")
    if info.abilities is not None and WITHOUT_SONG not in info.abilities:
        cure = "name a song, or choose a full checkpoint with --model"
        raise ModelError(f"{info.model} answers questions about songs, not about music in general; {cure}", code="no_ability")
    return NO_SONG


def answerable(request: Request, info: BackendInfo) -> tuple[Task, ...]:
    """The questions that this model is asked: `analyze` goes on without those that it cannot answer. Raises ModelError where none is left.

    None of a free question that facts decide, or that this model cannot answer: `questions.reply` does.
    """
    if info.abilities is None:
        return request.tasks
    if request.command in ("ask", "think"):
        return _asked_of_few_abilities(request, info, info.abilities)
    by_facts = styles_of_facts(request, info)
    asked = tuple(task for task in request.tasks if task.name in info.abilities and task.name not in by_facts)
    if request.command == "caption" and not asked and not by_facts:
        raise ModelError(f"{info.model} writes no captions; choose a model that does with --model", code="no_ability")
    return asked


def styles_of_facts(request: Request, info: BackendInfo) -> dict[str, str]:
    """The captions that the phrase grammar writes from what was measured, by the names of their tasks: {"caption": "full"}.

    Those of a grounded model of few abilities: its own are less true and worse to read (`mini/CARD.md`); `claims="raw"` asks for them.
    """
    if info.abilities is None or not info.grounded or request.claims == "raw":
        return {}
    prompts = {CAPTION_STYLES[style]: style for style in STYLES}
    return {task.name: prompts[task.prompt] for task in request.tasks if task.name == "caption" and task.prompt in prompts}


def _asked_of_few_abilities(request: Request, info: BackendInfo, abilities: frozenset[str]) -> tuple[Task, ...]:
    """A free question, in the words that the model knows best; nothing where facts decide it or the model cannot answer."""
    if YES_OR_NO not in abilities and questions.is_yes_or_no(request.question):
        return ()
    if not info.grounded:
        return request.tasks
    heard = questions.heard(request.question)
    if heard is None or heard not in abilities:
        return ()
    words = TASKS[heard].prompt
    return (replace(request.tasks[0], prompt=think_prompt(words) if request.command == "think" else words),)


def stream_of(task: Task, request: Request, info: BackendInfo, song: PreparedSong) -> CheckedStream:
    """The way of an answer from the model to whoever reads it."""
    check = Check(song.facts, song.duration_s or 0.0, request.check_of(task, info.grounded))
    return CheckedStream(check, thinks=task.name == "think")


# --- steps as they happen ---


def drain(steps: Generator[Any, None, T], on_step: Callable[[Any], None] = lambda step: None) -> T:
    """Go through all steps, reporting each as it begins; returns what they lead to."""
    while True:
        try:
            on_step(next(steps))
        except StopIteration as end:
            result: T = end.value
            return result


def tag_events(index: int, steps: Generator[Step, None, T]) -> Generator[tuple[int, Step], None, T]:
    """The steps of one song as events of several."""
    while True:
        try:
            yield index, next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
