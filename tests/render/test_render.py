"""Laws of the writers: every format writes every record, fits the screen, and shows hostile text harmlessly."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import re

import pytest

from mflamingo_cli.errors import OutputError
from mflamingo_cli.measure import FACTS
from mflamingo_cli.render import WRITERS, Layout
from mflamingo_cli.render.people import FACT_LINES
from mflamingo_cli.render.records import COLUMNS
from mflamingo_cli.render.text import console, safe
from mflamingo_cli.schema import Analysis, Loudness, MeterInfo, Result, Segment, SongTags, TimingInfo, VocalsInfo
from tests.test_schema import FAILED, FULL

HOSTILE = "a[red]b[/red]\x1b[31m\x07\r\n\u202e\udce9 ♥.wav"
RICH = dataclasses.replace(
    FULL,
    result=dataclasses.replace(
        FULL.result,
        meter=MeterInfo("4/4", "model", None),
        loudness=Loudness(-9.8, 6.1, -0.3),
        instruments=("piano", "strings"),
        vocals=VocalsInfo(True, "a warm female voice"),
    ),
)
RECORDS = {
    "full": RICH,
    "failed": FAILED,
    "skipped": dataclasses.replace(FAILED, status="skipped"),
    "empty": Analysis(command="analyze", status="ok", path="x", result=Result(), timing=TimingInfo()),
    "answer": Analysis(command="think", status="ok", path="x", thinking="slow\nso", text="A ballad."),
    "hostile": Analysis(
        command="analyze",
        status="ok",
        path=HOSTILE,
        result=Result(caption=HOSTILE, instruments=(HOSTILE,), vocals=VocalsInfo(True, HOSTILE)),
        warnings=(HOSTILE,),
    ),
}


def written(name: str, *records: Analysis, color: bool = False, many: bool = False) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogatepass", newline="", write_through=True)
    writer = WRITERS[name].writer(stream, Layout(color=color, many=many))
    for record in records:
        with contextlib.suppress(OutputError):  # a format that has nothing to say of a song
            writer.write(record)
    return stream.buffer.getvalue().decode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", [name for name in WRITERS if not WRITERS[name].binary])
@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_no_format_lets_control_characters_through(name, record):
    text = written(name, record).replace("\n", "").replace("\t", "")
    assert not re.search(r"[\x00-\x1f\x7f\u202e]", text)


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_table_fits_80_columns_and_has_no_escapes_in_a_pipe(record, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = written("table", record)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text


def test_colour_is_there_when_it_is_wanted(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" in written("table", FULL, color=True)


def test_a_table_says_what_is_measured_and_what_the_model_claims():
    text = " ".join(written("table", RICH).replace("\u00a0", " ").split())
    for words in (
        "87.5 BPM (or 175)",
        "A minor, unsure · Camelot 8A",
        "measured = model",
        "-9.8 LUFS",
        "Am 100 %",
        "mini Q8_0",
    ):
        assert words in text


def test_one_change_is_one_and_a_length_is_rounded_as_the_caption_rounds_it():
    chords = (Segment(0.0, 90.0, "C:maj"), Segment(90.0, 91.0, "N"), Segment(91.0, 100.0, "G:maj"), Segment(100.0, 109.7, "N"))
    record = dataclasses.replace(
        FULL, audio=dataclasses.replace(FULL.audio, duration=109.7, end=109.7), result=dataclasses.replace(FULL.result, chords=chords)
    )
    text = written("table", record).replace("\u00a0", " ")
    assert "1 change " in text
    assert "1:50 ·" in text


@pytest.mark.parametrize(("confidence", "words"), [(None, "4/4"), (0.9, "4/4"), (0.7, "4/4, likely"), (0.3, "4/4, unsure")])
def test_what_is_not_sure_is_said_to_be_so(confidence, words):
    record = Analysis(command="analyze", status="ok", path="x", result=Result(meter=MeterInfo("4/4", "measured", None, confidence)))
    assert f"meter: {words}\n" in written("text", record)


@pytest.mark.parametrize("path", ["x/" * 60 + "song.wav", "音楽/" * 30 + "song.wav"])
def test_a_long_path_keeps_its_end(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    first = written("table", dataclasses.replace(FULL, path=path)).splitlines()[0]
    assert "song.wav ─" in first
    assert "…" in first


@pytest.mark.parametrize(
    ("tags", "shown"),
    [
        (SongTags(title="Ocean", artist="Will Savino"), "Will Savino - Ocean · album/a.flac "),
        (SongTags(title="Ocean"), "Ocean · album/a.flac "),
        (SongTags(artist="Will Savino"), "album/a.flac "),
        (SongTags(title="\x1b[31m[red]"), "\\x1b[31m[red] · album/a.flac "),
        (SongTags(title="very long " * 20), "very long very long very long very long very long very lon… · album/a.flac "),
    ],
)
def test_a_table_is_headed_by_artist_and_title_and_then_the_file(tags, shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    record = dataclasses.replace(RICH, path="album/a.flac", audio=dataclasses.replace(RICH.audio, tags=tags))
    first = written("table", record).splitlines()[0]
    assert first.removeprefix("╭─ ").startswith(shown + "─")
    assert len(first) == 80


def test_a_long_path_beside_a_long_title_keeps_its_name(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    record = dataclasses.replace(RICH, path="x/" * 60 + "song.wav", audio=dataclasses.replace(RICH.audio, tags=SongTags(title="a b " * 40)))
    first = written("table", record).splitlines()[0]
    assert "… · …" in first
    assert first.endswith("/song.wav ─╮")


def test_markup_in_a_name_is_shown_not_obeyed():
    assert "a[red]b[/red]\\x1b[31m" in written("table", RECORDS["hostile"]).replace("\n", "")


def test_text_is_the_answer_alone():
    assert written("text", RECORDS["answer"]) == "A ballad.\n"
    assert written("text", FAILED) == ""


def test_several_answers_get_a_headline_each():
    one = RECORDS["answer"]
    assert written("text", one, one, many=True) == "==> x <==\nA ballad.\n\n==> x <==\nA ballad.\n"


def test_json_has_one_line_per_input():
    rows = written("json", *RECORDS.values()).splitlines()
    assert [json.loads(row)["status"] for row in rows] == [record.status for record in RECORDS.values()]


def test_csv_has_one_row_per_input_and_no_word_none():
    rows = list(csv.reader(io.StringIO(written("csv", *RECORDS.values()))))
    assert len(rows) == 1 + len(RECORDS)
    assert {len(row) for row in rows} == {COLUMNS.count(",") + 1}
    assert not any(cell in ("None", "nan") for row in rows for cell in row)


def test_labels_are_what_audacity_reads():
    assert written("labels", FULL) == "0.000\t2.100\tA:min\n"


def test_safe_shows_bytes_that_are_not_utf8():
    assert safe("caf\udce9\n♥") == "caf\\xe9\\n♥"


def test_each_fact_has_a_line_or_is_left_out_on_purpose():
    assert list(FACT_LINES) == list(FACTS)
    assert FACT_LINES["beats"] is None


@pytest.mark.parametrize(("columns", "width"), [("0", 80), ("1", 20), ("19", 20), ("20", 20), ("200", 200), ("x", 80), ("", 80)])
def test_a_terminal_that_says_no_width_gets_a_usual_one(monkeypatch, columns, width):
    """Some shells and containers set COLUMNS=0; nothing of a table was left."""
    monkeypatch.setenv("COLUMNS", columns)
    assert console(io.StringIO(), color=False).width == width
