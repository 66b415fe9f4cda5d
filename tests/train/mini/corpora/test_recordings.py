"""Recordings: how tracks are cut, told apart and resumed, on tiny packages made here. No network."""

from __future__ import annotations

import shutil
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mflamingo_cli.errors import ModelError
from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.train.mini.corpora import recordings
from mflamingo_cli.train.mini.corpora.recordings import Package, Track, cut, maker, plan, same_artist, separate, within
from mflamingo_cli.train.mini.frames import LABEL_S, LABELS_PER_TOKEN, MINI_MEL, prepared
from mflamingo_cli.train.mini.manifest import read_manifest

STANZAS = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2001 The Project
License: GPL-2+

Files: music/a.ogg
       music/b.ogg
Copyright: (c) 2008-2010, Jo Doe <jo@example.org>
License: CC-BY-3.0
 text
"""


@pytest.mark.parametrize("duration", [30.0, 60.0, 61.0, 79.9, 130.0, 185.5, 600.0])
def test_pieces_lie_in_the_track_and_never_overlap(duration):
    pieces = cut(duration)
    for start, end in pieces:
        assert 0 <= start < end <= duration
        assert end - start <= recordings.PIECE_S + 1e-6
        assert end - start >= min(duration, recordings.SHORTEST_S)
    for (_, end), (start, _) in pairwise(sorted(pieces)):
        assert start >= end - 1e-6
    heard = sum(end - start for start, end in pieces)
    assert heard >= duration - 2 * recordings.SHORTEST_S


def test_the_first_piece_is_around_the_first_third():
    assert cut(300.0)[0] == (70.0, 130.0)


def test_copyright_names_a_file_or_nobody():
    stanzas = recordings.copyright_stanzas(STANZAS)
    assert maker("usr/share/game/music/b.ogg", stanzas) == ("Jo Doe", "CC-BY-3.0")
    assert maker("usr/share/game/music/c.ogg", stanzas) == ("", "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("DJ Sjors", "Dj Sjors"),
        ("Joseph G. Toscano (Zhaytee)", "Joseph G. Toscano"),
        ('Manuel "Vanethian" Marino', "Manuel 'Vanethian' Marino"),
    ],
)
def test_spellings_of_an_artist_are_one(one, other):
    assert same_artist(one) == same_artist(other)


def track(folder: Path, name: str, artist: str, held_out: bool, sound: bytes) -> Track:
    path = folder / name
    path.write_bytes(sound)
    return Track(path, Package("p", "GPL-2+", held_out=held_out), name, 100.0, artist, name, "GPL-2+")


def test_no_artist_and_no_recording_stands_on_both_sides(tmp_path):
    made = [("a", "Ann", False, b"1"), ("b", "Bob", True, b"2"), ("c", "BOB (remix)", False, b"3"), ("d", "Ann", False, b"1")]
    tracks = [track(tmp_path, *one) for one in made]
    sides = separate(tracks)
    assert [t.name for t in sides["real-train"]] == ["a"]
    assert [t.name for t in sides["real-test"]] == ["b"]


def test_both_sides_have_packages():
    assert {p.held_out for p in recordings.PACKAGES} == {True, False}
    assert len({p.name for p in recordings.PACKAGES}) == len(recordings.PACKAGES)


def test_every_track_is_used_before_any_is_used_twice(tmp_path):
    tracks = [track(tmp_path, f"{i}", "Ann", False, b"%d" % i) for i in range(5)]
    pieces = plan(tracks, "real-train")
    assert sorted(p.track.name for p in pieces[:5]) == ["0", "1", "2", "3", "4"]
    assert [p.index for p in pieces] == list(range(len(pieces)))
    mixed = within({"real-train": pieces, "real-test": plan(tracks, "real-test")}, 6 * 60 / 3600)
    assert [p.split for p in mixed].count("real-train") == 5  # four to one, six pieces of a minute
    assert len(mixed) == 6


# ---- a whole run ----


def music(seconds: float, hertz: float) -> np.ndarray:
    t = np.arange(int(seconds * 16_000)) / 16_000
    return (0.2 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Two unpacked packages; LEAST_BYTES would refuse tiny files."""
    packages = (Package("one", "GPL-2+", "Ann"), Package("two", "MIT", "Bob", held_out=True))
    debs = tmp_path / "debs"
    for package, hertz in zip(packages, (220, 330), strict=True):
        folder = debs / "unpacked" / package.name / "usr/share/music"
        folder.mkdir(parents=True)
        soundfile.write(folder / "song.ogg", music(31, hertz), 16_000)
        soundfile.write(folder / "song_again.ogg", music(31, 1.5 * hertz), 16_000)
        (debs / "unpacked" / package.name / ".ready").touch()
    monkeypatch.setattr(recordings, "PACKAGES", packages)
    monkeypatch.setattr(recordings, "LEAST_BYTES", 1000)
    recordings._rows.cache_clear()
    yield recordings.RecordingsConfig(debs, tmp_path / "data")
    recordings._rows.cache_clear()


def test_a_stopped_run_goes_on_and_a_finished_one_does_nothing(config):
    run = recordings.generate(config)
    first = next(run)
    run.close()
    recordings._rows.cache_clear()
    with (config.out / first["split"] / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"index": 1, "au')  # a crash while a row was written
    rest = list(recordings.generate(config))
    recordings._rows.cache_clear()
    assert len(rest) == 3
    assert not list(recordings.generate(config))
    rows = {split: read_manifest(config.out / split) for split in recordings.SPLITS}
    assert [len(r) for r in rows.values()] == [2, 2]
    assert first["title"] in {row["title"] for row in rows[first["split"]]}
    assert {row["artist"] for row in rows["real-test"]} == {"Bob"}


def test_a_clip_is_what_its_row_says(config):
    list(recordings.generate(config))
    clips = prepared(config.out / "real-train")
    assert len(clips) == 2
    for clip in clips:
        assert clip.row["kind"] == "recording"
        assert len(clip.samples()) == round(clip.row["duration"] * 16_000)
        count, labels = int(clip.row["duration"] / LABEL_S), clip.labels()
        assert labels["tags"].shape == (count, len(TAG_NAMES))
        assert labels["vocals"].shape == (count,)
        assert len(clip.token_labels()["vocals"]) == count // LABELS_PER_TOKEN
        assert abs(len(clip.mel()) * MINI_MEL.hop_length - len(clip.samples())) <= MINI_MEL.hop_length
        assert "chords" not in clip.row  # a single tone has none


def test_another_plan_is_refused(config):
    list(recordings.generate(config))
    recordings._rows.cache_clear()
    for folder in (config.debs / "unpacked").iterdir():
        (folder / "usr/share/music/song.ogg").rename(folder / "usr/share/music/z.ogg")
    with pytest.raises(ModelError, match="another track"):
        list(recordings.generate(config))


def test_packages_that_cannot_be_had_are_named(config, monkeypatch):
    (config.debs / "unpacked/two/.ready").unlink()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"two.*no apt-get"):
        next(recordings.generate(config))


def test_music_in_archives_is_found(tmp_path):
    with zipfile.ZipFile(tmp_path / "music.pk3", "w") as archive:
        archive.writestr("music/song.ogg", b"OggS")
        archive.writestr("textures/a.png", b"x")
    recordings.open_archives(tmp_path)
    assert [p for p in tmp_path.glob("music.pk3.d/**/*") if p.is_file()] == [tmp_path / "music.pk3.d/music/song.ogg"]
