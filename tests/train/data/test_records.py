"""Files of records: each is found again by its number, with its line; what is broken is named by its place."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mflamingo_cli.train.data import records
from mflamingo_cli.train.data.records import RecordFile
from mflamingo_cli.train.data.row import RowError

RECORDS = [{"n": 0, "text": "naïve 音楽 🎵"}, {"n": 1, "text": 'a "quoted"\nline, and [brackets] {}'}, {"n": 2, "text": "x" * 3000}]


def written(folder: Path, name: str, text: str) -> RecordFile:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return RecordFile(path)


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.jsonl", "\n" + "\n\n".join(json.dumps(record) for record in RECORDS), [2, 4, 6]),
        ("b.json", "\ufeff".lstrip("\ufeff") + json.dumps(RECORDS, indent=1, ensure_ascii=False), [2, 6, 10]),
        ("c.json", json.dumps({"about": {"by": [1, 2]}, "QA": RECORDS}), [1, 1, 1]),
        ("d.json", "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS), [1, 2, 3]),
    ],
)
@pytest.mark.parametrize("piece", [7, records.PIECE_BYTES])
def test_records_are_read_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, lines: list[int], piece: int
) -> None:
    monkeypatch.setattr(records, "PIECE_BYTES", piece)
    file = written(tmp_path, name, text)
    assert [file[number] for number in (2, 0, 1)] == [RECORDS[number] for number in (2, 0, 1)]
    assert [file.place(number) for number in range(len(file))] == [f"{tmp_path / name}:{line}" for line in lines]
    assert file.problems == []


def test_cells_with_line_breaks_are_one_record(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", '\ufeffytid,caption\na,"two\nlines, and a comma"\n\nb,plain\nc\n')
    assert file[0] == {"ytid": "a", "caption": "two\nlines, and a comma"}
    assert (file[1], file.place(1)) == ({"ytid": "b", "caption": "plain"}, f"{tmp_path / 'a.csv'}:5")
    with pytest.raises(RowError, match=r"a\.csv:6: 1 cells under 2 column names"):
        file[2]


@pytest.mark.parametrize(
    ("name", "text", "n_good", "problem"),
    [
        ("a.json", '[{"n": 1},\n {"n": 2},\n {"n": 3 "x"}]', 2, ":3: the rest of the file cannot be read"),
        ("b.json", '[{"n": 1}, {"n": 2', 1, ":1: the rest of the file cannot be read"),
        ("c.json", '[{"n": 1} {"n": 2}]', 1, ":1: the rest of the file cannot be read"),
        ("d.csv", 'n\n1\n"2', 1, ":3: the rest of the file cannot be read"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, name: str, text: str, n_good: int, problem: str) -> None:
    file = written(tmp_path, name, text)
    assert len(file) == n_good
    assert [str(found)[len(str(tmp_path / name)) :][: len(problem)] for found in file.problems] == [problem]


def test_a_line_that_is_no_object_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": \n[1]\n{"n": "\xff"}\n' + b"[" * 100_000 + b'\n{"n": 2}\n')
    file = RecordFile(path)
    assert (file[0], file[5]) == ({"n": 1}, {"n": 2})
    for number, reason in (
        (1, "2: the line is not JSON"),
        (2, "3: the record is not a JSON object"),
        (3, "4: the line is not UTF-8"),
        (4, "5: it is nested too"),
    ):
        with pytest.raises(RowError, match=rf"a\.jsonl:{reason}"):
            file[number]


def test_threads_read_one_file_together(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jsonl", "\n".join(json.dumps({"n": number, "text": "x" * (number % 97)}) for number in range(4000)))
    with ThreadPoolExecutor(8) as pool:
        assert [record["n"] for record in pool.map(file.__getitem__, range(4000))] == list(range(4000))
