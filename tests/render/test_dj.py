"""Laws of collections for DJ programs: read back by pyrekordbox and traktor-nml-utils, and MP3s placed where the programs hear them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from mflamingo_cli.core import audio
from mflamingo_cli.render.dj.mp3 import FirstFrame, crc16, rekordbox_shift_s, traktor_shift_s
from mflamingo_cli.schema import KeyInfo, MeterInfo, Segment, SongTags, TempoInfo
from tests.render.test_formats import FAILED, SONG, written

ONE_SAMPLE_S = 1 / 16_000  # of the sound that we measure
BEATS = tuple((round(0.25 + n * 0.5, 3), n % 4 + 1) for n in range(128))
TAGGED = dataclasses.replace(
    SONG,
    path='sets/Tom & "Jerry" #1 caf\u00e9.mp3',
    audio=dataclasses.replace(SONG.audio, duration=64.4, tags=SongTags("Up <&> Away", "J\u00f8rn", "One", genre="House")),
    result=dataclasses.replace(
        SONG.result,
        tempo=TempoInfo(120.02, (), "measured"),
        key=KeyInfo("Eb", "minor", "Eb minor", "2A", "7m", "Ebm", "measured"),
        meter=MeterInfo("4/4", "measured"),
        beats=BEATS,
        sections=(Segment(0.0, 16.26, "A"), Segment(16.26, 40.0, "B"), Segment(40.0, 64.4, "A")),
    ),
)


def tracks(text: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(text).findall("COLLECTION/TRACK")


def test_rekordbox_is_told_grid_key_and_cues():
    text = written("rekordbox", TAGGED, FAILED)
    assert text.isascii()
    [track] = tracks(text)
    assert {name: track.get(name) for name in ("Name", "Artist", "Album", "Genre", "Tonality", "AverageBpm", "TotalTime")} == {
        "Name": "Up <&> Away", "Artist": "J\u00f8rn", "Album": "One", "Genre": "House", "Tonality": "Ebm", "AverageBpm": "120.00",
        "TotalTime": "64",
    }  # fmt: skip
    assert unquote(track.get("Location", "")) == "file://localhost" + os.path.abspath(TAGGED.path)
    [tempo] = track.findall("TEMPO")
    assert dict(tempo.attrib) == {"Inizio": "0.250", "Bpm": "120.00", "Metro": "4/4", "Battito": "1"}
    cues = [(cue.get("Name"), cue.get("Start"), cue.get("Num")) for cue in track.findall("POSITION_MARK")]
    assert cues == [("A", "0.000", "-1"), ("B", "16.250", "-1"), ("A", "40.000", "-1")]  # on the grid where it is near


def test_pyrekordbox_reads_what_we_write(tmp_path):
    rbxml = pytest.importorskip("pyrekordbox.rbxml")
    (tmp_path / "collection.xml").write_text(written("rekordbox", TAGGED, dataclasses.replace(TAGGED, path="b.flac")), encoding="ascii")
    read = rbxml.RekordboxXml(str(tmp_path / "collection.xml"))
    assert read.num_tracks == 2
    track = read.get_track(0)
    assert (track.Name, track.Tonality, track.AverageBpm) == ("Up <&> Away", "Ebm", 120.0)
    assert [(tempo.Inizio, tempo.Bpm, tempo.Battito) for tempo in track.tempos] == [(0.25, 120.0, 1)]
    assert [(mark.Name, mark.Type, mark.Start, mark.Num) for mark in track.marks][1] == ("B", "cue", 16.25, -1)
    playlist = read.get_playlist("mflamingo")
    assert playlist.get_tracks() == [1, 2]


def test_a_change_of_tempo_is_two_tempi():
    later = tuple((round(BEATS[-1][0] + n * 60 / 140, 3), n % 4 + 1) for n in range(1, 97))
    changed = dataclasses.replace(TAGGED, result=dataclasses.replace(TAGGED.result, beats=BEATS + later))
    [track] = tracks(written("rekordbox", changed))
    bpm = [float(tempo.get("Bpm", "")) for tempo in track.findall("TEMPO")]
    assert (bpm[0], bpm[-1]) == (120.0, 140.0)


def test_traktor_nml_utils_reads_what_we_write(tmp_path):
    nml = pytest.importorskip("traktor_nml_utils")
    (tmp_path / "list.nml").write_text(written("traktor", TAGGED, FAILED), encoding="ascii")
    read = nml.TraktorCollection(path=tmp_path / "list.nml").nml
    [entry] = read.collection.entry
    assert (entry.title, entry.artist, entry.album.title) == ("Up <&> Away", "J\u00f8rn", "One")
    assert entry.location.dir == "/:" + "/:".join(filter(None, os.path.dirname(os.path.abspath(TAGGED.path)).split("/"))) + "/:"
    assert entry.location.file == os.path.basename(TAGGED.path)
    assert entry.tempo.bpm == pytest.approx(120, abs=0.01)
    assert (entry.musical_key.value_attribute, entry.info.key) == (15, "7m")
    grid, *cues = entry.cue_v2
    assert (grid.type, grid.start, grid.grid.bpm) == (4, pytest.approx(250, abs=1), pytest.approx(120, abs=0.01))
    assert [(cue.type, cue.name, round(cue.start)) for cue in cues] == [(0, "A", 0), (0, "B", 16250), (0, "A", 40000)]


def test_traktor_s_grid_begins_with_a_bar_and_its_structure_is_the_published_one():
    beats = tuple((time, place % 4 + 1) for time, place in BEATS)  # the first beat is the second of a bar
    root = ElementTree.fromstring(written("traktor", dataclasses.replace(TAGGED, result=dataclasses.replace(TAGGED.result, beats=beats))))
    assert (root.tag, root.get("VERSION"), root.find("COLLECTION").get("ENTRIES")) == ("NML", "19", "1")
    entry = root.find("COLLECTION/ENTRY")
    assert [cue.get("TYPE") for cue in entry.findall("CUE_V2")] == ["4", "0", "0", "0"]
    assert float(entry.find("CUE_V2").get("START")) == pytest.approx(1750, abs=1)
    place = entry.find("LOCATION")
    assert root.find("PLAYLISTS//PRIMARYKEY").get("KEY") == f"{place.get('VOLUME')}{place.get('DIR')}{place.get('FILE')}"


@pytest.mark.parametrize(("path", "volume", "folder"), [("/Volumes/USB/a/b.mp3", "USB", "/:a/:"), ("/a/b.mp3", "Macintosh HD", "/:a/:")])
def test_traktor_names_volumes_as_macos_does(path, volume, folder):
    place = ElementTree.fromstring(written("traktor", dataclasses.replace(TAGGED, path=path))).find("COLLECTION/ENTRY/LOCATION")
    assert (place.get("VOLUME"), place.get("DIR"), place.get("FILE")) == (volume, folder, "b.mp3")


def test_a_song_of_which_little_is_known_is_in_the_collection():
    nothing = dataclasses.replace(TAGGED.result, tempo=TempoInfo(), key=KeyInfo(), beats=(), sections=())
    unknown = dataclasses.replace(TAGGED, result=nothing)
    [track] = tracks(written("rekordbox", unknown))
    assert len(track) == 0
    assert track.get("AverageBpm") is track.get("Tonality") is None
    assert ElementTree.fromstring(written("traktor", unknown)).find("COLLECTION/ENTRY/TEMPO") is None


# --- where an MP3 begins ---------------------------------------------------------------------------------------------------

CLICK_S = 0.5


@pytest.fixture(scope="module")
def mp3s(tmp_path_factory) -> dict[str, Path]:
    """One click as MP3: with the first frame that ffmpeg writes, with one as LAME writes it, and with none."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    folder = tmp_path_factory.mktemp("mp3")
    samples = np.zeros(44_100 * 2, np.float32)
    samples[int(CLICK_S * 44_100)] = 0.9
    soundfile.write(folder / "click.wav", samples, 44_100)
    for name, options in (("ffmpeg", ()), ("none", ("-write_xing", "0"))):
        command = ["ffmpeg", "-v", "error", "-i", folder / "click.wav", "-b:a", "320k", *options, folder / f"{name}.mp3"]
        subprocess.run(command, check=True)
    data = bytearray((folder / "ffmpeg.mp3").read_bytes())
    encoder = data.index(b"Info") + 120
    data[encoder : encoder + 9] = b"LAME3.100"
    begin = data.index(b"Info") - 21  # mono
    data[encoder + 34 : encoder + 36] = crc16(bytes(data[begin : encoder + 34])).to_bytes(2, "big")
    (folder / "lame.mp3").write_bytes(data)
    data[encoder + 34] ^= 0xFF
    (folder / "broken.mp3").write_bytes(data)
    return {name: folder / f"{name}.mp3" for name in ("ffmpeg", "none", "lame", "broken")}


