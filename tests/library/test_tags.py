"""Laws of tags: our values are where others look for them, and nothing else of a file changes, least of all its sound."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mflamingo_cli.errors import UsageError
from mflamingo_cli.library import tags
from mflamingo_cli.library.album import measure_album
from mflamingo_cli.library.tag_fields import FIELDS, MARK, TagError, TagOptions, parse_fields
from mflamingo_cli.schema import Analysis, AudioInfo, KeyInfo, Loudness, MeterInfo, ModelInfo, Result, TempoInfo
from tests.test_cli import SHORT, on_a_terminal, one_sentence, records, run

mutagen = pytest.importorskip("mutagen")
from mutagen import aiff, id3, mp3, mp4, wave  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")

OPTIONS = TagOptions(FIELDS)
NEW = {"bpm": "124", "key": "Am", "genre": "Trance-Pop; Dream Pop", "mood": "calm", "comment": "Warm ♯ strings; slow.\nIt ends."}
HOMES = {  # where players look, by ffprobe's names: another reader than the one that wrote
    "id3": {"bpm": "TBPM", "key": "TKEY", "genre": "genre", "mood": "TMOO", "comment": "comment"},
    "id3v2.3": {"bpm": "TBPM", "key": "TKEY", "genre": "genre", "mood": "MOOD", "comment": "comment"},
    "vorbis": {"bpm": "BPM", "key": "INITIALKEY", "genre": "GENRE", "mood": "MOOD", "comment": "COMMENT"},
    "mp4": {"key": "initialkey", "genre": "genre", "mood": "MOOD", "comment": "comment"},  # ffprobe shows no tmpo,
    "wav": {},  # and of WAV no ID3
}
CASES = {  # file -> (ffmpeg's arguments, homes)
    "v23.mp3": ("-id3v2_version 3 -write_id3v1 1", "id3v2.3"),
    "v24.mp3": ("-id3v2_version 4", "id3"),
    "song.wav": ("", "wav"),
    "song.aiff": ("-write_id3v2 1 -id3v2_version 3", "id3v2.3"),
    "song.flac": ("", "vorbis"),
    "song.ogg": ("-c:a libvorbis", "vorbis"),
    "song.opus": ("-c:a libopus", "vorbis"),
    "flac.oga": ("-c:a flac", "vorbis"),
    "song.m4a": ("-c:a aac", "mp4"),
}
WITH_COVER = ("v23.mp3", "v24.mp3", "song.aiff", "song.flac", "song.m4a")
PLAIN = {"bare.mp3": "-id3v2_version 0 -write_id3v1 0", "bare.flac": "", "bare.m4a": ""}


def ffmpeg(*arguments: object) -> bytes:
    return subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One file of each kind with tags and pictures of other programs."""
    folder = tmp_path_factory.mktemp("tagged")
    tone, cover = folder / "tone.wav", folder / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=0.6", "-ac", "2", tone)
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", "1", cover)
    words = ["-metadata", "title=Tïtle ♥", "-metadata", "artist=Somebody", "-metadata", "date=1999", "-metadata", "comment=", "-bitexact"]
    for name, (arguments, _) in CASES.items():
        picture = ["-i", cover, "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"] if name in WITH_COVER else []
        ffmpeg("-i", tone, *picture, *arguments.split(), *words, folder / name)
        add_foreign(folder / name)
    for name, arguments in PLAIN.items():
        ffmpeg("-i", tone, "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact", *arguments.split(), folder / name)
    return folder


def as_it_is(path):
    """A file opened by mutagen without changing ID3v2.3 into 2.4."""
    kind = type(mutagen.File(path))
    return kind(path, translate=False) if issubclass(kind, mp3.MP3 | wave.WAVE | aiff.AIFF) else kind(path)


def add_foreign(path) -> None:
    """What other programs keep in tags, some of it in the version of the tag only or in no standard at all."""
    file = as_it_is(path)
    if file.tags is None:
        file.add_tags()
    found = file.tags
    if isinstance(found, id3.ID3):
        major = found.version[1]
        if major == 3:
            found.add(id3.TYER(encoding=0, text=["1999"]))
            found.add(id3.TSOP(encoding=1, text=["Body, Some"]))  # of 2.4, but iTunes puts it into 2.3
        found.add(id3.TPE1(encoding=1, text=["One", "Two/Three"]))
        found.add(id3.TXXX(encoding=1, desc="SERATO ♥", text=["x"]))
        found.add(id3.COMM(encoding=0, lang="eng", desc="iTunNORM", text=[" 00000A2B"]))
        found.add(id3.POPM(email="a@b", rating=196, count=7))
        found.add(id3.PRIV(owner="TRAKTOR4", data=bytes(range(256))))
        found.add(id3.GEOB(encoding=0, mime="application/octet-stream", filename="", desc="Serato BeatGrid", data=b"\x01\x00" * 40))
        found.unknown_frames.append(b"XYZW\x00\x00\x00\x04\x00\x00abcd")
        found._unknown_v2_version = major
        found.save(path, v2_version=major, v23_sep=None)
    elif isinstance(found, mp4.MP4Tags):
        found["----:com.serato.dj:markers"] = [mp4.MP4FreeForm(b"\x00\x01\xff", mp4.AtomDataType.IMPLICIT)]
        found["trkn"], found["cpil"] = [(3, 9)], True
        file.save()
    else:
        found["REPLAYGAIN_TRACK_GAIN"] = ["-3.00 dB"]
        found["artist"] = ["One", "Two"]
        file.save()


