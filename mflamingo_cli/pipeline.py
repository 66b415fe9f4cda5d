"""Song -> Analysis: decoded once, measured once, encoded once, asked several questions at the same time. The file to read first.

Times are seconds from the start of the file; `*_s` of the timing block are seconds of wall time, of songs that
the model hears or answers together an equal share each.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from mflamingo_cli import measure, schema, tasks
from mflamingo_cli.backends.base import Backend, BackendInfo, Completion, Encoded, GenerateOptions, Prompt, SongPrompts
from mflamingo_cli.core import audio as core_audio
from mflamingo_cli.core.audio import Sound
from mflamingo_cli.errors import MFlamingoError, ModelError, OutOfMemoryError, UsageError
from mflamingo_cli.measure import check
from mflamingo_cli.schema import Analysis, Command, KeyInfo, Loudness, MeterInfo, Result, Segment, TempoInfo, VocalsInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mflamingo_cli.core.audio import Audio
    from mflamingo_cli.measure import Facts
    from mflamingo_cli.store.cache import Cache, CacheEntry
    from mflamingo_cli.tasks import Task

T = TypeVar("T")
WORTH_SAYING_S = 1.0  # of a song that the model did not hear: less is the last echo
KEY_RELATIONS = {"relative": ", its relative key", "parallel": ", its parallel key", "fifth": ", a fifth away", None: ""}
FOLLOWS = "chat"  # the ability to understand a question by the turns before it
ROOM_TO_ANSWER = 512  # positions that an answer in a conversation shall have, if it may be so long
CHARS_PER_TOKEN = 4  # of English; text of other scripts has more tokens, so too much is forgotten rather than too little
YES_OR_NO = "yesno"  # the ability to answer such questions better than a constant does
_YES_OR_NO = re.compile(r"\W*(?:is|are|was|were|am|does|do|did|has|have|had|can|could|will|would|should)\b", re.IGNORECASE)
_OPEN = re.compile(r"\b(?:what|which|how|who|whose|when|where|why|tell|describe|name|list)\b", re.IGNORECASE)
NOTHING_TO_HEAR = ("silent", "too_short")  # not a fault of the file: the record says skipped, and why
Path = str | os.PathLike[str] | BinaryIO
Turn = tuple[str, str]  # question and answer


@dataclass(frozen=True)
class Request:
    """What is asked of every song: a command with its questions, the part to hear, and how to generate."""

    command: Command
    tasks: tuple[Task, ...]
    start_s: float = 0.0
    end_s: float | None = None
    options: GenerateOptions = field(default_factory=GenerateOptions)
    keep_raw: bool = False


@dataclass(frozen=True)
class Step:
    """A step of the work has begun."""

    name: str  # "decoding", "measuring", "listening", "writing"


@dataclass(frozen=True)
class Piece:
    """Text of one task as it is generated."""

    task: str
    text: str


Event = tuple[int, Step | Piece | Analysis | MFlamingoError]  # which song of several, and what became of it


def analyze_request(**settings: Any) -> Request:
    """Everything that can be known of a song."""
    return Request("analyze", tasks.ANALYZE, **settings)


def caption_request(style: str = "full", **settings: Any) -> Request:
    """One caption in one of `tasks.CAPTION_STYLES`. Raises UsageError for another."""
    if style not in tasks.CAPTION_STYLES:
        raise UsageError(f"caption style {style}: choose one of {', '.join(tasks.CAPTION_STYLES)}")
    return Request("caption", (tasks.caption_task(style),), **settings)


def agreement_request(**settings: Any) -> Request:
    """Every question of the program, to see how a model works on a song rather than what it says of it."""
    return Request("caption", tuple(tasks.TASKS.values()), **settings)


def ask_request(question: str, **settings: Any) -> Request:
    """One free question."""
    return Request("ask", (tasks.Task("ask", _readable(question), tasks.parse_text, "Yes."),), **settings)


def think_request(question: str, **settings: Any) -> Request:
    """One free question, answered after reasoning."""
    return Request(
        "think", (tasks.Task("think", tasks.think_prompt(_readable(question)), tasks.split_thinking, "<think>a</think> b"),), **settings
    )


def _readable(question: str) -> str:
    if not question.strip():
        raise UsageError("the question is empty; write what you want to know")
    try:
        question.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("the question is not UTF-8 text") from error
    return question


@dataclass(frozen=True)
class PreparedSong:
    """A song decoded and, where facts are wanted, measured, now or before; with the seconds it took now.

    `audio` is there where the model must still listen, `encoding` where it heard the song before, neither where it need not;
    `entry` is where the encoding belongs.
    """

    sound: Sound
    facts: Facts | None
    audio: Audio | None = None
    encoding: NDArray[Any] | None = None
    decode_s: float | None = None
    measure_s: float | None = None
    entry: CacheEntry | None = None


def prepare(
    path: Path, request: Request, info: BackendInfo, cache: Cache | None = None, tell: Callable[[Sound], None] | None = None
) -> PreparedSong:
    """Decode and measure one song, or remember it; safe to call from several threads.

    `tell` is called as soon as it is clear which sound this is, before it is measured, and may raise to leave it at that.
    """
    return drain(_prepare(path, request, info, cache, tell))


def _prepare(
    path: Path, request: Request, info: BackendInfo, cache: Cache | None, tell: Callable[[Sound], None] | None = None
) -> Generator[Step, None, PreparedSong]:
    measures, listens = request.command == "analyze" or info.grounded, bool(_within_abilities(request, info))
    entry = cache.entry(path, request.start_s, request.end_s) if cache else None
    sound, facts = (entry and entry.sound()) or (None, None)
    if sound is not None and tell:
        tell(sound)
    encoding = entry.encoding(info.encoder_fingerprint) if entry and listens else None
    to_measure, to_encode = measures and facts is None, listens and encoding is None
    if sound is not None and not to_measure and not to_encode:
        return PreparedSong(sound, facts if measures else None, encoding=encoding)
    yield Step("decoding")
    meter, name = measure.LoudnessMeter(), core_audio.Fingerprint()
    listeners = (name, meter) if to_measure else (name,)
    audio, decode_s = _timed(lambda: core_audio.load(path, start_s=request.start_s, end_s=request.end_s, listeners=listeners))
    was_known, sound = sound, Sound.of(audio, name.result())
    if was_known is None and tell:
        tell(sound)
    measure_s = None
    if to_measure:
        yield Step("measuring")
        facts, measure_s = _timed(lambda: measure.measure(audio, meter))
    if entry and (was_known is None or to_measure):
        entry.keep_sound(sound, facts)
    return PreparedSong(sound, facts if measures else None, audio if to_encode else None, encoding, decode_s, measure_s, entry)


def run(
    path: Path, backend: Backend, request: Request, ahead: Callable[[], PreparedSong] | None = None, cache: Cache | None = None
) -> Iterator[Step | Piece | Analysis]:
    """Do all the work on one song, or what is left after `ahead`; the last thing yielded is its Analysis. Raises MFlamingoError.

    With a cache nothing is done again that was done before, and the record is the same but for its timing.
    """
    for _, event in run_together([(path, ahead)], backend, request, cache):
        if isinstance(event, MFlamingoError):
            raise event
        yield event


def run_together(
    songs: Sequence[tuple[Path, Callable[[], PreparedSong] | None]], backend: Backend, request: Request, cache: Cache | None = None
) -> Iterator[Event]:
    """Do all the work on several songs, or what is left of each, which the model answers together; whose event it is, and the event.

    Each song ends with its Analysis or with the error that it failed with; the others go on.
    """
    try:
        asked = _within_abilities(request, backend.info)
    except ModelError as error:
        yield from ((index, error) for index in range(len(songs)))
        return
    heard: dict[int, PreparedSong] = {}
    for index, (path, ahead) in enumerate(songs):
        try:
            with memory_error_as_song_error(path):
                heard[index] = ahead() if ahead else (yield from tag_events(index, _prepare(path, request, backend.info, cache)))
        except MFlamingoError as error:
            yield index, error
    yield from _ask(heard, backend, request, asked)


def _ask(heard: dict[int, PreparedSong], backend: Backend, request: Request, asked: Sequence[Task]) -> Iterator[Event]:
    """Let the model answer; where it fails on several songs, those that are left are tried one by one: the fault is one song's."""
    if not heard:
        return
    alone = len(heard) == 1
    try:
        with memory_error_as_song_error(next(iter(heard.values())).sound.source.path):
            yield from _ask_together(heard, backend, request, asked)
    except MFlamingoError as error:
        if alone:
            yield next(iter(heard)), error
            return
        for index, one in heard.items():
            yield from _ask({index: one}, backend, request, asked)


