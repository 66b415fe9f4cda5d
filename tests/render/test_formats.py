"""Laws of the formats that other programs read: each is read back by a program or library that others use."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from mflamingo_cli.commands.inputs import collect
from mflamingo_cli.render import WRITERS, Ending, Layout
from mflamingo_cli.render.query import fields
from mflamingo_cli.schema import Loudness, MeterInfo, Result, Segment, SongTags, path_fields, path_of
from tests.test_schema import FAILED, FULL

CHORDS = (Segment(0.0, 2.1, "A:min"), Segment(2.1, 4.0, "N"), Segment(4.0, 5.5, "F#:min7"), Segment(5.5, 9.0, "Bb:maj7"))
SONG = dataclasses.replace(
    FULL,
    path="album/A | B\t*song*.flac",
    result=dataclasses.replace(
        FULL.result,
        meter=MeterInfo("4/4", "measured"),
        beats=((0.02, 4), (0.71, 1), (1.4, 2)),
        chords=CHORDS,
        sections=(Segment(0.0, 5.5, "A"), Segment(5.5, 9.0, "B")),
        genre=("Trance", "Deep House"),
    ),
)


def written(name: str, *records, **layout: object) -> str:
    stream = io.StringIO()
    writer = WRITERS[name].writer(stream, Layout(**layout))
    for record in records:
        writer.write(record)
    if isinstance(writer, Ending):
        writer.end()
    return stream.getvalue()


def test_tsv_keeps_tabs_and_backslashes_in_their_cells():
    odd = dataclasses.replace(SONG, path="a\tb\\c\nd")
    head, row = written("tsv", odd, fields=fields.parse("path,bpm,genre,text")).splitlines()
    assert head.split("\t") == ["path", "bpm", "genre", "text"]
    assert row.split("\t") == ["a\\tb\\\\c\\nd", "87.5", "Trance; Deep House", ""]


FORMULAS = {
    **{text: f"'{text}" for text in ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\uff1d1+1", "-2+3*cmd", "--1")},
    '=HYPERLINK("http://a","b")': '\'=HYPERLINK("http://a","b")',
    "a;=1+1": "a;'=1+1",  # a cell of its own where ; parts cells
    "=1;=2": "'=1;'=2",
}
PLAIN = ("-9.8", "+1", "-1e5", "-.5", "-", "a=b", "1-1", " =1", "", "a@b", "a; -b")


@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_a_spreadsheet_runs_no_cell_and_numbers_stay_numbers(name):
    chosen = fields.parse("path,genre,lufs,text")
    for text in (*FORMULAS, *PLAIN):
        loud = dataclasses.replace(SONG.result, genre=(text,), loudness=Loudness(-9.8))
        _, row = csv.reader(
            io.StringIO(written(name, dataclasses.replace(SONG, path=text, text=text, result=loud), fields=chosen)),
            delimiter="," if name == "csv" else "\t",
            quoting=csv.QUOTE_MINIMAL if name == "csv" else csv.QUOTE_NONE,
        )
        cell = FORMULAS.get(text, text)
        assert row == [cell, cell, "-9.8", cell]


def test_a_line_of_a_cell_is_no_cell_that_runs():
    text = written("csv", dataclasses.replace(SONG, text="a\n=1+1"), fields=fields.parse("text"))
    assert text == 'text\n"a\n\'=1+1"\n'
    assert written("tsv", dataclasses.replace(SONG, text="a\n=1+1"), fields=fields.parse("text")) == "text\na\\n=1+1\n"


@pytest.mark.parametrize("name", [name for name, row in WRITERS.items() if row.suffix != ".html" and not row.binary])
def test_no_name_steers_a_terminal(name, tmp_path):
    """OSC 52 would fill the clipboard; C1 controls and what turns the direction of writing are as bad."""
    evil = "\x1b]52;c;ZXZpbA==\x07\x9b31m\x7f\u202e\r.flac"
    spans = (Segment(0.0, 1.0, evil),)
    odd = dataclasses.replace(SONG.result, genre=(evil,), caption=None, sections=spans, chords=spans)
    tagged = dataclasses.replace(SONG.audio, tags=SongTags(evil, evil, evil))
    path = {"traktor": "a.flac", "lrc": str(tmp_path / "a.flac")}.get(name, evil)  # one refuses such a name, one needs lyrics beside it
    (tmp_path / "a.lrc").write_text(f"[00:01.00]{evil}\n", encoding="utf-8", newline="")
    text = written(name, dataclasses.replace(SONG, path=path, audio=tagged, result=odd))
    assert not set(text) & set("\x1b\x07\x9b\x7f\u202e\r")


def test_chosen_fields_are_those_of_the_record_under_the_names_given():
    chosen = fields.parse("bpm, key.camelot,chords,error.code,tempo.agrees")
    assert json.loads(written("json", SONG, fields=chosen)) == {
        "bpm": 87.5,
        "key.camelot": "8A",
        "chords": json.loads(SONG.to_json())["result"]["chords"],
        "error.code": None,
        "tempo.agrees": True,
    }
    rows = list(csv.DictReader(io.StringIO(written("csv", SONG, FAILED, fields=chosen))))
    assert rows[0]["bpm"] == "87.5"
    assert rows[0]["tempo.agrees"] == "true"
    assert json.loads(rows[0]["chords"])[2]["label"] == "F#:min7"
    assert rows[1] == {"bpm": "", "key.camelot": "", "chords": "", "error.code": "decode_failed", "tempo.agrees": ""}


def test_markdown_is_a_table_in_which_no_name_is_markup():
    head, rule, row, failed = written("markdown", SONG, FAILED).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") - 1 == failed.count("|")  # one is escaped
    assert r"| album/A \| B \*song\*.flac | 213.4 | 87.5 |" in row
    html = pytest.importorskip("markdown_it").MarkdownIt("gfm-like").disable("linkify").render(written("markdown", SONG))
    assert "<td>album/A | B *song*.flac</td>" in html


def test_chords_are_what_mir_eval_reads(tmp_path):
    mir_eval = pytest.importorskip("mir_eval")
    (tmp_path / "song.lab").write_text(written("lab", SONG))
    intervals, labels = mir_eval.io.load_labeled_intervals(str(tmp_path / "song.lab"))
    assert labels == [chord.label for chord in CHORDS]
    assert intervals.tolist() == [[chord.start, chord.end] for chord in CHORDS]
    mir_eval.chord.evaluate(intervals, labels, intervals, labels)


def test_beats_are_times_and_places_in_the_bar():
    assert written("beats", SONG) == "0.020\t4\n0.710\t1\n1.400\t2\n"
    unknown = dataclasses.replace(SONG, result=dataclasses.replace(SONG.result, beats=((0.02, None), (0.71, None))))
    assert written("beats", unknown) == "0.020\n0.710\n"


def test_labels_are_sections_then_chords():
    lines = [line.split("\t") for line in written("labels", SONG).splitlines()]
    assert [label for _, _, label in lines] == ["A", "B", *(chord.label for chord in CHORDS)]


NAMESPACES = ["tempo", "beat", "key_mode", "chord", "segment_open", "tag_open"]


def test_jams_holds_what_is_known():
    made = json.loads(written("jams", SONG))
    assert [annotation["namespace"] for annotation in made["annotations"]] == NAMESPACES
    assert made["annotations"][0]["data"] == [{"time": 0.0, "duration": 213.4, "value": 87.5, "confidence": 0.93}]
    assert json.loads(written("jams", dataclasses.replace(SONG, result=Result())))["annotations"] == []
    assert written("jams", FAILED) == ""


def test_jams_is_valid_to_the_jams_package(tmp_path):
    jams = pytest.importorskip("jams")
    (tmp_path / "song.jams").write_text(written("jams", SONG))
    loaded = jams.load(str(tmp_path / "song.jams"), validate=True, strict=True)
    assert loaded.validate()
    assert loaded.search(namespace="key_mode")[0].data[0].value == "A:minor"
    intervals, labels = loaded.search(namespace="chord")[0].to_interval_values()
    assert labels == [chord.label for chord in CHORDS]
    assert intervals[-1].tolist() == [5.5, 9.0]


# --- playlists -----------------------------------------------------------------------------------------------------------


def playlist(folder, path: str | bytes) -> list[str]:
    """Where a playlist that we wrote leads, as we read it."""
    name, encoded = path_fields(os.fsdecode(path))
    with open(folder / "list.m3u", "w", encoding="ascii", errors="backslashreplace") as stream:
        WRITERS["m3u"].writer(stream, Layout(folder=str(folder))).write(dataclasses.replace(FULL, path=name, path_b64=encoded))
    return [os.path.normpath(song) for song in collect([str(folder / "list.m3u")])]


@pytest.mark.parametrize("name", [b"a/song.mp3", b"#1.mp3", b" x.mp3", b"caf\xe9.mp3", "♥.mp3".encode(), b"a b;c.mp3", b"..x.mp3"])
def test_a_playlist_leads_to_the_song_whatever_its_name(tmp_path, name):
    assert playlist(tmp_path, os.path.join(os.fsencode(tmp_path), name)) == [os.path.join(str(tmp_path), os.fsdecode(name))]


def test_a_song_below_the_playlist_is_relative_to_it_and_another_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, entry in (("lists/a/x.mp3", "a/x.mp3"), ("other/x.mp3", str(tmp_path / "other/x.mp3"))):
        text = written("m3u", dataclasses.replace(FULL, path=path), folder="lists")
        assert text == f"#EXTM3U\n#EXTINF:213,x\n{entry}\n"


def test_a_playlist_leaves_out_what_failed():
    assert written("m3u", FAILED) == "#EXTM3U\n"


def test_a_name_that_no_line_can_hold_is_an_address_of_its_file(tmp_path):
    for name in ("a\nb.mp3", "a\r.mp3", "\x1b]52;c;ZXZpbA==\x07.mp3", "\x9b31m.mp3", "a\u202eb%20.mp3"):
        (tmp_path / name).touch()
        assert playlist(tmp_path, os.fsencode(tmp_path / name)) == [str(tmp_path / name)]
        entry = (tmp_path / "list.m3u").read_text().splitlines()[2]
        assert entry.startswith("file:///")
        assert entry.isprintable()


def test_tags_are_fields_and_name_the_song_where_formats_name_one():
    tagged = dataclasses.replace(FULL, audio=dataclasses.replace(FULL.audio, tags=SongTags("Ocean", "Will Savino", "HyperRogue")))
    names = "title,artist,album,audio.tags.genre"
    assert written("csv", tagged, FULL, FAILED, fields=fields.parse(names)) == f"{names}\nOcean,Will Savino,HyperRogue,\n,,,\n,,,\n"
    assert "#EXTINF:213,Will Savino - Ocean\n" in written("m3u", tagged)
    about = json.loads(written("jams", tagged))["file_metadata"]
    assert (about["title"], about["artist"], about["release"]) == ("Ocean", "Will Savino", "HyperRogue")


@pytest.mark.parametrize("path", ["a.mp3", os.fsdecode(b"caf\xe9.mp3"), "♥"])
def test_a_record_leads_back_to_its_file(path):
    name, encoded = path_fields(path)
    assert path_of(dataclasses.replace(FULL, path=name, path_b64=encoded)) == path


MODULES = ("people", "records", "times", "playlist", "midi", "lyrics", "acestep", "acousticbrainz", "dj.rekordbox", "dj.traktor")


def test_a_format_is_its_writer_and_its_row() -> None:
    """A writer without a row and a row without a writer are both named: nothing else knows formats by name."""
    known = {part.writes for row in WRITERS.values() for part in [row, *row.parts.values()]}
    written = set()
    for module in MODULES:
        names = vars(import_module(f"mflamingo_cli.render.{module}"))
        written |= {f"{module}:{name}" for name in names if name.endswith(("Writer", "_writer")) and name[0] != "_"}
    written -= {f"{module}:Writer" for module in MODULES} | {f"{module}:CollectionWriter" for module in MODULES}  # what others are made of
    assert written == {name for name in known if not name.startswith("html:")}
    for row in WRITERS.values():
        assert hasattr(row.writer(io.StringIO(), Layout()), "write"), row


def test_a_new_format_is_a_choice_and_a_file_of_its_own_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk: one writer and one row, and the command line offers it, writes it, and names its files."""
    (tmp_path / "shout.py").write_text(
        "class ShoutWriter:\n"
        "    def __init__(self, stream, layout): self.stream = stream\n"
        "    def write(self, record): self.stream.write(record.path.upper())\n"
    )
    code = (
        "import sys, mflamingo_cli.render as render\n"
        f"render.__path__.append({str(tmp_path)!r})\n"
        "render.WRITERS['shout'] = render.Format('shout:ShoutWriter', '.shout')\n"
        "sys.argv[0] = 'mflamingo'\n"
        "from mflamingo_cli.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, "analyze"]
    helped = subprocess.run([*command, "-h"], capture_output=True, text=True, check=True).stdout
    assert "|shout>" in "".join(helped.split())
    done = subprocess.run([*command, "-q", "-f", "shout", "missing.wav"], capture_output=True, text=True, check=False)
    assert done.stdout == "MISSING.WAV"
