"""Laws of the questions and their parsers: total on any text, exact on the short form, lenient on prose."""

from __future__ import annotations

import random
import time
from types import SimpleNamespace as Record

import pytest

from mflamingo_cli.tasks import (
    ANALYZE,
    CAPTION_STYLES,
    MAX_ITEMS,
    SURE,
    TASKS,
    THINK_SUFFIX,
    ThoughtStream,
    Vocals,
    caption_task,
    clock,
    fact_phrases,
    ground,
    grounded_prompt,
    parse_chords,
    parse_genres,
    parse_key,
    parse_list,
    parse_meter,
    parse_tempo,
    parse_text,
    parse_vocals,
    short_chord,
    split_thinking,
    think_prompt,
    tidy,
)

HOSTILE_SECONDS = 2.0  # generous for a loaded machine; a quadratic expression needs minutes on these texts


def some_facts(**changes: object) -> Record:
    segments = [("C:maj", 4.0), ("G:maj", 4.0), ("A:min", 4.0), ("F:maj", 4.0), ("N", 9.0), ("D:min7", 0.5)]
    chords, at = [], 0.0
    for label, length in segments:
        chords.append(Record(start=at, end=at + length, label=label))
        at += length
    values: dict[str, object] = {
        "tempo": Record(bpm=87.5),
        "key": Record(name="A minor"),
        "meter": "4/4",
        "chords": chords,
        "sections": [Record(start=at, label=label) for at, label in ((0.0, "A"), (31.99, "B"), (64.0, "A"), (96.0, "B"), (128.0, "A"))],
        "loudness": Record(integrated_lufs=-9.8),
        "confidence": Record(tempo=None, key=0.95, meter=SURE),
    }
    return Record(**{**values, **changes})


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_reads_its_own_example(task):
    assert task.parse(task.example) not in (None, (), Vocals(None, None))


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_parser_is_total_and_fast_on_hostile_text(task):
    rng = random.Random(0)
    alphabet = " \n\t<>/thinkanswer[]{}()'\"*-_:;,.#b0123456789ABCDEFGm\x00\x1b\u202e\ud800\uff11\u2011é"
    texts = ["".join(rng.choices(alphabet, k=400)) for _ in range(100)]
    texts += [c * 50_000 for c in ("<", " ", "1", "A ", "a, ", "<think>", "((((", "120 -", "- \n", "voice no ", "The ", "key of ")]
    texts += ["", "120 " + " " * 50_000 + "bpm", "< " * 30_000, "no " * 20_000 + "vocals"]
    began = time.perf_counter()
    for text in texts:
        task.parse(text)
    assert time.perf_counter() - began < HOSTILE_SECONDS * 4


@pytest.mark.parametrize(
    ("text", "bpm"),
    [
        ("87", 87.0),
        ("87.5 BPM.", 87.5),
        ("The tempo is around 118\u2013122\u202fBPM, in 4/4.", 120.0),
        ("BPM: 128", 128.0),
        ("About 96 beats per minute, 1985 vintage", 96.0),
        ("\uff11\uff12\uff10 bpm", 120.0),
        ("It was recorded in 1985.", None),
        ("at 1:20 the drop lands, 24 bars later the chorus returns in full", None),
        ("999 BPM", None),
        ("", None),
    ],
)
def test_tempo_is_read_from_prose_but_years_and_times_are_not(text, bpm):
    assert parse_tempo(text) == bpm


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("D major", "D major"),
        ("The key is F\u266f\u2011minor.", "F# minor"),
        ("b-flat minor", "Bb minor"),
        ("It is in Am, with a lift to C major", "A minor"),
        ("key: C", "C major"),
        ("G", "G major"),
        ("a moll", "A minor"),
        ("A major label released it", "A major"),
        ("I cannot tell.", None),
        ("", None),
    ],
)
def test_key_is_read_in_any_spelling(text, key):
    assert parse_key(text) == key


