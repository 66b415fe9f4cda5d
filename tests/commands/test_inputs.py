"""Laws of what is named: the literal name first, then what other programs write for it; nothing in a list costs its other entries."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from unicodedata import normalize
from urllib.parse import quote

import pytest

from mflamingo_cli.commands import inputs, playlists
from mflamingo_cli.commands.inputs import NoInputError, collect
from mflamingo_cli.core import remote
from mflamingo_cli.errors import UsageError

SONGS = ("Sub Dir/a b.flac", "Über.flac", normalize("NFD", "café/naïve.flac"), "100%.flac", "кино.flac", "東京ソ.flac")
LONGEST_S = 5.0  # of any list here: it takes milliseconds


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "Music"
    for name in SONGS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(playlist: Path, content: bytes | str) -> list[str]:
    """What a playlist of this content leads to, relative to its folder."""
    playlist.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [os.path.relpath(song, playlist.parent) for song in collect([str(playlist)])]


# --- how other programs write a name -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SONGS)
@pytest.mark.parametrize("written", [str, quote, lambda name: name.replace("/", "\\"), lambda name: normalize("NFC", name)])
def test_vlc_windows_and_macos_name_the_song_that_is_there(music: Path, name: str, written) -> None:
    assert listed(music / "list.m3u8", written(name)) == [name]


@pytest.mark.parametrize(
    ("name", "page"),
    [(SONGS[1], "cp1252"), (SONGS[4], "cp1251"), (SONGS[5], "cp932"), (SONGS[1], "mac_roman"), (SONGS[5], "gb18030")],
)
def test_a_code_page_of_windows_is_read(music: Path, name: str, page: str) -> None:
    assert listed(music / "list.m3u", f"#EXTM3U\r\n{name}\r\n".encode(page)) == [name]
    assert listed(music / "list.m3u", quote(name.encode(page))) == [name]


@pytest.mark.parametrize("written", ["sub dir\\A B.FLAC", "SUB DIR/a b.flac", "C:\\Music\\SUB DIR\\A B.flac"])
def test_a_name_in_other_case_is_the_same_for_windows_and_macos(music: Path, written: str) -> None:
    assert listed(music / "list.m3u", written) == [SONGS[0]]
    assert listed(music / "list.m3u", "ÜBER.FLAC".encode("cp1252")) == [SONGS[1]]
    (music / "sub dir").mkdir()
    (music / "sub dir" / "A B.FLAC").touch()
    assert listed(music / "list.m3u", "sub dir/A B.FLAC") == ["sub dir/A B.FLAC"]


@pytest.mark.parametrize("start", ["/Volumes/Mac HD/", "/Users/somebody/Music/", "file:///Users/somebody/"])
def test_a_disk_or_home_of_macos_is_looked_for_around_the_playlist(music: Path, start: str) -> None:
    assert listed(music / "list.m3u8", start + SONGS[0]) == [SONGS[0]]


def test_names_that_are_not_utf8_on_the_disk_are_found_by_their_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode("Über.flac".encode("cp1252"))).touch()
    assert [os.fsencode(song) for song in listed(tmp_path / "list.m3u", "Über.flac")] == ["Über.flac".encode("cp1252")]


@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://", "file:", "file://my-computer"])
@pytest.mark.parametrize("name", SONGS)
def test_an_address_of_a_file_is_the_file(music: Path, start: str, name: str) -> None:
    assert listed(music / "list.m3u", start + quote(f"{music}/{name}")) == [name]
    assert listed(music / "list.m3u", f"{start}{music}/{name}") == [name]
    assert collect([start + quote(f"{music}/{name}")]) == [f"{music}/{name}"]


@pytest.mark.parametrize(
    "start",
    ["D:\\Music\\", "d:/Music/", "file:///C:/Users/me/Music/", "file://C:/Music/", "\\\\nas\\share\\Music\\", "file://nas/share/Music/"],
)
def test_a_drive_of_windows_is_looked_for_around_the_playlist(music: Path, start: str) -> None:
    (music / "lists").mkdir()
    (music / "lists" / "a b.flac").touch()  # of the same name in the playlist's own folder: the longer end of the path wins
    assert listed(music / "lists" / "list.m3u", f"{start}Sub Dir\\a b.flac") == ["../Sub Dir/a b.flac"]
    assert listed(music / "lists" / "list.m3u", f"{start}gone\\nothing.flac") != ["../Sub Dir/a b.flac"]


def test_the_literal_name_comes_first(music: Path) -> None:
    for name in ("a%20b.flac", "a b.flac", "x\\y.flac", "file:"):
        (music / name).touch()
    assert listed(music / "list.m3u", "a%20b.flac\nx\\y.flac\n") == ["a%20b.flac", "x\\y.flac"]
    composed = normalize("NFC", SONGS[2])
    (music / composed).parent.mkdir()
    (music / composed).touch()
    assert listed(music / "list.m3u", f"{composed}\n{SONGS[2]}") == [composed, SONGS[2]]


def test_names_on_the_command_line_and_in_lists_are_found_alike(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(music)
    written = [quote(SONGS[0]), "Sub Dir\\a b.flac", normalize("NFC", SONGS[2]), f"file://{quote(str(music / SONGS[1]))}"]
    found = [SONGS[0], SONGS[0], SONGS[2], str(music / SONGS[1])]
    assert collect(written) == found
    for content, null in (
        ("\n".join(written).encode(), False),
        ("\r\n".join(written).encode("utf-16"), False),
        ("\0".join(written).encode(), True),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert collect([], "-", null) == found
    assert collect([f"file://{music}/Sub%20Dir"]) == [str(music / SONGS[0])]


# --- kinds of lists ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_ends_and_comments_of_lines(music: Path, encoding: str, end: str) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    text = mark + end.join(["#EXTM3U", "#EXTINF:1,x", "  Sub Dir/a b.flac  ", "", " # a comment", "Über.flac"])
    assert listed(music / "list.m3u8", text.encode(encoding)) == [SONGS[0], SONGS[1]]


def test_a_pls_names_its_files(music: Path) -> None:
    content = (
        "[playlist]\r\nFile1=Sub Dir\\a b.flac\r\nTitle1=File2=x\r\nLength1=3\r\nfile2 = Über.flac\r\nNumberOfEntries=2\r\nVersion=2\r\n"
    )
    assert listed(music / "list.PLS", content.encode("cp1252")) == [SONGS[0], SONGS[1]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_an_xspf_names_the_first_location_of_each_track(music: Path, encoding: str) -> None:
    tracks = f"<track><title>x</title><location> {quote(SONGS[0])} </location><location>y</location></track>"
    tracks += "<track><location>Über.flac</location></track>"
    head = f'<?xml version="1.0" encoding="{encoding}"?><playlist version="1" xmlns="http://xspf.org/ns/0/"><location>z</location>'
    content = f"{head}<trackList>{tracks}<track/></trackList></playlist>".encode(encoding)
    assert listed(music / "list.xspf", content) == [SONGS[0], SONGS[1]]


def test_a_playlist_in_a_playlist_is_one_entry(music: Path) -> None:
    (music / "inner.m3u").write_text("Über.flac\n")
    assert listed(music / "list.m3u", "inner.m3u\n") == ["inner.m3u"]


# --- what cannot be found, and lists made to harm ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry", ["http://radio.example/x", "https://a/b.mp3", "mms://a/b", "rtsp://a/", "s3://bucket/song.mp3", "memory://a/", "icyx://a"]
)
def test_an_address_in_a_playlist_is_a_file_that_is_not_there(music: Path, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(music)
    Path("list.m3u").write_text(f"{entry}\nÜber.flac\n")
    address, song = collect(["list.m3u"])
    assert not remote.is_address(address)
    assert address.endswith(entry)
    assert song == "./Über.flac"


@pytest.mark.parametrize("name", ["missing.flac", "a%20b.flac", "file:///gone.flac", "x\\y", "C:\\x\\y.flac", "ü.flac", "http://a/b.mp3"])
def test_what_is_not_there_stands_as_it_is_written(tmp_path: Path, name: str) -> None:
    [song] = collect([name])
    assert song == name.removeprefix("file://")


def test_a_null_in_an_address_is_in_no_path(tmp_path: Path) -> None:
    (tmp_path / "a.m3u").write_text("file:///a%00b.flac\nx%00.flac\n")
    assert [os.path.basename(song) for song in collect([str(tmp_path / "a.m3u")])] == ["a%00b.flac", "x%00.flac"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:9,\nx.ts\n"),
        ("a.m3u", b"x.flac\0y.flac"),
        ("a.pls", b"\0"),
        ("a.xspf", b"<playlist>"),
        ("a.xspf", b'<?xml version="1.0" encoding="nonsense"?><playlist/>'),
        ("a.xspf", b"\xff\xfe<"),
    ],
)
def test_what_is_no_list_of_songs_stands_for_itself(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert collect([str(tmp_path / name), "other.flac"]) == [str(tmp_path / name), "other.flac"]


def test_an_empty_list_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "a.m3u").write_text("#EXTM3U\n\n")
    with pytest.raises(NoInputError, match=r"no audio files in '.*a\.m3u'"):
        collect([str(tmp_path / "a.m3u")])


def test_a_folder_at_an_address_that_cannot_be_listed_is_one_failure() -> None:
    assert collect(["nosuch://bucket/", "a.flac"]) == ["nosuch://bucket/", "a.flac"]


def xspf(doctype: bytes, entity: bytes) -> bytes:
    return b"<!DOCTYPE p [%s]><playlist><trackList><track><location>&%s;</location></track></trackList></playlist>" % (doctype, entity)


TENFOLD = b"".join(b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 21))
BOMB = xspf(b'<!ENTITY a0 "%s">' % (b"x" * 1000) + TENFOLD, b"a20")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xspf", BOMB),
        ("a.xspf", xspf(b'<!ENTITY e SYSTEM "file:///etc/passwd">', b"e")),
        ("a.xspf", b"<a>" * 100_000),
        ("a.m3u", b"a/" * 100_000),
        ("a.m3u", "ü/".encode() * 100_000),
        ("a.m3u", b"../" * 1000 + "é".encode()),
        ("a.m3u", b"C:" + b"\\x" * 2000),
        ("a.m3u", b"%00%" * 1000),
        ("a.m3u", b"file://" * 1000),
        ("a.m3u", b"\xff\xfe\x00\xd8\x0a\x00" * 100),  # half of a pair of UTF-16
        ("a.m3u", b"\\\\" + b"\xe9\\" * 300),
        ("a.m3u", b"\n".join(b"%d.flac" % i for i in range(10_000))),
        ("a.m3u", b"\n".join(b"\xe9%%20%d.flac" % i for i in range(1000))),
    ],
    ids=range(13),
)
def test_no_list_takes_long_or_raises(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    began = time.monotonic()
    found = collect([str(tmp_path / name)])
    assert time.monotonic() - began < LONGEST_S
    assert found
    assert not any("passwd" in song or "root:" in song for song in found)
    for song in found:
        os.fsencode(song)  # can be asked of the system


def test_a_list_is_read_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playlists, "MAX_BYTES", 100)
    (tmp_path / "a.m3u").write_text("x.flac\n" * 14)
    assert len(collect([str(tmp_path / "a.m3u")])) == 14
    (tmp_path / "a.m3u").write_text("x.flac\n" * 15)
    assert collect([str(tmp_path / "a.m3u")]) == [str(tmp_path / "a.m3u")]


def test_a_list_of_paths_is_read_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/zero has no end."""
    (tmp_path / "list").write_bytes(b"x.flac\n" * 100)
    monkeypatch.setattr(inputs, "LIST_BYTES", 7 * 100)
    assert len(collect([], str(tmp_path / "list"))) == 100
    monkeypatch.setattr(inputs, "LIST_BYTES", 7 * 100 - 1)
    for source in (str(tmp_path / "list"), "/dev/zero"):
        with pytest.raises(UsageError, match="the list is longer than 0 MiB; give it in parts"):
            collect([], source)
