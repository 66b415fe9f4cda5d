"""Laws of the cache: nothing is done twice, no record tells, nothing stale is ever found, and no trouble with it is an error."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli import measure, pipeline, requests
from mflamingo_cli.backends import open_backend
from mflamingo_cli.backends.base import BackendInfo, Encoded, GenerateOptions, OpenOptions, stamp
from mflamingo_cli.core import audio as core_audio
from mflamingo_cli.core.audio import Audio, Sound, Source
from mflamingo_cli.files import Draft
from mflamingo_cli.measure import Tempo
from mflamingo_cli.store import cache as cache_module
from mflamingo_cli.store.cache import SUFFIX, Cache, SoundAndFacts, default_folder
from tests.test_pipeline import ANSWERS, FACTS, Parrot

TIMEOUT_S = 600  # a busy machine
TICK_S = 0.02  # longer than the clock of a file system, 4 ms on Linux
WORDS = {"options": GenerateOptions(max_new_tokens=12), "keep_raw": True}
REQUESTS = [
    requests.analyze_request(**WORDS),
    requests.caption_request(start_s=0.5, **WORDS),
    requests.ask_request("Which key?", **WORDS),
    requests.think_request("Which key?", end_s=3.0, **WORDS),
]


class Listener(Parrot):
    """A parrot with ears: its encodings can be kept."""

    def __init__(self, ears: str = "a", *, grounded: bool = False) -> None:
        super().__init__({**ANSWERS, "ask": "x"}, grounded=grounded)
        self.info: BackendInfo = dataclasses.replace(self.info, encoder_fingerprint=ears)

    def encode(self, audios: Sequence[Audio]) -> list[Encoded]:
        self.heard += audios
        return [Encoded(10, np.arange(20.0).reshape(10, 2)) for _ in audios]

    def pack(self, encoded: Encoded) -> np.ndarray:
        return encoded.payload

    def unpack(self, numbers: np.ndarray) -> Encoded:
        assert numbers.tolist() == np.arange(20.0).reshape(10, 2).tolist()
        return Encoded(len(numbers), numbers)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def song(tmp_path: Path, tmp_song: Path) -> Path:
    return Path(shutil.copy(tmp_song, tmp_path / "song.wav"))


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was decoded and measured, in order; facts are given."""
    done: list[str] = []
    load = core_audio.load
    monkeypatch.setattr(core_audio, "load", lambda *args, **options: done.append("decode") or load(*args, **options))
    monkeypatch.setattr(measure, "measure", lambda audio, meter=None, **_: done.append("measure") or FACTS)
    return done


def heard(song: object, backend, request: requests.Request, cache: Cache | None = None) -> tuple[str, list[float | None]]:
    """The record but for its timing, and decode, measure and encode seconds."""
    *_, record = pipeline.run(song, backend, request, cache=cache)
    times = [record.timing.decode_s, record.timing.measure_s, record.timing.encode_s]
    return dataclasses.replace(record, timing=None).to_json(), times


# --- the same record ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[("gguf", "auto"), ("torch", "fp32"), ("torch", "bf16")], ids="-".join)
def backend(request: pytest.FixtureRequest, tiny_model: Path):
    kind, dtype = request.param
    options = OpenOptions(kind, "cpu", dtype, threads=1)
    with open_backend(str(tiny_model if kind == "gguf" else tiny_model.parent / "tiny"), options) as opened:
        yield opened


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.command)
def test_the_second_record_is_the_same_byte_for_byte_and_nothing_is_done_for_it(backend, song, cache, request_, monkeypatch) -> None:
    plain, _ = heard(song, backend, request_)
    first, _ = heard(song, backend, request_, cache)
    for owner, name in ((core_audio, "load"), (measure, "measure"), (backend, "encode")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("done again"))
    second, times = heard(song, backend, request_, Cache(cache.folder))
    assert plain == first == second
    assert times == [None, None, None]


def test_an_encoding_comes_back_bit_by_bit(backend, song) -> None:
    encoded = backend.encode([core_audio.load(song)])[0]
    again = backend.unpack(backend.pack(encoded).copy())
    assert again.n_tokens == encoded.n_tokens
    assert again.payload.dtype == encoded.payload.dtype
    assert bool((again.payload == encoded.payload).all())


