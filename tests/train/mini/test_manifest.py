"""Manifests: what a crash cut off is made again, and nothing that follows is lost with it."""

from __future__ import annotations

from pathlib import Path

from mflamingo_cli.train.mini import manifest


def test_a_line_that_a_crash_cut_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).write_text('{"index": 0}\n{"index": 1, "dur')
    assert manifest.read_manifest(tmp_path) == [{"index": 0}]
    assert manifest.missing(tmp_path, 3) == [1, 2]
    for index in (1, 2):
        manifest.append_row(tmp_path, {"index": index, "title": "Café"})
    assert [row["index"] for row in manifest.read_manifest(tmp_path)] == [0, 1, 2]
    assert manifest.missing(tmp_path, 3) == []


def test_a_new_manifest_begins_without_an_empty_line(tmp_path: Path) -> None:
    manifest.append_row(tmp_path / "split", {"index": 0})
    assert (tmp_path / "split" / manifest.NAME).read_bytes() == b'{"index": 0}\n'


def test_the_order_of_rows_does_not_depend_on_the_processes() -> None:
    assert list(manifest.in_processes(pow, [2, 3, 4], 2, 1)) == list(manifest.in_processes(pow, [2, 3, 4], 2, 2)) == [4, 9, 16]
