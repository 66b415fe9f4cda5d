"""A run over many songs: what is remembered of them, and which are heard ahead. Songs come out in the order in which they went in."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO

from mflamingo_cli import pipeline, schema
from mflamingo_cli.errors import AudioError, MFlamingoError, OutOfMemoryError
from mflamingo_cli.library.worker import AlreadyAnalyzed, Worker
from mflamingo_cli.pipeline import Piece, Step
from mflamingo_cli.schema import Analysis
from mflamingo_cli.store.keys import JobKey, part_name, sound_name

if TYPE_CHECKING:
    from mflamingo_cli.backends.base import Backend
    from mflamingo_cli.core.audio import Sound
    from mflamingo_cli.pipeline import PreparedSong, Request
    from mflamingo_cli.store.cache import Cache
    from mflamingo_cli.store.runs import Store

STDIN = "-"


@dataclass
class Song:
    """An input of a run and what is known of it so far: hash of its bytes, name of its sound."""

    index: int
    path: str
    digest: str | None = None
    sound: str | None = None

    @property
    def source(self) -> str | BinaryIO:
        """What decoders open."""
        return sys.stdin.buffer if self.path == STDIN else self.path


class RunCache:
    """What earlier runs left in the store and this one adds to it; without a store it remembers nothing. Threads may share it."""

    def __init__(self, store: Store | None, work: JobKey, request: Request, *, force: bool = False, retry_failed: bool = False) -> None:
        self.store, self._work, self._part = store, work, part_name(request)
        self._force, self._retry = force, force or retry_failed
        self._made: set[str] = set()  # keys of this run where those of earlier runs do not count
        self._claims: dict[str, int] = {}  # bytes and sounds that are on their way: index of the first song with them
        self._lock = threading.Lock()

    def look(self, song: Song) -> bool:
        """Whether a song need not be heard: its record is there, or one with the same bytes is on its way before it."""
        if self.store is None or song.path == STDIN:
            return False
        song.digest = self.store.digest(song.path)
        if song.digest is None:
            return False
        song.sound = self.store.sound(song.digest, self._part)
        return any(self._counts(key, failure) for key, failure in self._keys(song)) or not self._is_first(song.digest, song.index)

    def note(self, song: Song, sound: Sound) -> None:
        """A song was decoded: this is its sound."""
        song.sound = sound_name(sound)
        if self.store is not None and self._is_unchanged(song):
            assert song.digest is not None
            self.store.keep_sound(song.digest, self._part, song.sound)

    def skip_if_duplicate(self, song: Song, sound: Sound) -> None:
        """The same, before it is measured. Raises AlreadyAnalyzed where that is not needed."""
        self.note(song, sound)
        assert song.sound is not None
        if self._counts(self._work.of_sound(song.sound), failure=False) or not self._is_first(song.sound, song.index):
            raise AlreadyAnalyzed

    def record(self, song: Song) -> Analysis | None:
        """The record that the store has of a song, under the name that its file has now."""
        if self.store is None:
            return None
        for key, failure in self._keys(song):
            if self._counts(key, failure) and (record := self.store.record(key)):
                path, encoded = schema.path_fields(song.path)
                return replace(record, path=path, path_b64=encoded)
        return None

    def keep(self, song: Song, record: Analysis, failure: MFlamingoError | None) -> None:
        """Commit a record. Of failures only those are kept that are the file's own and will come again."""
        lasting = isinstance(failure, AudioError) and not failure.retryable and self._is_unchanged(song)
        if self.store is not None and (failure is None or lasting):
            for key in [key for key, of_failure in self._keys(song) if of_failure is (failure is not None)]:
                self.store.keep(key, record)
                if self._retry:
                    self._made.add(key)

    def release(self, song: Song) -> None:
        """Songs that waited for this one find its record, or must be heard themselves."""
        with self._lock:
            for name in (song.digest, song.sound):
                if name is not None and self._claims.get(name) == song.index:
                    del self._claims[name]

    def _keys(self, song: Song) -> Iterator[tuple[str, bool]]:
        """Where its record may be, and whether that would be one of a failure."""
        if song.sound is not None:
            yield self._work.of_sound(song.sound), False
        if song.digest is not None:
            yield self._work.of_file(song.path, song.digest), True

    def _counts(self, key: str, failure: bool) -> bool:
        if key in self._made:
            return True
        ignored = self._retry if failure else self._force
        return not ignored and self.store is not None and self.store.has(key)

    def _is_first(self, name: str, index: int) -> bool:
        with self._lock:
            self._claims[name] = min(index, self._claims.get(name, index))
            return self._claims[name] == index

    def _is_unchanged(self, song: Song) -> bool:
        """Whether the bytes are still those that were hashed; else it is not known what was decoded."""
        if song.digest is not None and self.store is not None and self.store.digest(song.path) != song.digest:
            self.release(song)
            song.digest = None
        return song.digest is not None


@dataclass(frozen=True)
class Doing:
    """A step of the work on a song, or a piece of text."""

    song: Song
    event: Step | Piece


@dataclass(frozen=True)
class Done:
    """A finished song, committed where there is a store; `remembered` where nothing was done for it in this run."""

    song: Song
    record: Analysis
    failure: MFlamingoError | None
    remembered: bool


Ready = tuple[Song, "Callable[[], PreparedSong | None] | None"]  # the call waits and may raise; None for a song to be heard at its turn
Ended = tuple[Analysis, "MFlamingoError | None", bool]  # the record, why there is no result, and whether it was remembered


