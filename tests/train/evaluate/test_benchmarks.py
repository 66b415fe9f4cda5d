"""Benchmarks are read in their published layouts, asked once, and judged by two rules, whose difference is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.evaluate import benchmarks
from mflamingo_cli.train.evaluate.benchmarks import BENCHMARKS, BenchQuestion, letters_rule, words_rule


def question(answer: str, *others: str) -> BenchQuestion:
    return BenchQuestion("1", Path("a.wav"), "Which?", (answer, *others), answer, "")


@pytest.mark.parametrize(
    ("text", "asked", "official", "exact"),
    [
        ("C major", question("C major", "A minor"), True, True),
        ("C# major", question("C major", "A minor"), True, False),  # \w+ drops the sharp
        ("A", question("C major", "A minor"), False, True),  # a bare letter is no word of the answer
        ("(A) C major", question("C major", "A minor"), False, True),  # "a" is a word that only the other option has
        ("piano, not a guitar", question("piano", "guitar"), False, False),
        ("", question("piano", "guitar"), False, False),
    ],
)
def test_the_rule_of_mmau_and_mmar_has_known_faults(text: str, asked: BenchQuestion, official: bool, exact: bool) -> None:
    reply = benchmarks.judge(BENCHMARKS["mmau"], asked, text)
    assert (words_rule(text, asked), reply.official, reply.exact) == (official, official, exact)


@pytest.mark.parametrize(
    ("text", "asked", "official", "exact"),
    [
        ("A", question("piano", "guitar"), True, True),
        ("Acoustic guitar", question("piano", "acoustic guitar"), True, False),  # its capital letter is taken for option A
        ("Based on the timbre it is a piano", question("piano", "guitar"), False, False),  # and this for B
        ("The correct answer is: B", question("piano", "guitar"), False, False),
        ("it is a piano", question("piano", "guitar"), True, False),
    ],
)
def test_the_rule_of_muchomusic_has_known_faults(text: str, asked: BenchQuestion, official: bool, exact: bool) -> None:
    reply = benchmarks.judge(BENCHMARKS["muchomusic"], asked, text)
    assert (letters_rule(text, asked), reply.exact) == (official, exact)


def test_layouts_are_read(tmp_path: Path) -> None:
    entry = {"id": "m1", "question": "Which key?", "choices": ["C major", "A minor"], "answer": "A minor", "category": "Music Theory"}
    others = [{"task": "speech", "audio_id": "./x.wav"}, {"task": "music", "audio_id": "./test-mini-audios/m1.wav"}]
    (tmp_path / "mmau-test-mini.json").write_text(json.dumps([entry | other for other in others]), encoding="utf-8")
    [found] = BENCHMARKS["mmau"].read(tmp_path)
    assert (found.audio, found.choices, found.answer, found.skill) == (
        tmp_path / "test-mini-audios/m1.wav", ("C major", "A minor"), "A minor", "Music Theory",
    )  # fmt: skip
    assert found.prompt() == "Which key? Choose the correct option from the following options:\n(A) C major\n(B) A minor"
    lines = [json.dumps(entry | {"modality": kind, "audio_path": "./audio/m1.wav"}) for kind in ("sound", "music")]
    (tmp_path / "MMAR-meta.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert [one.audio for one in BENCHMARKS["mmar"].read(tmp_path)] == [tmp_path / "audio/m1.wav"]
    (tmp_path / "data/musiccaps/audio").mkdir(parents=True)
    clip = tmp_path / "data/musiccaps/audio/[a_b]-[30-40].wav"
    clip.touch()
    columns = "question,correct_answer,distractor_1_answer,distractor_2_answer,distractor_3_answer"
    columns += ",dataset,dataset_identifier,music_knowledge"
    rows = f"{columns}\nQ1,w,x,y,z,sdd,1234.json,['a']\nQ2,w,x,y,z,musiccaps,a_b_0.json,\n"
    (tmp_path / "muchomusic.csv").write_text(rows, encoding="utf-8")
    first, second = BENCHMARKS["muchomusic"].read(tmp_path)
    assert (first.audio, first.skill) == (tmp_path / "data/sdd/audio/34/1234.2min.mp3", "music_knowledge")
    assert (second.audio, sorted(second.choices), second.answer) == (clip, ["w", "x", "y", "z"], "w")
    assert [one.choices for one in BENCHMARKS["muchomusic"].read(tmp_path)] == [first.choices, second.choices]  # always in this order


def test_questions_are_asked_once_and_scored_by_skill(tmp_path: Path) -> None:
    entries = [
        {"id": str(number), "task": "music", "audio_id": f"{number}.wav", "question": "Which?", "choices": ["piano", "guitar"],
         "answer": "piano", "sub-category": skill}
        for number, skill in enumerate(("timbre", "timbre", "harmony"))
    ]  # fmt: skip
    (tmp_path / "mmau-test-mini.json").write_text(json.dumps(entries), encoding="utf-8")
    asked: list[str] = []

    def ask(song: Path, prompt: str) -> str:
        asked.append(song.name)
        return ["(A)", "guitar", "drums"][int(song.stem)]

    first = benchmarks.run(BENCHMARKS["mmau"], tmp_path, ask, tmp_path / "replies.jsonl", limit=2)
    with (tmp_path / "replies.jsonl").open("a") as log:
        log.write('{"id": "2", "te')  # a run that was cut off
    found = benchmarks.run(BENCHMARKS["mmau"], tmp_path, ask, tmp_path / "replies.jsonl")
    assert (len(first), asked) == (2, ["0.wav", "1.wav", "2.wav"])
    scores = {row["skill"]: row for row in benchmarks.table(found)}
    assert [scores[name]["exact"] for name in ("all", "timbre", "harmony")] == [1 / 3, 1 / 2, 0.0]
    assert (scores["harmony"]["unparsed"], scores["timbre"]["n"]) == (1.0, 2)
    low, high = scores["all"]["interval"]
    assert (round(low, 3), round(high, 3)) == (0.061, 0.792)  # Wilson, 1 of 3


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for bench in BENCHMARKS.values():
        with pytest.raises(UsageError, match="cannot be read"):
            list(bench.read(tmp_path))
    (tmp_path / "mmau-test-mini.json").write_text("[]")
    with pytest.raises(UsageError, match="has no questions of mmau"):
        benchmarks.run(BENCHMARKS["mmau"], tmp_path, lambda song, prompt: "", tmp_path / "r.jsonl")
