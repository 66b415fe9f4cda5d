"""The engine of this machine: finds songs that earlier runs finished, prepares others ahead of the model, and keeps their order."""

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
from typing import BinaryIO

from mflamingo_cli import assemble, pipeline, schema
from mflamingo_cli.backends.base import Backend
from mflamingo_cli.backends.threads import physical_cores
from mflamingo_cli.core.audio import Sound
from mflamingo_cli.errors import AudioError, MFlamingoError, ModelError, as_song_error
from mflamingo_cli.grounding.questions import facts_asked
from mflamingo_cli.library.plan import EngineListener, Event, Finished, Opened, RunPlan, Unavailable, Working
from mflamingo_cli.library.worker import AlreadyAnalyzed, Worker
from mflamingo_cli.requests import PreparedSong, Request, Step
from mflamingo_cli.schema import Analysis, SongTags
from mflamingo_cli.store import cache, runs
from mflamingo_cli.store.keys import JobKey, sound_name

STDIN = "-"
MOST_JOBS = 8  # at once unless asked for: each takes 0.2 GB for a song of four minutes


class LocalEngine:
    """Runs on this machine: one model, and processes that decode and measure ahead of it."""

    def check(self, plan: RunPlan) -> None:
        """Nothing can be said before the model is opened."""

    def run(self, plan: RunPlan, listener: EngineListener) -> Generator[Event, None, None]:
        """Open the model and yield all songs; without a model, every song fails."""
        with ExitStack() as stack:
            try:
                listener.working(f"opening {plan.model}" if plan.request.tasks else "starting")
                backend = stack.enter_context(plan.open_backend())
            except ModelError as error:
                yield Unavailable(error)
                for song in plan.songs:
                    yield Finished(song, assemble.failed(song, plan.request.command, error), error)
                return
            backend.on_progress = listener.advance
            info = backend.info
            listener.detail(plan.describe(info))
            songs, store, trouble = _memory(plan)
            if trouble:
                listener.warn(cache.not_kept(trouble))
            job = JobKey.of(plan.request.deciding, info, plan.find_model(), plan.opening.kv_type)
            past = store and stack.enter_context(store)
            memory = RunCache(past, job, plan.request, force=plan.force, retry_failed=plan.retry_failed)
            yield Opened(store is not None)
            jobs = min(len(plan.songs), plan.jobs or min(physical_cores(), MOST_JOBS)) or 1
            batch_size = min(len(plan.songs), plan.batch_size or info.batch_size) or 1
            yield from Run(plan.request, backend, memory, songs, jobs, batch_size).over(plan.songs)
            later = [kept.problem for kept in (songs, store) if kept and kept.problem]
            if later and not trouble:
                listener.warn(f"results of this run are only partly kept for the next one: {'; '.join(later)}")


def _memory(plan: RunPlan) -> tuple[cache.Cache | None, runs.Store | None, str]:
    """Open the cache and the run store as far as they can be had, with what is in the way: results matter more than either."""
    songs, trouble = cache.open_default() if plan.cached else (None, "")
    folder = runs.default_folder() if plan.resumable else None
    try:
        store = runs.Store(folder) if folder else None
    except runs.StoreError as error:
        store, trouble = None, "; ".join(filter(None, (trouble, str(error))))
    if plan.resumable and folder is None:
        trouble = cache.NO_HOME
    return songs, store, trouble


@dataclass
class Song:
    """An input of a run and what is known of it so far: hash of its bytes, name of its sound, what its tags say."""

    index: int
    path: str
    digest: str | None = None
    sound: str | None = None
    tags: SongTags | None = None

    @property
    def source(self) -> str | BinaryIO:
        """What decoders open."""
        return sys.stdin.buffer if self.path == STDIN else self.path


