"""Laws of a run: every input has one truthful record, nothing is done twice, and what is remembered is right."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mflamingo_cli import measure, requests
from mflamingo_cli.backends import ModelFiles
from mflamingo_cli.backends.base import GenerateOptions
from mflamingo_cli.core import audio as core_audio
from mflamingo_cli.core.audio import Sound, Source
from mflamingo_cli.errors import InternalError, ModelError, OutOfMemoryError, as_song_error
from mflamingo_cli.library.plan import Finished
from mflamingo_cli.library.run import Run, RunCache, Song
from mflamingo_cli.library.worker import AlreadyAnalyzed
from mflamingo_cli.schema import Analysis, SongTags
from mflamingo_cli.store import keys
from mflamingo_cli.store.cache import Cache
from mflamingo_cli.store.keys import JobKey, shard_of
from mflamingo_cli.store.runs import Store
from tests.test_pipeline import ANSWERS, FACTS, Parrot

RATE_HZ = 8000
REQUEST = requests.analyze_request(keep_raw=True)
NO_FILES = ModelFiles("parrot")


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    folder.mkdir()
    return folder


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was decoded and measured, in order; facts are given."""
    done: list[str] = []
    load = core_audio.load
    monkeypatch.setattr(core_audio, "load", lambda *args, **options: done.append("decode") or load(*args, **options))
    monkeypatch.setattr(measure, "measure", lambda audio, meter=None, **_: done.append("measure") or FACTS)
    return done


def write(path: Path, pitch_hz: float = 220.0, seconds: float = 1.0, channels: int = 1) -> str:
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = 0.2 * np.sin(2 * np.pi * pitch_hz * t)
    soundfile.write(path, np.stack([sound] * channels, axis=1), RATE_HZ)
    return str(path)


def tagged_copy(path: str, copy: Path) -> str:
    """The same sound in a file of other bytes."""
    with soundfile.SoundFile(str(copy), "w", RATE_HZ, 1) as tagged:
        tagged.title = "A title"
        tagged.write(soundfile.read(path)[0])
    return str(copy)


def run(
    store: Store | None, *paths: str, backend: Parrot | None = None, request=REQUEST, files=NO_FILES, **choices: bool
) -> list[Finished]:
    backend = backend or Parrot(ANSWERS)
    memory = RunCache(store, JobKey.of(request.deciding, backend.info, files, "auto"), request, **choices)
    return [item for item in Run(request, backend, memory).over(paths) if isinstance(item, Finished)]


def plain(record: Analysis) -> str:
    """A record without what belongs to the file rather than to its sound, and without the time it took."""
    audio = record.audio and dataclasses.replace(record.audio, tags=None)
    return dataclasses.replace(record, path="", audio=audio, timing=None).to_json()


# --- nothing is done twice ---------------------------------------------------------------------------------------------


def test_a_second_run_is_the_same_byte_for_byte_and_only_looks_at_the_files(store, music, work):
    paths = [write(music / f"{hz}.wav", hz) for hz in (200, 300)]
    (music / "broken.wav").write_bytes(b"RIFF....WAVEjunk")
    silent = write(music / "silent.wav", 0.0)
    paths += [str(music / "broken.wav"), silent, write(music / "short.wav", seconds=0.1)]
    first = run(store, *paths)
    assert [item.record.status for item in first] == ["ok", "ok", "error", "skipped", "skipped"]
    work.clear()
    second = run(store, *paths)
    assert [item.record.to_json() for item in second] == [item.record.to_json() for item in first]
    assert all(item.remembered for item in second)
    assert [type(item.failure) for item in second] == [type(item.failure) for item in first]
    assert work == []


def test_a_moved_file_is_known_without_decoding_and_has_its_new_name(store, music, work):
    path = write(music / "a.wav")
    [first] = run(store, path)
    (music / "b").mkdir()
    moved = shutil.copy(path, music / "b" / "caf\udce9.wav")
    os.unlink(path)
    work.clear()
    [second] = run(store, moved)
    assert work == []
    assert (second.record.path_b64 is not None, plain(dataclasses.replace(second.record, path_b64=None))) == (True, plain(first.record))


