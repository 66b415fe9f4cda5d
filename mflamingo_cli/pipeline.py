"""Song -> Analysis: prepare, encode, generate, assemble. The file to read first.

A song is decoded once, measured once, encoded once and asked several questions at the same time; `assemble` makes its record. What the
cache has of it is not done again. Times are seconds of wall time; songs that are encoded or answered together take an equal share each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mflamingo_cli import measure
from mflamingo_cli.assemble import assemble, first_given, given
from mflamingo_cli.backends.base import Backend, BackendInfo, Completion, Encoded, Prompt, SongPrompts
from mflamingo_cli.backends.threads import physical_cores
from mflamingo_cli.core import audio as core_audio
from mflamingo_cli.core.audio import SAMPLE_RATE, Aside, Audio, Fingerprint, Sound
from mflamingo_cli.errors import MFlamingoError, ModelError, as_song_error
from mflamingo_cli.grounding import SURE, facts_text, grounded_prompt
from mflamingo_cli.grounding.questions import facts_asked
from mflamingo_cli.measure import Facts
from mflamingo_cli.measure.loudness import LoudnessMeter
from mflamingo_cli.requests import (
    FREE_TEXT,
    Event,
    Path,
    Piece,
    PreparedSong,
    Request,
    Step,
    answerable,
    caption_style,
    drain,
    stream_of,
    tag_events,
    without_song,
)
from mflamingo_cli.schema import Analysis
from mflamingo_cli.store.cache import Cache, SoundAndFacts
from mflamingo_cli.tasks import Task

T = TypeVar("T")
Turn = tuple[str, str]  # question and answer
EncodedSongs = dict[int, tuple[Encoded | None, float | None]]  # by song, with the seconds it took; None without one, and from the cache


def run(
    path: Path | None, backend: Backend, request: Request, prepared: PreparedSong | None = None, cache: Cache | None = None
) -> Iterator[Step | Piece | Analysis]:
    """Do all the work on one song, or what is left of it; the last thing yielded is its Analysis. Raises MFlamingoError.

    Without a path the question is about no song.
    What nobody foresaw is an InternalError, raised from the exception itself.
    """
    for _, event in run_together([(path, prepared)], backend, request, cache):
        if isinstance(event, MFlamingoError):
            raise event
        yield event


def run_together(
    songs: Sequence[tuple[Path | None, PreparedSong | None]], backend: Backend, request: Request, cache: Cache | None = None
) -> Iterator[Event]:
    """Do all the work on several songs, or what is left of each; the model answers them together.

    Yields (index of the song, event); each song ends with its Analysis or with the error that it failed with, the others go on.
    """
    try:
        asked = answerable(request, backend.info)
    except ModelError as error:
        yield from ((index, error) for index in range(len(songs)))
        return
    ready: dict[int, PreparedSong] = {}
    alone = backend if len(songs) == 1 else None
    for index, (path, prepared) in enumerate(songs):
        try:
            with as_song_error(path):
                ready[index] = prepared or (yield from tag_events(index, preparing(path, request, backend.info, cache, alone=alone)))
        except MFlamingoError as error:
            yield index, error
    yield from _answer(ready, backend, request, asked)


# --- prepare ---------------------------------------------------------------------------------------------------------------


OnDecoded = Callable[[Sound], None]


def prepare(
    path: Path,
    request: Request,
    info: BackendInfo,
    cache: Cache | None = None,
    on_decoded: OnDecoded = lambda sound: None,
    alone: Backend | None = None,
) -> PreparedSong:
    """Decode and measure one song, or find it in the cache; safe to call from several threads, but for `alone`.

    `on_decoded` is called as soon as the sound is known, before it is measured, and may raise to leave it at that.
    `alone` is the back end, where no other song is in work: this one is measured on all cores, and encoded meanwhile.
    """
    return drain(preparing(path, request, info, cache, on_decoded, alone))


def preparing(
    path: Path | None,
    request: Request,
    info: BackendInfo,
    cache: Cache | None = None,
    on_decoded: OnDecoded = lambda sound: None,
    alone: Backend | None = None,
    *,
    listens: bool = False,
) -> Generator[Step, None, PreparedSong]:
    """Do what `prepare` does, step by step; with `listens` the song can be encoded whatever the request needs."""
    if path is None:
        return without_song(request, info)
    wanted, listens = request.facts(info), listens or bool(answerable(request, info))
    entry = cache.entry(path, request.start_s, request.end_s) if cache else None
    known = entry.sound() if entry else None
    if known is not None:
        on_decoded(known.sound)
    encoding = entry.encoding(info.encoder_fingerprint) if entry and listens else None
    to_measure, to_encode = [name for name in wanted if not known or name not in known.measured], listens and encoding is None
    if known is not None and not to_measure and not to_encode:
        return PreparedSong(known.sound, _asked(known.facts, request, wanted), encoding=encoding)
    yield Step("decoding")
    before = Before(info, to_measure, physical_cores() if alone else 1, to_encode=to_encode)
    (audio, name, meter), decode_s = _timed(lambda: _decode(path, request, before))
    sound = audio.described(name, measure.sounding_of(before.parts))
    if known is None:
        on_decoded(sound)
    excerpt = before.excerpt(audio, *given(sound, info)) if to_encode else None
    song = PreparedSong(sound, None, excerpt, encoding, decode_s - before.measure_s, entry=entry)
    new, song, failure = yield from _measuring(song, audio, meter, before, alone, request)
    facts = replace(known, sound=sound) if known else SoundAndFacts(sound)
    if to_measure:
        facts = SoundAndFacts(sound, facts.facts.updated(new, to_measure), (*facts.measured, *to_measure))
    if entry and (known is None or to_measure):
        entry.keep_sound(facts)
    if failure is not None:
        raise failure
    return replace(song, facts=_asked(facts.facts, request, wanted))


def _decode(path: Path, request: Request, before: Before) -> tuple[Audio, str, LoudnessMeter]:
    """Decode what is asked for, metered where its loudness is: the end of it, its name, its meter. The parts go to `before`."""
    meter, fingerprint = LoudnessMeter(), Fingerprint()
    with closing(Aside(fingerprint, *([meter] if any(measure.FACTS[fact].metered for fact in before.to_measure) else []))) as aside:
        audio = core_audio.load(path, start_s=request.start_s, end_s=request.end_s, listeners=(aside,), on_part=before.add)
        aside.finish()
    before.parts.append(measure.SongPart.of(audio.samples, audio.start_s))
    return audio, fingerprint.result(), meter


def _measuring(
    song: PreparedSong, audio: Audio, meter: LoudnessMeter, before: Before, alone: Backend | None, request: Request
) -> Generator[Step, None, tuple[Facts, PreparedSong, MFlamingoError | None]]:
    """Measure a song and, where nothing else is in work, let the model hear it meanwhile; its seconds are not those of measuring.

    The model's failure is returned: what was measured is to be kept first.
    """
    if before.to_measure:
        yield Step("measuring")
    began = time.perf_counter()
    failure: MFlamingoError | None = None
    with before.parts[-1].computing(before.to_measure, before.threads):
        if alone and song.audio:
            yield Step("listening")
            try:
                song = _heard(song, alone, request)
            except MFlamingoError as error:
                failure = error
    if not before.to_measure:
        return Facts(), song, failure
    facts = measure.measure(audio, meter, only=before.to_measure, parts=before.parts)
    hearing_s = (song.encode_s or 0.0) + (song.generate_s or 0.0)
    return facts, replace(song, measure_s=before.measure_s + time.perf_counter() - began - hearing_s), failure


def _heard(song: PreparedSong, backend: Backend, request: Request) -> PreparedSong:
    """A song that is being measured, encoded, and with its answers where none of them is a text that is held against facts."""
    encoded, encode_s = drain(encode(backend, {0: song}))[0]
    song = replace(song, audio=None, encoded=encoded, encode_s=encode_s)
    asked = answerable(request, backend.info)
    if not asked or any(task.name in FREE_TEXT for task in asked):
        return song
    began = time.perf_counter()
    answers = {name: completion for *_, name, completion in _completions({0: song}, {0: encoded}, backend, request, asked) if completion}
    return replace(song, answers=answers, generate_s=time.perf_counter() - began)


def _asked(facts: Facts, request: Request, wanted: Sequence[str]) -> Facts | None:
    """The facts of these names, the tempo in the octave that was asked for; None where none is wanted."""
    if not wanted:
        return None
    found = Facts().updated(facts, wanted)
    tempo = found.tempo.within(*request.tempo_range) if request.tempo_range else found.tempo
    sure = found.confidence.tempo if tempo == found.tempo else None  # it is that of the octave that was measured
    return replace(found, tempo=tempo, confidence=replace(found.confidence, tempo=sure))


class Before:
    """The parts of a long song that were let go while the rest was decoded: what was measured of them, and what the model is given."""

    def __init__(self, info: BackendInfo, to_measure: Sequence[str], threads: int, *, to_encode: bool) -> None:
        self.parts: list[measure.SongPart] = []
        self.measure_s, self.to_measure, self.threads = 0.0, to_measure, threads
        self._info, self._to_encode = info, to_encode
        self._kept: list[NDArray[np.float32]] = []

    def add(self, samples: NDArray[np.float32], start_s: float) -> None:
        """Take a part: (n,) at 16 kHz."""
        part = measure.SongPart.of(samples, start_s)
        self.parts.append(part)
        if self._to_encode and (len(self._kept) or part.sounding):
            sounding = next(part.sounding for part in self.parts if part.sounding)
            first = first_given(sounding, self.parts[0].start_s, SAMPLE_RATE)
            last = first + int(self._info.geometry.max_audio_s * SAMPLE_RATE)
            at = round((start_s - self.parts[0].start_s) * SAMPLE_RATE)
            self._kept.append(samples[max(0, first - at) : max(0, last - at)].copy())
        _, seconds = _timed(lambda: part.settle(self.to_measure, self.threads))
        self.measure_s += seconds

    def excerpt(self, rest: Audio, first: int, last: int) -> Audio:
        """What the model is given of the parts and the rest: sound from one sample of the song to another."""
        at = rest.n_before
        end = rest.samples[max(0, first - at) : max(0, last - at)]
        samples = np.concatenate([*self._kept, end]) if self._kept else end
        return replace(rest, samples=samples, start_s=rest.start_s + (first - at) / SAMPLE_RATE, n_before=0)


# --- encode, generate, assemble ------------------------------------------------------------------------------------------


def _answer(ready: dict[int, PreparedSong], backend: Backend, request: Request, asked: Sequence[Task]) -> Iterator[Event]:
    """Let the model answer; where it fails on several songs, those that are left are tried one by one: the fault is one song's."""
    if not ready:
        return
    alone = len(ready) == 1
    try:
        sound = next(iter(ready.values())).sound
        with as_song_error(sound.source.path if sound else None):
            encoded = (yield from encode(backend, ready)) if asked else {index: (None, None) for index in ready}
            yield from generate(ready, encoded, backend, request, asked)
    except MFlamingoError as error:
        if alone:
            yield next(iter(ready)), error
            return
        for index, song in ready.items():
            yield from _answer({index: song}, backend, request, asked)