def _ask_together(heard: dict[int, PreparedSong], backend: Backend, request: Request, asked: Sequence[Task]) -> Iterator[Event]:
    """Let the model listen and answer, all songs at once; who has its Analysis is taken out of `heard`."""
    if not asked:
        for index in list(heard):
            yield index, _record(request, heard.pop(index), backend.info, {}, None, None)
        return
    encoded = yield from _listen(backend, heard)
    yield from generate_answers(heard, encoded, backend, request, asked)


def generate_answers(
    heard: dict[int, PreparedSong], encoded: Mapping[int, tuple[Encoded, float | None]], backend: Backend, request: Request,
    asked: Sequence[Task],
    history: Sequence[Turn] | None = None,
) -> Iterator[tuple[int, Step | Piece | Analysis]]:  # fmt: skip
    """The answers about songs that were heard, with the seconds that took; who has its Analysis is taken out of `heard`.

    A history, also an empty one, is that of a conversation.
    """
    info, numbers = backend.info, list(heard)
    for index in numbers:
        yield index, Step("writing")
    began = time.perf_counter()
    talks = [SongPrompts(encoded[index][0], _prompts(asked, info, heard[index], history or ()), history is not None) for index in numbers]
    texts = {index: ["" for _ in asked] for index in numbers}
    ended: dict[int, dict[str, Completion]] = {index: {} for index in numbers}
    for place, number, chunk in backend.generate(talks, request.options):
        index, task = numbers[place], asked[number].name
        texts[index][number] += chunk.text
        if chunk.text:
            yield index, Piece(task, chunk.text)
        if chunk.finish:
            assert chunk.usage, "the last chunk carries the usage"
            ended[index][task] = Completion(texts[index][number], chunk.finish, chunk.usage)
        if len(ended[index]) == len(asked) and index in heard:
            seconds = (time.perf_counter() - began) / len(numbers)
            yield index, _record(request, heard.pop(index), info, ended[index], encoded[index][1], seconds)
    assert not heard, "generate() must finish every prompt"