def test_other_tags_are_decoded_but_not_measured_again(store, music, work):
    path = write(music / "a.wav")
    [first] = run(store, path)
    tagged_copy(path, music / "tagged.wav")
    work.clear()
    [second] = run(store, str(music / "tagged.wav"))
    assert work == ["decode"]
    assert plain(second.record) == plain(first.record)
    assert (first.record.audio.tags, second.record.audio.tags) == (None, SongTags(title="A title"))
    work.clear()
    again = run(store, str(music / "tagged.wav"), path, shutil.copy(music / "tagged.wav", music / "copy.wav"))
    assert [item.record.audio.tags for item in again] == [SongTags(title="A title"), None, SongTags(title="A title")]
    assert work == []


def test_a_store_of_a_version_that_read_no_tags_knows_no_sound_by_its_bytes(store, music, work):
    path = tagged_copy(write(music / "a.wav"), music / "tagged.wav")
    run(store, path)
    store._execute("DELETE FROM tags")
    work.clear()
    [record] = [item.record for item in run(store, path)]
    assert work == ["decode"]
    assert record.audio.tags == SongTags(title="A title")


def test_duplicates_are_analysed_once_and_each_has_a_record(store, music, work):
    path = write(music / "a.wav")
    copies = [path, *(str(shutil.copy(path, music / f"{name}.wav")) for name in "bcd")]
    done = run(store, *copies)
    assert [item.record.path for item in done] == copies
    assert len({plain(item.record) for item in done}) == 1
    assert work == ["decode", "measure"]


def test_a_copy_with_other_tags_in_the_same_run_is_not_measured(store, music, work):
    path = write(music / "a.wav")
    first, second = run(store, path, tagged_copy(path, music / "tagged.wav"))
    assert sorted(work) == ["decode", "decode", "measure"]
    assert plain(first.record) == plain(second.record)
    assert [item.record.audio.tags for item in (first, second)] == [None, SongTags(title="A title")]


def test_of_two_songs_in_work_the_later_of_one_sound_is_not_measured(store, music):
    """Prepared side by side, before either has a record."""
    path = write(music / "a.wav")
    songs = [Song(0, path), Song(1, tagged_copy(path, music / "tagged.wav")), Song(2, write(music / "b.wav", 330.0))]
    memory = RunCache(store, JobKey.of(REQUEST.deciding, Parrot(ANSWERS).info, NO_FILES, "auto"), REQUEST)
    assert [memory.look(song) for song in songs] == [False, False, False]
    first, copy, other = (
        Sound(name, 16_000, Source(song.path, 1.0, RATE_HZ, 1, "wav"), 0.0, 16_000, ())
        for name, song in zip(("sha256:a", "sha256:a", "sha256:b"), songs, strict=True)
    )
    memory.skip_if_duplicate(songs[0], first)
    with pytest.raises(AlreadyAnalyzed):
        memory.skip_if_duplicate(songs[1], copy)
    memory.skip_if_duplicate(songs[2], other)
    assert songs[0].sound == songs[1].sound != songs[2].sound


def test_mono_and_stereo_of_the_same_are_two_sounds(store, music, work):
    done = run(store, write(music / "mono.wav"), write(music / "stereo.wav", channels=2))
    assert len({item.record.audio_id for item in done}) == 2
    assert work.count("measure") == 2


def test_what_changes_a_record_changes_its_key(store, music, work, monkeypatch):
    path = write(music / "a.wav")
    run(store, path)
    other = Parrot(ANSWERS)
    other.info = dataclasses.replace(other.info, revision="r2")
    words = GenerateOptions(max_new_tokens=7)
    weights = music / "w.gguf"
    weights.write_bytes(b"1")
    asked = [requests.caption_request(), requests.caption_request("short"), requests.analyze_request(options=words)]
    asked += [requests.analyze_request(end_s=0.75), requests.ask_request("Which key?"), requests.ask_request("Which chords?")]
    answers = {**ANSWERS, "ask": "x"}
    for request in asked:
        assert not run(store, path, backend=Parrot(answers), request=request)[0].remembered
        assert run(store, path, backend=Parrot(answers), request=request)[0].remembered
    assert not run(store, path, backend=other)[0].remembered
    assert not run(store, path, files=ModelFiles("m", pairs=((weights, weights),)))[0].remembered
    weights.write_bytes(b"22")
    assert not run(store, path, files=ModelFiles("m", pairs=((weights, weights),)))[0].remembered
    monkeypatch.setattr(keys, "program", lambda: "another version")
    assert not run(store, path)[0].remembered