def encode(backend: Backend, songs: Mapping[int, PreparedSong]) -> Generator[tuple[int, Step], None, EncodedSongs]:
    """Encode songs together, but for those that are encoded already."""
    found: EncodedSongs = {}
    new: dict[int, Audio] = {}
    for index, song in songs.items():
        if song.sound is None:
            found[index] = None, None
        elif song.encoded is not None:
            found[index] = song.encoded, song.encode_s
        elif song.encoding is not None:
            found[index] = backend.unpack(song.encoding), None
        else:
            assert song.audio is not None, "what the cache does not have was decoded"
            new[index] = song.audio
            yield index, Step("listening")
    encodings, seconds = _timed(lambda: backend.encode(list(new.values()))) if new else ([], 0.0)
    for index, encoded in zip(new, encodings, strict=True):
        found[index] = encoded, seconds / len(new)
        if entry := songs[index].entry:
            entry.keep_encoding(backend.info.encoder_fingerprint, backend.pack(encoded))
    return found


def generate(
    ready: dict[int, PreparedSong], encoded: Mapping[int, tuple[Encoded | None, float | None]], backend: Backend, request: Request,
    asked: Sequence[Task], history: Sequence[Turn] | None = None,
) -> Iterator[tuple[int, Step | Piece | Analysis]]:  # fmt: skip
    """Answer the questions about encoded songs; a song that has its Analysis is taken out of `ready`.

    A history, also an empty one, is that of a conversation: the song's prefix in the KV cache is kept for the next turn.
    """
    info, numbers = backend.info, list(ready)
    for index in numbers:
        if not asked or ready[index].answers is not None:
            song = ready.pop(index)
            answers, seconds = song.answers or {}, (song.encode_s, song.generate_s) if asked else (None, None)
            yield index, assemble(request, song, info, answers, *seconds)
    if not ready:
        return
    yield from ((index, Step("writing")) for index in ready)
    began, found = time.perf_counter(), {index: dict[str, Completion]() for index in ready}
    heard = {index: encoded[index][0] for index in ready}
    for index, piece, task, completion in _completions(dict(ready), heard, backend, request, asked, history):
        if piece:
            yield index, piece
        if completion:
            found[index][task] = completion
        if len(found[index]) == len(asked) and index in ready:
            generate_s = (time.perf_counter() - began) / len(found)
            yield index, assemble(request, ready.pop(index), info, found[index], encoded[index][1], generate_s)
    assert not ready, "generate() must finish every prompt"