class Conversation:
    """Turns about one song, which is decoded, measured and encoded once.

    A model that can follow a conversation is given the turns before, the oldest left out when it holds no more: `forgotten` counts them.
    """

    def __init__(self, backend: Backend, heard: PreparedSong, encoded: Encoded, encode_s: float | None) -> None:
        self.follows = backend.info.abilities is None or FOLLOWS in backend.info.abilities
        self.forgotten = 0
        self._backend, self._heard, self._encoded, self._encode_s = backend, heard, encoded, encode_s
        self._turns: list[Turn] = []
        self._used = 0  # positions of the last prompt and its answer

    @property
    def duration_s(self) -> float:
        """Length of the part that the conversation is about."""
        return self._heard.sound.duration_s

    @classmethod
    def begin(cls, path: Path, backend: Backend, request: Request, cache: Cache | None = None) -> Generator[Step, None, Conversation]:
        """Hear the song as the request says. Raises MFlamingoError."""
        heard = yield from _prepare(path, request, backend.info, cache)
        if heard.encoding is None:
            yield Step("listening")
        return cls(backend, heard, *drain(_listen(backend, {0: heard}))[0])

    def say(self, request: Request) -> Generator[Step | Piece | Analysis, None, None]:
        """One turn: the same events as `run` gives. A turn that fails or is not waited for leaves no trace."""
        self._make_room(request)
        while True:
            try:
                yield from self._turn(request)
                return
            except ModelError as error:
                if error.code != "too_long" or not self._turns:
                    raise
                self._forget()

    def _turn(self, request: Request) -> Iterator[Step | Piece | Analysis]:
        asked, encoded = _within_abilities(request, self._backend.info), {0: (self._encoded, self._encode_s)}
        for _, event in generate_answers({0: self._heard}, encoded, self._backend, request, asked, self._turns):
            if isinstance(event, Analysis):
                words = event.result.caption if event.result else event.text
                if self.follows and words:
                    self._turns.append((request.tasks[0].prompt, words))
                self._used = event.usage.tokens_in + event.usage.tokens_out if event.usage else 0
                self._heard, self._encode_s = replace(self._heard, decode_s=None, measure_s=None), None
            yield event

    def _make_room(self, request: Request) -> None:
        """Forget turns until the next answer has room, as far as can be told beforehand."""
        room = min(request.options.max_new_tokens, ROOM_TO_ANSWER) + len(request.tasks[0].prompt)
        while self._turns and self._used + room > self._backend.info.context_length:
            self._used -= sum(map(len, self._turns[0])) // CHARS_PER_TOKEN
            self._forget()

    def _forget(self) -> None:
        del self._turns[0]
        self.forgotten += 1