def record_of(path, damaged: bool = False, **result: object) -> Analysis:
    known = Result(
        tempo=TempoInfo(123.97, (61.98,), "measured", None, None, 0.93),
        key=KeyInfo("A", "minor", "A minor", "8A", "1m", "Am", "measured", None, None, 0.9),
        genre=("Trance-Pop", "Dream Pop"),
        mood=("calm",),
        caption=NEW["comment"],
    )
    model = ModelInfo("mini", "2026", "gguf", "F16")
    audio = AudioInfo(0.6, 44100, 2, "pcm_16", 0.0, 0.6, 1, False, damaged)
    return Analysis("analyze", "ok", str(path), audio=audio, result=dataclasses.replace(known, **result), model=model)


def probed(path) -> dict[str, str]:
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_entries", "format_tags:stream_tags", str(path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    of_streams = [stream.get("tags", {}) for stream in found["streams"]]
    return {name: value for part in (*of_streams, found["format"].get("tags", {})) for name, value in part.items()}


def sound(path) -> bytes:
    """Checksums of all packets, those of pictures too, and of the decoded samples."""
    return ffmpeg("-i", path, "-map", "0:v?", "-map", "0:a", "-c", "copy", "-f", "streamhash", "-", "-map", "0:a", "-f", "md5", "-")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_values_are_where_others_look_and_all_else_stays(made, tmp_path, name):
    path = tmp_path / name
    shutil.copy(made / name, path)
    os.utime(path, ns=(10**18, 10**18 + 123_456_789))
    path.chmod(0o640)
    before, audio = probed(path), sound(path)
    changes = tags.write(record_of(path), OPTIONS)
    assert {change.field: (change.old, change.new, change.written) for change in changes} == {f: (None, v, True) for f, v in NEW.items()}
    assert {field: value(path, field) for field in NEW} == NEW
    after, homes = probed(path), HOMES[CASES[name][1]]
    first = {field: (text if field == "comment" else text.split(";")[0]) for field, text in NEW.items()}  # ffprobe shows one genre
    assert {field: after[home] if field == "comment" else after[home].split(";")[0] for field, home in homes.items()} == {
        field: first[field] for field in homes
    }
    ours = {home.casefold() for home in (*homes.values(), MARK)}
    assert without(after, ours) == without(before, ours)
    assert sound(path) == audio
    assert (path.stat().st_mtime_ns, path.stat().st_mode & 0o777) == (10**18 + 123_456_789, 0o640)
    assert list(tmp_path.iterdir()) == [path]
    content, inode = path.read_bytes(), path.stat().st_ino
    assert tags.write(record_of(path), OPTIONS) == []  # a second time there is nothing to do
    assert (path.read_bytes(), path.stat().st_ino) == (content, inode)


def without(found: dict[str, str], names: set[str]) -> dict[str, str]:
    return {name: text for name, text in found.items() if name.casefold() not in names}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "version"), [("v23.mp3", 3), ("v24.mp3", 4), ("song.aiff", 3), ("song.wav", 4), ("bare.mp3", 3)])
def test_the_version_of_a_tag_stays(made, tmp_path, name, version):
    path = tmp_path / name
    shutil.copy(made / name, path)
    raw = path.read_bytes()[-128:]
    tags.write(record_of(path), OPTIONS)
    found = as_it_is(path).tags
    assert found.version == (2, version, 0)
    assert path.read_bytes()[-128:].startswith(b"TAG") == raw.startswith(b"TAG")
    assert not raw.startswith(b"TAG") or path.read_bytes()[-128:] == raw
    if name == "v23.mp3":
        assert [str(found["TYER"]), found["TPE1"].text, str(found["TSOP"])] == ["1999", ["One", "Two/Three"], "Body, Some"]
        assert found.unknown_frames == [b"XYZW\x00\x00\x00\x04\x00\x00abcd"]


def test_a_song_with_an_old_tag_only_keeps_what_it_says(made, tmp_path):
    path = tmp_path / "old.mp3"
    path.write_bytes((made / "bare.mp3").read_bytes() + b"TAG" + b"Old title".ljust(94, b"\0") + b"1987" + bytes(26) + b"\xff")
    tags.write(record_of(path), OPTIONS)
    assert path.read_bytes()[-128:-116] == b"TAGOld title"
    assert probed(path)["title"] == "Old title"


def test_id3v22_is_left_alone(made, tmp_path):
    path = tmp_path / "old.mp3"
    path.write_bytes(b"ID3\x02\x00\x00\x00\x00\x00\x0cTT2\x00\x00\x06\x00Title" + (made / "bare.mp3").read_bytes())
    content = path.read_bytes()
    with pytest.raises(TagError, match=r"ID3v2\.2"):
        tags.write(record_of(path), OPTIONS)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["v23.mp3", "v24.mp3", "song.wav", "song.aiff", "song.flac", "song.ogg", "song.opus", "song.m4a"])
