"""Laws of records in parts: whole files, the same records in each form, and what is there is known again."""

from __future__ import annotations

import io
import json

import pytest

pq = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")

from mflamingo_cli.core import remote  # noqa: E402  (after what they need)
from mflamingo_cli.errors import AudioError, ModelError, UsageError  # noqa: E402
from mflamingo_cli.library import shards as parts  # noqa: E402
from mflamingo_cli.schema import Analysis, AudioInfo, ErrorInfo, Result, Segment, TempoInfo  # noqa: E402
from quant.files import Draft  # noqa: E402

RECORDS = [
    Analysis(
        "analyze",
        "ok",
        "a.mp3",
        audio=AudioInfo(4.0, 44_100, 2, "mp3", 0.0, 4.0, 1, False),
        result=Result(tempo=TempoInfo(120.0, (60.0,)), chords=(Segment(0.0, 1.5, "A:min"),), genre=("House",)),
        raw={"key": "A minor"},
        warnings=("a", "b"),
    ),
    Analysis("analyze", "error", "x\ufffd.mp3", path_b64="eOkubXAz", error=ErrorInfo("decode_failed", "no", False)),
]


@pytest.fixture(params=["{folder}/out", "file://{folder}/out", "memory://{folder}/out"])
def output(request, tmp_path):
    return request.param.format(folder=tmp_path)


@pytest.mark.parametrize("suffix", ["", ".parquet"])
def test_what_was_written_is_known_again(output, suffix):
    written = parts.ShardWriter(output + suffix)
    assert written.open({"model": "mini"}) == {}
    for record in RECORDS:
        written.add(record)
    written.flush()
    known = parts.ShardWriter(output + suffix).open({"model": "mini"})
    assert list(known) == [parts.identity("a.mp3"), parts.identity("x\udce9.mp3")]
    assert [record.status for record in known.values()] == ["ok", "error"]
    assert known["eOkubXAz"].error == RECORDS[1].error


def test_both_forms_hold_the_same_records():
    lines = [json.loads(line) for line in parts.to_lines(RECORDS).splitlines()]
    assert [Analysis.from_json(json.dumps(line)) for line in lines] == RECORDS
    assert pq.read_table(io.BytesIO(parts.to_parquet(RECORDS))).to_pylist(maps_as_pydicts="strict") == lines


def test_records_of_other_settings_are_not_mixed(tmp_path):
    parts.ShardWriter(str(tmp_path)).open({"model": "mini", "command": "analyze"})
    with pytest.raises(UsageError, match=r"its records were made with other settings \(model\); name another folder"):
        parts.ShardWriter(str(tmp_path)).open({"model": "other", "command": "analyze"})


def test_records_of_unknown_settings_are_left_alone(tmp_path):
    (tmp_path / "part-1.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"no _settings\.json"):
        parts.ShardWriter(str(tmp_path)).open({})


def test_a_damaged_file_is_named_with_the_cure(tmp_path):
    parts.ShardWriter(str(tmp_path)).open({})
    (tmp_path / "part-1.jsonl").write_text('{"half')
    with pytest.raises(UsageError, match=r"part-1\.jsonl: cannot be read .*; remove it"):
        parts.ShardWriter(str(tmp_path)).open({})


def test_a_file_that_is_not_whole_has_no_name(tmp_path, monkeypatch):
    written = parts.ShardWriter(str(tmp_path))
    written.open({})
    monkeypatch.setattr(Draft, "publish", lambda *names: (_ for _ in ()).throw(OSError("killed")))
    written.add(RECORDS[0])
    with pytest.raises(OSError, match="killed"):
        written.flush()
    assert parts.ShardWriter(str(tmp_path)).open({}) == {}


def test_songs_at_addresses_are_listed_like_those_of_folders(tmp_path):
    system = fsspec.filesystem("memory")
    for name in ("/songs/b.MP3", "/songs/a/c.flac", "/songs/notes.txt", "/songs/.hidden/d.mp3"):
        system.pipe_file(name, b"")
    assert [remote.is_folder(f"memory://{name}") for name in ("songs/", "songs", "songs/b.MP3", "songs/none")] == [True, True, False, False]
    assert not remote.is_folder("https://radio.example/live"), "nobody is asked: it may be a stream without an end"
    assert remote.find("memory://songs/", {".mp3", ".flac"}) == ["memory:///songs/a/c.flac", "memory:///songs/b.MP3"]


def test_a_song_at_an_address_keeps_its_address(tmp_song):
    from mflamingo_cli.core.audio import load

    fsspec.filesystem("memory").pipe_file("/song.wav", tmp_song.read_bytes())
    here, there = load(tmp_song), load("memory://song.wav")
    assert there.source.path == "memory://song.wav"
    assert (there.samples == here.samples).all()
    with pytest.raises(AudioError, match=r"memory://none\.wav: there is no such file"):
        load("memory://none.wav")


def test_an_address_of_an_unknown_kind_says_so():
    with pytest.raises(ModelError, match=r"nonsense://a\.mp3: cannot be opened from here"):
        remote.check("nonsense://a.mp3")


def test_a_file_whose_name_looks_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    (tmp_path / "s3:" / "a.mp3").write_text("")
    assert not remote.is_address("s3://a.mp3")
    assert remote.is_address("s3://b.mp3")