@dataclass(frozen=True)
class Run:
    """One request to one model about many songs, so many answered together; beyond one job processes hear songs before their turn."""

    request: Request
    backend: Backend
    memory: RunCache
    cache: Cache | None = None
    jobs: int = 1
    together: int = 1

    def over(self, paths: Sequence[str]) -> Generator[Doing | Done, None, None]:
        """JobKey on all songs, in their order. To be closed when it is left early."""
        songs = (Song(index, path) for index, path in enumerate(paths))
        with ExitStack() as stack:
            ready = self._ahead(songs, stack) if self.jobs > 1 else self._in_turn(songs)
            while batch := list(islice(ready, self.together)):
                ended = yield from self._finish(batch)
                for song, _ in batch:
                    self.memory.release(song)
                    yield Done(song, *ended[song.index])

    def _in_turn(self, songs: Iterable[Song]) -> Iterator[Ready]:
        for song in songs:
            yield song, partial(self._hear, song) if self.memory.store else None

    def _ahead(self, songs: Iterable[Song], stack: ExitStack) -> Iterator[Ready]:
        """While a batch is answered so many are heard as there are jobs, and no more, so that memory stays flat."""
        pool = stack.enter_context(ThreadPoolExecutor(self.jobs))  # threads that wait for processes
        free: SimpleQueue[Worker] = SimpleQueue()
        for _ in range(self.jobs):
            hearer = Worker(self.request, self.backend.info, self.cache)
            stack.callback(hearer.close)
            free.put(hearer)
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        waiting: deque[tuple[Song, Future[PreparedSong | None]]] = deque()
        for song in songs:
            waiting.append((song, pool.submit(self._hear, song, free)))
            if len(waiting) >= self.jobs + self.together:
                ready, future = waiting.popleft()
                yield ready, future.result
        yield from ((ready, future.result) for ready, future in waiting)

    def _hear(self, song: Song, free: SimpleQueue[Worker] | None = None) -> PreparedSong | None:
        """What was decoded and measured of a song, in a free process; None where the memory knows it or will."""
        if self.memory.look(song):
            return None
        tell = partial(self.memory.skip_if_duplicate, song)
        try:
            if free is None or song.path == STDIN:
                return pipeline.prepare(song.source, self.request, self.backend.info, self.cache, tell)
            hearer = free.get()
            try:
                return hearer.hear(song.path, tell)
            finally:
                free.put(hearer)
        except AlreadyAnalyzed:
            return None

    def _finish(self, batch: Sequence[Ready]) -> Generator[Doing, None, dict[int, Ended]]:
        """The rest of the work on some songs, or their records where there are any, by their index."""
        ended: dict[int, Ended] = {}
        fresh: list[tuple[Song, PreparedSong | None]] = []
        waiting: list[Song] = []  # for the record of a song with the same sound, which may be in this batch
        for song, heard in batch:
            yield Doing(song, Step("hearing"))
            try:
                ready = heard() if heard else None
            except (MFlamingoError, MemoryError) as error:
                ended[song.index] = self._failed(song, error)
                continue
            if known := self._known(song):
                ended[song.index] = known
            elif heard and ready is None:
                waiting.append(song)
            else:
                fresh.append((song, ready))
        ended |= yield from self._ask(fresh)
        for song in waiting:
            ended |= yield from self._after(song)
        return ended

    def _after(self, song: Song) -> Generator[Doing, None, dict[int, Ended]]:
        """A song whose twin is done: its record, or the work itself where that gave none."""
        if known := self._known(song):
            return {song.index: known}
        try:
            heard = pipeline.prepare(song.source, self.request, self.backend.info, self.cache, partial(self.memory.note, song))
        except (MFlamingoError, MemoryError) as error:
            return {song.index: self._failed(song, error)}
        return (yield from self._ask([(song, heard)]))

    def _ask(self, songs: Sequence[tuple[Song, PreparedSong | None]]) -> Generator[Doing, None, dict[int, Ended]]:
        """Let the model answer, and commit each record as soon as it is there. Words are passed on as they come of a song alone only."""
        ended: dict[int, Ended] = {}
        given = [(song.source, _given(heard)) for song, heard in songs]
        for place, event in pipeline.run_together(given, self.backend, self.request, self.cache):
            song, _ = songs[place]
            if isinstance(event, Analysis):
                self.memory.keep(song, event, None)
                ended[song.index] = event, None, False
            elif isinstance(event, MFlamingoError):
                ended[song.index] = self._failed(song, event)
            elif len(songs) == 1 or isinstance(event, Step):
                yield Doing(song, event)
        return ended

    def _known(self, song: Song) -> Ended | None:
        record = self.memory.record(song)
        return None if record is None else (record, _failure(record), True)

    def _failed(self, song: Song, error: MFlamingoError | MemoryError) -> Ended:
        failure = error if isinstance(error, MFlamingoError) else OutOfMemoryError.of(song.path)
        record = pipeline.failed(song.path, self.request.command, failure)
        self.memory.keep(song, record, failure)
        return record, failure, False


def _given(heard: PreparedSong | None) -> Callable[[], PreparedSong] | None:
    return None if heard is None else lambda: heard


def _failure(record: Analysis) -> MFlamingoError | None:
    """What a remembered record says went wrong; only files' own failures are remembered."""
    return AudioError(record.error.message, code=record.error.code) if record.error else None
