"""Laws of a file's own tags: every container's title arrives as plain text, with mutagen and without; no tag costs a song."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mflamingo_cli import pipeline, requests
from mflamingo_cli.core import tags
from mflamingo_cli.core.audio import load
from mflamingo_cli.core.decode import id3
from mflamingo_cli.errors import MFlamingoError
from mflamingo_cli.schema import SongTags
from tests.test_pipeline import ANSWERS, Parrot

RATE_HZ = 44_100
BY_SOUNDFILE = ("flac", "ogg", "wav", "mp3", "caf", "opus")
BY_FFMPEG = ("m4a", "wma", "wv", "mka", "aiff")
INFLATED_BYTES = 64 << 20
HELD_BYTES = 8 << 20  # of memory: the tag itself, read more than once
CHUNKS_LIMIT_S = 10.0
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")


def sound(seconds: float = 1.0) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * 220.0 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory) -> Path:
    """A song with title, artist and album in every container."""
    folder = tmp_path_factory.mktemp("tagged")
    soundfile.write(folder / "bare.wav", sound(), RATE_HZ)
    words = [part for field in ("title=Tïtle ♥", "artist=Somebody", "album=Some Album") for part in ("-metadata", field)]
    for suffix in BY_SOUNDFILE + BY_FFMPEG:
        own = ("-write_id3v2", "1") if suffix == "aiff" else ()
        command = ["ffmpeg", "-v", "error", "-i", folder / "bare.wav", *words, *own, folder / f"song.{suffix}"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return folder


@pytest.fixture
def without_mutagen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "reader", lambda: "")


@needs_ffmpeg
@pytest.mark.parametrize("suffix", BY_SOUNDFILE + BY_FFMPEG)
def test_title_artist_and_album_are_read_from_every_container(tagged: Path, suffix: str) -> None:
    pytest.importorskip("mutagen")
    found = load(tagged / f"song.{suffix}").source.tags
    assert found is not None
    assert (found.title, found.artist, found.album) == ("Tïtle ♥", "Somebody", "Some Album")


@needs_ffmpeg
@pytest.mark.usefixtures("without_mutagen")
@pytest.mark.parametrize("suffix", [*BY_SOUNDFILE, "m4a", "wma", "wv", "mka"])
def test_without_mutagen_the_decoder_is_asked(tagged: Path, suffix: str) -> None:
    found = load(tagged / f"song.{suffix}").source.tags
    assert found is not None
    assert (found.title, found.artist, found.album) == ("Tïtle ♥", "Somebody", "Some Album")


def test_a_file_without_tags_has_none(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound(), RATE_HZ)
    assert load(tmp_path / "a.wav").source.tags is None


def test_stdin_has_the_tags_of_the_file_that_came(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE_HZ, 1) as file:
        file.title, file.artist = "One", "Two"
        file.write(sound())
    with (tmp_path / "a.flac").open("rb") as stream:
        assert load(stream).source.tags == SongTags(title="One", artist="Two")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("  two\r\nlines\t ", "two lines"),
        ("\x1b]52;c;ZXZpbA==\x07x", "]52;c;ZXZpbA==x"),
        ("a\u202eb", "ab"),
        ("e\u0301", "é"),
        ("x" * 10_000, "x" * tags.MAX_CHARS),
        (["One", "", "Two"], "One; Two"),
        ([(3, 10)], "3/10"),
        ([(3, 0)], "3"),
        (" \t\x00", None),
        ([], None),
        (b"\0\1", None),
    ],
)
def test_a_value_is_one_line_of_plain_text_or_none(tmp_path: Path, written: object, read: str | None) -> None:
    (tmp_path / "none").touch()
    found = tags.read(tmp_path / "none", {"title": written})[0]
    assert (found and found.title) == read


def test_several_artists_are_all_named_and_old_latin_1_is_read(tmp_path: Path) -> None:
    mutagen = pytest.importorskip("mutagen")
    soundfile.write(tmp_path / "a.flac", sound(), RATE_HZ)
    file = mutagen.File(tmp_path / "a.flac")
    file["ARTIST"] = ["One", "Two"]
    file.save()
    assert load(tmp_path / "a.flac").source.tags == SongTags(artist="One; Two")
    soundfile.write(tmp_path / "a.mp3", sound(), RATE_HZ, format="MP3", subtype="MPEG_LAYER_III")
    with (tmp_path / "a.mp3").open("ab") as old:  # ID3v1 (id3.org/ID3v1): fixed widths, no encoding named
        old.write(b"TAG" + "Ünï".encode("latin-1").ljust(30, b"\0") + b"Some".ljust(30) + b"\0" * 30 + b"1999" + b"\0" * 30 + b"\x11")
    found = load(tmp_path / "a.mp3").source.tags
    assert found == SongTags(title="Ünï", artist="Some", date="1999", genre="Rock")


def test_an_id3_chunk_of_a_wav_is_read(tmp_path: Path) -> None:
    mutagen = pytest.importorskip("mutagen")
    soundfile.write(tmp_path / "a.wav", sound(), RATE_HZ)
    file = mutagen.File(tmp_path / "a.wav")
    file.add_tags()
    file.tags.add(mutagen.id3.TIT2(encoding=3, text=["In a chunk"]))
    file.save()
    assert load(tmp_path / "a.wav").source.tags == SongTags(title="In a chunk")


# --- hostile tags --------------------------------------------------------------------------------------------------------


def syncsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def compressed_title(major: int, inflated: bytes) -> bytes:
    """An ID3v2 tag whose title is compressed (id3.org, 2.3.0, sec. 3.3.1; 2.4.0, sec. 4.1.2)."""
    content = len(inflated).to_bytes(4, "big") + zlib.compress(inflated, 9)
    size, flags = (len(content).to_bytes(4, "big"), b"\x00\x80") if major == 3 else (syncsafe(len(content)), b"\x00\x09")
    frame = b"TIT2" + size + flags + content
    return b"ID3" + bytes([major, 0, 0]) + syncsafe(len(frame)) + frame


@pytest.mark.parametrize("major", [3, 4])
def test_a_title_that_inflates_is_not_read(tmp_path: Path, major: int) -> None:
    import tracemalloc

    pytest.importorskip("mutagen")
    (tmp_path / "a.mp3").write_bytes(compressed_title(major, b"\0" + b"a" * INFLATED_BYTES) + bytes(4096))
    tags.read(tmp_path / "none", {})  # mutagen is imported
    tracemalloc.start()
    try:
        found, [note] = tags.read(tmp_path / "a.mp3", {})
        assert (found, note) == (None, id3.unread("compressed, which no common program can read"))
        assert tracemalloc.get_traced_memory()[1] < HELD_BYTES
    finally:
        tracemalloc.stop()


@needs_ffmpeg
@pytest.mark.parametrize("suffix", BY_SOUNDFILE + BY_FFMPEG)
def test_no_bytes_in_tags_cost_a_song(tagged: Path, tmp_path: Path, suffix: str) -> None:
    """Mutated bytes around the title: the tags are read or not, nothing is raised and nothing stays open."""
    whole, generator = (tagged / f"song.{suffix}").read_bytes(), np.random.default_rng(0)
    at = whole.find("Tïtle".encode("utf-16-le" if suffix == "wma" else "utf-8"))
    region = np.arange(max(0, at - 200), min(len(whole), at + 200))
    for _ in range(100):
        mutated = bytearray(whole)
        for place in generator.choice(region, 4):
            mutated[place] = generator.integers(256)
        (tmp_path / "a").write_bytes(mutated)
        found, _ = tags.read(tmp_path / "a", {})
        assert found is None or all(value is None or value == value.strip() != "" for value in vars(found).values())


# --- tags change nothing else ------------------------------------------------------------------------------------------


def test_tags_reach_the_record_and_neither_the_model_nor_the_name_of_the_sound(tmp_path: Path) -> None:
    paths = [tmp_path / "short.flac", tmp_path / "long.flac"]
    for path, title in zip(paths, ("x", "Fast techno in F minor at 174 BPM"), strict=True):
        with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
            file.comment = title
            file.title = title
            file.write(sound(4.0))
    records, asked = [], []
    for path in paths:
        parrot = Parrot({**ANSWERS, "ask": "x"}, grounded=True)
        for request in (requests.analyze_request(), requests.ask_request("Which key?")):
            *_, record = pipeline.run(str(path), parrot, request)
            assert not isinstance(record, MFlamingoError)
            records.append(record)
        asked.append(parrot.calls)
    assert [record.audio.tags.title for record in records] == ["x", "x", *["Fast techno in F minor at 174 BPM"] * 2]
    assert asked[0] == asked[1] != []
    assert len({record.audio_id for record in records}) == 1


def test_many_names_take_no_time(tmp_path: Path) -> None:
    """Vorbis comments are a list, in which mutagen sought each of 20,000 names from its beginning: 15 s."""
    soundfile.write(tmp_path / "a.flac", sound(), RATE_HZ)
    data = (tmp_path / "a.flac").read_bytes()
    items = [f"name{number}=x".encode() for number in range(20_000)] + [b"TITLE=One", b"title=Two"]
    comments = struct.pack("<II", 0, len(items)) + b"".join(struct.pack("<I", len(item)) + item for item in items)
    sound_at = data.index(b"\xff\xf8")
    head = data[:4] + b"\0" + data[5:42] + b"\x84" + len(comments).to_bytes(3, "big")  # streaminfo, and comments as the last block
    (tmp_path / "a.flac").write_bytes(head + comments + data[sound_at:])
    begun = time.process_time()
    assert tags.read(tmp_path / "a.flac", {}) == (SongTags(title="One; Two"), ())
    assert time.process_time() - begun < 2.0


# --- tags that no real file has ----------------------------------------------------------------------------------------

MANY = 20_000  # frames and values; mutagen took 30 s for as many titles, and libsndfile 3 s for as many texts
BOUND_S = 2.0  # of processor time; a tenth was measured


def id3_tag(name: bytes, content: bytes, n_frames: int, major: int = 3) -> bytes:
    size = syncsafe(len(content)) if major == 4 else len(content).to_bytes(4, "big")
    frames = (name + size + bytes(2) + content) * n_frames
    return b"ID3" + bytes([major, 0, 0]) + syncsafe(len(frames)) + frames


def in_chunk(whole: bytes, name: bytes, content: bytes) -> bytes:
    """A file of chunks with another one at its end."""
    order = "big" if whole.startswith(b"FORM") else "little"
    chunk = name + len(content).to_bytes(4, order) + content + b"\0" * (len(content) % 2)
    return whole[:4] + (len(whole) - 8 + len(chunk)).to_bytes(4, order) + whole[8:] + chunk


TOO_LARGE = {  # what is in front of, or in, a song
    "texts": lambda whole: id3_tag(b"TXXX", b"\0key\0value", MANY) + whole("mp3"),
    "titles": lambda whole: id3_tag(b"TIT2", b"\0title", MANY, 4) + whole("mp3"),
    "private frames": lambda whole: id3_tag(b"PRIV", b"x\0y", MANY) + whole("mp3"),
    "values of two titles": lambda whole: id3_tag(b"TIT2", b"\3" + b"a\0" * MANY, 2, 4) + whole("mp3"),
    "values in UTF-16": lambda whole: id3_tag(b"TPE1", b"\1\xff\xfe" + b"a\0\0\0" * MANY, 1) + whole("mp3"),
    "frames of a chapter": lambda whole: id3_tag(b"CHAP", b"x\0" + bytes(16) + (b"TIT2\0\0\0\2\0\0\0x") * MANY, 1) + whole("mp3"),
    "unsynchronised": lambda whole: (t := id3_tag(b"TXXX", b"\0key\0value", MANY))[:5] + b"\x80" + t[6:] + whole("mp3"),
    "two tags": lambda whole: id3_tag(b"TIT2", b"\0one", 1) + id3_tag(b"TXXX", b"\0key\0value", MANY) + whole("mp3"),
    "in front of FLAC": lambda whole: id3_tag(b"TXXX", b"\0key\0value", MANY) + whole("flac"),
    "in a WAV": lambda whole: in_chunk(whole("wav"), b"id3 ", id3_tag(b"TXXX", b"\0key\0value", MANY)),
    "in an AIFF": lambda whole: in_chunk(whole("aiff"), b"ID3 ", id3_tag(b"TXXX", b"\0key\0value", MANY)),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_tags_that_no_real_file_has_are_not_read_and_cost_no_time(tmp_path: Path, case: str) -> None:
    pytest.importorskip("mutagen")

    def whole(suffix: str) -> bytes:
        kinds = {"mp3": ("MP3", "MPEG_LAYER_III"), "flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16"), "aiff": ("AIFF", "PCM_16")}
        form, subtype = kinds[suffix]
        soundfile.write(tmp_path / "made", sound(), RATE_HZ, format=form, subtype=subtype)
        return (tmp_path / "made").read_bytes()

    (tmp_path / "a").write_bytes(TOO_LARGE[case](whole))
    begun = time.process_time()
    audio = load(tmp_path / "a")
    assert time.process_time() - begun < BOUND_S
    assert (round(audio.duration_s, 2), audio.damaged) == (1.0, False)
    if case != "two tags":  # mutagen reads the first only
        assert (audio.source.tags, audio.warnings) == (None, (id3.unread(id3.LARGE),))


@pytest.mark.parametrize("major", [3, 4])
def test_as_many_frames_as_the_longest_podcast_has_are_read(tmp_path: Path, major: int) -> None:
    """Five hundred chapters with a title and a picture of 20 kB each."""
    pytest.importorskip("mutagen")

    def frame(name: bytes, content: bytes) -> bytes:
        return name + (syncsafe(len(content)) if major == 4 else len(content).to_bytes(4, "big")) + bytes(2) + content

    picture = frame(b"APIC", b"\0image/jpeg\0\0\0" + np.random.default_rng(0).bytes(20_000))
    chapters = [frame(b"CHAP", b"ch%d\0" % n + bytes(16) + frame(b"TIT2", b"\0a title") + picture) for n in range(500)]
    frames = frame(b"TIT2", b"\0The title") + b"".join(chapters)
    soundfile.write(tmp_path / "a.mp3", sound(), RATE_HZ, format="MP3", subtype="MPEG_LAYER_III")
    whole = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(b"ID3" + bytes([major, 0, 0]) + syncsafe(len(frames)) + frames + whole)
    audio = load(tmp_path / "a.mp3")
    assert audio.source.tags is not None
    assert (audio.source.tags.title, audio.warnings) == ("The title", ())


AIFF_CHUNKS = 500_000


@pytest.mark.slow
def test_a_file_of_small_chunks_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Tags of an AIFF of 500,000 texts took more than 15 s."""
    soundfile.write(tmp_path / "a.aiff", sound(), RATE_HZ)
    head, chunks = (tmp_path / "a.aiff").read_bytes(), b"ANNO\0\0\0\2ab" * AIFF_CHUNKS
    size = struct.pack(">I", len(head) - 8 + len(chunks))
    (tmp_path / "a.aiff").write_bytes(head[:4] + size + head[8:12] + chunks + head[12:])
    begun = time.process_time()
    found, notes = tags.read(tmp_path / "a.aiff", {"title": "A"})
    assert (found and found.title, notes) == ("A", (id3.unread(id3.LARGE),))
    assert time.process_time() - begun < CHUNKS_LIMIT_S


@pytest.mark.parametrize("at", range(4))
def test_ordinary_tags_of_2_4_are_read_whatever_their_texts_hold(at: int) -> None:
    """Read with sizes of eight bits a byte, a long text leads into the middle of the next one, where capitals look like a frame."""
    lyrics = b"\3eng\0" + b"x" * at + b"TOLD" * 100
    frames = [(b"TIT2", b"\3A title"), (b"PRIV", b"\0" * 150), (b"USLT", lyrics), (b"TPE1", b"\3An artist"), (b"TALB", b"\3An album")]
    tag = b"".join(name + syncsafe(len(content)) + bytes(2) + content for name, content in frames) + bytes(8192)
    assert id3.refusal(b"ID3\4\0\0" + syncsafe(len(tag)), tag) is None


def test_sizes_as_itunes_wrote_them_hide_no_values() -> None:
    tag = (b"TIT2" + (200).to_bytes(4, "big") + bytes(2) + b"\3" + b"a\0" * 99 + b"a") * 100
    assert id3.refusal(b"ID3\4\0\0" + syncsafe(len(tag)), tag) == id3.LARGE