def test_a_file_that_changes_is_analysed_again(store, music, work):
    path = write(music / "a.wav", 220)
    [first] = run(store, path)
    write(music / "a.wav", 330)
    [second] = run(store, path)
    assert not second.remembered
    assert first.record.audio_id != second.record.audio_id


def test_a_failure_is_tried_again_when_it_is_wanted_or_the_file_is_another(store, music, work):
    path = str(music / "a.wav")
    Path(path).write_bytes(b"words, no sound")
    assert [run(store, path)[0].remembered, run(store, path)[0].remembered] == [False, True]
    assert not run(store, path, retry_failed=True)[0].remembered
    write(music / "a.wav")
    assert run(store, path)[0].record.status == "ok"


def test_force_does_everything_once_more(store, music, work):
    path = write(music / "a.wav")
    copy = shutil.copy(path, music / "b.wav")
    run(store, path, copy)
    work.clear()
    assert [item.remembered for item in run(store, path, copy, force=True)] == [False, True]
    assert work == ["decode", "measure"]


class Full(Parrot):
    """A back end without memory for some songs, or that cannot be asked at all."""

    def __init__(self, error: Exception) -> None:
        super().__init__(ANSWERS)
        self.error: Exception | None = error

    def encode(self, audio):
        if self.error:
            raise self.error
        return super().encode(audio)


@pytest.mark.parametrize("error", [OutOfMemoryError("full"), MemoryError(), ModelError("lost")])
def test_what_was_not_the_files_fault_is_tried_again(store, music, work, error):
    path = write(music / "a.wav")
    copy = shutil.copy(path, music / "b.wav")
    failing = Full(error)
    assert [item.record.status for item in run(store, path, copy, backend=failing)] == ["error", "error"]
    failing.error = None
    assert [(item.record.status, item.remembered) for item in run(store, path, copy, backend=failing)] == [("ok", False), ("ok", True)]


def test_what_was_measured_is_kept_where_the_model_fails_meanwhile(store, music, work, tmp_path):
    path, failing, cache = write(music / "a.wav"), Full(ModelError("lost")), Cache(tmp_path / "cache")
    cache.check()
    failing.pack = lambda encoded: np.zeros(1, np.float32)
    memory = RunCache(store, JobKey.of(REQUEST.deciding, failing.info, NO_FILES, "auto"), REQUEST)
    ends = []
    for failing.error in (ModelError("lost"), None):
        statuses = [item.record.status for item in Run(REQUEST, failing, memory, cache).over([path]) if isinstance(item, Finished)]
        ends.append((*statuses, work.count("measure")))
    assert ends == [("error", 1), ("ok", 1)]


def test_one_job_encodes_the_songs_of_a_batch_together(store, music, work):
    """Each was encoded, and answered, as soon as it was prepared."""
    sizes: list[int] = []

    class Counting(Parrot):
        def encode(self, audios):
            sizes.append(len(audios))
            return super().encode(audios)

    backend = Counting(ANSWERS)
    memory = RunCache(store, JobKey.of(REQUEST.deciding, backend.info, NO_FILES, "auto"), REQUEST)
    paths = [write(music / f"{hz}.wav", hz) for hz in (200, 300, 400)]
    done = [item.record.status for item in Run(REQUEST, backend, memory, batch_size=3).over(paths) if isinstance(item, Finished)]
    assert (done, sizes) == (["ok"] * 3, [3])


# --- the border of a song ------------------------------------------------------------------------------------------------


