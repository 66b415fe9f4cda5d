"""A few seconds of every fuzzer, and the driver on inputs whose outcome is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import KINDS, driver, planted
from tests.fuzz.driver import fuzz

SECONDS = 12.0
SEED = 2026


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_broken_breaks_the_program(kind: str, tmp_path: Path) -> None:
    report = fuzz(KINDS[kind], count=1_000_000, seed=SEED, seconds=SECONDS, keep=tmp_path)
    assert report.faults == 0, report
    assert report.counts.total() > 0, report


@pytest.mark.slow
def test_whatever_ends_a_process_is_put_down_to_its_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "WAIT_S", 30.0)
    report = fuzz("tests.fuzz.planted", count=len(planted.DEEDS), seed=1, keep=tmp_path)
    sentences = {"one sentence, usage": 1, "one sentence, failed": 1}  # a line break in a message is shown, not made
    assert dict(report.counts) == sentences | {"ok": 3, "TRACEBACK": 1, "CRASH": 2, "HANG": 1, "MEMORY": 1}
    assert [path.name for path in report.kept] == ["1-3-TRACEBACK", "1-4-CRASH", "1-6-HANG", "1-7-MEMORY", "1-8-CRASH"]
    assert [(path / "deed").read_text() for path in report.kept] == ["traceback", "crash", "hang", "memory", "exit"]
    assert "SIGABRT" in (report.kept[1] / "why.txt").read_text()
    assert "KeyError: 'deed'" in (report.kept[0] / "why.txt").read_text()
