"""Rows of one's own music: what is sure is asked, what contradicts is left out with a reason, one artist stands in one split."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mflamingo_cli.errors import ModelError, UsageError
from mflamingo_cli.grounding.prose.captions import STYLES
from mflamingo_cli.schema import (
    Analysis,
    AudioInfo,
    ErrorInfo,
    KeyInfo,
    MeterInfo,
    Result,
    Segment,
    SongTags,
    Tag,
    TempoInfo,
    VocalsInfo,
)
from mflamingo_cli.thinking import split_thinking
from mflamingo_cli.train import rewards
from mflamingo_cli.train.data.filters import caption_flaw, reasons_flaw
from mflamingo_cli.train.data.label import LabelOptions, labels_of, parts_of, split_of
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.data.skills import SKILLS
from mflamingo_cli.train.data.writer import SongWriter
from mflamingo_cli.train.multiple_choice import is_right
from mflamingo_cli.train.text_models import Endpoint, open_writer

RESULT = Result(
    tempo=TempoInfo(bpm=124.0, source="measured", confidence=0.93),
    key=KeyInfo(tonic="A", mode="minor", name="A minor", source="measured", confidence=0.9),
    meter=MeterInfo(value="3/4", source="measured", confidence=0.55),
    chords=(Segment(0.0, 20.0, "A:min"), Segment(20.0, 60.0, "F:maj")),
    genre=("rock",),
    tags=(Tag("genre", "rock", 0.9, "measured"),),
    caption="A rock song in A minor at 124 BPM with loud guitars.",
)
SUNG = VocalsInfo(present=True, source="measured", confidence=0.95, spans=(Segment(12.0, 40.0, "singing"),))


def record(path: str = "/music/song.wav", result: Result | None = RESULT, artist: str | None = "Somebody", **more: object) -> Analysis:
    audio = AudioInfo(60.0, 44_100, 2, "pcm", 0.0, 60.0, 2, False, tags=SongTags(artist=artist))
    return Analysis("analyze", "ok", path, audio_id=f"sha256:{path}", audio=audio, result=result, **more)  # type: ignore[arg-type]


def with_caption(text: str) -> Analysis:
    return record(result=dataclasses.replace(RESULT, caption=text))


# --- facts -------------------------------------------------------------------------------------------------------------------


def test_what_is_sure_is_asked_plainly_and_with_options(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.touch()
    labels = labels_of(record(str(path)))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, labels.rows)), encoding="utf-8")
    rows = {row["task"]: row for row in labels.rows}
    assert list(rows) == ["tempo", "tempo-choice", "key", "key-choice", "caption", *(f"caption-{style}" for style in STYLES)]
    assert rows["key"]["messages"][1]["content"] == "A minor"
    assert "A minor" in rows["key-choice"]["choices"]
    assert set(rows["key-choice"]["choices"]) <= {"A major", "A minor", "C major", "E minor", "D minor"}
    assert set(map(float, rows["tempo-choice"]["choices"])) <= {62.0, 83.0, 99.0, 124.0, 155.0, 248.0}  # as exact as the right one
    assert len(rows["tempo-choice"]["choices"]) == len(rows["key-choice"]["choices"]) == 4
    for task in ("key-choice", "tempo-choice"):
        assert is_right(rows[task]["messages"][1]["content"], rows[task]["answer"], rows[task]["choices"])
    assert all(row["facts"]["tempo"] == {"value": 124.0, "confidence": 0.93} and row["tags"] == {"genre": ["rock"]} for row in labels.rows)
    assert ("meter", "is 3/4 with a confidence of 0.55, below 0.8") in labels.dropped
    assert [row.exchanges[0].answer for row in Rows([tmp_path / "rows.jsonl"])] == [row["messages"][1]["content"] for row in labels.rows]


def test_every_field_says_where_it_comes_from() -> None:
    rows = {row["task"]: row["provenance"] for row in labels_of(record(), LabelOptions(think=True)).rows}
    shared = {"question": "mflamingo", "facts": "measured", "tags": "measured", "group": "artist"}
    assert rows["tempo"] == {**shared, "answer": "measured, 0.93"}
    assert rows["key-think"] == {**shared, "answer": "measured, 0.90", "reasons": "mflamingo"}
    assert rows["caption"] == {**shared, "answer": "a model"}


def test_questions_are_asked_in_several_words() -> None:
    for name, skill in SKILLS.items():
        asked = {row["messages"][0]["content"] for n in range(40) for row in labels_of(full(f"/{n}.wav")).rows if row["task"] == name}
        assert asked == set(skill.questions)


def full(path: str = "/music/song.wav") -> Analysis:
    return record(path, dataclasses.replace(RESULT, meter=MeterInfo("3/4", "measured", confidence=0.9), vocals=SUNG))


def test_a_song_that_failed_has_no_rows() -> None:
    labels = labels_of(record(result=None, error=ErrorInfo("not_audio", "song.wav: is no audio", False)))
    assert (labels.rows, labels.dropped) == ([], [("song", "song.wav: is no audio")])


def test_options_and_splits_depend_on_the_seed_and_the_song_alone() -> None:
    orders = [labels_of(record(f"/music/{n}.wav"), LabelOptions(seed)).rows[1]["choices"] for seed in (0, 0, 1) for n in range(8)]
    assert orders[:8] == orders[8:16]
    assert orders[:8] != orders[16:]
    places = [order.index("124") for order in orders]
    assert len(set(places)) == 4  # the right one stands anywhere
    rows = [labels_of(record(f"/music/{number}/{number}.wav"), LabelOptions(3)).rows[0] for number in range(9)]
    assert len({row["split"] for row in rows}) == 1  # one artist
    groups = [labels_of(record(f"/music/{number}/x.wav", artist=None)).rows[0] for number in range(3)]
    assert [(row["group"], row["provenance"]["group"]) for row in groups] == [(str(n), "folder") for n in range(3)]
    shares = [split_of(f"artist {number}", 0) for number in range(2000)]
    assert 0.88 < shares.count("train") / 2000 < 0.92
    assert min(shares.count("dev"), shares.count("test")) > 60


# --- words -------------------------------------------------------------------------------------------------------------------


def test_lines_of_lyrics_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    lines = ["the night is long", "la la la", "the road is far", "la la la", "the morning comes"]
    (tmp_path / "song.lrc").write_text("".join(f"[00:{10 * n:02d}.00]{line}\n" for n, line in enumerate(lines)), encoding="utf-8")
    rows = {row["task"]: row for row in labels_of(record(str(path))).rows}
    assert rows["lyrics"]["messages"][1]["content"] == "\n".join(lines)
    asked = rows["lyrics-next"]["messages"][0]["content"].split("“")[1].split("”")[0]
    assert lines.count(asked) == 1  # a line that returns has no one line after it
    assert lines[lines.index(asked) + 1] == rows["lyrics-next"]["messages"][1]["content"]
    when = rows["lyrics-when"]
    line = when["messages"][0]["content"].split("“")[1].split("”")[0]
    assert when["messages"][1]["content"] == f"0:{10 * lines.index(line):02d}"
    choice = rows["lyrics-next-choice"]
    assert is_right(choice["messages"][1]["content"], choice["answer"], choice["choices"])
    assert choice["provenance"]["answer"].endswith("song.lrc")


# --- captions ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A rock song in C major at 124 BPM.", "contradicts the key that was measured"),
        ("A rock song in A minor at 62 BPM.", "contradicts the tempo that was measured"),
        ("It is loud. It is loud. It is loud.", "repeats a sentence"),
        ("the guitar plays a riff and then " * 4, "repeats itself"),
        ("Rock music.", "has fewer than 5 words"),
        ("1 2 3 4 5 6 7 || ## %% 8 9", "contains no words"),
        ("A rock song in A minor with a singer who sings.", "claims a vocals that measurement does not support"),
        ("A rock song in 4/4, in A minor.", "claims a meter that measurement does not support"),  # a measured one that is not sure is 3/4
    ],
)
def test_captions_that_are_wrong_are_left_out_with_a_reason(caption: str, reason: str) -> None:
    labels = labels_of(with_caption(caption))
    assert ("caption, a model", reason) in labels.dropped
    assert "caption" not in [row["task"] for row in labels.rows]


def test_a_claim_that_agrees_with_a_fact_that_is_not_sure_stays() -> None:
    assert "caption" in [row["task"] for row in labels_of(with_caption("A rock song in A minor, in a waltz-like 3/4.")).rows]


def test_parts_are_described_by_their_own_facts() -> None:
    audio = dataclasses.replace(record().audio, start=10.0, end=40.0)  # type: ignore[type-var]
    key = KeyInfo(tonic="C", mode="major", name="C major", source="measured", confidence=0.9)
    part = dataclasses.replace(
        record(result=dataclasses.replace(RESULT, key=key, caption="A quiet part in C major with a piano.")), command="caption", audio=audio
    )
    labels = labels_of(record(), parts=[part])
    [row] = [row for row in labels.rows if row["task"] == "caption-part"]
    assert (row["start"], row["end"], row["facts"]["key"]["value"]) == (10.0, 40.0, "C major")
    assert list(parts_of(0.0, 180.0, 2)) == [(37.5, 67.5), (112.5, 142.5)]
    assert list(parts_of(0.0, 50.0, 2)) == []  # the whole is hardly longer


# --- reasons -----------------------------------------------------------------------------------------------------------------


def test_reasons_come_to_the_measured_answer_in_the_rewarded_form() -> None:
    labels = labels_of(full(), LabelOptions(think=True))
    rows = [row for row in labels.rows if row["task"].endswith("-think")]
    assert [row["task"] for row in rows] == [f"{name}-think" for name in SKILLS]
    for row in rows:
        said = row["messages"][1]["content"]
        assert rewards.well_formed([said], None) == [1.0]  # type: ignore[arg-type]
        assert split_thinking(said).answer == row["answer"]
        assert reasons_flaw(split_thinking(said).thinking or "", row["facts"], row["task"].partition("-")[0]) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I tap the pulse and count 124 BPM, and the last chord settles clearly in A minor.", None),
        ("I tap the pulse and count 98 BPM, and the phrases come to rest on A minor.", "conclude another tempo than was measured"),
        ("I tap the pulse and count 124 BPM, and the last chord settles clearly in C major.", "are wrong in 1 of 2 claims"),
        ("The music feels calm and bright and somehow the answer follows from its whole feeling.", "claim nothing that can be checked"),
        ("It is 124 BPM.", "have fewer than 12 words"),
    ],
)  # fmt: skip
def test_reasons_are_held_against_facts(text: str, reason: str | None) -> None:
    facts = {name: {"value": value, "confidence": 0.9} for name, value in (("tempo", 124.0), ("key", "A minor"), ("vocals", True))}
    assert reasons_flaw(text, facts, "tempo") == reason


def test_reasons_may_be_wrong_in_three_claims_of_ten() -> None:
    facts = {name: {"value": value, "confidence": 0.9} for name, value in (("tempo", 124.0), ("key", "A minor"), ("meter", "3/4"))}
    text = "The taps come at 124 BPM. It is in A minor. {} I hear 124 BPM once more, and again A minor."
    assert reasons_flaw(text.format("The meter is 4/4."), facts, "tempo") is None  # 1 of 5
    assert reasons_flaw(text.format("The meter is 4/4. It is in D minor."), facts, "tempo") == "are wrong in 2 of 6 claims"


# --- writers -----------------------------------------------------------------------------------------------------------------


class _Endpoint(BaseHTTPRequestHandler):
    asked: list[dict[str, Any]] = []  # noqa: RUF012
    reply: str | None = ""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append({"path": self.path, **body})
        self.send_response(200)
        self.end_headers()
        answer = {} if self.reply is None else {"choices": [{"message": {"content": self.reply}}]}
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Endpoint)
    _Endpoint.asked.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_writer_is_given_the_facts_and_judged_by_them(endpoint: str) -> None:
    options = LabelOptions(writer=SongWriter(Endpoint(endpoint, "some-model")))
    origin = f"some-model at {endpoint}"
    for text, kept in (("A fast rock song in A minor, at 124 BPM.", True), ("A slow rock song in F major, at 60 BPM.", False)):
        _Endpoint.reply = text
        labels = labels_of(record(), options)
        assert (origin in [row["provenance"]["answer"] for row in labels.rows]) == kept
        assert ((f"caption, {origin}", "contradicts the key that was measured") in labels.dropped) != kept
    asked = _Endpoint.asked[0]
    assert (asked["path"], asked["model"]) == ("/v1/chat/completions", "some-model")
    told = json.loads(asked["messages"][1]["content"])
    assert (told["key"], told["genre"], told["chords"]) == ("A minor", ["rock"], ["A:min 0.0 s", "F:maj 20.0 s"])
    _Endpoint.reply = None
    with pytest.raises(ModelError, match="did not answer"):
        labels_of(record(), options)


def test_a_writer_asks_and_reasons(endpoint: str) -> None:
    options = LabelOptions(writer=SongWriter(Endpoint(endpoint, "m")), think=True)
    _Endpoint.reply = (
        'Here: {"question": "Is it fast?", "answer": "Yes, it has 124 BPM and drives on."}\n{"question": "Which key?", "answer": "It is in '
        'D major throughout."}\n{"question": ""}\n{nonsense}'
    )
    labels = labels_of(record(), options)
    questions = [row for row in labels.rows if row["task"] == "question"]
    assert [(row["messages"][0]["content"], row["provenance"]["question"]) for row in questions] == [("Is it fast?", f"m at {endpoint}")]
    assert (f"question, m at {endpoint}", "contradicts the key that was measured") in labels.dropped
    _Endpoint.reply = "I tap along and the taps come to 124 BPM, steady over the whole piece from start to end."
    rows = {row["task"]: row for row in labels_of(record(), options).rows}
    assert rows["tempo-think"]["provenance"]["reasons"] == f"m at {endpoint}"
    assert rows["tempo-think"]["messages"][1]["content"] == f"<think>{_Endpoint.reply}</think>\n<answer>124</answer>"


def test_a_writer_is_an_address_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a URL"):
        open_writer("file:///etc/passwd", "x", "--writer")
    with pytest.raises(ModelError, match=r"none\.gguf"):
        open_writer(str(tmp_path / "none.gguf"), "x", "--writer")


@pytest.mark.parametrize("text", ["", " ", "\x00", "a" * 10_000, "<think>", "{" * 500, "BPM " * 2000])
def test_filters_take_any_text(text: str) -> None:
    facts = {"tempo": {"value": 124.0, "confidence": 0.9}}
    assert caption_flaw(text, facts) is not None
    assert reasons_flaw(text, facts, "tempo") is not None