@pytest.fixture
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Songs of these names cannot be measured, for a reason that no code knows of."""
    names: list[str] = []

    def fall(audio, meter=None, **_):
        if Path(audio.source.path).name in names:
            return [][len(names)]
        return FACTS

    monkeypatch.setattr(measure, "measure", fall)
    return names


@pytest.mark.parametrize("remembers", [True, False])
def test_what_nobody_foresaw_is_the_record_of_its_song_and_tried_again(store, music, unforeseen, remembers):
    paths = [write(music / f"{name}.wav", hz) for name, hz in (("a", 200), ("b", 300), ("c", 400))]
    unforeseen.append("b.wav")
    first = run(store if remembers else None, *paths)
    assert [item.record.status for item in first] == ["ok", "error", "ok"]
    failure, error = first[1].failure, first[1].record.error
    assert isinstance(failure, InternalError)
    assert (error.code, error.retryable) == ("internal", False)
    assert error.message.startswith(f"{paths[1]}: this is a bug in mflamingo, not in the file (IndexError: list index out of range)")
    assert "in fall" in failure.trace
    unforeseen.clear()
    second = run(store if remembers else None, *paths)
    assert [item.record.status for item in second] == ["ok"] * 3
    assert [item.remembered for item in second] == [remembers, False, remembers]


def test_a_copy_of_a_song_that_fell_is_tried_by_itself(store, music, unforeseen):
    path = write(music / "a.wav")
    copy = str(shutil.copy(path, music / "b.wav"))
    unforeseen.append("a.wav")
    assert [item.record.status for item in run(store, path, copy)] == ["error", "ok"]


@pytest.mark.parametrize("error", [KeyError("x"), AssertionError(), RecursionError("deep"), OSError(5, "Input/output error")])
def test_what_nobody_foresaw_of_the_model_is_each_song_s_record(store, music, work, error):
    paths = [write(music / f"{hz}.wav", hz) for hz in (200, 300)]
    failing = Full(error)
    done = run(store, *paths, backend=failing)
    assert [item.record.error.code for item in done] == ["internal", "internal"]
    assert type(error).__name__ in done[0].record.error.message
    failing.error = None
    assert [(item.record.status, item.remembered) for item in run(store, *paths, backend=failing)] == [("ok", False)] * 2


def test_a_record_that_cannot_be_stored_is_a_failure_of_its_song(store, music, work, monkeypatch):
    keep = store.keep
    paths = [write(music / f"{hz}.wav", hz) for hz in (200, 300)]
    monkeypatch.setattr(store, "keep", lambda key, record: [][0] if record.path == paths[0] else keep(key, record))
    assert [(item.record.status, item.record.path) for item in run(store, *paths)] == [("error", paths[0]), ("ok", paths[1])]


def test_an_internal_error_travels_between_processes_with_its_traceback():
    with pytest.raises(InternalError, match="two lines") as caught, as_song_error("song.wav"):
        raise ValueError("two\nlines " + 1000 * "x")
    error = caught.value
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.trace, again.code) == (str(error), error.trace, "internal")
    assert len(str(error)) < 400
    assert 'raise ValueError("two' in error.trace


def test_what_may_pass_the_border_passes_it():
    with pytest.raises(ModelError, match="lost"), as_song_error("song.wav"):
        raise ModelError("lost")
    with pytest.raises(OSError, match="full"), as_song_error("song.wav", OSError):
        raise OSError("full")
    with pytest.raises(KeyboardInterrupt, match="now"), as_song_error("song.wav"):
        raise KeyboardInterrupt("now")


def test_a_missing_file_is_not_remembered_as_missing(store, music, work):
    path = str(music / "a.wav")
    assert run(store, path)[0].record.error.code == "not_found"
    write(music / "a.wav")
    assert run(store, path)[0].record.status == "ok"


def test_without_a_store_everything_is_done(music, work):
    path = write(music / "a.wav")
    assert [item.remembered for item in run(None, path, path)] == [False, False]
    assert work == ["decode", "measure"] * 2


# --- shards ------------------------------------------------------------------------------------------------------------


def test_shards_part_the_songs_and_new_songs_move_no_other():
    paths = [f"music/{n} caf\udce9.flac" for n in range(1000)]
    shards = [{path for path in paths if shard_of(path, 8) == index} for index in range(8)]
    assert set().union(*shards) == set(paths)
    assert sum(map(len, shards)) == len(paths)
    assert all(80 < len(shard) < 170 for shard in shards)
