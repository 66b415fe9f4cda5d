"""Laws of what stays: the four commands print what they printed, and what older versions left on disk is read or rebuilt, never misread."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.docs import ROOT
from tests.golden.record import COMMANDS, FOLDER, differences, masked, output, run

OLD = (
    FOLDER / "old"
)  # written by the program as it was before `measure`, `store` and `backends` were rebuilt: a cache, a run store, their records
SONGS = ("ocean.opus", "silent.flac")
SOME_FAILED = 3  # the exit code where one of two songs is silent
LARGE = 10_000  # bytes: of the two entries of the old cache the encoding is larger, the facts are smaller


@pytest.fixture(scope="module")
def one_cache(tmp_path_factory) -> Path:
    """A folder where the first command leaves facts and encodings for the others."""
    return tmp_path_factory.mktemp("golden")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_what_it_printed(one_cache, name):
    kept, now = (FOLDER / name).read_text(encoding="utf-8"), output(COMMANDS[name], one_cache)
    if name.endswith(".txt"):
        assert now == kept
        return
    pairs = list(zip(kept.splitlines(), now.splitlines(), strict=True))
    assert pairs
    assert [d for a, b in pairs for d in differences(json.loads(a), json.loads(b))] == []


def test_a_kept_file_belongs_to_a_command():
    assert {path.name for path in FOLDER.iterdir() if path.suffix in {".txt", ".jsonl"}} == set(COMMANDS)


@pytest.mark.parametrize(
    ("kept", "now", "named"),
    [
        ({"a": 1.0}, {"a": 1.01}, []),
        ({"a": 1.0}, {"a": 1.1}, [".a: 1.0, now 1.1"]),
        ({"a": 1}, {"a": 1.0}, [".a: 1, now 1.0"]),
        ({"a": None}, {}, [".a: only in one"]),
        ({"a": ["x"]}, {"a": ["y"]}, [".a[0]: 'x', now 'y'"]),
        ({"a": [1, 2]}, {"a": [1]}, [".a: 2 items, now 1"]),
        ({"a": True}, {"a": 1}, [".a: True, now 1"]),
    ],
)
def test_every_difference_is_named(kept, now, named):
    assert differences(kept, now) == named


# --- what older versions left ------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder with two songs."""
    (tmp_path / SONGS[0]).symlink_to(ROOT / "tests" / "data" / SONGS[0])
    shutil.copy(OLD / SONGS[1], tmp_path)
    return tmp_path


MEASURED_SINCE = (".result.vocals", ".result.tempo", ".result.beats")  # what the old program could not tell yet, and told otherwise
SAID_BY_OLDER_WEIGHTS = (".result.key.claimed", ".result.caption", ".warnings", ".model.revision", ".usage")


def leave_old(folder: Path) -> None:
    """Put the old cache and run store where the program looks for its own."""
    shutil.copytree(OLD / "cache", folder / "cache")
    (folder / "state").mkdir()
    shutil.copy(OLD / "runs.db", folder / "state")


def records(home: Path, *more: str) -> tuple[list[dict], subprocess.CompletedProcess[bytes]]:
    """Return the records of both songs, masked, and how the process ended."""
    paths = [str(home / name) for name in SONGS]
    done = run(("analyze", "--json", "--claims", "raw", "--end", "12", *more, *paths), home)  # raw: as older versions wrote texts
    assert done.returncode == SOME_FAILED, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    text = done.stdout.decode().replace(f"{home}{os.sep}", "")
    return [masked(json.loads(line)) for line in text.splitlines()], done


def as_of(kept: Any, now: Any) -> Any:
    """Return a record with the keys that an older version knew: keys are only ever added."""
    if isinstance(kept, dict) and isinstance(now, dict):
        return {key: as_of(kept[key], value) for key, value in now.items() if key in kept}
    return now


def expected(home: Path) -> list[dict]:
    """Return the records that a program without cache and store makes."""
    return records(home, "--no-cache", "--force")[0]


@pytest.mark.slow
def test_old_cache_and_store_change_no_record(home):
    leave_old(home)
    found, done = records(home)
    assert found == expected(home)
    assert [record["status"] for record in found] == ["ok", "skipped"]
    assert b"another version" not in done.stderr
    kept = [json.loads(line) for line in (OLD / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    changed = differences(masked(kept[0]), as_of(kept[0], found[0]))
    changed = [line for line in changed if not line.startswith(MEASURED_SINCE + SAID_BY_OLDER_WEIGHTS)]
    assert not changed, "\n".join(changed)


@pytest.mark.slow
def test_an_old_store_goes_on_to_be_used(home):
    leave_old(home)
    records(home)
    with sqlite3.connect(home / "state" / "runs.db") as database:
        [[n_records]] = database.execute("SELECT count(*) FROM records")
    assert n_records > 4  # the old four, and those of this program under names of its own


@pytest.mark.slow
def test_an_old_record_under_a_new_name_reads_as_it_was_written(home):
    records(home)
    with sqlite3.connect(OLD / "runs.db") as database:
        old = [row[0] for row in database.execute("SELECT record FROM records ORDER BY length(record)")]
    with sqlite3.connect(home / "state" / "runs.db") as database:
        changed = database.execute("UPDATE records SET record = ? WHERE length(record) > 400", (old[-1],)).rowcount
    assert changed == 1
    [first, second] = records(home)[0]
    kept = [masked(json.loads(line)) for line in (OLD / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any(as_of(record, {**first, "path": "ocean.opus"}) == record for record in kept)
    assert second["error"]["code"] == "silent"


@pytest.mark.slow
def test_old_facts_and_encodings_under_new_names_are_read_or_made_anew(home):
    want, _ = records(home)
    old = {path.stat().st_size > LARGE: path.read_bytes() for path in (OLD / "cache").iterdir()}
    new = {path.stat().st_size > LARGE: path for path in (home / "cache").iterdir() if path.stat().st_size > 500}
    assert old.keys() == new.keys() == {True, False}
    for large, path in new.items():
        path.write_bytes(old[large])
    [first, second] = records(home, "--force")[0]
    assert all(line.startswith(SAID_BY_OLDER_WEIGHTS) for line in differences(want[0], first))  # their projector is in the encoding
    assert second == want[1]


@pytest.mark.slow
def test_facts_of_another_shape_are_made_anew(home):
    """An entry that is whole but says other things than this program expects: a key is missing, a value is of another type."""
    want, _ = records(home)
    [path] = [path for path in (home / "cache").iterdir() if 500 < path.stat().st_size < LARGE]
    text = path.read_bytes()[4:].replace(b'"bpm"', b'"bmp"')
    path.write_bytes(zlib.crc32(text).to_bytes(4, "little") + text)
    assert records(home, "--force")[0] == want