def test_facts_come_back_exactly(song, cache) -> None:
    facts = dataclasses.replace(FACTS, tempo=Tempo(np.float32(119.9), (60.0,)), meter="3/4", beats=((0.1, 1), (1 / 3, None)))
    sound = Sound("sha256:x", 64_000, Source("elsewhere", 4.0, 22_050, 1, "pcm"), 0.1, 16_000, ("cut",))
    entry = cache.entry(song, 0.0, None)
    entry.keep_sound(SoundAndFacts(sound, facts, tuple(measure.FACTS)))
    found = entry.sound()
    again, known = found.sound, found.facts
    assert found.measured == tuple(measure.FACTS)
    assert again == dataclasses.replace(sound, source=dataclasses.replace(sound.source, path=str(song)))
    assert known.tempo == facts.tempo
    assert known.beats == facts.beats
    assert known.loudness.true_peak_dbtp is None  # it was not a number
    assert dataclasses.replace(known, tempo=facts.tempo, loudness=facts.loudness) == facts


# --- what is known of whom -----------------------------------------------------------------------------------------------------


def test_another_model_hears_for_itself_but_facts_are_shared(song, cache, work) -> None:
    first, other = Listener("a", grounded=True), Listener("b", grounded=True)
    for backend in (first, other, first, other):
        heard(song, backend, REQUESTS[2], cache)
    assert work == ["decode", "measure", "decode"]
    assert (len(first.heard), len(other.heard)) == (1, 1)


def test_facts_are_measured_when_they_are_first_wanted_and_told_only_to_whom_they_are(song, cache, work) -> None:
    backend = Listener()
    asked, _ = heard(song, backend, REQUESTS[2], cache)
    analyzed, times = heard(song, backend, REQUESTS[0], cache)
    assert (work, len(backend.heard), times[2]) == (["decode", "decode", "measure"], 1, None)
    assert heard(song, backend, REQUESTS[2], cache)[0] == asked
    assert heard(song, backend, REQUESTS[0], cache)[0] == analyzed
    assert work == ["decode", "decode", "measure"]


def test_what_is_prepared_ahead_is_remembered_too(song, cache, work) -> None:
    backend, records = Listener(grounded=True), []
    for _ in range(2):
        ready = pipeline.prepare(song, REQUESTS[0], backend.info, cache)
        *_, record = pipeline.run(song, backend, REQUESTS[0], ready)
        records.append(dataclasses.replace(record, timing=None).to_json())
    assert (work, len(backend.heard)) == (["decode", "measure"], 1)
    assert records[0] == records[1]


def test_a_copy_is_known_and_keeps_its_own_name(song, cache, work) -> None:
    backend, copy = Listener(), shutil.copy(song, song.with_name("copy.wav"))
    heard(song, backend, REQUESTS[2], cache)
    record, _ = heard(copy, backend, REQUESTS[2], cache)
    assert work == ["decode"]
    assert json.loads(record)["path"] == str(copy)
    assert not any(b"song" in path.read_bytes() for path in cache.folder.iterdir())


def test_other_bytes_other_parts_and_another_program_are_other_songs(song, cache, work, monkeypatch) -> None:
    backend, state = Listener(), os.stat(song)
    heard(song, backend, REQUESTS[2], cache)
    data = bytearray(song.read_bytes())
    data[-1] ^= 1
    song.write_bytes(data)
    os.utime(song, ns=(state.st_atime_ns, state.st_mtime_ns))  # neither size nor date tells
    heard(song, backend, REQUESTS[2], cache)
    heard(song, backend, dataclasses.replace(REQUESTS[2], start_s=0.5), cache)
    heard(song, backend, dataclasses.replace(REQUESTS[2], end_s=3.0), cache)
    monkeypatch.setattr(cache_module, "program", lambda: "a later one")
    heard(song, backend, REQUESTS[2], cache)
    assert (len(work), len(backend.heard)) == (5, 5)


def test_a_song_that_changes_while_it_is_heard_is_not_kept(song, cache, monkeypatch) -> None:
    load = core_audio.load

    def meddled(path, **options):
        time.sleep(TICK_S)
        song.write_bytes(song.read_bytes() + b"\0")
        return load(path, **options)

    monkeypatch.setattr(core_audio, "load", meddled)
    heard(song, Listener(), REQUESTS[2], cache)
    assert not cache.folder.exists()


def test_what_has_no_second_time_has_no_place(tmp_path, cache) -> None:
    os.mkfifo(tmp_path / "fifo")
    for source in ("-", io.BytesIO(b"RIFF"), tmp_path / "fifo", tmp_path / "missing", tmp_path):
        assert cache.entry(source, 0.0, None) is None