class RunCache:
    """What earlier runs left in the store and this one adds to it; without a store it remembers nothing. Threads may share it."""

    def __init__(self, store: runs.Store | None, job: JobKey, request: Request, *, force: bool = False, retry_failed: bool = False) -> None:
        self._tags_decide = "tags" in (facts_asked(request.question) or ())
        self.store, self._job, self._part = store, job, request.part + " tags" * self._tags_decide
        self._force, self._retry = force, force or retry_failed
        self._made: set[str] = set()  # keys of this run where those of earlier runs do not count
        self._claims: dict[str, int] = {}  # bytes and sounds in work: index of the first song with them
        self._lock = threading.Lock()

    def look(self, song: Song) -> bool:
        """Return whether a song needs no preparation: its record is there, or a song with the same bytes is in work before it."""
        if self.store is None or song.path == STDIN:
            return False
        song.digest = self.store.digest(song.path)
        if song.digest is None:
            return False
        song.sound, song.tags = self.store.sound(song.digest, self._part), self.store.tags(song.digest)
        return any(self._counts(key, failure) for key, failure in self._keys(song)) or not self._is_first(song.digest, song.index)

    def note(self, song: Song, sound: Sound) -> None:
        """Remember the sound of a song that was decoded."""
        song.sound, song.tags = sound_name(sound, with_tags=self._tags_decide), sound.source.tags
        if self.store is not None and self._is_unchanged(song):
            assert song.digest is not None
            self.store.keep_sound(song.digest, self._part, song.sound, song.tags)

    def skip_if_duplicate(self, song: Song, sound: Sound) -> None:
        """Remember the sound of a song that was decoded. Raises AlreadyAnalyzed where it need not be measured."""
        self.note(song, sound)
        assert song.sound is not None
        if self._counts(self._job.of_sound(song.sound), failure=False) or not self._is_first(song.sound, song.index):
            raise AlreadyAnalyzed

    def record(self, song: Song) -> Analysis | None:
        """Return the stored record of a song, with the name and the tags that its file has now: they are the file's, not the sound's."""
        if self.store is None:
            return None
        for key, failure in self._keys(song):
            if self._counts(key, failure) and (record := self.store.record(key)):
                path, encoded = schema.path_fields(song.path)
                return replace(record, path=path, path_b64=encoded, audio=record.audio and replace(record.audio, tags=song.tags))
        return None

    def keep(self, song: Song, record: Analysis, failure: MFlamingoError | None) -> None:
        """Commit a record. Of failures, only those are kept that are the file's own and will come again."""
        lasting = isinstance(failure, AudioError) and not failure.retryable and self._is_unchanged(song)
        if self.store is not None and (failure is None or lasting):
            for key in [key for key, of_failure in self._keys(song) if of_failure is (failure is not None)]:
                self.store.keep(key, record)
                if self._retry:
                    self._made.add(key)

    def release(self, song: Song) -> None:
        """Let songs that waited for this one find its record, or be analysed themselves."""
        with self._lock:
            for name in (song.digest, song.sound):
                if name is not None and self._claims.get(name) == song.index:
                    del self._claims[name]

    def _keys(self, song: Song) -> Iterator[tuple[str, bool]]:
        """Where its record may be, and whether that would be one of a failure."""
        if song.sound is not None:
            yield self._job.of_sound(song.sound), False
        if song.digest is not None:
            yield self._job.of_file(song.path, song.digest), True

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
class Preparation:
    """A song on its way to the model: `result` waits for what was decoded and measured, gives None for a known song, and may raise.

    Without `result` the song is prepared when its turn comes.
    """

    song: Song
    result: Callable[[], PreparedSong | None] | None


