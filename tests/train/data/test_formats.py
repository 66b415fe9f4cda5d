"""Each format from a record as its program writes it; what cannot be trained on is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mflamingo_cli.errors import UsageError
from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.train.data.row import QuestionAnswer, RowError, TrainingRow
from mflamingo_cli.train.data.rowset import Rows

FULL = CAPTION_STYLES["full"]
Q, A = "Which key?", "D minor"


@pytest.fixture
def music(tmp_path: Path) -> Path:
    for name in ("song.wav", "[abc]-[30-40].wav", "xyz.flac", "TRABC.mp3", "audio/04/1234.2min.mp3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def rows(folder: Path, *records: Any, name: str = "rows.jsonl") -> Rows:
    path = folder / name
    if path.suffix == ".csv":
        path.write_text("\n".join(records), encoding="utf-8")
    else:
        path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return Rows([path])


SAID = [{"role": "user", "content": f"<audio>{Q}"}, {"role": "assistant", "content": A}]
LLAVA = [{"from": "human", "value": f"<sound>\n{Q}"}, {"from": "gpt", "value": A}]
PARTS = [{"type": "audio_url", "audio_url": {"url": "song.wav"}}, {"type": "text", "text": Q}]


@pytest.mark.parametrize(
    ("layout", "record", "audio"),
    [
        ("rows of mflamingo", {"format": "mflamingo-rows/1", "audio": "song.wav", "messages": SAID}, "song.wav"),
        ("AF3 / LLaVA JSON", {"id": "1", "sound": "song.wav", "duration": 4.0, "conversations": LLAVA}, "song.wav"),
        (
            "AF3 / LLaVA JSON",
            {"id": "1", "sound": ["song.wav"], "conversations": [{"from": "human", "value": f"<sound-1>\n{Q}"}, LLAVA[1]]},
            "song.wav",
        ),
        (
            "LLaMA-Factory sharegpt",
            {"audios": ["song.wav"], "conversations": [{"from": "human", "value": f"<audio>{Q}"}, LLAVA[1]]},
            "song.wav",
        ),
        ("OpenAI content parts", {"messages": [{"role": "user", "content": PARTS}, SAID[1]]}, "song.wav"),
        ("ms-swift", {"messages": SAID, "audios": ["song.wav"]}, "song.wav"),
        ("ms-swift", {"messages": [{"role": "user", "content": Q}, SAID[1]], "audio": "song.wav"}, "song.wav"),
        ("ms-swift query and response", {"query": f"<audio>{Q}", "response": A, "audios": ["song.wav"]}, "song.wav"),
        ("ms-swift sharegpt", {"conversation": [{"human": f"<audio>{Q}", "assistant": A}], "audios": ["song.wav"]}, "song.wav"),
        ("Alpaca", {"instruction": "Which", "input": "key?", "output": A, "audios": ["song.wav"]}, "song.wav"),
        ("TRL conversational", {"messages": [{"role": "user", "content": Q}, SAID[1]]}, None),
        ("TRL prompt and completion", {"prompt": [{"role": "user", "content": Q}], "completion": [SAID[1]]}, None),
        ("TRL prompt and completion", {"prompt": Q, "completion": A}, None),
        ("MusicInstruct", {"ytid": "xyz", "question": Q, "answer": A, "is_audioset_eval": False}, "xyz.flac"),
        ("audiofolder", {"file_name": "song.wav", "question": Q, "answer": A}, "song.wav"),
    ],
)
def test_a_conversation_is_read(music: Path, layout: str, record: dict[str, Any], audio: str | None) -> None:
    found = rows(music, record)
    assert found.sources[0].layout.name == layout
    assert [(" ".join(said.question.split()), said.answer) for said in found[0].exchanges] == [(Q, A)]
    assert (found[0].audio and found[0].audio.path) == (music / audio if audio else None)
    assert found[0].place == f"{music / 'rows.jsonl'}:1"


@pytest.mark.parametrize(
    ("layout", "lines", "audio"),
    [
        ("MusicCaps", ["ytid,start_s,end_s,caption,is_audioset_eval", 'abc,30,40,"Slow, sad.",True'], "[abc]-[30-40].wav"),
        ("LP-MusicCaps", ["track_id,title,caption_writing,caption_summary", 'TRABC,x,"Slow, sad.",y'], "TRABC.mp3"),
        ("LP-MusicCaps", ["fname,caption_ground_truth,is_crawled", '[abc]-[30-40],"Slow, sad.",True'], "[abc]-[30-40].wav"),
        ("Song Describer", ["caption_id,track_id,caption,path", '7,1234,"Slow, sad.",audio/04/1234.mp3'], "audio/04/1234.2min.mp3"),
        ("audiofolder", ["file_name,text", 'song.wav,"Slow, sad."'], "song.wav"),
    ],
)
def test_a_caption_answers_the_question_for_one(music: Path, layout: str, lines: list[str], audio: str) -> None:
    found = rows(music, *lines, name="rows.csv")
    assert found.sources[0].layout.name == layout
    assert (found[0].exchanges, found[0].audio and found[0].audio.path) == ((QuestionAnswer(FULL, "Slow, sad."),), music / audio)


def test_a_list_of_llama_factory_names_files_columns_and_roles(music: Path) -> None:
    entry = {
        "file_name": "mine.json", "formatting": "sharegpt", "columns": {"messages": "talk", "audios": "songs"},
        "tags": {"role_tag": "who", "content_tag": "said", "user_tag": "me", "assistant_tag": "it"},
    }  # fmt: skip
    record = {"talk": [{"who": "me", "said": f"<audio>{Q}"}, {"who": "it", "said": A}], "songs": ["song.wav"]}
    (music / "mine.json").write_text(json.dumps([record]), encoding="utf-8")
    (music / "dataset_info.json").write_text(json.dumps({"mine": entry, "hub": {"hf_hub_url": "x/y"}}), encoding="utf-8")
    found = Rows([music / "dataset_info.json"])
    assert (len(found), found[0].exchanges, found[0].audio.path) == (1, (QuestionAnswer(Q, A),), music / "song.wav")


def test_parts_of_a_conversation_keep_their_sense(music: Path) -> None:
    said = [
        {"role": "system", "content": "Be brief."},
        *SAID,
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes", "loss": False},
    ]
    record = {
        "format": "mflamingo-rows/1",
        "audio": "song.wav",
        "start": 2,
        "end": 9.5,
        "messages": said,
        "choices": ["D minor", "F major"],
    }
    row: TrainingRow = rows(music, record)[0]
    assert (row.system, row.exchanges) == ("Be brief.", (QuestionAnswer(Q, A), QuestionAnswer("Sure?", "Yes", learned=False)))
    assert (row.audio.start_s, row.audio.end_s, row.extra) == (2.0, 9.5, {"choices": ["D minor", "F major"]})
    assert [message["role"] for message in row.messages()] == ["system", "user", "assistant", "user", "assistant"]
    open_end = rows(music, {"format": "mflamingo-rows/1", "messages": SAID[:1]}, name="grpo.jsonl")
    with pytest.raises(RowError, match="the text has 1 audio placeholders, but there are 0 files"):
        open_end[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"audios": ["song.wav", "xyz.flac"]}, "2 songs in one conversation"),
        ({"audios": ["nowhere.wav"]}, r"no file nowhere\.wav in"),
        ({"audios": ["https://x.org/a.wav"]}, "is a URL"),
        ({"audios": [3]}, "is not a file path"),
        ({"audios": [{"data": "UklGRg==", "format": "wav"}]}, "is in the record, as base64"),
        ({"messages": [SAID[0], SAID[0]]}, "two questions follow each other without an answer"),
        ({"messages": [SAID[1]]}, "an answer without a question"),
        ({"messages": []}, "there is no question"),
        ({"messages": [*SAID, {"role": "system", "content": "x"}]}, "only one system message is allowed"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role 'tool' is not one of"),
        ({"messages": [SAID[0], {"role": "assistant", "content": " "}]}, "an answer is empty"),
        ({"messages": [SAID[0], {"role": "assistant"}]}, "the record does not have the format of this file, ms-swift"),
        ({"messages": "x"}, "the record does not have the format of this file, ms-swift"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "x"}]}]}, "parts of type 'image' are not supported"),
        ({"start": "soon"}, "start is 'soon', which is not a time in seconds"),
        ({"start": -3}, "start is '-3', which is not a time in seconds"),
        ({"end": float("nan")}, "end is 'nan', which is not a time in seconds"),
        ({"end": 10**400}, "end is '1000"),
        ({"end": [4]}, "end is "),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_its_line(music: Path, change: dict[str, Any], reason: str) -> None:
    good = {"messages": SAID, "audios": ["song.wav"]}
    found = rows(music, good, good | change)
    assert found[0].exchanges == (QuestionAnswer(Q, A),)
    with pytest.raises(RowError, match=rf"rows\.jsonl:2: .*{reason}"):
        found[1]


def test_an_unknown_format_is_said_with_those_that_are_known(music: Path) -> None:
    with pytest.raises(UsageError, match=r"rows\.jsonl:1: a record with a, b has none of the supported formats: rows of mflamingo, AF3"):
        rows(music, {"b": 1, "a": 2})
    with pytest.raises(UsageError, match="no record can be read"):
        rows(music, name="empty.jsonl")


def test_rows_of_other_splits_are_not_trained_on(music: Path) -> None:
    made = [
        {"format": "mflamingo-rows/1", "messages": [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": "A"}], **split}
        for n, split in enumerate(({"split": "train"}, {"split": "test"}, {}, {"split": "dev"}, {"split": "train"}))
    ]
    path = music / "split.jsonl"
    path.write_text("\n".join(map(json.dumps, made)) + "\nnot json\n", encoding="utf-8")
    trained = Rows([path], to_train=True)
    assert [trained[number].exchanges[0].question for number in range(3)] == ["Q0", "Q2", "Q4"]
    assert (trained.held_out, len(trained), len(Rows([path]))) == (2, 4, 6)
    with pytest.raises(RowError, match=r"split\.jsonl:6"):  # what cannot be read is named, not left out
        trained[3]
