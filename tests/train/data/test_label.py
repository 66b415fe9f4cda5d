"""Rows of one's own music: what is sure is asked, what contradicts is left out with a reason, one artist stands in one split."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mflamingo_cli.errors import ModelError, UsageError
from mflamingo_cli.schema import Analysis, AudioInfo, ErrorInfo, KeyInfo, MeterInfo, Result, SongTags, TempoInfo
from mflamingo_cli.train.data.label import labels_of, split_of
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.data.writer import EndpointWriter
from mflamingo_cli.train.multiple_choice import is_right

RESULT = Result(
    tempo=TempoInfo(bpm=124.0, source="measured", confidence=0.93),
    key=KeyInfo(tonic="A", mode="minor", name="A minor", source="measured", confidence=0.9),
    meter=MeterInfo(value="3/4", source="measured", confidence=0.55),
    genre=("rock",),
    caption="A rock song in A minor at 124 BPM with loud guitars.",
)


def record(path: str = "/music/song.wav", result: Result | None = RESULT, artist: str | None = "Somebody", **more: object) -> Analysis:
    audio = AudioInfo(60.0, 44_100, 2, "pcm", 0.0, 60.0, 2, False, tags=SongTags(artist=artist))
    return Analysis("analyze", "ok", path, audio_id=f"sha256:{path}", audio=audio, result=result, **more)  # type: ignore[arg-type]


def test_what_is_sure_is_asked_plainly_and_with_options(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.touch()
    (tmp_path / "song.lrc").write_text("[00:01.00]One line\n[00:05.00]Another\n", encoding="utf-8")
    labels = labels_of(record(str(path)))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, labels.rows)), encoding="utf-8")
    rows = {row["task"]: row for row in labels.rows}
    assert list(rows) == ["tempo", "tempo-choice", "key", "key-choice", "caption", "lyrics"]
    assert rows["key"]["messages"][1]["content"] == "A minor"
    assert rows["lyrics"]["messages"][1]["content"] == "One line\nAnother"
    assert sorted(rows["key-choice"]["choices"]) == ["A major", "A minor", "C major", "E minor"]
    assert sorted(map(float, rows["tempo-choice"]["choices"])) == [62.0, 82.7, 124.0, 248.0]
    for task in ("key-choice", "tempo-choice"):
        assert is_right(rows[task]["messages"][1]["content"], rows[task]["answer"], rows[task]["choices"])
    assert all(row["facts"]["tempo"] == {"value": 124.0, "confidence": 0.93} and row["tags"] == {"genre": ["rock"]} for row in labels.rows)
    assert labels.dropped == [("meter", "is 3/4 with a confidence of 0.55, below 0.8")]
    assert [row.exchanges[0].answer for row in Rows([tmp_path / "rows.jsonl"])] == [row["messages"][1]["content"] for row in labels.rows]


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A rock song in C major at 124 BPM.", "contradicts the key that was measured"),
        ("A rock song in A minor at 62 BPM.", "contradicts the tempo that was measured"),
        ("It is loud. It is loud. It is loud.", "repeats a sentence"),
        ("Rock music.", "has fewer than 5 words"),
    ],
)
def test_captions_that_are_wrong_are_left_out_with_a_reason(caption: str, reason: str) -> None:
    labels = labels_of(record(result=dataclasses.replace(RESULT, caption=caption)))
    assert ("caption, a model", reason) in labels.dropped
    assert "caption" not in [row["task"] for row in labels.rows]


def test_a_song_that_failed_has_no_rows() -> None:
    labels = labels_of(record(result=None, error=ErrorInfo("not_audio", "song.wav: is no audio", False)))
    assert (labels.rows, labels.dropped) == ([], [("song", "song.wav: is no audio")])


def test_options_and_splits_depend_on_the_seed_and_the_song_alone() -> None:
    orders = [labels_of(record(f"/music/{number}.wav"), seed=seed).rows[1]["choices"] for seed in (0, 0, 1) for number in range(8)]
    assert orders[:8] == orders[8:16]
    assert orders[:8] != orders[16:]
    rows = [labels_of(record(f"/music/{number}/{number}.wav"), seed=3).rows[0] for number in range(9)]
    assert len({row["split"] for row in rows}) == 1  # one artist
    groups = [labels_of(record(f"/music/{number}/x.wav", artist=None)).rows[0]["group"] for number in range(3)]
    assert groups == ["0", "1", "2"]  # else the folder
    shares = [split_of(f"artist {number}", 0) for number in range(2000)]
    assert 0.88 < shares.count("train") / 2000 < 0.92
    assert min(shares.count("dev"), shares.count("test")) > 60


class _Endpoint(BaseHTTPRequestHandler):
    asked: dict[str, object] = {}  # noqa: RUF012
    reply = b""

    def do_POST(self) -> None:
        type(self).asked = {"path": self.path, "body": json.loads(self.rfile.read(int(self.headers["Content-Length"])))}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(type(self).reply)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_writer_is_given_the_facts_and_judged_by_them(endpoint: str) -> None:
    for text, kept in (("A fast rock song in A minor, at 124 BPM.", True), ("A slow rock song in F major, at 60 BPM.", False)):
        _Endpoint.reply = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        labels = labels_of(record(), writer=EndpointWriter(endpoint, "some-model"))
        assert ("the writer" in [row["provenance"] for row in labels.rows]) == kept
        assert (("caption, the writer", "contradicts the tempo that was measured") in labels.dropped) != kept
    body = _Endpoint.asked["body"]
    assert (_Endpoint.asked["path"], body["model"]) == ("/v1/chat/completions", "some-model")
    assert json.loads(body["messages"][1]["content"])["key"] == "A minor"
    _Endpoint.reply = b"{}"
    with pytest.raises(ModelError, match="gives no caption"):
        labels_of(record(), writer=EndpointWriter(endpoint, "x"))
    with pytest.raises(UsageError, match="is no address"):
        EndpointWriter("file:///etc/passwd", "x")
