"""Laws of the record: it survives JSON, it fits its own schema, and nothing in it can break a reader."""

from __future__ import annotations

import json
import math
import os

import pytest

from mflamingo_cli import schema
from mflamingo_cli.schema import Analysis, AudioInfo, ErrorInfo, KeyInfo, ModelInfo, Result, Segment, TempoInfo, TimingInfo, UsageInfo

jsonschema = pytest.importorskip("jsonschema")

FULL = Analysis(
    command="analyze",
    status="ok",
    path="a.flac",
    audio_id="sha256:00",
    audio=AudioInfo(213.4, 44100, 2, "flac", 0.0, 213.4, 8, False),
    result=Result(
        tempo=TempoInfo(87.5, (175.0,), "measured", 88.0, True, 0.93),
        key=KeyInfo("A", "minor", "A minor", "8A", "1m", "Am", "measured", "A minor", True, 0.41),
        beats=((0.02, 1), (0.71, None)),
        chords=(Segment(0.0, 2.1, "A:min"),),
        genre=("Trance-Pop",),
        caption="Warm \u266f strings",
    ),
    raw={"key": "A minor"},
    model=ModelInfo("mini", None, "gguf", "Q8_0"),
    usage=UsageInfo(812, 240),
    timing=TimingInfo(0.2, None, 0.3, 0.9),
    warnings=("careful",),
)
FAILED = Analysis(command="ask", status="error", path="b.mp3", error=ErrorInfo("decode_failed", "b.mp3: broken", False))
DESIGNED_KEYS = (  # the record of the design, in its order; `raw` is ours and comes with -v
    "schema command status path path_b64 audio_id audio result thinking text question answerable claims model usage timing warnings "
    "error only".split()
)


@pytest.mark.parametrize("record", [FULL, FAILED], ids=["full", "failed"])
def test_a_record_survives_json(record):
    assert Analysis.from_json(record.to_json()) == record


@pytest.mark.parametrize("record", [FULL, FAILED], ids=["full", "failed"])
def test_a_record_fits_its_schema(record):
    jsonschema.Draft202012Validator.check_schema(schema.json_schema())
    jsonschema.Draft202012Validator(schema.json_schema()).validate(json.loads(record.to_json()))


def test_every_key_is_present_and_in_the_order_of_the_design():
    keys = list(json.loads(FAILED.to_json()))
    assert [key for key in keys if key != "raw"] == DESIGNED_KEYS
    names = "tempo key keys scale meter beats chords sections loudness dynamics instruments genre mood vocals tags caption caption_source"
    assert list(json.loads(FULL.to_json())["result"]) == names.split()


def test_nan_and_infinity_become_null():
    record = Analysis(command="ask", status="ok", path="x", timing=TimingInfo(math.nan, math.inf, -math.inf, 1.0))
    assert json.loads(record.to_json())["timing"] == {"decode_s": None, "measure_s": None, "encode_s": None, "generate_s": 1.0}


def test_a_path_that_is_not_utf8_keeps_its_bytes():
    path = os.fsdecode(b"caf\xe9.wav")
    text, encoded = schema.path_fields(path)
    record = json.loads(Analysis(command="ask", status="ok", path=text, path_b64=encoded).to_json())
    assert record["path"] == "caf\ufffd.wav"
    assert __import__("base64").b64decode(record["path_b64"]) == b"caf\xe9.wav"
    assert schema.path_fields("caf\u00e9.wav") == ("caf\u00e9.wav", None)


def test_a_lone_surrogate_anywhere_cannot_break_the_json():
    record = Analysis(command="ask", status="ok", path="x", text="a\ud800b\u00e9", warnings=("\udce9",))
    read = json.loads(record.to_json())
    assert (read["text"], read["warnings"]) == ("a\ufffd\ufffd\ufffdb\u00e9", ["\ufffd\ufffd\ufffd"])  # a mark for each of its bytes
    repr(read).encode("utf-8")


def test_the_json_is_one_ascii_line():
    line = FULL.to_json()
    assert line.isascii()
    assert "\n" not in line


@pytest.mark.parametrize("change", [{"status": "fine"}, {"warnings": None}, {"audio": {"duration": 1}}, {"schema": "mflamingo/2"}])
def test_a_wrong_record_is_refused(change):
    with pytest.raises(ValueError, match=r"is not|missing"):
        Analysis.from_json(json.dumps({**json.loads(FULL.to_json()), **change}))


def test_keys_of_a_later_minor_version_are_ignored():
    assert Analysis.from_json(json.dumps({**json.loads(FULL.to_json()), "later": 1})) == FULL