def untrimmed_s(path: Path) -> float:
    """Where the click is for a decoder that leaves nothing out but the first frame."""
    command = ["ffmpeg", "-v", "error", "-flags2", "+skip_manual", "-i", path, "-f", "f32le", "-"]
    return float(np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32).argmax()) / 44_100


@pytest.mark.parametrize("name", ["ffmpeg", "none", "lame", "broken"])
def test_what_our_decoder_leaves_out_is_what_the_shift_adds(mp3s, name):
    path, frame = mp3s[name], FirstFrame.of(str(mp3s[name]))
    ours = float(audio.load(path).samples.argmax()) / 16_000
    assert untrimmed_s(path) - ours == pytest.approx(frame.trimmed_s if frame else 0.0, abs=ONE_SAMPLE_S)


def test_each_program_counts_from_where_it_begins(mp3s):
    trimmed, frame = 1105 / 44_100, 1152 / 44_100
    shifts = {name: (rekordbox_shift_s(str(path)), traktor_shift_s(str(path))) for name, path in mp3s.items()}
    assert shifts == {
        "ffmpeg": (pytest.approx(trimmed), pytest.approx(trimmed + frame)),
        "lame": (pytest.approx(trimmed + frame), pytest.approx(trimmed + frame)),
        "broken": (pytest.approx(trimmed), pytest.approx(trimmed + frame)),
        "none": (0.0, 0.0),
    }
    assert rekordbox_shift_s("no such file") == rekordbox_shift_s("tests/data/ocean.opus") == 0.0


def test_the_grid_of_an_mp3_is_where_rekordbox_hears_it(mp3s):
    [track] = tracks(written("rekordbox", dataclasses.replace(TAGGED, path=str(mp3s["lame"]))))
    assert float(track.find("TEMPO").get("Inizio")) == pytest.approx(0.25 + (1105 + 1152) / 44_100, abs=0.001)
    assert track.find("POSITION_MARK").get("Start") == "0.051"


def test_a_checksum_is_the_published_one():
    assert crc16(b"123456789") == 0xBB3D  # the check value of CRC-16/ARC