@pytest.mark.parametrize(
    ("text", "meter"), [("4/4", "4/4"), ("It is in 6 / 8 time", "6/8"), ("common time", "4/4"), ("24/7 party", None), ("9/11", None)]
)
def test_meter_is_a_fraction_of_musical_denominator(text, meter):
    assert parse_meter(text) == meter


@pytest.mark.parametrize(
    ("text", "chords"),
    [
        ("C - G - Am - F", ("C", "G", "Am", "F")),
        ("A slow piece moving from C#m7 to F\u266f/A\u266f and B minor", ("C#m7", "F#", "Bm")),
        ("A:min, D:min7, E7", ("Am", "Dm7", "E7")),
        ("A flute enters", ()),
    ],
)
def test_chords_keep_their_order_and_articles_are_not_chords(text, chords):
    assert parse_chords(text) == chords


@pytest.mark.parametrize(
    ("label", "short"), [("A:min", "Am"), ("C#:maj7", "C#maj7"), ("D:min7/b3", "Dm7"), ("G", "G"), ("N", None), ("X", None), ("", None)]
)
def test_harte_labels_become_musicians_names(label, short):
    assert short_chord(label) == short


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("piano, guitar, bass, drums", ("piano", "guitar", "bass", "drums")),
        ("The instruments that stand out are the piano, a fuzzy guitar and drums. They blend.", ("piano", "fuzzy guitar", "drums")),
        ("- **Piano**: warm\n- Strings\n- piano", ("piano", "strings")),
        ("['Kick', 'Snare']", ("kick", "snare")),
        ("None.", ()),
        ("unknown", ()),
        ("I cannot tell that from the sound.", ()),
        ("", ()),
    ],
)
def test_lists_are_read_from_prose_bullets_and_brackets(text, items):
    assert parse_list(text) == items


def test_a_looping_list_is_cut_and_repeats_nothing():
    assert parse_list("piano, " * 500) == ("piano",)
    assert len(parse_list(", ".join(f"drum {i}x" for i in range(500)))) == MAX_ITEMS


def test_genre_names_keep_their_and():
    assert parse_genres("Drum and Bass, R&B, and Hip Hop") == ("Drum and Bass", "R&B", "Hip Hop")


@pytest.mark.parametrize(
    ("text", "vocals"),
    [
        ("No, instrumental.", Vocals(False, None)),
        ("The track has no lead vocals.", Vocals(False, None)),
        ("It is purely instrumental.", Vocals(False, None)),
        ("Yes, a warm female voice.", Vocals(True, "a warm female voice")),
        ("A male singer over an instrumental bed.", Vocals(True, "A male singer over an instrumental bed")),
        ("yes", Vocals(True, None)),
        ("I cannot tell that from the sound.", Vocals(None, None)),
        ("???", Vocals(None, None)),
        ("", Vocals(None, None)),
    ],
)
def test_vocals_have_three_states(text, vocals):
    assert parse_vocals(text) == vocals


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>slow, so a ballad</think> Hence, the final answer is: <answer>ballad</answer>", ("slow, so a ballad", "ballad", False)),
        ("<think> a </think> <answer>\nb </answer>", ("a", "b", False)),
        ("<think>a</think> b", ("a", "b", False)),
        ("a</think><answer>b", ("a", "b", False)),
        ("<think>a <answer>x</answer> b</think><answer>y</answer>", ("a x b", "y", False)),
        ("<think>never ends", ("never ends", None, True)),
        ("<answer>b</answer>", (None, "b", False)),
        ("<THINK>a</ Think ><Answer>b</ANSWER>", ("a", "b", False)),
        ("plain", (None, "plain", False)),
        ("</answer>", (None, None, False)),
        ("", (None, None, False)),
    ],
)
def test_thinking_is_split_leniently(text, parts):
    assert split_thinking(text) == parts


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>slow</think> Hence: <answer>ballad</answer> bye", "slow", "ballad"),
        ("<think>a < b</think> c", "a < b", "c"),
        ("plain <b> text", "", "plain <b> text"),
        ("<think>never", "never", ""),
        ("<answer>x", "", "x"),
    ],
)
def test_a_stream_is_split_as_the_whole_is(text, thinking, answer, size):
    stream = ThoughtStream()
    pieces = [piece for at in range(0, len(text), size) for piece in stream.feed(text[at : at + size])] + stream.end()
    assert "".join(t for is_answer, t in pieces if not is_answer).strip() == thinking
    assert "".join(t for is_answer, t in pieces if is_answer).strip() == answer