def _completions(
    songs: Mapping[int, PreparedSong], encoded: Mapping[int, Encoded | None], backend: Backend, request: Request, asked: Sequence[Task],
    history: Sequence[Turn] | None = None,
) -> Iterator[tuple[int, Piece | None, str, Completion | None]]:  # fmt: skip
    """What the model writes about songs: the song's number, what can be shown, the task, and its whole answer when it is finished."""
    info, numbers = backend.info, list(songs)
    put = [SongPrompts(encoded[index], prompts(asked, info, songs[index], history or ()), history is not None) for index in numbers]
    streams = {index: [stream_of(task, request, info, songs[index]) for task in asked] for index in numbers}
    for place, number, chunk in backend.generate(put, request.options):
        index, task = numbers[place], asked[number].name
        shown, wrong = streams[index][number].feed(chunk.text, ended=bool(chunk.finish))
        done = Completion.of(streams[index][number].text, chunk) if chunk.finish else None
        yield index, Piece(task, shown, wrong) if shown else None, task, done


def prompts(asked: Sequence[Task], info: BackendInfo, song: PreparedSong, history: Sequence[Turn] = ()) -> list[Prompt]:
    """Questions as prompts. A caption is given sure facts, a free question those that it is about; claims to compare are made without."""
    return [Prompt(grounded_prompt(task.prompt, _given(task, info, song)), history=tuple(history)) for task in asked]


def _given(task: Task, info: BackendInfo, song: PreparedSong) -> str:
    """The facts that the prompt of a question holds."""
    if not info.grounded or task.name not in FREE_TEXT:
        return ""
    if caption_style(task.prompt):
        return facts_text(song.facts, song.duration_s, SURE)
    return facts_text(song.facts, song.duration_s, 0.0, facts_asked(task.prompt))


def encode_and_prompt(song: PreparedSong, backend: Backend, request: Request) -> tuple[Encoded, list[Prompt]]:
    """A song as the model reads it and the questions put to it, without the answers. Raises MFlamingoError."""
    encoded, _ = drain(encode(backend, {0: song}))[0]
    assert encoded is not None, "there is a song"
    return encoded, prompts(answerable(request, backend.info), backend.info, song)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began