@pytest.mark.parametrize("unknown", ["0", "0.00", "00", "", " "])
def test_a_tempo_of_zero_and_blanks_are_no_values(made, tmp_path, name, unknown):
    from mflamingo_cli.library.containers import open_tags

    path = shutil.copy(made / name, tmp_path / name)
    found = open_tags(str(path))
    found.put("bpm", [unknown if unknown.strip() or name != "song.m4a" else "0"])  # iTunes' field holds a number
    for field in ("key", "genre", "mood", "comment"):
        found.put(field, [unknown if unknown.isspace() else ""])
    with open(path, "r+b") as file:
        found.save(file)
    assert {field: open_tags(str(path)).get(field) for field in FIELDS} == dict.fromkeys(FIELDS)
    changes = tags.plan(open_tags(str(path)), record_of(path), OPTIONS)
    assert {change.field: change.written for change in changes} == dict.fromkeys(FIELDS, True)


@pytest.mark.parametrize("written", ["0.5", "100", "1000", "10"])
def test_a_tempo_with_zeros_is_a_value(made, tmp_path, written):
    from mflamingo_cli.library.containers import open_tags

    found = open_tags(str(shutil.copy(made / "song.flac", tmp_path / "a.flac")))
    found.put("bpm", [written])
    assert found.get("bpm") == written


def test_an_alias_with_a_value_counts_where_the_first_home_is_blank(made, tmp_path):
    from mflamingo_cli.library.containers import open_tags

    path = shutil.copy(made / "song.flac", tmp_path / "a.flac")
    file = mutagen.File(path)
    file["INITIALKEY"], file["KEY"] = "", "F#m"
    file.save()
    assert open_tags(str(path)).get("key") == "F#m"


def test_compressed_tags_are_not_opened(made, tmp_path):
    from tests.core.test_tags import compressed_title

    path = tmp_path / "a.mp3"
    path.write_bytes(compressed_title(4, b"\0title") + (made / "bare.mp3").read_bytes())
    before = path.read_bytes()
    with pytest.raises(TagError, match="its tags are compressed"):
        tags.write(record_of(path), OPTIONS)
    assert path.read_bytes() == before


# --- whose values ----------------------------------------------------------------------------------------------------------


def value(path, field: str) -> str | None:
    from mflamingo_cli.library.containers import open_tags

    return open_tags(str(path)).get(field)


def put(path, field: str, text: str) -> None:
    from mflamingo_cli.library.containers import open_tags

    opened = open_tags(str(path))
    opened.put(field, [text])
    with open(path, "r+b") as file:
        opened.save(file)


@pytest.mark.parametrize(("policy", "theirs", "ours"), [("never", "Dm", "Am"), ("ours", "Dm", "Em"), ("all", "Em", "Em")])
def test_what_may_be_overwritten(made, tmp_path, policy, theirs, ours):
    path = tmp_path / "song.flac"
    shutil.copy(made / "bare.flac", path)
    put(path, "key", "Dm")  # of a person
    later = record_of(path, key=dataclasses.replace(record_of(path).result.key, id3="Em"))
    options = TagOptions(("key", "bpm"), policy)
    [change] = [change for change in tags.write(later, options) if change.field == "key"]
    assert (value(path, "key"), change.written) == (theirs, theirs == "Em")
    shutil.copy(made / "bare.flac", path)
    tags.write(record_of(path), OPTIONS)
    tags.write(later, options)
    assert value(path, "key") == ours


def test_our_value_that_a_person_has_corrected_is_the_persons(made, tmp_path):
    path = tmp_path / "song.flac"
    shutil.copy(made / "bare.flac", path)
    tags.write(record_of(path), OPTIONS)
    put(path, "bpm", "62")
    later = record_of(path, tempo=dataclasses.replace(record_of(path).result.tempo, bpm=125.1), mood=("tense",))
    tags.write(later, OPTIONS)
    assert (value(path, "bpm"), value(path, "mood")) == ("62", "tense")
    wrote = {field: text for field, text in NEW.items() if field != "bpm"}
    assert json.loads(value(path, MARK) or "")["wrote"] == wrote | {"mood": "tense"}


@pytest.mark.parametrize("mark", ["", "[]", "{", '{"wrote": 3}', '{"wrote": {"key": ["Dm"]}}'])
def test_a_strange_frame_of_our_name_says_nothing(made, tmp_path, mark):
    path = tmp_path / "song.flac"
    shutil.copy(made / "bare.flac", path)
    put(path, "key", "Dm")
    put(path, MARK, mark)
    tags.write(record_of(path), TagOptions(("key",)))
    assert value(path, "key") == "Dm"


def test_what_is_not_known_is_not_written():
    tempo = TempoInfo(120.0, (), "measured", None, None, 0.79)
    unsure = record_of("x", tempo=tempo, key=KeyInfo(claimed="A minor"), genre=(), caption=None)
    assert tags.values(unsure, OPTIONS) == {"mood": ("calm",)}
    assert tags.values(unsure, dataclasses.replace(OPTIONS, least=0.5))["bpm"] == ("120",)
    guessed = record_of("x", tempo=TempoInfo(120.0, (), "model", 120.0), key=KeyInfo("A", "minor", "A minor", "8A", "1m", "Am", "model"))
    assert not {"bpm", "key"} & tags.values(guessed, OPTIONS).keys()
    assert tags.values(record_of("x"), TagOptions(("bpm",))) == {"bpm": ("124",)}