def encode_and_prompt(heard: PreparedSong, backend: Backend, request: Request) -> tuple[Encoded, list[Prompt]]:
    """A song as a model hears it, and the questions put to it, without the answers. Raises MFlamingoError."""
    encoded, _ = drain(_listen(backend, {0: heard}))[0]
    return encoded, _prompts(_within_abilities(request, backend.info), backend.info, heard)


def failed(path: str, command: Command, error: MFlamingoError) -> Analysis:
    """The record of an input that gave no result."""
    name, encoded = schema.path_fields(path)
    info = schema.ErrorInfo(error.code, tasks.tidy(str(error)), error.retryable)
    status: Literal["skipped", "error"] = "skipped" if error.code in NOTHING_TO_HEAR else "error"
    return Analysis(command=command, status=status, path=name, path_b64=encoded, error=info)


def check_abilities(request: Request, info: BackendInfo) -> None:
    """Raise ModelError where this model cannot do what is asked of any song."""
    _within_abilities(request, info)


# --- the steps ---------------------------------------------------------------------------------------------------------


def drain(steps: Generator[Any, None, T], tell: Callable[[Any], None] = lambda step: None) -> T:
    """Go through all steps, telling each as it begins; returns what they lead to."""
    while True:
        try:
            tell(next(steps))
        except StopIteration as end:
            result: T = end.value
            return result


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


