"""Benchmarks are read in their published layouts, asked once, and judged by two rules, whose difference is shown."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.evaluate.bench import run
from mflamingo_cli.train.evaluate.bench.choices import choice_measures, letters_rule, name_rule, words_rule
from mflamingo_cli.train.evaluate.bench.items import BenchItem
from mflamingo_cli.train.evaluate.bench.judge import rating
from mflamingo_cli.train.evaluate.bench.table import BENCHMARKS
from mflamingo_cli.train.evaluate.bench.texts import (
    agreeing_claims,
    bleu,
    bleu_row,
    edit_distance,
    mteval_tokens,
    rouge_l,
    sung_words,
    without_headings,
)
from mflamingo_cli.train.multiple_choice import with_options

MUSIC = ("C major", "A minor")


def item(answer: str, *others: str) -> BenchItem:
    return BenchItem("1", Path("a.wav"), "Which?", (answer,), (answer, *others))


def judged(text: str, asked: BenchItem, official: Callable[[str, BenchItem], bool]) -> list[bool]:
    """A reply by the official rule and by the exact one."""
    return [bool(measure.row(text, asked)[0]) for measure in choice_measures(official)[:2]]


# --- rules -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "asked", "official", "exact"),
    [
        ("C major", item("C major", "A minor"), True, True),
        ("C# major", item("C major", "A minor"), True, False),  # \w+ drops the sharp
        ("A", item("C major", "A minor"), False, True),  # a bare letter is no word of the answer
        ("(A) C major", item("C major", "A minor"), False, True),  # "a" is a word that only the other option has
        ("piano, not a guitar", item("piano", "guitar"), False, False),
        ("", item("piano", "guitar"), False, False),
    ],
)
def test_the_rule_of_mmau_and_mmar_has_known_faults(text: str, asked: BenchItem, official: bool, exact: bool) -> None:
    assert judged(text, asked, words_rule) == [official, exact]


@pytest.mark.parametrize(
    ("text", "asked", "official", "exact"),
    [
        ("A", item("piano", "guitar"), True, True),
        ("Acoustic guitar", item("piano", "acoustic guitar"), True, False),  # its capital letter is taken for option A
        ("Based on the timbre it is a piano", item("piano", "guitar"), False, False),  # and this for B
        ("The correct answer is: B", item("piano", "guitar"), False, False),
        ("it is a piano", item("piano", "guitar"), True, False),
    ],
)
def test_the_rule_of_muchomusic_has_known_faults(text: str, asked: BenchItem, official: bool, exact: bool) -> None:
    assert judged(text, asked, letters_rule) == [official, exact]


@pytest.mark.parametrize(
    ("text", "official", "exact"),
    [
        ("synth_lead", True, True),
        ("Synth lead.", False, True),  # a name that is spelled otherwise
        ("(A) synth_lead", False, True),
        ("bass", False, False),
        ("synth_lead or bass", False, False),
    ],
)
def test_the_rule_of_classes_wants_their_spelling(text: str, official: bool, exact: bool) -> None:
    assert judged(text, item("synth_lead", "bass"), name_rule) == [official, exact]


def test_two_options_of_the_same_words_cannot_be_told_apart() -> None:
    asked = BenchItem("1", Path("a.wav"), "Which?", ("a, b",), ("a, b", "b, a"))
    assert words_rule("b, a", asked)  # the official rule takes either
    assert judged("b, a", asked, words_rule) == [True, False]


# --- lyrics ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "said", "errors"),
    [("a b c", "a b c", 0), ("a b c", "", 3), ("", "a b", 2), ("a b c d", "a x c", 2), ("a b c", "b c a", 2), ("a a b", "a b b b", 2)],
)
def test_edit_distances_are_levenshteins(reference: str, said: str, errors: int) -> None:
    assert edit_distance(reference.split(), said.split()) == errors


def test_edit_distances_are_those_of_the_plain_recursion() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, right = (list(map(str, rng.integers(4, size=rng.integers(12)))) for _ in range(2))
        rows = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
        for i in range(len(left) + 1):
            for j in range(len(right) + 1):
                if not i or not j:
                    rows[i][j] = i + j
                else:
                    rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (left[i - 1] != right[j - 1]))
        assert edit_distance(left, right) == rows[-1][-1]


def test_headings_of_a_lyric_sheet_are_errors_by_the_official_rule_alone() -> None:
    sheet = "**Verse 1**\nDon’t stop the music\n\n[Chorus]\nLa la (oh)\n"
    asked = BenchItem("1", Path("a.mp3"), "", ("don't stop the music\nla la oh",))
    official, ours = (measure for measure in BENCHMARKS["jamendo-lyrics"].measures[:2])
    assert (tuple(official.row(sheet, asked)), tuple(ours.row(sheet, asked))) == ((3, 7), (0, 7))
    assert sung_words(without_headings("(Chorus hits) again")) == ["chorus", "hits", "again"]  # sung words in brackets stay


def test_error_rates_are_of_all_words_together() -> None:
    asked = [BenchItem(str(n), Path("a.mp3"), "", (words,)) for n, words in enumerate(("one two three four", "five"))]
    found = run.scores(asked, ["one two three four", "six"], BENCHMARKS["jamendo-lyrics"].measures)
    assert found[0].figures[0].value == 1 / 5


# --- captions ----------------------------------------------------------------------------------------------------------------


def caption(*references: str) -> BenchItem:
    return BenchItem("1", Path("a.wav"), "", references)


def test_bleu_is_papinenis() -> None:
    # the example of its paper, section 2: the clipped precision of "the" is 2 of 7
    asked = caption("The cat is on the mat", "There is a cat on the mat")
    assert bleu(np.array([bleu_row("the the the the the the the", caption("the cat is on the mat"))]), 1) == pytest.approx(2 / 7)
    same = np.array([bleu_row("The cat is on the mat", asked)])
    assert [bleu(same, order) for order in (1, 4)] == [pytest.approx(1.0)] * 2
    assert bleu(np.array([bleu_row("The cat is on", asked)]), 4) == pytest.approx(np.exp(1 - 6 / 4))  # brevity
    assert bleu(np.array([bleu_row("", asked)]), 4) == 0.0
    assert mteval_tokens("It's 3.5, low-key (quiet).") == ["It's", "3.5", ",", "low-key", "(", "quiet", ")", "."]


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    # Lin 2004, section 3: "police killed the gunman" and "the gunman kill police": 2 of 4 words in order
    assert rouge_l("the gunman kill police", caption("police killed the gunman")) == (0.5,)
    assert rouge_l("Police killed the gunman!", caption("x", "police killed the gunman")) == (1.0,)
    assert rouge_l("", caption("a")) == (0.0,)


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ("A song in C major at 120 BPM.", (2, 2)),
        ("A song in A minor at 120 BPM.", (1, 2)),
        ("It is not in C major.", (0, 1)),
        ("It is not in A minor.", (1, 1)),
        ("A song in 3/4.", (0, 0)),  # the reference says nothing of it
    ],
)
def test_claims_of_a_caption_are_held_against_those_of_its_references(said: str, counts: tuple[int, int]) -> None:
    assert agreeing_claims(said, caption("A piano piece in C major, at 120 BPM.")) == counts


# --- layouts -----------------------------------------------------------------------------------------------------------------


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


ENTRY = {"id": "m1", "question": "Which key?", "choices": list(MUSIC), "answer": "A minor", "category": "Music Theory"}


def mmau(folder: Path) -> str:
    others = [{"task": "speech", "audio_id": "./x.wav"}, {"task": "music", "audio_id": "./test-mini-audios/m1.wav"}]
    write(folder / "mmau-test-mini.json", json.dumps([ENTRY | other for other in others]))
    return "test-mini-audios/m1.wav"


def mmar(folder: Path) -> str:
    lines = [json.dumps(ENTRY | {"modality": kind, "audio_path": "./audio/m1.wav"}) for kind in ("sound", "music")]
    write(folder / "MMAR-meta.jsonl", "\n".join(lines))
    return "audio/m1.wav"


def mmau_pro(folder: Path) -> str:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table.from_pylist(
        [
            {**ENTRY, "category": kind, "audio_path": paths, "choices": choices, "perceptual_skills": ["Harmony"], "reasoning_skills": []}
            for kind, paths, choices in (
                ("music", ["data/a.wav"], MUSIC), ("music", ["data/a.wav", "data/b.wav"], MUSIC), ("speech", ["data/a.wav"], MUSIC),
                ("open", ["data/a.wav"], ()),
            )
        ]
    )  # fmt: skip
    parquet.write_table(table, folder / "test.parquet")
    return "data/a.wav"


def muchomusic(folder: Path) -> str:
    rows = [
        {"question": "Q", "correct_answer": "w", **{f"distractor_{n}_answer": "xyz"[n - 1] for n in (1, 2, 3)}, "dataset": source,
         "dataset_identifier": name, "music_knowledge": "['a']"}
        for source, name in (("sdd", "1234.json"), ("musiccaps", "a_b_0.json"))
    ]  # fmt: skip
    write_csv(folder / "muchomusic.csv", rows)
    write(folder / "data/musiccaps/audio/[a_b]-[30-40].wav")
    return "data/sdd/audio/34/1234.2min.mp3"


def nsynth(folder: Path) -> str:
    note = {"instrument_family_str": "synth_lead", "instrument_source_str": "synthetic", "pitch": 60}
    write(folder / "nsynth-test/examples.json", json.dumps({"synth_lead_synthetic_000-060-100": note}))
    return "nsynth-test/audio/synth_lead_synthetic_000-060-100.wav"


def gtzan(folder: Path) -> str:
    write(folder / "test_filtered.txt", "blues/blues.00012.wav\njazz/jazz.00001.wav\n")
    return "genres/blues/blues.00012.au"


def medley(folder: Path) -> str:
    rows = [{"subset": subset, "instrument_id": "4", "instrument": "piano", "uuid4": "u-1"} for subset in ("training", "test")]
    write_csv(folder / "Medley-solos-DB_metadata.csv", rows)
    return "audio/Medley-solos-DB_test-4_u-1.wav"


def musiccaps(folder: Path) -> str:
    rows = [
        {"ytid": name, "start_s": 30, "end_s": 40, "caption": "Low.", "is_audioset_eval": flag}
        for name, flag in (("-0", True), ("x", False))
    ]
    write_csv(folder / "musiccaps-public.csv", rows)
    return "audio/[-0]-[30-40].wav"


def musicinstruct(folder: Path) -> str:
    for kind in ("long", "short"):
        entry = {"ytid": "-0", "question": "How fast?", "answer": "Slow.", "is_audioset_eval": kind == "long"}
        write(folder / f"music_instruct_{kind}.json", json.dumps({"QA": [entry]}))
    return "MusicCaps_audio/-0.wav"


def song_describer(folder: Path) -> str:
    rows = [
        {"caption_id": n, "track_id": 7, "caption": text, "is_valid_subset": valid, "path": "07/7.mp3"}
        for n, (text, valid) in enumerate((("One.", True), ("Two.", True), ("Bad.", False)))
    ]
    write_csv(folder / "song_describer.csv", rows)
    return "audio/07/7.2min.mp3"


def jamendo(folder: Path) -> str:
    write_csv(folder / "JamendoLyrics.csv", [{"URL": "u", "Filepath": "A_-_B.mp3", "Language": "German"}])
    write(folder / "lyrics/A_-_B.txt", "ein wort\n")
    return "mp3/A_-_B.mp3"


def opencpop(folder: Path) -> str:
    write(folder / "segments/test.txt", "2044001629|感受停在我发端的指尖|g an sh ou|rest|0.1|0.1|0\n")
    return "segments/wavs/2044001629.wav"


def musdb(folder: Path) -> str:
    lines = "00:00 00:05 d\n00:05 00:09.5 a I walk alone\n* 00:10 00:12 b maybe this\n00:12 01:01 c two at once\n"
    write(folder / "test_lyrics/Band - Song.txt", lines)
    return "test/Band - Song/mixture.wav"


def own_rows(folder: Path) -> str:
    write(folder / "song.wav")
    made = [
        {"format": "mflamingo-rows/1", "id": f"{split}/{task}", "audio": "song.wav", "start": 5, "end": 9, "task": task, "split": split,
         **row,
         "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "…"}]}
        for split in ("train", "test")
        for task, question, row in (
            ("key", "Which key?", {"answer": "A minor"}),
            ("key-choice", with_options("Which key?", MUSIC), {"answer": "A minor", "choices": list(MUSIC)}),
            ("caption", "Describe it.", {}),
        )
    ]  # fmt: skip
    write(folder / "rows.jsonl", "\n".join(map(json.dumps, made)))
    return "song.wav"


LAYOUTS: Mapping[str, tuple[Callable[[Path], str], int, tuple[str, ...], str]] = {  # items, references and skill of the first
    "mmau": (mmau, 1, ("A minor",), "Music Theory"),
    "mmar": (mmar, 1, ("A minor",), "Music Theory"),
    "mmau-pro": (mmau_pro, 1, ("A minor",), "Harmony"),
    "muchomusic": (muchomusic, 2, ("w",), "music_knowledge"),
    "nsynth": (nsynth, 2, ("synthetic",), "source"),
    "gtzan": (gtzan, 2, ("blues",), "blues"),
    "medley-solos-db": (medley, 1, ("piano",), "piano"),
    "musiccaps": (musiccaps, 1, ("Low.",), ""),
    "musicinstruct": (musicinstruct, 1, ("Slow.",), "long"),
    "song-describer": (song_describer, 1, ("One.", "Two."), ""),
    "jamendo-lyrics": (jamendo, 1, ("ein wort\n",), "German"),
    "opencpop": (opencpop, 1, ("感受停在我发端的指尖",), ""),
    "musdb18-lyrics": (musdb, 2, ("I walk alone",), "a"),
    "rows": (own_rows, 2, ("A minor",), "key"),
}


def place(name: str, folder: Path) -> Path:
    return folder / "rows.jsonl" if name == "rows" else folder


def test_every_benchmark_has_a_layout_here() -> None:
    assert LAYOUTS.keys() == BENCHMARKS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_read(name: str, tmp_path: Path) -> None:
    make, count, references, skill = LAYOUTS[name]
    audio = make(tmp_path)
    write(tmp_path / audio)
    where = place(name, tmp_path)
    items = list(BENCHMARKS[name].read(where))
    assert (len(items), items[0].references, items[0].skill) == (count, references, skill)
    assert items[0].audio == tmp_path / audio
    assert items == list(BENCHMARKS[name].read(where))  # options always in this order
    assert all(one.references[0] in one.choices for one in items if one.choices)
    assert len({one.id for one in items}) == count


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_right_reply_has_the_best_figures(name: str, tmp_path: Path) -> None:
    """Each measure of each benchmark, official or ours, tells a right reply from a wrong one."""
    LAYOUTS[name][0](tmp_path)
    items, measures = list(BENCHMARKS[name].read(place(name, tmp_path))), BENCHMARKS[name].measures
    right = run.scores(items, [one.references[0] for one in items], measures)[0].figures
    wrong = run.scores(items, ["qq zz" if one.choices else "" for one in items], measures)[0].figures
    better = {
        measure.name: good.value > bad.value if measure.higher_is_better else good.value < bad.value
        for measure, good, bad in zip(measures, right, wrong, strict=True)
        if measure.name not in ("claims that agree", "BLEU-4")  # these captions have no claims, and are shorter than four words
    }
    assert better
    assert all(better.values()), better


@pytest.mark.parametrize(
    ("text", "right", "unparsed"),
    [
        ("A minor", 1, 0),
        ("It is in A minor.", 1, 0),
        ("am", 1, 0),
        ("C major", 0, 0),
        ("<think>C major?</think><answer>Am</answer>", 1, 0),
        ("I cannot tell that from the sound.", 0, 1),
        ("", 0, 1),
    ],
)
def test_own_rows_are_read_as_the_program_reads_answers(text: str, right: int, unparsed: int, tmp_path: Path) -> None:
    own_rows(tmp_path)
    plain, choice = BENCHMARKS["rows"].read(tmp_path / "rows.jsonl")
    assert [tuple(measure.row(text, plain)) for measure in BENCHMARKS["rows"].measures] == [(right,), (unparsed,)]
    assert choice.prompt() == with_options("Which key?", MUSIC)
    assert (choice.start_s, choice.end_s) == (5.0, 9.0)


def test_musdb_lines_are_parts_of_songs(tmp_path: Path) -> None:
    musdb(tmp_path)
    assert [(one.start_s, one.end_s, one.skill) for one in BENCHMARKS["musdb18-lyrics"].read(tmp_path)] == [
        (5.0, 9.5, "a"), (12.0, 61.0, "c"),
    ]  # fmt: skip


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for benchmark in BENCHMARKS.values():
        with pytest.raises(UsageError, match="cannot be read"):
            list(benchmark.read(tmp_path))
    write(tmp_path / "mmau-test-mini.json", "[]")
    with pytest.raises(UsageError, match="contains no questions of mmau"):
        run.read_items(BENCHMARKS["mmau"], tmp_path)
    mmau(tmp_path)
    with pytest.raises(UsageError, match=r"m1\.wav: not found"):
        run.read_items(BENCHMARKS["mmau"], tmp_path)
    write(tmp_path / "mmau-test-mini.json", '[{"task": "music"}]')
    with pytest.raises(UsageError, match="does not have the published format"):
        run.read_items(BENCHMARKS["mmau"], tmp_path)


def test_recordings_that_are_missing_are_named(tmp_path: Path) -> None:
    muchomusic(tmp_path)
    items, missing = run.read_items(BENCHMARKS["muchomusic"], tmp_path)
    assert ([one.id for one in items], missing) == (["1"], [tmp_path / "data/sdd/audio/34/1234.2min.mp3"])


# --- runs --------------------------------------------------------------------------------------------------------------------


def test_replies_are_those_of_one_model_to_these_questions(tmp_path: Path) -> None:
    log, item = tmp_path / "replies.jsonl", BenchItem("a", Path("a.wav"), "Which key?", ("C major",))
    odd = "one\u2028two\x85three\x0cfour"  # ends of lines to some, none to JSON
    assert run.replies([item], lambda _: odd, log, {"model": "mini", "think": False}) == [odd]
    assert run.replies([item], lambda _: "again", log, {"model": "mini", "think": False}) == [odd]
    other = dataclasses.replace(item, question="How fast?")
    assert run.replies([other], lambda _: "120", log, {"model": "mini", "think": False}) == ["120"]
    before = log.read_bytes()
    with pytest.raises(UsageError, match=r"replies\.jsonl: was begun with --model mini, not tuned"):
        run.replies([item], lambda _: "other", log, {"model": "tuned", "think": False})
    assert log.read_bytes() == before
    log.write_bytes(before + '{"id": "a", "text": "F\u00fcr'.encode()[:-2])  # killed within a character
    assert run.replies([other], lambda _: "again", log, {"model": "mini", "think": False}) == ["120"]


def test_questions_are_asked_once_and_scored_by_skill(tmp_path: Path) -> None:
    items = [
        BenchItem(str(number), Path(f"{number}.wav"), "Which?", ("piano",), ("piano", "guitar"), skill)
        for number, skill in enumerate(("timbre", "timbre", "harmony"))
    ]
    asked: list[str] = []

    def ask(one: BenchItem) -> str:
        asked.append(one.id)
        return ["(A)", "guitar", "drums"][int(one.id)]

    log = tmp_path / "deep" / "replies.jsonl"
    run.replies(items[:2], ask, log)
    with log.open("a") as stream:
        stream.write('{"id": "2", "te')  # a run that was cut off
    texts = run.replies(items, ask, log)
    assert (asked, texts) == (["0", "1", "2"], ["(A)", "guitar", "drums"])
    assert run.replies(items, ask, log) == texts  # nothing is asked again, also not the one whose line was cut off
    assert asked == ["0", "1", "2"]
    found = {row.skill: row for row in run.scores(items, texts, choice_measures(words_rule))}
    assert [found[name].figures[1].value for name in ("all", "timbre", "harmony")] == [1 / 3, 1 / 2, 0.0]
    assert (found["harmony"].figures[2].value, found["timbre"].n) == (1.0, 2)
    low, high = found["all"].figures[1].interval
    assert (round(low, 3), round(high, 3)) == (0.061, 0.792)  # Wilson, 1 of 3
    record = run.as_record(list(found.values()))
    assert record[0]["figures"]["exact"]["value"] == 1 / 3
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mflamingo_cli", "train", "eval", *arguments], capture_output=True, text=True, check=False)


def test_the_command_asks_the_model_itself_and_goes_on(tmp_path: Path) -> None:
    gtzan(tmp_path)
    song = tmp_path / "genres/blues/blues.00012.au"
    song.parent.mkdir(parents=True)
    song.write_bytes((Path(__file__).parents[2] / "data" / "ocean.opus").read_bytes())
    log = tmp_path / "replies.jsonl"
    arguments = ["-m", "mini", "--bench", f"gtzan={tmp_path}", "--replies", str(log)]
    first = command(*arguments, "--json")
    found = json.loads(first.stdout)
    assert (found["missing"], found["scores"][0]["n"]) == (1, 1)
    assert "1 recordings are missing" in first.stderr
    assert json.loads(log.read_text())["text"]
    log.write_text(json.dumps({"id": "blues/blues.00012.wav", "text": "blues"}) + "\n")  # as if that had been the reply
    assert "1.000" in command(*arguments).stdout


def test_a_benchmark_that_is_not_known_lists_them_all() -> None:
    done = command("-m", "mini", "--bench", "nothing=/tmp")
    assert done.returncode == 2
    assert "song-describer" in done.stderr


# --- a judge -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "rated"),
    [("7", 7), ("8/10", 8), ("9 out of 10.", 9), ("I rate it 3.", 3), ("10", 10), ("between 6 and 7", None), ("11", None), ("good", None)],
)
def test_a_rating_is_one_number(said: str, rated: int | None) -> None:
    assert rating(said) == rated if rated else np.isnan(rating(said))


def test_a_judge_is_asked_once_and_stands_beside(tmp_path: Path) -> None:
    song_describer(tmp_path)
    song = tmp_path / "audio/07/7.2min.mp3"
    song.parent.mkdir(parents=True)
    song.write_bytes((Path(__file__).parents[2] / "data" / "ocean.opus").read_bytes())
    log = tmp_path / "replies.jsonl"
    log.write_text(json.dumps({"id": "07/7.mp3", "text": "One."}) + "\n")
    (tmp_path / "replies.jsonl.judged").write_text(json.dumps({"id": "07/7.mp3", "text": "9/10"}) + "\n")
    nobody = "http://127.0.0.1:9/v1"  # who is not asked again
    arguments = ["-m", "mini", "--bench", f"song-describer={tmp_path}", "--replies", str(log), "--json", "--judge", nobody]
    figures = json.loads(command(*arguments).stdout)["scores"][0]["figures"]
    assert (figures["ROUGE-L"]["value"], figures["rated 1 to 10"]["value"], figures["unrated"]["value"]) == (1.0, 9.0, 0.0)
    (tmp_path / "replies.jsonl.judged").unlink()
    assert "did not answer" in command(*arguments).stderr
    gtzan(tmp_path)
    write(tmp_path / "genres/blues/blues.00012.au")
    done = command("-m", "mini", "--bench", f"gtzan={tmp_path}", "--judge", nobody, "--limit", "1")
    assert "are scored as right or wrong, not rated" in done.stderr