@pytest.mark.parametrize(
    ("notation", "key", "form", "bpm"), [("id3", "Am", "int", "124"), ("camelot", "8A", "2dp", "123.97"), ("openkey", "1m", "int", "124")]
)
def test_notations(made, tmp_path, notation, key, form, bpm):
    path = tmp_path / "song.m4a"
    shutil.copy(made / "bare.m4a", path)
    tags.write(record_of(path), TagOptions(("bpm", "key"), key_notation=notation, bpm_form=form))
    assert (value(path, "bpm"), value(path, "key")) == (bpm, key)
    assert mutagen.File(path)["tmpo"] == [124]  # iTunes knows whole numbers only


def test_aliases_that_a_file_has_are_kept_alike(made, tmp_path):
    path = tmp_path / "song.flac"
    shutil.copy(made / "bare.flac", path)
    file = mutagen.File(path)
    file["KEY"] = ["Dm"]
    file.save()
    tags.write(record_of(path), dataclasses.replace(OPTIONS, overwrite="all"))
    assert (mutagen.File(path)["KEY"], mutagen.File(path)["INITIALKEY"]) == (["Am"], ["Am"])


def test_what_stays_is_said_with_the_reason(made, tmp_path):
    path = tmp_path / "song.flac"
    shutil.copy(made / "bare.flac", path)
    put(path, "key", "Dm")
    unsure = record_of(path, tempo=TempoInfo(120.0, (), "measured", None, None, 0.5))
    assert [str(change) for change in tags.write(unsure, TagOptions(("bpm", "key", "mood")), dry_run=True)] == [
        "bpm: not written (120 is below the confidence limit)",
        "key: not written ('Dm' is kept, 'Am' would replace it)",
        "mood: none -> 'calm'",
    ]
    assert (value(path, "bpm"), value(path, "mood")) == (None, None)


def test_what_is_written_is_as_sure_as_what_a_model_is_given() -> None:
    from mflamingo_cli.grounding import SURE

    assert TagOptions.least == SURE


def test_which_fields():
    assert parse_fields("true") == ("bpm", "key", "genre", "mood")
    assert parse_fields("key, comment") == ("key", "comment")
    assert parse_fields("all") == FIELDS
    with pytest.raises(UsageError, match="choose from bpm, key"):
        parse_fields("bpm,tempo")


# --- the sound -----------------------------------------------------------------------------------------------------------------


def mp3_with_a_footer(path, song) -> None:
    """ID3v2.4 with a footer (id3.org, 2.4.0, sec. 3.4) before the Info frame, whose delay and padding a decoder leaves out."""
    ffmpeg("-i", song, "-c:a", "libmp3lame", "-b:a", "128k", "-id3v2_version", "0", path)
    body = b"TIT2" + bytes([0, 0, 0, 6, 0, 0]) + b"\3hello"
    size = bytes([0, 0, 0, len(body)])
    sound = path.read_bytes()
    path.write_bytes(b"ID3\4\0\x10" + size + body + b"3DI\4\0\x10" + size + sound[sound.find(b"\xff\xfb") :])


def decoded(path) -> bytes:
    return ffmpeg("-i", path, "-map", "0:a", "-f", "md5", "-")


def test_a_tag_with_a_footer_leaves_the_sound_where_it_is(made, tmp_path):
    path = tmp_path / "footer.mp3"
    mp3_with_a_footer(path, made / "tone.wav")
    content, before = path.read_bytes(), decoded(path)
    with pytest.raises(TagError, match="writing would change the audio; file left untouched"):
        tags.write(record_of(path), OPTIONS)
    assert (path.read_bytes(), decoded(path), list(tmp_path.iterdir())) == (content, before, [path])


SPOILS = {  # what a careless writer would do, and what of it the packets do not show
    "song.opus": lambda data: data.replace(b"OpusHead\x01\x02\x38\x01", b"OpusHead\x01\x02\x00\x00"),  # pre-skip (RFC 7845, 5.1)
    "v23.mp3": lambda data: data.replace(b"Info", b"Xxxx", 1).replace(b"Lavc", b"xxxx", 1),  # encoder delay and padding
    "song.m4a": lambda data: data.replace(b"edts", b"free"),  # the edit list that cuts the encoder's priming
}


@pytest.mark.parametrize("name", SPOILS)
def test_what_a_decoder_leaves_out_at_the_ends_is_part_of_the_sound(made, tmp_path, monkeypatch, name):
    from mflamingo_cli.library import containers

    path = tmp_path / name
    shutil.copy(made / name, path)
    content = path.read_bytes()
    opened = containers.open_tags(str(path))

    class Careless(type(opened)):
        def save(self, copy) -> None:
            super().save(copy)
            copy.seek(0)
            data = SPOILS[name](copy.read())
            copy.seek(0)
            copy.write(data)

    monkeypatch.setitem(containers.KINDS, type(opened._file), (Careless, opened.demuxer))
    with pytest.raises(TagError, match="writing would change the audio"):
        tags.write(record_of(path), OPTIONS)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["v23.mp3", "song.opus", "song.m4a"])
