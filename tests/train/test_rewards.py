"""Rewards pay for an honest answer, and for nothing that only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train import rewards
from mflamingo_cli.train.data.row import QuestionAnswer, TrainingRow
from mflamingo_cli.train.multiple_choice import chosen, is_right

CHOICES = ["C major", "C# major", "A minor", "G"]
ROW = TrainingRow(
    (QuestionAnswer("Which key is it in?", None),),
    None,
    "rows.jsonl:1",
    None,
    {
        "answer": "A minor",
        "choices": CHOICES,
        "tags": {"genre": ["rock", "metal"], "instruments": ["guitar", "drums"], "mood": ["dark"]},
        "facts": {
            "tempo": {"value": 124.0, "confidence": 0.9},
            "key": "A minor",
            "meter": {"value": "3/4", "confidence": 0.5},
            "vocals": True,
        },
    },
)
CAPTION = "A dark rock and metal song in A minor at 124 BPM, with guitar, drums and a female singer."
HONEST = {
    "format": "<think>The chords circle around A minor.</think><answer>A minor</answer>",
    "accuracy": "<think>The chords circle around A minor.</think><answer>A minor</answer>",
    "structured": f"<think>Loud guitars.</think><answer>{CAPTION}</answer>",
    "facts": f"<think>Loud guitars.</think><answer>{CAPTION}</answer>",
}
VOCABULARY = " ".join(
    f"{note} {mode}, {bpm} BPM, rock, metal, guitar, drums, dark, sung"
    for note in "ABCDEFG"
    for mode in ("major", "minor")
    for bpm in (62, 124, 248)
)
ADVERSARIAL = {
    "empty": "",
    "garbage": "xq zv 9f ;; <<>>",
    "whole vocabulary": f"<answer>{VOCABULARY}</answer>",
    "hedge": "<think>Hm.</think><answer>C major or A minor, at 62, 124 or 248 BPM, with or without singing</answer>",
    "negation": "<think>Hm.</think><answer>not in A minor, not at 124 BPM, nobody sings</answer>",
    "tags only": "<think></think><answer></answer>",
    "repetition": "<think>Hm.</think><answer>" + "A minor " * 500 + "C major " * 500 + "</answer>",
    "prompt echo": "Which key is it in?",
    "octave": "<think>Hm.</think><answer>248 BPM</answer>",
    "list of facts": "<answer>C major A minor G C# major; 124 BPM, 62 BPM; 4/4, 3/4; guitar drums dark rock metal, instrumental</answer>",
    "10,000 words": "<think>Hm.</think><answer>" + "word " * 10_000 + CAPTION + "</answer>",
    "another language": "<think>Nun ja.</think><answer>Das Lied steht in a-Moll.</answer>",
}


@pytest.mark.slow  # claims are read in 10,000 words
@pytest.mark.parametrize("name", HONEST)
def test_no_trick_beats_an_honest_answer(name: str) -> None:
    [honest, *others] = rewards.REWARDS[name]([HONEST[name], *ADVERSARIAL.values()], ROW)
    assert honest == 1.0
    beaten = {trick: value for trick, value in zip(ADVERSARIAL, others, strict=True) if value is not None and value > honest}
    assert beaten == {}
    if name in ("accuracy", "facts"):
        assert max(value for value in others if value is not None) < honest


UNPAID_CLAIMS = (
    "The tempo is 120-130 BPM, or so.",
    "It is in A minor / C major.",
    "Is it in A minor? Is it at 124 BPM? Is it sung?",
    "It may be in A minor, or perhaps in C major.",
    "If it is in A minor, it is not in C major.",
    "The verse is in A minor, the chorus in C major, the bridge in G major.",
    "It starts at 62 BPM, then 124 BPM, then 248 BPM.",
    "Keys: A minor, B minor, C minor, D minor, E minor.",
    "<think>A minor at 124 BPM, sung</think>",
    "\uff11\uff12\uff14 BPM, \uff16\uff12 BPM",
    "It is instrumental with vocals.",
    "A female singer sings; there are no vocals.",
    "tempo 124, tempo 62",
    "119.5 BPM, 128.5 BPM",
    "\u202eA minor\u202c C major",
    "\u201cIt is in A minor\u201d is what one might say; \u201cIt is in C major\u201d is what another might say.",
    "70 % A minor, 30 % C major",
    "It is not in C major, not in G major, not in D minor; it is not at 62 BPM nor at 248 BPM.",
    "It is mostly in A minor, with parts in C major.",
    "somewhere around 124, 62 or 248 BPM",
    "In C major. Correction: A minor.",
    "- A minor\n- C major\n- 124 BPM\n- 62 BPM\n- sung\n- instrumental",
    "It begins in C major and ends in A minor.",
    "124 BPM. " + "It drives on. " * 50 + "62 BPM.",
)


@pytest.mark.parametrize("text", UNPAID_CLAIMS)
def test_what_is_hedged_asked_or_supposed_is_not_paid_as_a_fact(text: str) -> None:
    assert rewards.facts([text], ROW)[0] <= 0.0


UNPAID_TAGS = (
    "Not rock, not metal; no guitar, no drums; nothing dark.",
    "A piece without guitar or drums, neither rock nor metal.",
    "Is it rock? metal? guitar? drums? dark?",
    "Unlike rock or metal, it lacks guitar and drums, and is anything but dark.",
    "It isn't rock, it isn\u2019t metal.",
    "Pop instead of rock, far from metal.",
    "Nobody plays guitar or drums here.",
    "It has hardly any drums, guitar or rock in it.",
    "rocking metallic guitarist drumsticks darkness",
    "rockmetalguitardrumsdark",
    "r-o-c-k m-e-t-a-l",
    "r o c k, m e t a l, g u i t a r",
    "kcor latem ratiug smurd krad",
    "ro\u0441k m\u0435tal gu\u0456tar",  # Cyrillic letters
    "ro\u200bck me\u200btal",
    "word " * 300 + "rock metal guitar drums dark",
    "<think>rock metal guitar drums dark</think>",
    "<think>x</think><answer></answer> rock metal guitar drums dark",
    "<answer>pop</answer> rock metal <answer>jazz</answer>",
    "Eine d\u00fcstere Gitarre.",
    "Which key is it in?",
)


@pytest.mark.parametrize("text", UNPAID_TAGS)
def test_what_is_denied_asked_or_hidden_is_not_paid_as_a_tag(text: str) -> None:
    assert rewards.structured([text], ROW) == [0.0]


def test_a_but_ends_a_denial() -> None:
    assert rewards.structured(["Not pop but rock and metal, nothing but guitar and drums. Dark."], ROW) == [1.0]


def test_formats_that_only_look_like_one_get_nothing() -> None:
    bad = [
        "<think>a</think>",
        "<answer>a</answer>",
        "x <think>a</think><answer>b</answer>",
        "<think> </think><answer>b</answer>",
        "<think>a</think><answer></answer>",
        "<think>a<answer>b</answer></think>",
        "<think>a</think><answer>b</answer><answer>c</answer>",
    ]
    assert rewards.well_formed(bad, ROW) == [0.0] * len(bad)
    assert rewards.well_formed([" <think>a\nb</think>\n<answer>c</answer>\n"], ROW) == [1.0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("It is in A minor.", 1 / 3),
        ("It is in A minor at 125 BPM and sung.", 1.0),
        ("It is in C major.", -1 / 3),
        ("It is in A minor. It is in C major.", -1 / 3),
        ("It is not in C major, but in A minor.", 1 / 3),
        ("It is not in A minor.", -1 / 3),
        ("It runs at 62 BPM.", -1 / 3),
        ("An instrumental without singing.", -1 / 3),
        ("It is counted in 4/4.", 0.0),  # the measured meter is not sure enough to be paid for
        ("Nothing is known.", 0.0),
    ],
)
def test_facts_are_paid_for_by_what_is_claimed(text: str, value: float) -> None:
    assert rewards.facts([text], ROW) == pytest.approx([value])


def test_a_row_without_truth_has_no_reward() -> None:
    row = TrainingRow(ROW.exchanges, None, "x:1", None, {"facts": {"tempo": {"value": 90.0, "confidence": 0.3}}})
    assert [reward(["a"], row) for reward in (rewards.accuracy, rewards.structured, rewards.facts)] == [[None]] * 3
    assert rewards.total(rewards.REWARDS, [HONEST["format"], ""], row) == ([1.0, 0.0], {"format": [1.0, 0.0]})


def test_a_caption_is_not_paid_for_its_length() -> None:
    short, long_ = "rock guitar", "rock guitar " * 100
    assert rewards.structured([short, long_], ROW)[0] == rewards.structured([short, long_], ROW)[1] == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_a_file_of_one_s_own_can_reward(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "def brevity(texts, row):\n    return [1.0 / (1 + len(text)) for text in texts]\n\ndef wrong(texts, row):\n    return [1.0]\n"
    )
    found = rewards.find(["format", f"{path}:brevity"])
    assert rewards.total(found, ["abc", ""], ROW)[0] == [0.25, 1.0]
    with pytest.raises(UsageError, match="gave 1 values for 2 texts"):
        rewards.total(rewards.find([f"{path}:wrong"]), ["a", "b"], ROW)
    for name, sentence in (
        ("speed", "is unknown; choose from format, accuracy"),
        (f"{path}:no", "has no function no"),
        ("x.py:f", "there is no file x.py"),
    ):
        with pytest.raises(UsageError, match=sentence):
            rewards.find([name])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("C major", 0),
        ("(B)", 1),
        ("b", 1),
        ("B.", 1),
        ("(C) A minor", 2),
        ("C. A minor", 2),
        ("C♯ major", 1),
        ("G", 3),
        ("It is A minor.", None),
        ("(A) A minor", None),
        ("C major, not G", None),
        ("Based on the chords", None),
        ("E", None),
        ("", None),
        ("(D)", 3),
        ("<think>A</think><answer>C major</answer>", 0),
        ("Acoustic", None),
        ("c MAJOR!", 0),
    ],
)
def test_an_option_is_chosen_exactly(text: str, number: int | None) -> None:
    assert chosen(text, CHOICES) == number


def test_an_answer_is_right_or_not() -> None:
    assert is_right("(C)", "A minor", CHOICES)
    assert not is_right("C# major", "C major", CHOICES)
    assert not is_right("a", "x", ["x", "x"])  # two options of the same words are no question
    assert is_right("A Minor.", "a minor")
    assert not is_right("A minor, I think", "a minor")


def test_a_reward_of_one_s_own_is_told_apart_by_what_it_holds(tmp_path: Path) -> None:
    files = [tmp_path / folder / "own.py" for folder in ("here", "there")]
    for file in files:
        file.parent.mkdir()
        file.write_text("def short(texts, row):\n    return [-len(text) for text in texts]\n")
    here, there = (rewards.with_hash(f"{file}:short") for file in files)
    assert here == there
    assert here.startswith("own.py:short (")
    files[1].write_text("def short(texts, row):\n    return [len(text) for text in texts]\n")
    assert rewards.with_hash(f"{files[1]}:short") != here
    assert rewards.with_hash("format") == "format"