@dataclass(frozen=True)
class Run:
    """One request to one model about many songs, `batch_size` answered together; with several jobs, processes prepare songs ahead."""

    request: Request
    backend: Backend
    memory: RunCache
    cache: cache.Cache | None = None
    jobs: int = 1
    batch_size: int = 1

    def over(self, paths: Sequence[str]) -> Generator[Working | Finished, None, None]:
        """Analyse all songs, in their order. To be closed when it is left early."""
        songs = (Song(index, path) for index, path in enumerate(paths))
        with ExitStack() as stack:
            now = (Preparation(song, partial(self._prepare, song) if self.memory.store else None) for song in songs)
            waiting = self._ahead(songs, stack) if self.jobs > 1 else now
            while batch := list(islice(waiting, self.batch_size)):
                finished = yield from self._finish(batch)
                for preparation in batch:
                    self.memory.release(preparation.song)
                    yield finished[preparation.song.index]

    def _ahead(self, songs: Iterable[Song], stack: ExitStack) -> Iterator[Preparation]:
        """While a batch is answered, prepare as many songs as there are jobs, and no more, so that memory stays flat."""
        pool = stack.enter_context(ThreadPoolExecutor(self.jobs))  # threads that wait for processes
        free: SimpleQueue[Worker] = SimpleQueue()
        for _ in range(self.jobs):
            worker = Worker(self.request, self.backend.info, self.cache)
            stack.callback(worker.close)
            free.put(worker)
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        waiting: deque[tuple[Song, Future[PreparedSong | None]]] = deque()
        for song in songs:
            waiting.append((song, pool.submit(self._prepare, song, free)))
            if len(waiting) >= self.jobs + self.batch_size:
                first, future = waiting.popleft()
                yield Preparation(first, future.result)
        yield from (Preparation(song, future.result) for song, future in waiting)

    def _prepare(self, song: Song, free: SimpleQueue[Worker] | None = None) -> PreparedSong | None:
        """Decode and measure a song, in a free process if there are any; None where its record is known or in work."""
        if self.memory.look(song):
            return None
        on_decoded = partial(self.memory.skip_if_duplicate, song)
        try:
            if free is None or song.path == STDIN:
                alone = self.backend if free is None and self.batch_size == 1 else None  # songs of a batch are encoded together
                return pipeline.prepare(song.source, self.request, self.backend.info, self.cache, on_decoded, alone)
            worker = free.get()
            try:
                return worker.prepare(song.path, on_decoded)
            finally:
                free.put(worker)
        except AlreadyAnalyzed:
            return None

    def _finish(self, batch: Sequence[Preparation]) -> Generator[Working, None, dict[int, Finished]]:
        """Finish some songs, or find their records; by index."""
        finished: dict[int, Finished] = {}
        fresh: list[tuple[Song, PreparedSong | None]] = []
        waiting: list[Song] = []  # for the record of a song with the same sound, which may be in this batch
        for preparation in batch:
            song, result = preparation.song, preparation.result
            yield Working(song.path, Step("preparing"))
            try:
                with as_song_error(song.path):
                    prepared = result() if result else None
            except MFlamingoError as error:
                finished[song.index] = self._failed(song, error)
                continue
            if known := self._known(song):
                finished[song.index] = known
            elif result and prepared is None:
                waiting.append(song)
            else:
                fresh.append((song, prepared))
        finished |= yield from self._ask(fresh)
        for song in waiting:
            finished |= yield from self._after(song)
        return finished

    def _after(self, song: Song) -> Generator[Working, None, dict[int, Finished]]:
        """Finish a song whose twin is done: by its record, or by the work itself where there is none."""
        if known := self._known(song):
            return {song.index: known}
        try:
            with as_song_error(song.path):
                prepared = pipeline.prepare(song.source, self.request, self.backend.info, self.cache, partial(self.memory.note, song))
        except MFlamingoError as error:
            return {song.index: self._failed(song, error)}
        return (yield from self._ask([(song, prepared)]))

    def _ask(self, songs: Sequence[tuple[Song, PreparedSong | None]]) -> Generator[Working, None, dict[int, Finished]]:
        """Let the model answer, and commit each record as soon as it is there. Text is passed on as it comes only of a song alone."""
        finished: dict[int, Finished] = {}
        sources = [(song.source, prepared) for song, prepared in songs]
        for index, event in pipeline.run_together(sources, self.backend, self.request, self.cache):
            song, _ = songs[index]
            if isinstance(event, Analysis):
                finished[song.index] = self._done(song, event)
            elif isinstance(event, MFlamingoError):
                finished[song.index] = self._failed(song, event)
            elif len(songs) == 1 or isinstance(event, Step):
                yield Working(song.path, event)
        return finished

    def _known(self, song: Song) -> Finished | None:
        record = self.memory.record(song)
        if record is None:
            return None
        failure = AudioError(record.error.message, code=record.error.code) if record.error else None  # only files' own are remembered
        return Finished(song.path, record, failure, remembered=True)

    def _done(self, song: Song, record: Analysis) -> Finished:
        try:
            with as_song_error(song.path):
                self.memory.keep(song, record, None)
        except MFlamingoError as error:
            return self._failed(song, error)
        return Finished(song.path, record)

    def _failed(self, song: Song, failure: MFlamingoError) -> Finished:
        record = assemble.failed(song.path, self.request.command, failure)
        self.memory.keep(song, record, failure)
        return Finished(song.path, record, failure)