def test_a_record_that_names_the_sound_spares_decoding_the_file(made, tmp_path, monkeypatch, name):
    path = tmp_path / name
    shutil.copy(made / name, path)
    known = tags._decoded(path)
    decoding, decoded_files = tags._decoded, []
    monkeypatch.setattr(tags, "_decoded", lambda file: decoded_files.append(file) or decoding(file))
    record = record_of(path)
    audio = dataclasses.replace(record.audio, duration=3.0, end=3.0)
    tags.write(dataclasses.replace(record, audio=audio, audio_id=known), OPTIONS)
    assert [file.suffix for file in decoded_files] == [".part"]
    shutil.copy(made / name, path)
    part = dataclasses.replace(audio, start=1.0)
    tags.write(dataclasses.replace(record, audio=part, audio_id=known), OPTIONS)
    assert [file.suffix for file in decoded_files[1:]] == [".part", path.suffix], "a part has another name than the whole"


def test_what_tells_the_length_and_the_level_of_a_sound_stays(made, tmp_path):
    path = tmp_path / "song.m4a"
    shutil.copy(made / "song.m4a", path)
    smpb = b" 00000000 00000840 000001CA 00000000003F31F6"
    file = mp4.MP4(path)
    file["----:com.apple.iTunes:iTunSMPB"] = [mp4.MP4FreeForm(smpb)]
    file["----:com.apple.iTunes:replaygain_track_gain"] = [mp4.MP4FreeForm(b"-3.00 dB")]
    cover = bytes(file["covr"][0])
    file.save()
    tags.write(record_of(path), OPTIONS)
    after = mp4.MP4(path)
    assert bytes(after["----:com.apple.iTunes:iTunSMPB"][0]) == smpb
    assert bytes(after["----:com.apple.iTunes:replaygain_track_gain"][0]) == b"-3.00 dB"
    assert bytes(after["covr"][0]) == cover


# --- what is not sure ----------------------------------------------------------------------------------------------------------


CAPTION = "A slow song at 120.5 BPM. It is in A minor. It is counted in 4/4. The chords are Am and F. The key is A minor.\nIt lasts 60 s."


@pytest.mark.parametrize(
    ("tempo", "key", "meter", "comment"),
    [
        (0.9, 0.9, 0.9, CAPTION),
        (0.5, 0.9, 0.9, CAPTION.replace("A slow song at 120.5 BPM. ", "")),
        (0.9, 0.5, 0.9, "A slow song at 120.5 BPM. It is counted in 4/4. The chords are Am and F.\nIt lasts 60 s."),
        (0.9, 0.9, 0.5, CAPTION.replace(" It is counted in 4/4.", "")),
        (0.5, 0.5, 0.5, "The chords are Am and F.\nIt lasts 60 s."),
    ],
)
def test_a_comment_does_not_say_what_is_held_back(tempo, key, meter, comment):
    facts = {
        "tempo": TempoInfo(120.5, (), "measured", None, None, tempo),
        "key": KeyInfo("A", "minor", "A minor", "8A", "1m", "Am", "measured", None, None, key),
        "meter": MeterInfo("4/4", "measured", None, meter),
    }
    [said] = tags.values(record_of("x", caption=CAPTION, **facts), TagOptions(("comment",)))["comment"]
    assert " ".join(said.split()) == " ".join(comment.split())


def test_a_comment_that_says_nothing_else_is_not_written(made, tmp_path):
    path = tmp_path / "song.flac"
    shutil.copy(made / "bare.flac", path)
    unsure = record_of(path, tempo=TempoInfo(120.0, (), "measured", None, None, 0.5), caption="It runs at 120 BPM.")
    [change] = tags.write(unsure, TagOptions(("comment",)))
    assert str(change) == "comment: not written (It runs at 120 BPM. is below the confidence limit)"
    assert value(path, "comment") is None


def test_a_guess_of_the_model_is_no_fact(made):
    guess = {"tempo": TempoInfo(120.0, (), "model", 120.0), "meter": MeterInfo("4/4", "model")}
    said = tags.values(record_of("x", caption="Fast, 120 BPM, in 4/4. It has drums.", **guess), TagOptions(("comment",)))
    assert said == {"comment": ("It has drums.",)}


def test_nothing_is_written_from_a_damaged_file_unless_forced(made, tmp_path):
    path = tmp_path / "song.flac"
    shutil.copy(made / "bare.flac", path)
    content = path.read_bytes()
    for dry_run in (True, False):
        with pytest.raises(
            TagError, match="the file is cut or damaged, so the measurements may be wrong; get the file again, or add --force"
        ):
            tags.write(record_of(path, damaged=True), OPTIONS, dry_run)
    assert path.read_bytes() == content
    tags.write(record_of(path, damaged=True), dataclasses.replace(OPTIONS, force=True))
    assert value(path, "key") == "Am"


# --- files that are not written ----------------------------------------------------------------------------------------------