def test_think_prompt_ends_with_the_documented_suffix():
    assert think_prompt("What key? ") == "What key?" + THINK_SUFFIX
    assert THINK_SUFFIX == " Output the thinking process in <think> </think> and final answer in <answer> </answer>."


def test_parsers_never_read_the_reasoning():
    assert parse_key("<think>maybe C major, no</think><answer>A minor</answer>") == "A minor"
    assert parse_tempo("<think>it is 120 BPM I guess") is None
    assert parse_text("<think>a</think>b") == "b"


def test_tidy_removes_what_can_steer_a_terminal():
    assert tidy("a\x1b[31m\u202eb\x00\r\nc\ud800 ") == "a[31mb\nc"


def test_a_caption_style_changes_only_the_words():
    assert set(CAPTION_STYLES) == {"full", "short", "technical", "critic", "lyrics"}
    assert caption_task("critic").prompt == CAPTION_STYLES["critic"]
    assert caption_task("critic").name == "caption"


def test_analyze_asks_each_task_that_has_a_place_in_the_record():
    assert [task.name for task in ANALYZE] == ["tempo", "key", "meter", "instruments", "genre", "mood", "vocals", "caption"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.99, "0:59"), (213.4, "3:33"), (3723, "1:02:03")])
def test_times_are_shown_as_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text


def test_grounding_states_known_facts_in_fixed_order():
    text, want = ground(some_facts(), 213.4, least=0.0), "tempo 87.5 BPM; key A minor; meter 4/4; chords C G Am F; sections 5"
    form = "form A 0:00 B 0:31 A 1:04 B 1:36 A 2:08"
    assert text == f"Measured facts: {want}; {form}; loudness -9.8 LUFS; duration 213 s."
    assert grounded_prompt("Q?", text) == text + " Q?"


def test_unknown_facts_are_left_out():
    facts = some_facts(tempo=Record(bpm=None), key=None, meter=None, chords=(), sections=(), loudness=Record(integrated_lufs=None))
    assert fact_phrases(facts) == []
    assert ground(facts) == ""
    assert grounded_prompt("Q?", "") == "Q?"
    assert ground(None, 12.0) == "Measured facts: duration 12 s."


@pytest.mark.parametrize(("name", "first"), [("tempo", "tempo 87.5 BPM"), ("key", "key A minor"), ("meter", "meter 4/4")])
def test_what_is_not_sure_is_not_told(name, first):
    sure = {"tempo": 0.9, "key": 0.9, "meter": 0.9}
    unsure = fact_phrases(some_facts(confidence=Record(**{**sure, name: SURE - 0.01})))
    assert [phrase for phrase in fact_phrases(some_facts(confidence=Record(**sure))) if phrase not in unsure] == [first]


@pytest.mark.parametrize(("count", "told"), [(1, False), (2, True), (10, True), (11, False)])
def test_a_form_is_told_when_there_is_one_to_tell(count, told):
    facts = some_facts(sections=[Record(start=30.0 * i, label="A") for i in range(count)])
    assert any(phrase.startswith("form ") for phrase in fact_phrases(facts, least=0.0)) is told
    assert not any(phrase.startswith(("form ", "sections ")) for phrase in fact_phrases(facts))  # to a caption, which repeats it as true


def test_whole_numbers_have_no_decimal():
    assert fact_phrases(some_facts(tempo=Record(bpm=120.04)))[0] == "tempo 120 BPM"
