"""Who sings when, and what is named with its source, reach every format that shows times or facts."""

from __future__ import annotations

import io
import json

import pytest

from mflamingo_cli.render import WRITERS, Layout
from mflamingo_cli.render.people import lines
from mflamingo_cli.schema import Analysis, AudioInfo, Result, Segment, Tag, VocalsInfo

SPANS = (Segment(2.0, 9.0, "singing"), Segment(12.0, 14.0, "speech"))
VOICES = VocalsInfo(True, None, "measured", False, False, 0.9, SPANS)
RECORD = Analysis(
    "analyze", "ok", "/nowhere/a.mp3", audio=AudioInfo(30.0, 44_100, 2, "mp3", 0.0, 30.0, 1, False), result=Result(vocals=VOICES)
)


def written(name: str) -> str:
    stream = io.StringIO()
    WRITERS[name].writer(stream, Layout()).write(RECORD)
    return stream.getvalue()


def test_singing_and_speech_are_labels() -> None:
    assert written("labels") == "2.000\t9.000\tsinging\n12.000\t14.000\tspeech\n"
    (annotation,) = json.loads(written("jams"))["annotations"]
    assert annotation["namespace"] == "tag_open"
    assert [(item["time"], item["duration"], item["value"]) for item in annotation["data"]] == [
        (2.0, 7.0, "singing"),
        (12.0, 2.0, "speech"),
    ]


def test_the_page_draws_them_on_its_timeline_and_says_what_the_model_says() -> None:
    page = written("html")
    assert '<svg class="voice singing" x="6.667%"' in page
    assert '<svg class="voice speech" x="40.0%"' in page
    assert '90 % sure</dd><dd class="differs">the model says none' in page


def test_a_line_says_how_long_and_from_when_on() -> None:
    vocals = "sung · 0:07 of singing, from 0:02 on · 0:02 of speech, from 0:12 on"
    assert ("vocals", vocals, "measured ≠ model") in lines(Result(vocals=VOICES))


@pytest.mark.parametrize(
    ("tags", "source"),
    [
        ((Tag("genre", "metal", 0.83, "measured"),), "measured"),
        ((Tag("genre", "metal", None, "model"),), "model"),
        ((Tag("genre", "metal", 0.83, "measured", True), Tag("genre", "Metal", None, "model", True)), "measured = model"),
        ((Tag("genre", "metal", 0.83, "measured"), Tag("genre", "Punk", None, "model")), "measured and model"),
        ((), "model"),
    ],
)
def test_names_say_where_they_come_from(tags: tuple[Tag, ...], source: str) -> None:
    assert ("genre", "metal", source) in lines(Result(tags=tags, genre=("metal",)))