def test_files_that_are_not_written_say_why(made, tmp_path):
    song = tmp_path / "song.flac"
    shutil.copy(made / "bare.flac", song)
    (tmp_path / "link.flac").symlink_to(song)
    (tmp_path / "words.mp3").write_text("not audio " * 99)
    shutil.copy(song, tmp_path / "protected.flac")
    (tmp_path / "protected.flac").chmod(0o444)
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64:d=1", "-i", made / "tone.wav", "-c:a", "aac", tmp_path / "film.mp4")
    ffmpeg("-i", made / "tone.wav", "-c:a", "libopus", tmp_path / "song.mka")
    shutil.copy(song, tmp_path / "two.flac")
    os.link(tmp_path / "two.flac", tmp_path / "names.flac")
    why = {
        "link.flac": "this is a link; name its target, .*song.flac",
        "words.mp3": "tags are written to MP3, FLAC|can't sync",
        "protected.flac": "the file is read-only",
        "film.mp4": "this is a video",
        "song.mka": "tags are written to MP3, FLAC",
        "names.flac": "the file has 2 names",
        "gone.flac": "No such file",
        "": "not a regular file",
    }
    content = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, words in why.items():
        with pytest.raises(TagError, match=words):
            tags.write(record_of(tmp_path / name), OPTIONS)
    with pytest.raises(TagError, match="a song on stdin has no file"):
        tags.write(record_of("-"), OPTIONS)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == content


