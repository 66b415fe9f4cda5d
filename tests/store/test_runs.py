"""Laws of the run store: what it keeps outlives the process, and no trouble with it loses a result."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mflamingo_cli.schema import Analysis
from mflamingo_cli.store.runs import FILE, LAYOUT, Store, StoreError, default_folder
from tests.docs import ROOT
from tests.test_schema import FULL

RECORD = FULL
TIMEOUT_S = 120


def test_a_record_comes_back_whole(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.keep("key", RECORD)
        assert store.has("key")
        assert not store.has("other")
    with Store(tmp_path) as again:
        assert again.record("key") == RECORD


def test_a_digest_is_taken_once_and_again_after_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr("mflamingo_cli.store.runs.digest_of", lambda path: taken.append(path) or f"digest {len(taken)}")
    song = tmp_path / "a.wav"
    song.write_bytes(b"one")
    with Store(tmp_path / "state") as store:
        assert [store.digest(str(song)) for _ in range(2)] == ["digest 1"] * 2
        state = os.stat(song)
        song.write_bytes(b"two")
        os.utime(song, ns=(state.st_atime_ns, state.st_mtime_ns))  # a date that lies
        assert store.digest(str(song)) == "digest 2"
        assert store.digest(str(tmp_path)) is None
        assert store.digest(str(tmp_path / "missing")) is None


def test_processes_and_threads_write_at_the_same_time(tmp_path: Path) -> None:
    code = f"""
        import sys
        from pathlib import Path
        from mflamingo_cli.store.runs import Store
        from tests.test_schema import FULL
        with Store(Path({str(tmp_path)!r})) as store:
            for n in range(200):
                store.keep(f"{{sys.argv[1]}} {{n}}", FULL)
            assert not store.problem, store.problem
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    processes = [subprocess.Popen([*command, name], cwd=ROOT) for name in "ab"]
    with Store(tmp_path) as store:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: store.keep(f"c {n}", RECORD), range(200)))
        assert [process.wait(TIMEOUT_S) for process in processes] == [0, 0]
        assert not store.problem
        assert all(store.has(f"{name} {n}") for name in "abc" for n in range(200))


@pytest.mark.parametrize(
    ("content", "words"), [(b"no database at all" * 100, "move it away"), (None, "another version"), ("folder", "unable to open")]
)
def test_what_cannot_be_opened_is_said_and_left_alone(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / FILE
    if content == "folder":
        path.mkdir()
    elif content is None:
        with sqlite3.connect(path) as database:
            database.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=words):
        Store(tmp_path)
    assert before is None or path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        Store(tmp_path / "file" / "state")


def test_trouble_on_the_way_is_told_once_and_is_no_error(tmp_path: Path) -> None:
    song = tmp_path / "a.wav"
    song.write_bytes(b"one")
    with Store(tmp_path) as store:
        store.keep("key", RECORD)
        with sqlite3.connect(tmp_path / FILE) as other:
            other.execute("DROP TABLE records")
        store.keep("key 2", RECORD)
        assert "no such table" in store.problem
        assert store.record("key") is None
        assert store.digest(str(song)) is not None


def test_a_full_disk_is_trouble_on_the_way(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        [[pages]] = store._database.execute("PRAGMA page_count")
        store._database.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says what it says on a full disk
        for n in range(100):
            store.keep(str(n), Analysis(command="ask", status="ok", path=str(n), text=os.urandom(3000).hex()))
        assert "full" in store.problem


def test_the_folder_is_where_it_should_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MFLAMINGO_STATE", "/a")
    assert default_folder() == Path("/a")
    monkeypatch.delenv("MFLAMINGO_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", "/b")
    assert default_folder() == Path("/b/mflamingo")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".local/state/mflamingo"
