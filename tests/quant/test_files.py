"""Laws of files: whole or not there, never somebody else's, one writer at a time, nothing left of a killed one."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quant import files
from quant.files import Draft, open_growing, write_atomic

WRITER = """
import os, sys, time
from pathlib import Path
from quant.files import Draft
draft = Draft(Path(sys.argv[1]))
draft.stream.write(b"half")
draft.stream.flush()
print(draft.part.name, flush=True)
time.sleep(float(sys.argv[2]))
os._exit(9)
"""


def killed_writer(path: Path) -> Path:
    """What a process that was killed while it wrote a file has left."""
    done = subprocess.run([sys.executable, "-c", WRITER, path, "0"], check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    part = path.with_name(done.stdout.strip())
    assert part.read_bytes() == b"half"
    return part


def test_a_file_is_replaced_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(0o640)
    with write_atomic(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail() -> None:
        with write_atomic(path) as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("n_bytes", [3 << 12, 3 << 20])
def test_a_full_disk_leaves_the_file_and_nothing_beside_it(tmp_path: Path, n_bytes: int) -> None:
    """The limit of a process's files ends writing as a full disk does, at a flush in the middle or at the last one."""
    path = tmp_path / "a.json"
    path.write_text("old")
    code = f"""
import resource; from pathlib import Path; from quant.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes} - 5, {n_bytes}))
with write_atomic(Path({str(path)!r})) as stream:
    for _ in range({n_bytes} >> 12):
        stream.write(bytes(1 << 12))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith(f"OSError: [Errno {errno.EFBIG}]")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != n_bytes - 5, "only of that process"


def test_a_second_writer_is_refused_and_a_dead_ones_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    part = killed_writer(path)
    other = killed_writer(tmp_path / "a.json.b")
    with Draft(path) as first:
        assert not part.exists()
        with pytest.raises(BlockingIOError, match="another run is writing this file"):
            Draft(path)
        first.stream.write(b"first")
        first.publish()
    assert path.read_bytes() == b"first"
    assert sorted(tmp_path.iterdir()) == sorted([path, other]), "what another file's writer left is for that file's next one"


def test_a_living_process_is_not_cleaned_away(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with subprocess.Popen([sys.executable, "-c", WRITER, path, "60"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        part = path.with_name(process.stdout.readline().strip())
        with pytest.raises(BlockingIOError):
            Draft(path)
        assert list(tmp_path.iterdir()) == [part]
        process.kill()
    with write_atomic(path) as stream:
        stream.write(b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_without_locks_only_what_is_old_is_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    path = tmp_path / "a.json"
    part = killed_writer(path)
    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    with write_atomic(path):
        assert part.exists()
    os.utime(part, (0, time.time() - files.ABANDONED_S - 60))
    with write_atomic(path):
        assert not part.exists()


# --- what others plant -------------------------------------------------------------------------------------------------------


PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "hard link": lambda place, mine: place.hardlink_to(mine),
    "symbolic link": lambda place, mine: place.symlink_to(mine),
    "dangling link": lambda place, mine: place.symlink_to(mine.with_name("nothing")),
    "folder": lambda place, mine: place.mkdir(),
    "pipe": lambda place, mine: os.mkfifo(place),
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", ["a.json.part", ".a.json.mflamingo-0123456789abcdef.part"])
def test_what_lies_under_any_name_stays(tmp_path: Path, plant: str, name: str) -> None:
    mine, path = tmp_path / "mine", tmp_path / "a.json"
    mine.write_text("mine")
    PLANTS[plant](tmp_path / name, mine)
    before = sorted(tmp_path.iterdir())
    with write_atomic(path) as stream:
        stream.write(b"new")
    assert (path.read_text(), mine.read_text()) == ("new", "mine")
    assert sorted(tmp_path.iterdir()) == sorted([*before, path])


def test_a_name_that_is_taken_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one who can foresee the random name cannot lead the writing elsewhere."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    monkeypatch.setattr(files.os, "urandom", bytes)
    (tmp_path / f".a.json.mflamingo-{16 * '0'}.part").hardlink_to(mine)
    with pytest.raises(FileExistsError, match=r"/a\.json'"):
        Draft(tmp_path / "a.json")
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_part_that_somebody_exchanges_or_links_is_not_published(tmp_path: Path, exchanged: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with Draft(path) as draft:
        if exchanged:
            draft.part.unlink()
            draft.part.write_text("theirs")
        else:
            (tmp_path / "second").hardlink_to(draft.part)
        with pytest.raises(PermissionError, match="another program interfered"):
            draft.publish()
    assert path.read_text() == "old"
    assert draft.part.exists() is exchanged, "what is theirs is left to them"


# --- what stays of the old file ------------------------------------------------------------------------------------------------


def test_extended_attributes_stay_and_dates_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    path.write_text("old")
    os.utime(path, (10**9, 10**9))
    try:
        os.setxattr(path, "user.rating", b"5")
    except OSError:
        pytest.skip("a file system without extended attributes")
    with Draft(path) as draft:
        draft.publish(dates=True)
    assert (os.getxattr(path, "user.rating"), path.stat().st_mtime) == (b"5", 10**9)
    with Draft(path) as draft:
        draft.publish()
    assert (os.getxattr(path, "user.rating"), path.stat().st_mtime > 10**9) == (b"5", True)


def test_what_replaces_a_private_file_is_private_from_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch(0o600)
    with Draft(path) as draft:
        assert draft.part.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_the_owner_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch(0o640)
    os.chown(path, 12345, 23456)
    with write_atomic(path) as stream:
        stream.write(b"new")
    state = path.stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o777, path.read_bytes()) == (12345, 23456, 0o640, b"new")


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "x" * 250])
def test_the_longest_names_are_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with write_atomic(path) as stream:
        stream.write(b"new")
        with pytest.raises(BlockingIOError):
            Draft(path)
    assert list(tmp_path.iterdir()) == [path]


# --- what grows ----------------------------------------------------------------------------------------------------------------


def test_what_grows_goes_on_in_a_folder_of_its_users_own(tmp_path: Path) -> None:
    path = tmp_path / "own" / "part"
    with open_growing(path) as stream:
        stream.write(b"one ")
        with pytest.raises(BlockingIOError):
            open_growing(path)
    with open_growing(path) as stream:
        assert stream.tell() == 4
        stream.write(b"two")
    assert path.read_bytes() == b"one two"
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("plant", PLANTS)
def test_what_grows_is_ours_alone(tmp_path: Path, plant: str) -> None:
    mine, path = tmp_path / "mine", tmp_path / "own" / "part"
    mine.write_text("mine")
    path.parent.mkdir(mode=0o700)
    PLANTS[plant](path, mine)
    with pytest.raises(OSError, match=r"other names or another owner|Too many levels|Is a directory"):
        open_growing(path)
    assert (mine.read_text(), (tmp_path / "nothing").exists()) == ("mine", False)


@pytest.mark.parametrize("shared", [True, False])
def test_a_folder_that_others_can_write_to_is_no_place_to_grow_in(tmp_path: Path, shared: bool) -> None:
    folder = tmp_path / "own"
    if shared:
        folder.mkdir()
        folder.chmod(0o777)
    else:
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(PermissionError, match="can be changed by others; remove it"):
        open_growing(folder / "part")