def test_a_copy_that_differs_is_never_kept(made, tmp_path, monkeypatch):
    path = tmp_path / "song.flac"
    shutil.copy(made / "song.flac", path)
    content = path.read_bytes()
    from mflamingo_cli.library import containers

    class Careless(containers.Vorbis):
        spoil = ""

        def save(self, copy) -> None:
            super().save(copy)
            if self.spoil == "sound":
                copy.seek(-20, os.SEEK_END)
                last = copy.read(1)[0]
                copy.seek(-20, os.SEEK_END)
                copy.write(bytes([last ^ 1]))
            else:
                copy.seek(0)
                file = mutagen.flac.FLAC(copy)
                file["title"] = ["Another"]
                copy.seek(0)
                file.save(copy)

    monkeypatch.setitem(containers.KINDS, mutagen.flac.FLAC, (Careless, "flac"))
    for what, words in (("sound", "writing would change the audio|ffmpeg cannot read"), ("title", "writing would change other tags")):
        monkeypatch.setattr(Careless, "spoil", what)
        with pytest.raises(TagError, match=words):
            tags.write(record_of(path), OPTIONS)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_process_that_is_killed_before_the_rename_leaves_the_file_as_it_was(made, tmp_path):
    path = tmp_path / "song.mp3"
    shutil.copy(made / "v23.mp3", path)
    content = path.read_bytes()
    code = f"""
import os, time
from mflamingo_cli.errors import UsageError
from mflamingo_cli.library import tags
from mflamingo_cli.library.album import measure_album
from tests.library.test_tags import OPTIONS, record_of
tags._take_state = lambda *_: (print("copied", flush=True), time.sleep(60))
tags.write(record_of({str(path)!r}), OPTIONS)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"copied\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == content
    [left] = [left.name for left in tmp_path.iterdir() if left != path]
    assert left.startswith(".song.mp3.mflamingo-")
    tags.write(record_of(path), OPTIONS)
    assert value(path, "key") == "Am"
    assert list(tmp_path.iterdir()) == [path], "the copy that was left is gone"


def test_two_processes_do_not_write_the_same_file(made, tmp_path):
    path = tmp_path / "song.mp3"
    shutil.copy(made / "v23.mp3", path)

    def meanwhile(*_: object) -> None:
        with pytest.raises(TagError, match="another run is writing them"):
            tags.write(record_of(path), OPTIONS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tags, "_take_state", meanwhile)
        tags.write(record_of(path), OPTIONS)
    assert value(path, "key") == "Am"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_another_program_changes_meanwhile_is_left_to_it(made, tmp_path, monkeypatch):
    path = tmp_path / "song.mp3"
    shutil.copy(made / "v24.mp3", path)
    compare = tags._compare

    def slow(*arguments):
        compare(*arguments)
        time.sleep(0.01)
        path.write_bytes(b"theirs")

    monkeypatch.setattr(tags, "_compare", slow)
    with pytest.raises(TagError, match="another program changed the file"):
        tags.write(record_of(path), OPTIONS)
    assert path.read_bytes() == b"theirs"


# --- the command ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def music(tmp_path):
    """Fifteen seconds of music whose tempo is plain, as MP3, and a link to it."""
    ffmpeg("-t", "30", "-i", "tests/data/rlyeh.opus", "-id3v2_version", "3", tmp_path / "song.mp3")
    (tmp_path / "link.mp3").symlink_to("song.mp3")
    return tmp_path / "song.mp3"


@pytest.mark.slow
def test_the_command_shows_then_writes_then_has_nothing_to_do(tiny_model, music):
    arguments = ("analyze", "-q", "-m", tiny_model, *SHORT, "--write-tags=bpm", "--tag-confidence", "0")
    content = music.read_bytes()
    shown = run(*arguments, "-n", music)
    assert (shown.returncode, shown.stdout.decode()) == (0, f"{music}: bpm: none -> '75'\n")
    assert music.read_bytes() == content
    done = run(*arguments, "--json", music, music.with_name("link.mp3"))
    assert done.returncode == 3
    assert "this is a link" in one_sentence(done.stderr)
    first, second = records(done)
    assert (first["status"], second["status"]) == ("ok", "ok")
    assert first["result"] == second["result"]
    assert "this is a link" in second["warnings"][-1]
    assert value(music, "bpm") == "75"
    assert run(*arguments, "-n", music).stdout.decode() == f"{music}: no change\n"


@pytest.mark.slow
def test_text_that_streams_to_a_terminal_is_followed_by_its_tags(tiny_model, music):
    code, _ = on_a_terminal("analyze", "-f", "text", "-m", tiny_model, *SHORT, "--write-tags=bpm", "--tag-confidence", "0", music)
    assert code == 0
    assert value(music, "bpm") == "75"


@pytest.mark.slow
def test_only_chosen_songs_get_tags(tiny_model, music):
    content = music.read_bytes()
    done = run("analyze", "-m", tiny_model, *SHORT, "--write-tags", "--where", "bpm > 300", music)
    assert (done.returncode, done.stdout) == (0, b"")
    assert music.read_bytes() == content


@pytest.mark.slow
def test_what_is_missing_is_said_before_any_song_is_decoded(tiny_model, music, tmp_path):
    hide = tmp_path / "hide" / "mutagen"
    hide.mkdir(parents=True)
    (hide / "__init__.py").write_text("raise ModuleNotFoundError('no', name='mutagen')")
    env = {**os.environ, "PYTHONPATH": f"{hide.parent}:{os.environ.get('PYTHONPATH', '.')}"}
    done = run("analyze", "--json", "-m", tiny_model, "--write-tags", music, env=env)
    assert (done.returncode, done.stdout) == (69, b"")
    assert "pip install 'mflamingo-cli[tags]'" in one_sentence(done.stderr)
    done = run("analyze", "-m", tiny_model, "--write-tags=tempo", music)
    assert (done.returncode, done.stdout) == (2, b"")
    assert "choose from bpm" in one_sentence(done.stderr)
    assert run("ask", "Why?", "--write-tags", music).returncode == 2


# --- how loud a song is played -----------------------------------------------------------------------------------------------

GAINS = TagOptions(("replaygain",), album=True)
LEVEL, ALBUM = Loudness(-12.06, 5.0, -0.31), Loudness(-10.5, None, 0.42)
OPUS_STEPS = {"R128_TRACK_GAIN": "-2801", "R128_ALBUM_GAIN": "-3200"}  # (-23 - LUFS) * 256
REPLAYGAIN_TAGS = {
    "REPLAYGAIN_TRACK_GAIN": "-5.94 dB", "REPLAYGAIN_TRACK_PEAK": "0.964939", "REPLAYGAIN_ALBUM_GAIN": "-7.50 dB",
    "REPLAYGAIN_ALBUM_PEAK": "1.049542",
}  # fmt: skip


def gains_in(path) -> dict[str, str]:
    """What a player finds: every tag of a gain or peak, by its name in capitals."""
    file = as_it_is(path)
    items = file.tags if isinstance(file.tags, list) else file.tags.items()
    plain = {name.rpartition(":")[2].upper(): value for name, value in items}
    texts = {name: getattr(value, "text", value) for name, value in plain.items() if name.startswith(("REPLAYGAIN", "R128"))}
    first = {name: text if isinstance(text, str) else text[0] for name, text in texts.items()}
    return {name: bytes(text).decode() if isinstance(text, bytes) else str(text) for name, text in first.items()}


@pytest.mark.parametrize("name", CASES)
def test_gains_are_where_players_look(made, tmp_path, name):
    shutil.copy(made / name, tmp_path)
    path = tmp_path / name
    before = sound(path)
    record = record_of(path, loudness=LEVEL)
    options = dataclasses.replace(GAINS, overwrite="all")  # some have gains of another program
    assert tags.write(record, options, album=ALBUM)
    assert gains_in(path) == (OPUS_STEPS if name == "song.opus" else REPLAYGAIN_TAGS)
    assert sound(path) == before
    assert tags.write(record, options, album=ALBUM) == []  # nothing to do


def test_without_an_album_only_the_track_is_written(made, tmp_path):
    shutil.copy(made / "song.flac", tmp_path)
    tags.write(record_of(tmp_path / "song.flac", loudness=LEVEL), dataclasses.replace(GAINS, overwrite="all"))
    assert sorted(gains_in(tmp_path / "song.flac")) == ["REPLAYGAIN_TRACK_GAIN", "REPLAYGAIN_TRACK_PEAK"]


@pytest.mark.parametrize(("policy", "left"), [("ours", {"REPLAYGAIN_TRACK_GAIN": "-3.00 dB"}), ("all", {"R128_TRACK_GAIN": "-2801"})])
def test_opus_never_has_both_kinds_of_gain(made, tmp_path, policy, left):
    path = tmp_path / "song.opus"
    shutil.copy(made / "song.opus", path)
    file = mutagen.File(path)
    file["REPLAYGAIN_TRACK_GAIN"] = "-3.00 dB"
    file.save()
    tags.write(record_of(path, loudness=LEVEL), dataclasses.replace(GAINS, overwrite=policy))
    assert gains_in(path) == left


def test_a_gain_of_another_program_is_kept_in_any_case_and_replaced_in_place(made, tmp_path):
    path = tmp_path / "v23.mp3"
    shutil.copy(made / "v23.mp3", path)
    file = as_it_is(path)
    file.tags.add(id3.TXXX(encoding=0, desc="replaygain_track_gain", text="-1.00 dB"))
    file.tags.save(path, v2_version=3)
    record = record_of(path, loudness=LEVEL)
    [kept, _] = tags.write(record, GAINS)
    assert str(kept) == "replaygain_track_gain: not written ('-1.00 dB' is kept, '-5.94 dB' would replace it)"
    tags.write(record, dataclasses.replace(GAINS, overwrite="all"))
    assert gains_in(path)["REPLAYGAIN_TRACK_GAIN"] == "-5.94 dB"
    assert [key for key in as_it_is(path).tags if "TRACK_GAIN" in key.upper()] == ["TXXX:replaygain_track_gain"]


def test_gains_are_none_of_the_usual_tags_and_need_loudness():
    assert "replaygain" not in parse_fields("true") + parse_fields("all")
    assert parse_fields("all,replaygain") == (*FIELDS, "replaygain")
    assert tags.values(record_of("x.flac"), GAINS) == {}


def with_output_gain(path, decibels: int) -> None:
    """Set the gain in the header of an Opus file (RFC 7845, 5.1)."""
    from mutagen.ogg import OggPage

    with open(path, "rb+") as file:
        page = OggPage(file)
        head = bytearray(page.packets[0])
        head[16:18] = (decibels * 256).to_bytes(2, "little", signed=True)
        page.packets[0] = bytes(head)
        file.seek(0)
        file.write(page.write())


def test_the_output_gain_of_opus_is_in_what_is_measured(made, tmp_path):
    """A player adds the tag to it, so what is measured must have it."""
    ffmpeg("-f", "lavfi", "-i", "sine=997:d=2:r=48000", "-c:a", "libopus", tmp_path / "plain.opus")
    shutil.copy(tmp_path / "plain.opus", tmp_path / "quiet.opus")
    with_output_gain(tmp_path / "quiet.opus", -6)
    [plain], [quiet] = ([measure_album([tmp_path / f"{name}.opus"])[0].integrated_lufs] for name in ("plain", "quiet"))
    assert quiet - plain == pytest.approx(-6, abs=0.05)


def test_an_album_is_gated_as_one_programme(tmp_path):
    """As ffmpeg's ebur128 measures the songs one after the other; a song that is no audio is named and left out."""
    for name, level in (("a", "0.5"), ("b", "0.05"), ("c", "0.001")):
        ffmpeg("-f", "lavfi", "-i", f"sine=997:d=5:r=48000,volume={level}", tmp_path / f"{name}.wav")
    (tmp_path / "d.wav").write_text("no audio")
    album, left_out = measure_album(sorted(tmp_path.glob("*.wav")))
    listed = [argument for name in "abc" for argument in ("-i", tmp_path / f"{name}.wav")]
    command = ["ffmpeg", "-nostdin", *map(str, listed), "-filter_complex", "concat=n=3:v=0:a=1,ebur128=peak=true", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stderr
    assert album.integrated_lufs == pytest.approx(float(said.rpartition("I:")[2].split()[0]), abs=0.15)
    assert album.true_peak_dbtp == pytest.approx(float(said.rpartition("Peak:")[2].split()[0]), abs=0.1)
    assert [str(error).partition(":")[0].rpartition("/")[2] for error in left_out] == ["d.wav"]


@pytest.mark.slow
def test_the_command_writes_the_gains_of_a_folder(tiny_model, tmp_path):
    for name, level in (("a", "0.5"), ("b", "0.25")):
        ffmpeg("-f", "lavfi", "-i", f"sine=997:d=3:r=48000,volume={level}", tmp_path / f"{name}.flac")
    arguments = ("analyze", "-q", "--write-tags=replaygain", "-m", tiny_model)
    for extra, words in ((("--start", "1"), "measures whole songs"), (("--album", "--write-tags=bpm"), "add --write-tags=replaygain")):
        done = run(*arguments, *extra, tmp_path)
        assert (done.returncode, words in one_sentence(done.stderr)) == (2, True)
    assert run(*arguments, "--album", tmp_path / "a.flac").returncode == 0  # the other song is measured, not written
    found = gains_in(tmp_path / "a.flac")
    assert mutagen.File(tmp_path / "b.flac").tags in (None, []) or not gains_in(tmp_path / "b.flac")
    assert run(*arguments, "--album", tmp_path).returncode == 0
    both = [gains_in(tmp_path / f"{name}.flac") for name in "ab"]
    assert both[0] == found
    assert both[0]["REPLAYGAIN_ALBUM_GAIN"] == both[1]["REPLAYGAIN_ALBUM_GAIN"]
    first, second = (float(gains["REPLAYGAIN_TRACK_GAIN"].split()[0]) for gains in both)
    assert second - first == pytest.approx(6.02, abs=0.02)
    assert first < float(found["REPLAYGAIN_ALBUM_GAIN"].split()[0]) < second