@contextmanager
def memory_error_as_song_error(path: Path) -> Iterator[None]:
    """Tell want of memory as an error of the song."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError.of(path if isinstance(path, str) else "the song") from error


def tag_events(index: int, steps: Generator[Step, None, T]) -> Generator[tuple[int, Step], None, T]:
    """The steps of one song, as events of several."""
    while True:
        try:
            yield index, next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def _listen(
    backend: Backend, songs: Mapping[int, PreparedSong]
) -> Generator[tuple[int, Step], None, dict[int, tuple[Encoded, float | None]]]:
    """Let the model hear songs together, and the seconds each one took; None where it only remembers."""
    found: dict[int, tuple[Encoded, float | None]] = {}
    new: dict[int, Audio] = {}
    for index, song in songs.items():
        if song.encoding is not None:
            found[index] = backend.unpack(song.encoding), None
        else:
            assert song.audio is not None, "what was not heard before was decoded"
            new[index] = _excerpt(song.audio, backend.info)
            yield index, Step("listening")
    listened, seconds = _timed(lambda: backend.encode(list(new.values()))) if new else ([], 0.0)
    for index, encoded in zip(new, listened, strict=True):
        found[index] = encoded, seconds / len(new)
        if entry := songs[index].entry:
            entry.keep_encoding(backend.info.encoder_fingerprint, backend.pack(encoded))
    return found


def _within_abilities(request: Request, info: BackendInfo) -> tuple[Task, ...]:
    """The questions that this model can answer: `analyze` goes on without the others, `caption` cannot."""
    if info.abilities is None:
        return request.tasks
    if request.command in ("ask", "think"):
        if YES_OR_NO not in info.abilities and is_yes_or_no(request.tasks[0].prompt):
            raise ModelError(f"{info.model} was not taught to answer yes or no; ask what, which or how", code="no_ability")
        return request.tasks
    asked = tuple(task for task in request.tasks if task.name in info.abilities)
    if request.command == "caption" and not asked:
        raise ModelError(f"{info.model} writes no captions; choose a model that does with --model", code="no_ability")
    return asked


def is_yes_or_no(question: str) -> bool:
    """Whether a question asks for yes or no: it begins with a verb and holds no question word."""
    return bool(_YES_OR_NO.match(question)) and not _OPEN.search(question)


def _excerpt(audio: Audio, info: BackendInfo) -> Audio:
    """What the model hears of a song longer than it can hear: the beginning."""
    return replace(audio, samples=audio.samples[: _n_heard(len(audio.samples), audio.rate_hz, info)])


def _n_heard(n_samples: int, rate_hz: int, info: BackendInfo) -> int:
    return min(n_samples, int(info.geometry.max_audio_s * rate_hz))


def _prompts(asked: Sequence[Task], info: BackendInfo, heard: PreparedSong, history: Sequence[Turn] = ()) -> list[Prompt]:
    """Questions as prompts. A caption is told what was surely measured, who asks gets the best there is; claims to compare know nothing."""
    least = {"caption": tasks.SURE, "ask": 0.0, "think": 0.0} if info.grounded else {}
    known = {name: tasks.ground(heard.facts, heard.sound.duration_s, confidence) for name, confidence in least.items()}
    return [Prompt(tasks.grounded_prompt(task.prompt, known.get(task.name, "")), history=tuple(history)) for task in asked]


# --- the record ----------------------------------------------------------------------------------------------------------


def _record(
    request: Request,
    heard: PreparedSong,
    info: BackendInfo,
    answers: dict[str, Completion],
    encode_s: float | None,
    generate_s: float | None,
) -> Analysis:
    times = (heard.decode_s, heard.measure_s, encode_s, generate_s)
    timing = schema.TimingInfo(*(None if seconds is None else round(seconds, 3) for seconds in times))
    return replace(_conclude(request, heard, info, answers), timing=timing)


def _conclude(request: Request, heard: PreparedSong, info: BackendInfo, answers: dict[str, Completion]) -> Analysis:
    """Put facts and answers together."""
    sound = heard.sound
    texts = {name: completion.text for name, completion in answers.items()}
    parsed = {task.name: task.parse(texts[task.name]) for task in request.tasks if task.name in texts}
    warnings = _limits(request, sound, info, answers, parsed)
    result = None
    if request.command in ("analyze", "caption"):
        result, disagreements = _result(heard.facts, parsed, told=info.grounded)
        warnings += disagreements
    thought = parsed.get("think") or tasks.Thought(None, parsed.get("ask"), False)
    found = contradictions(parsed.get("caption") or thought.answer or "", heard.facts, told=info.grounded)
    if result is not None and request.command == "analyze" and any(NOT_MEASURED in doubt for doubt in found):
        result, found = replace(result, caption=None), [f"caption left out: {doubt}" for doubt in found]
    warnings += found
    used = [completion.usage for completion in answers.values()]
    name, encoded = schema.path_fields(sound.source.path)
    return Analysis(
        command=request.command,
        status="ok",
        path=name,
        path_b64=encoded,
        audio_id=sound.id,
        audio=_audio_info(sound, info),
        result=result,
        thinking=tasks.tidy(thought.thinking or "") or None,
        text=tasks.tidy(thought.answer or "") or None,
        raw=texts if request.keep_raw else None,
        model=schema.ModelInfo(info.model, info.revision, info.backend, info.dtype),
        usage=schema.UsageInfo(sum(u.tokens_in for u in used), sum(u.tokens_out for u in used)),
        warnings=tuple(warnings),
    )


def _audio_info(sound: Sound, info: BackendInfo) -> schema.AudioInfo:
    source, n_heard = sound.source, _n_heard(sound.n_samples, sound.rate_hz, info)
    return schema.AudioInfo(
        duration=round(source.duration_s, 3),
        sample_rate=source.sample_rate,
        channels=source.channels,
        codec=source.codec,
        start=round(sound.start_s, 3),
        end=round(sound.end_s, 3),
        windows=core_audio.count_windows(n_heard, info.geometry.mel.window_s),
        truncated=n_heard < sound.n_samples,
    )


def _limits(request: Request, sound: Sound, info: BackendInfo, answers: dict[str, Completion], parsed: dict[str, Any]) -> list[str]:
    """What was not heard, not finished, not understood."""
    warnings = list(sound.warnings)
    heard_s = _n_heard(sound.n_samples, sound.rate_hz, info) / sound.rate_hz
    if answers and sound.duration_s - heard_s >= WORTH_SAYING_S:
        lengths = f"the first {heard_s:.0f} s of {sound.duration_s:.0f} s"
        warnings.append(f"the model heard only {lengths}; choose another part with --start and --end")
    if cut := [name for name, completion in answers.items() if completion.finish == "length"]:
        warnings.append(f"{', '.join(cut)}: cut at {request.options.max_new_tokens} tokens; raise --max-tokens")
    spoken = [name for name, completion in answers.items() if name in _READ and name not in cut and not tasks.is_unknown(completion.text)]
    if unread := [name for name in spoken if parsed[name] is None]:
        warnings.append(f"{', '.join(unread)}: not understood what the model says; see it with -v")
    return warnings


_READ = ("tempo", "key", "meter")  # answers that must be a number or a name; an empty list is an answer


def _result(facts: Facts | None, parsed: dict[str, Any], *, told: bool) -> tuple[Result, list[str]]:
    """Facts with claims beside them, and a sentence for each disagreement; a `told` model fills no gap by its own guess."""
    facts = facts or measure.Facts()
    warnings: list[str] = []
    result = Result(
        tempo=replace(_tempo(facts.tempo, parsed.get("tempo"), warnings), confidence=_rounded(facts.confidence.tempo, 2)),
        key=replace(_key(facts.key, parsed.get("key"), told, warnings), confidence=_rounded(facts.confidence.key, 2)),
        meter=replace(_meter(facts.meter, parsed.get("meter"), warnings), confidence=_rounded(facts.confidence.meter, 2)),
        beats=_beats(facts),
        chords=tuple(_span(segment) for segment in facts.chords),
        sections=tuple(_span(segment) for segment in facts.sections),
        loudness=Loudness(
            _rounded(facts.loudness.integrated_lufs, 2), _rounded(facts.loudness.range_lu, 2), _rounded(facts.loudness.true_peak_dbtp, 2)
        ),
        instruments=parsed.get("instruments", ()),
        genre=parsed.get("genre", ()),
        mood=parsed.get("mood", ()),
        vocals=VocalsInfo(*parsed.get("vocals", (None, None))),
        caption=parsed.get("caption"),
    )
    return result, warnings


NOT_MEASURED = "could be measured"
LETTERS = re.compile(rf"{tasks.SECTION_AT.pattern}|\bsection [A-Z]\b|^\([A-Z]\)")  # of sections and of chosen options: no chords
KEY_IN_WORDS = re.compile(r"\b[A-G](?:#|b| sharp| flat)?[ -](?:major|minor)\b")


def contradictions(text: str, facts: Facts | None, *, told: bool) -> list[str]:
    """What a model's free text says against what was measured; `told` models were given the facts, so their chords are held to them too."""
    if facts is None:
        return []
    found = []
    text = tasks.plain(text)
    spelled = KEY_IN_WORDS.search(text)  # "Cm" in a text is a chord
    claimed_bpm, claimed_key = tasks.parse_tempo(text), spelled and tasks.parse_key(spelled[0])
    if facts.tempo is not None and facts.tempo.bpm and claimed_bpm and not check.check_tempo(facts.tempo.bpm, claimed_bpm).agrees:
        found.append(f"the text says {claimed_bpm:.4g} BPM, measured {facts.tempo.bpm:.4g}")
    key = check.parse_key(claimed_key) if claimed_key else None
    if facts.key is not None and key is not None and not check.check_key(facts.key, key).agrees:
        found.append(f"the text says {key.name}, measured {facts.key.name}")
    known = set(tasks.main_chords(facts)) | ({facts.key.id3} if facts.key else set())
    named = set(tasks.parse_chords(LETTERS.sub("", KEY_IN_WORDS.sub("", text))))
    if told and facts.key is None and key is not None:
        found.append(f"the text says {key.name}, but no key {NOT_MEASURED}")
    if told and not known and named:
        found.append(f"the text names chords, but none {NOT_MEASURED}")
    if told and known and (strange := sorted(named - known)):
        found.append(f"the text names {', '.join(strange)}, not among the chords that were measured longest")
    form = {f"{section.label} ({tasks.clock(section.start)})" for section in facts.sections}
    if told and (strange := sorted(set(tasks.SECTION_AT.findall(text)) - form)):
        found.append(f"the text has sections {', '.join(strange)}, not among those that were measured")
    return found


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)


