"""Laws of files that other programs look for beside a song: lyrics, training data, AcousticBrainz's names."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest

from mflamingo_cli.commands.results import _Files
from mflamingo_cli.errors import OutputError
from mflamingo_cli.render import WRITERS, Layout
from mflamingo_cli.render.lyrics import beside
from mflamingo_cli.schema import Segment, VocalsInfo
from tests.docs import ROOT
from tests.render.test_dj import TAGGED
from tests.render.test_formats import FAILED, written
from tests.test_cli import one_sentence, run

LRC = "[ti:Up]\n[offset:+500]\n[00:01.50][01:00.00]Hello <00:02.00>there\n[00:04.00]\n[00:12.345]Last\n"
SRT = "1\n00:00:01,500 --> 00:00:04,000\n<i>Hello</i> &amp; goodbye\n\n2\n01:00:12,000 --> 01:00:14,000\nLast\n"
VTT = "WEBVTT\n\n00:01.500 --> 00:04.000 align:start\nHello\n\nNOTE nothing\n\n00:05.000 --> 00:06.000\n<v Ann>Last</v>\n"


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return tmp_path / "a.b.flac"


def record_of(song: Path, **changes):
    return dataclasses.replace(TAGGED, path=str(song), result=dataclasses.replace(TAGGED.result, **changes))


def lay(song: Path, suffix: str, text: str | bytes) -> None:
    song.with_name(song.stem + suffix).write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize(
    ("suffix", "text", "timed"),
    [
        (".lrc", LRC, ((1.0, "Hello <00:02.00>there"), (3.5, ""), (11.845, "Last"), (59.5, "Hello <00:02.00>there"))),
        (".srt", SRT, ((1.5, "Hello & goodbye"), (4.0, ""), (3612.0, "Last"))),
        (".vtt", VTT, ((1.5, "Hello"), (5.0, "Last"))),
        (".txt", "Hello\n\nthere\n", ()),
    ],
)
def test_lyrics_beside_a_song_are_read(song, suffix, text, timed):
    lay(song, suffix, text)
    found = beside(str(song))
    assert found.timed == tuple((pytest.approx(at), words) for at, words in timed)
    assert "<" not in found.plain
    assert found.plain.startswith("Hello")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 99, b"[00:99999", b"\xff\xfe\0", b"[99999999:1]x", b"1\n00:00 --> x", b"x" * (1 << 20 | 1), b"[:]" * 9]
)
@pytest.mark.parametrize("suffix", [".lrc", ".srt", ".vtt", ".txt"])
def test_whatever_lies_there_is_lyrics_or_none(song, suffix, content):
    lay(song, suffix, content)
    found = beside(str(song))
    assert found is None or suffix == ".txt"


def test_an_encoding_of_windows_is_read_too(song):
    lay(song, ".lrc", "[00:01.00]Caf\u00e9".encode("cp1252"))
    assert beside(str(song)).timed == ((1.0, "Caf\u00e9"),)
    lay(song, ".lrc", "[00:01.00]Caf\u00e9".encode("utf-16"))
    assert beside(str(song)).timed == ((1.0, "Caf\u00e9"),)


def test_subtitles_become_lrc_that_reads_back(song):
    lay(song, ".srt", SRT)
    text = written("lrc", record_of(song))
    assert text.splitlines()[:4] == ["[ti:Up <&> Away]", "[ar:J\u00f8rn]", "[al:One]", "[length:01:04]"]
    before = beside(str(song)).timed
    lay(song, ".lrc", text)
    assert beside(str(song)).timed == before
    assert written("lrc", record_of(song)) == text  # what is LRC stays as it is


def test_a_song_without_timed_lyrics_is_said_and_so_is_what_helps(song):
    lay(song, ".txt", "words\n")
    with pytest.raises(OutputError, match=r"no timed lyrics were found beside the song; put them into a\.b\.lrc, a\.b\.srt or a\.b\.vtt"):
        written("lrc", record_of(song))
    assert written("lrc", FAILED) == ""


@pytest.mark.slow
def test_a_file_of_lyrics_is_not_replaced_by_none(tiny_model, tmp_path):
    target = tmp_path / "own.lrc"
    target.write_text("[00:01.00]Mine\n")
    done = run("analyze", "-q", "-m", tiny_model, "-f", "lrc", "-o", target, ROOT / "tests/data/ocean.opus")
    assert done.returncode == 3
    assert "no timed lyrics were found beside the song" in one_sentence(done.stderr)
    assert target.read_text() == "[00:01.00]Mine\n"


# --- training data -----------------------------------------------------------------------------------------------------------


def files(song: Path, record, replaces: bool = False) -> dict[str, str]:
    """What a run with --sidecar leaves beside a song."""
    _Files(WRITERS["acestep"], Layout(), Path, replaces).write(record)
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(song.parent.iterdir())}


def test_a_trainer_finds_annotations_caption_and_lyrics(song):
    lay(song, ".lrc", LRC)
    found = files(song, record_of(song, caption="Warm \u266f strings."))
    assert sorted(found) == ["a.b.caption.txt", "a.b.json", "a.b.lrc", "a.b.lyrics.txt"]
    assert json.loads(found["a.b.json"]) == {"caption": "Warm \u266f strings.", "bpm": 120, "keyscale": "Eb minor", "timesignature": "4"}
    assert found["a.b.caption.txt"] == "Warm \u266f strings.\n"
    assert found["a.b.lyrics.txt"] == "Hello there\n\nLast\nHello there\n"


def test_what_is_not_likely_and_not_known_is_not_taught(song):
    unsure = record_of(song, tempo=dataclasses.replace(TAGGED.result.tempo, confidence=0.5), caption=None, vocals=VocalsInfo(False, None))
    found = files(song, unsure)
    assert json.loads(found["a.b.json"]) == {"keyscale": "Eb minor", "timesignature": "4"}
    assert found["a.b.lyrics.txt"] == "[Instrumental]\n"
    assert "a.b.caption.txt" not in found


def test_a_caption_that_somebody_wrote_is_not_replaced_unless_forced(song):
    record = record_of(song, caption="Ours.")
    lay(song, ".caption.txt", "Mine.\n")
    with pytest.raises(OutputError, match="with other content and was left untouched"):
        files(song, record)
    assert sorted(path.name for path in song.parent.iterdir()) == ["a.b.caption.txt"]  # nor is any other file written
    assert files(song, record, replaces=True)["a.b.caption.txt"] == "Ours.\n"
    assert files(song, record)["a.b.caption.txt"] == "Ours.\n"  # what is the same is no conflict


def test_two_songs_of_one_name_do_not_share_a_file(song):
    writer = _Files(WRITERS["acestep"], Layout(), Path, replaces=True)
    writer.write(record_of(song, caption="One."))
    with pytest.raises(OutputError, match=r"a\.b\.flac already writes to this file"):
        writer.write(record_of(song.with_suffix(".mp3"), caption="Two."))


# --- AcousticBrainz ----------------------------------------------------------------------------------------------------------

CHORDS = (Segment(0.0, 10.0, "A:min"), Segment(10.0, 20.0, "N"), Segment(20.0, 64.4, "F:maj"))


def test_facts_are_under_the_names_of_acousticbrainz():
    record = dataclasses.replace(TAGGED, result=dataclasses.replace(TAGGED.result, chords=CHORDS, vocals=VocalsInfo(True, None)))
    text = written("acousticbrainz", record, FAILED)
    [found] = map(json.loads, io.StringIO(text))
    assert (found["tonal"]["key_key"], found["tonal"]["key_scale"]) == ("Eb", "minor")
    frames = record.audio.end * 44_100 / 2048
    assert found["tonal"]["chords_changes_rate"] == pytest.approx(2 / frames)
    assert found["tonal"]["chords_number_rate"] == pytest.approx(2 / frames)
    assert found["rhythm"]["beats_count"] == len(found["rhythm"]["beats_position"]) == 128
    assert "lowlevel" not in found  # nothing was measured


def test_beets_maps_what_we_write():
    plugin = pytest.importorskip("beetsplug.acousticbrainz")
    record = dataclasses.replace(TAGGED, result=dataclasses.replace(TAGGED.result, chords=CHORDS, vocals=VocalsInfo(False, None)))
    data = json.loads(written("acousticbrainz", record))
    reader = object.__new__(plugin.AcousticPlugin)
    reader._log = __import__("logging").getLogger("beets")
    mapped = dict(reader._map_data_to_scheme(data, plugin.ABSCHEME))
    assert (mapped["bpm"], mapped["initial_key"], mapped["voice_instrumental"]) == (120.02, "Eb minor", "instrumental")
    assert {"chords_changes_rate", "chords_number_rate"} <= mapped.keys()
