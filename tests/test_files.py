"""Laws of files: whole or not there, one writer at a time, what a killed process left is taken over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mflamingo_cli.files import open_exclusive, part_of, write_atomic


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


def test_a_second_writer_is_refused_and_a_dead_ones_file_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    code = (
        f"import os; from pathlib import Path; from mflamingo_cli.files import open_exclusive as o; o(Path({str(path)!r})).write(b'x' * 99)"
    )
    assert subprocess.run([sys.executable, "-c", f"{code}; os._exit(9)"], check=False).returncode == 9
    with open_exclusive(path) as first:
        assert first.read() == b""
        with pytest.raises(BlockingIOError):
            open_exclusive(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "a.json", tmp_path / "other"
    other.write_text("mine")
    os.symlink(other, part_of(path))
    with pytest.raises(OSError, match=r"a\.json\.part"), write_atomic(path):
        pass
    assert other.read_text() == "mine"