def _beats(facts: Facts) -> tuple[tuple[float, int | None], ...]:
    """Each beat's time and its place in the bar; no place where the meter is not known."""
    times, firsts = facts.tempo.beats, facts.tempo.downbeats
    if not facts.meter or not len(firsts):
        return tuple((round(float(time), 3), None) for time in times)
    first, bar = int(abs(times - firsts[0]).argmin()), int(facts.meter.partition("/")[0])
    return tuple((round(float(time), 3), (index - first) % bar + 1) for index, time in enumerate(times))


def _span(segment: measure.Segment) -> Segment:
    return Segment(round(float(segment.start), 3), round(float(segment.end), 3), segment.label)


def _tempo(fact: measure.Tempo, claim: float | None, warnings: list[str]) -> TempoInfo:
    if fact.bpm is None:
        return TempoInfo(bpm=claim, source="model" if claim else None, claimed=claim)
    agrees = None
    if claim is not None:
        agreement = check.check_tempo(fact.bpm, claim)
        agrees = agreement.agrees
        if not agrees:
            relation = f", {agreement.relation} of it" if agreement.relation else ""
            warnings.append(f"tempo: measured {fact.bpm:.1f} BPM, the model says {claim:.1f}{relation}")
    alternatives = tuple(round(float(bpm), 2) for bpm in fact.alternatives)
    return TempoInfo(_rounded(fact.bpm, 2), alternatives, "measured", claim, agrees)


def _key(fact: measure.Key | None, claim: str | None, told: bool, warnings: list[str]) -> KeyInfo:
    claimed = check.parse_key(claim) if claim else None
    if fact is None:
        return KeyInfo(claimed=claim) if told or claimed is None else _key_info(claimed, "model", claim, None)
    if claimed is None:
        return _key_info(fact, "measured", claim, None)
    agreement = check.check_key(fact, claimed)
    if not agreement.agrees:
        warnings.append(f"key: measured {fact.name}, the model says {claim}{KEY_RELATIONS.get(agreement.relation, '')}")
    return _key_info(fact, "measured", claim, agreement.agrees)


def _key_info(key: measure.Key, source: schema.Origin, claim: str | None, agrees: bool | None) -> KeyInfo:
    return KeyInfo(key.tonic, key.mode, key.name, key.camelot, key.openkey, key.id3, source, claim, agrees)


def _meter(fact: str | None, claim: str | None, warnings: list[str]) -> MeterInfo:
    if fact is None:
        return MeterInfo(claim, "model" if claim else None, None)
    if claim and claim != fact:
        warnings.append(f"meter: measured {fact}, the model says {claim}")
    return MeterInfo(fact, "measured", claim == fact if claim else None)
