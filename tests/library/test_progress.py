"""Laws of progress: seconds of audio, not files; what was remembered took no time."""

from __future__ import annotations

from pathlib import Path

import pytest

from mflamingo_cli.library.progress import Progress, Tally, span
from mflamingo_cli.schema import Analysis, AudioInfo


def record(seconds: float | None, status: str = "ok") -> Analysis:
    audio = None if seconds is None else AudioInfo(seconds, 44_100, 2, "flac", 0.0, seconds, 1, False)
    return Analysis(command="analyze", status=status, path="x", audio=audio)  # type: ignore[arg-type]


@pytest.fixture
def songs(tmp_path: Path) -> list[str]:
    """Ten of 1 kB, the last two of another kind and 10 kB."""
    paths = [tmp_path / f"{n}.mp3" for n in range(8)] + [tmp_path / f"{n}.wav" for n in range(2)]
    for path in paths:
        path.write_bytes(bytes(1000 if path.suffix == ".mp3" else 10_000))
    return [str(path) for path in paths]


def test_what_is_left_depends_on_kind_of_file_and_pace(songs: list[str]) -> None:
    now = [0.0]
    progress = Progress(songs, Tally(len(songs)), lambda: now[0])
    assert (progress.left_audio_s, progress.left_s) == (None, None)
    now[0] = 100.0
    progress.add(songs[0], record(60.0), remembered=True)
    now[0] = 110.0
    progress.add(songs[1], record(60.0), remembered=False)
    now[0] = 130.0
    progress.add(songs[8], record(60.0), remembered=False)  # ten times the bytes of an mp3
    assert progress.left_audio_s == pytest.approx(6 * 60 + 60)
    assert progress.left_s == pytest.approx((6 * 60 + 60) * 30 / 120)
    progress.add(songs[2], record(None, "error"), remembered=False)
    assert str(progress) == "4/10 files, 3 min of audio, 1 done before, 1 failed, about 90 s left".replace("90 s", "2 min")


def test_nothing_is_left_at_the_end(songs: list[str]) -> None:
    progress = Progress(songs, Tally(len(songs)))
    for song in songs:
        progress.add(song, record(30.0), remembered=False)
    assert progress.left_audio_s == 0
    assert str(progress) == "10/10 files, 5 min of audio"


def test_spans_have_the_units_people_use() -> None:
    assert [span(seconds) for seconds in (40, 720, 11_000, 216_000)] == ["40 s", "12 min", "3.1 h", "2.5 days"]