def test_weights_written_over_are_other_weights(tmp_path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"old")
    before, state = stamp([path]), os.stat(path)
    assert stamp([path]) == before
    time.sleep(TICK_S)
    path.write_bytes(b"new")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert stamp([path]) != before


# --- trouble -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil", [lambda b: b"", lambda b: b[:-1], lambda b: bytes(4), lambda b: bytes(len(b)), lambda b: b[:9] + b"?" + b[10:]]
)
def test_a_damaged_entry_is_heard_again_and_replaced(song, cache, work, spoil) -> None:
    backend = Listener()
    first, _ = heard(song, backend, REQUESTS[0], cache)
    before = {path: path.read_bytes() for path in cache.folder.iterdir()}
    for path, content in before.items():
        path.write_bytes(spoil(content))
    assert heard(song, backend, REQUESTS[0], cache)[0] == first
    assert (work, len(backend.heard)) == (["decode", "measure"] * 2, 2)
    assert {path: path.read_bytes() for path in cache.folder.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_no_error_and_is_said_once(song, tmp_path, work) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "cache")
    assert heard(song, Listener(), REQUESTS[0], cache) is not None
    assert "Not a directory" in cache.problem


def test_a_full_disk_leaves_nothing_half_written(tmp_path, cache, monkeypatch) -> None:
    def full(draft: Draft) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Draft, "publish", full)
    cache.put("a", b"content")
    assert "No space left" in cache.problem
    assert list(cache.folder.iterdir()) == []


def test_the_least_recently_used_go_first_and_nothing_else(tmp_path) -> None:
    cache = Cache(tmp_path, max_bytes=1000)
    (tmp_path / "precious.wav").write_bytes(bytes(5000))
    for name in "abc":
        cache.put(name, bytes(296))
        time.sleep(TICK_S)
    assert cache.get("a") is not None
    cache.put("d", bytes(296))
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]
    cache.put("e", bytes(501))  # would put out half of the others
    assert cache.get("e") is None
    assert (tmp_path / "precious.wav").exists()


def test_many_at_once_read_whole_entries_or_none(tmp_path) -> None:
    contents = {str(number): bytes([number]) * 3000 for number in range(1, 9)}

    def churn(turn: int) -> None:
        mine = Cache(tmp_path, max_bytes=10_000)  # as a process of its own
        for name in list(contents)[turn:] + list(contents)[:turn]:
            mine.put(name, contents[name])
            assert mine.get(name) in (None, contents[name])
        assert mine.problem is None

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(8)))
    left = list(tmp_path.iterdir())
    assert left
    assert all(path.suffix == SUFFIX and not path.name.startswith("part-") for path in left)


def test_the_folder_is_where_the_user_says(monkeypatch) -> None:
    monkeypatch.setenv("MFLAMINGO_CACHE", "/a")
    assert default_folder() == Path("/a")
    monkeypatch.delenv("MFLAMINGO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert default_folder() == Path("/b/mflamingo")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says: ignored
    monkeypatch.setenv("HOME", "/c")
    assert default_folder() == Path("/c/.cache/mflamingo")


# --- the command line ------------------------------------------------------------------------------------------------------------


def run(*arguments: object, folder: Path) -> tuple[dict, str]:
    command = [sys.executable, "-m", "mflamingo_cli", "ask", "Why?", "--json", "--max-tokens", "4", *map(str, arguments)]
    env = {**os.environ, "MFLAMINGO_CACHE": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=env, stdin=subprocess.DEVNULL)
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_no_cache_neither_reads_nor_writes(tiny_model, song, tmp_path) -> None:
    plain, _ = run("-m", tiny_model, "--no-cache", song, folder=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    for remembers in (False, True):
        record, _ = run("-m", tiny_model, song, folder=tmp_path / "cache")
        assert (record["timing"]["decode_s"] is None, record["timing"]["encode_s"] is None) == (remembers, remembers)
        assert {**record, "timing": None} == {**plain, "timing": None}
    again, _ = run("-m", tiny_model, "--no-cache", song, folder=tmp_path / "cache")
    assert again["timing"]["encode_s"] is not None


def test_trouble_with_the_folder_is_said_once(tiny_model, song, tmp_path) -> None:
    (tmp_path / "file").touch()
    _, usual = run("-m", tiny_model, song, folder=tmp_path / "file")
    _, quiet = run("-m", tiny_model, "-q", song, folder=tmp_path / "file")
    assert usual.count("results are not kept for the next run") == usual.count(f"{tmp_path / 'file'}: ") == 1
    assert quiet == ""
