"""Laws of where results go: which songs, in which order, to one stream or to a file for each song."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from urllib.parse import unquote

import pytest

from mflamingo_cli import cli, files
from mflamingo_cli.errors import StoppedError
from tests.test_cli import SHORT, one_sentence, records, run

pytestmark = pytest.mark.slow


@pytest.fixture
def library(tmp_path, tmp_song):
    """Music/one.wav, Music/disc 2/one.wav, and Music/broken.flac."""
    music = tmp_path / "Music"
    (music / "disc 2").mkdir(parents=True)
    for name in ("one.wav", "disc 2/one.wav"):
        shutil.copy(tmp_song, music / name)
    (music / "broken.flac").write_text("not audio")
    return music


def below(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_mirrors_the_songs_own(tiny_model, library, tmp_path):
    done = run("analyze", "-m", tiny_model, *SHORT, "-o", f"{tmp_path}/out/", library)
    assert (done.returncode, done.stdout) == (3, b"")
    names = ["broken.flac.mflamingo.json", "disc 2/one.wav.mflamingo.json", "one.wav.mflamingo.json"]
    assert below(tmp_path / "out") == names
    loaded = [json.loads((tmp_path / "out" / name).read_text()) for name in names]
    assert [record["status"] for record in loaded] == ["error", "ok", "ok"]
    assert loaded[1]["path"] == str(library / "disc 2/one.wav")


def test_several_inputs_are_mirrored_from_the_folder_they_share(tiny_model, library, tmp_path):
    (tmp_path / "out").mkdir()  # a folder that exists needs no slash
    arguments = ("-f", "beats", "-o", "out", "Music/disc 2", "Music/one.wav")
    done = run("analyze", "-m", tiny_model, *SHORT, *arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 0, done.stderr
    assert below(tmp_path / "out") == ["disc 2/one.wav.mflamingo.beats", "one.wav.mflamingo.beats"]
    done = run("analyze", "-q", "-m", tiny_model, *SHORT, "-o", f"{tmp_path}/out/", "-", input=(library / "one.wav").read_bytes())
    assert "stdin.mflamingo.json" in below(tmp_path / "out")


def test_sidecars_lie_beside_the_songs_and_touch_nothing_else(tiny_model, library):
    before = {name: (library / name).read_bytes() for name in below(library)}
    taken = library / "one.wav.mflamingo.json"
    taken.symlink_to("disc 2/one.wav")
    done = run("analyze", "-q", "-m", tiny_model, *SHORT, "--sidecar", library / "disc 2", library / "one.wav")
    assert done.returncode == 3
    assert "left untouched" in one_sentence(done.stderr)
    assert (library / "disc 2/one.wav.mflamingo.json").is_file()
    assert {name: (library / name).read_bytes() for name in before} == before


def test_pages_in_a_folder_have_an_index(tiny_model, library, tmp_path):
    out = tmp_path / "out"
    done = run("analyze", "-q", "-m", tiny_model, *SHORT, "-f", "html", "-o", f"{out}/", library)
    assert done.returncode == 3
    pages = ["broken.flac.mflamingo.html", "disc 2/one.wav.mflamingo.html", "one.wav.mflamingo.html"]
    assert below(out) == sorted([*pages, "index.html"])
    index = (out / "index.html").read_text()
    assert sorted(unquote(link) for link in re.findall(r'<a href="([^"]+)"', index)) == pages
    run("analyze", "-q", "-m", tiny_model, *SHORT, "-f", "html", "-o", f"{out}/", "--shard", "1/2", library)
    assert (out / "index.html").read_text() == index, "a part of the songs has none"
    done = run("analyze", "-q", "-m", tiny_model, *SHORT, "-f", "html", "-o", "/proc/out/", library)
    assert done.returncode == 2
    assert one_sentence(done.stderr).startswith("mflamingo: /proc/out: ")


def test_an_output_is_no_song(tiny_model, library, tmp_path):
    content = (library / "one.wav").read_bytes()
    for output, words in ((library / "one.wav", "choose another"), (tmp_path / "new.FLAC", "the name of an audio file")):
        for shard in ("1/2", "2/2"):
            done = run("analyze", "-q", "-m", tiny_model, *SHORT, "--shard", shard, "-o", output, library)
            assert done.returncode == 2
            assert words in one_sentence(done.stderr)
    assert (library / "one.wav").read_bytes() == content


def test_a_full_disk_stops_a_run_of_many_files(tiny_model, library, tmp_path, monkeypatch):
    def full(draft) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Draft, "publish", full)
    with pytest.raises(StoppedError, match=r"No space left on device; \d done, \d left; run again to resume"):
        cli.app(["analyze", "-q", "-m", str(tiny_model), *SHORT, "-o", f"{tmp_path}/out/", str(library)], standalone_mode=False)
    assert below(tmp_path / "out") == []


def test_a_failure_replaces_no_result(tiny_model, library):
    song, sidecar = library / "one.wav", library / "one.wav.mflamingo.json"
    assert run("analyze", "-m", tiny_model, *SHORT, "--sidecar", song).returncode == 0
    good = sidecar.read_bytes()
    song.write_text("no longer audio")
    assert run("analyze", "-m", tiny_model, *SHORT, "--sidecar", song).returncode == 1
    assert sidecar.read_bytes() == good


def test_where_and_sort_choose_records_but_a_failure_is_still_said(tiny_model, library):
    done = run("analyze", "--json", "-m", tiny_model, *SHORT, "--where", "status = ok", "--sort", "-path", library)
    assert done.returncode == 3
    assert [record["path"] for record in records(done)] == [str(library / "one.wav"), str(library / "disc 2/one.wav")]
    assert "broken.flac" in one_sentence(done.stderr)
    done = run("analyze", "-q", "-f", "m3u", "-m", tiny_model, *SHORT, "--where", "duration > 100", library / "one.wav")
    assert (done.returncode, done.stdout) == (0, b"#EXTM3U\n")


def test_a_playlist_that_was_written_can_be_analysed(tiny_model, library, tmp_path):
    target = library / "list.m3u"
    assert run("analyze", "-m", tiny_model, *SHORT, "-f", "m3u", "-o", target, library).returncode == 3
    assert target.read_text().splitlines()[2::2] == ["one.wav", "disc 2/one.wav"]
    done = run("analyze", "-n", "-m", tiny_model, target)
    assert done.stdout.decode().split("\n")[:2] == [str(library / "one.wav"), str(library / "disc 2/one.wav")]


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("analyze", ("-f", "lab", "a.wav", "b.wav"), "-o FOLDER/"),
        ("caption", ("-f", "beats", "a.wav"), "needs what `analyze` measures"),
        ("analyze", ("-f", "m3u", "-o", "out/", "a.wav"), "name that file"),
        ("analyze", ("-f", "m3u", "-"), "a song on stdin has none"),
        ("analyze", ("-f", "rekordbox", "-"), "a song on stdin has none"),
        ("analyze", ("-f", "traktor", "-o", "out/", "a.wav"), "name that file"),
        ("caption", ("-f", "rekordbox", "a.wav"), "writes only text"),
        ("analyze", ("--sidecar", "-"), "no folder"),
        ("analyze", ("--sidecar", "-o", "x", "a.wav"), "leave --output out"),
        ("analyze", ("--fields", "bpm", "a.wav"), "csv, json, markdown, tsv"),
        ("analyze", ("--json", "--fields", "tempo.bmp", "a.wav"), "did you mean tempo.bpm?"),
        ("analyze", ("--where", "bpm >", "a.wav"), "--where: "),
        ("analyze", ("--sort", "bmp", "a.wav"), "did you mean bpm?"),
    ],
)
def test_what_cannot_be_written_is_said_before_any_song_is_decoded(tiny_model, command, arguments, words):
    done = run(command, "-m", tiny_model, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in one_sentence(done.stderr)
