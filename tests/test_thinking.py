"""Laws of reasoning and answer: told apart leniently, and as it streams just as when it is whole."""

from __future__ import annotations

import pytest

from mflamingo_cli.thinking import THINK_SUFFIX, ThoughtStream, split_thinking, think_prompt


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
