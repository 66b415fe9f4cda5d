"""Choosing tokens and cutting text: the same laws for both back ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mflamingo_cli.backends.base import GenerateOptions
from mflamingo_cli.backends.generation import LOOP_TIMES, LOOP_TOKENS, Answer, Loop, PrefixGroup, Sampler, TextStream, batches
from mflamingo_cli.errors import ModelError, UsageError

END = 0
LOGITS = np.array([0.0, 2.0, 1.0, -1.0], np.float32)
GROUP = PrefixGroup([(3, 0), (3, 1)], before=[5, 6], embeddings=np.zeros((4, 2), np.float32), after=[[7], [7, 8, 9]])


def streamed(pieces: list[bytes], options: GenerateOptions, tokens: list[int] | None = None) -> tuple[list[str], str | None]:
    stream = TextStream(options, {END}, tokens_in=5)
    texts = []
    for token, piece in zip(tokens or range(1, len(pieces) + 1), pieces, strict=False):
        texts.append(stream.add(token, piece).text)
        if stream.finish:
            break
    return texts, stream.finish


def test_greedy_takes_the_first_maximum() -> None:
    assert Sampler(GenerateOptions(), []).pick(np.array([1.0, 3.0, 3.0], np.float32)) == 1


def test_equal_seeds_choose_equally_and_others_differ() -> None:
    flat = np.zeros(50, np.float32)

    def picks(seed: int) -> list[int]:
        sampler = Sampler(GenerateOptions(temperature=1.0, seed=seed), [])
        return [sampler.pick(flat) for _ in range(20)]

    assert picks(1) == picks(1)
    assert picks(1) != picks(2)


def test_samples_follow_the_probabilities() -> None:
    sampler = Sampler(GenerateOptions(temperature=1.0), [])
    counts = np.bincount([sampler.pick(LOGITS) for _ in range(4000)], minlength=4) / 4000
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    np.testing.assert_allclose(counts, expected, atol=0.03)  # four standard deviations of 4000 draws


def test_a_small_nucleus_is_greedy() -> None:
    sampler = Sampler(GenerateOptions(temperature=5.0, top_p=0.01), [])
    assert {sampler.pick(LOGITS) for _ in range(50)} == {1}


@pytest.mark.parametrize("top_p", [0.3, 0.8, 0.95, 1.0])
def test_a_nucleus_is_the_fewest_tokens_that_are_worth_so_much(top_p: float) -> None:
    logits = np.random.default_rng(8).normal(0, 2, 40).astype(np.float32)
    p = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    order = np.argsort(-p)
    nucleus = set(order[: 1 + int(np.sum(np.cumsum(p[order]) < top_p))])
    sampler = Sampler(GenerateOptions(temperature=1.0, top_p=top_p), [])
    drawn = Counter(sampler.pick(logits) for _ in range(4000))
    assert set(drawn) <= nucleus
    assert {token for token in nucleus if p[token] > 0.005} <= set(drawn)  # missed with a probability of 2e-9


def test_a_penalty_moves_the_choice_away_from_what_was_said() -> None:
    sampler = Sampler(GenerateOptions(repetition_penalty=3.0), [1])
    assert [sampler.pick(LOGITS), sampler.pick(LOGITS)] == [2, 1]


def test_a_penalty_lowers_negative_logits_too() -> None:
    assert Sampler(GenerateOptions(repetition_penalty=2.0), [0]).pick(np.array([-1.0, -1.5], np.float32)) == 1


def test_what_is_forced_comes_next_whatever_the_logits_say() -> None:
    sampler = Sampler(GenerateOptions(), [])
    sampler.force([3, 0])
    assert not sampler.is_greedy
    assert [sampler.pick(LOGITS) for _ in range(3)] == [3, 0, 1]
    assert sampler.is_greedy


@pytest.mark.parametrize(("options", "sentence"), [
    ({"thinking_budget": 1024}, "a thinking budget of 1024 uses up all 1024 tokens of the answer; raise --max-tokens"),
    ({"repetition_penalty": 0.0}, "a repetition penalty of 0 is not allowed; 1 is off, 1.1 is usual"),
])  # fmt: skip
def test_options_that_cannot_be_are_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        GenerateOptions(**options)


# --- what goes round ---------------------------------------------------------------------------------------------------

WORDS = list(range(100, 100 + LOOP_TOKENS))


def tokens_until_a_loop(tokens: list[int]) -> int | None:
    loop = Loop()
    return next((number for number, token in enumerate(tokens, 1) if loop.add(token)), None)


@pytest.mark.parametrize(("period", "seen_after"), [
    (1, LOOP_TIMES * LOOP_TOKENS),  # one word for ever: 20 of them, three times
    (7, LOOP_TIMES * 21),  # whole periods of at least 20
    (20, LOOP_TIMES * 20),
    (33, LOOP_TIMES * 33),
    (256, LOOP_TIMES * 256),
])  # fmt: skip
def test_what_was_said_three_times_in_a_row_is_a_loop_and_no_token_earlier(period: int, seen_after: int) -> None:
    start = [5, 6, 7, 8]
    assert tokens_until_a_loop(start + list(range(100, 100 + period)) * 100) == len(start) + seen_after


def test_no_loop_is_what_is_said_twice_or_not_in_a_row_or_changed_a_little() -> None:
    verse = [list(range(start, start + 30)) for start in (200, 300, 400)]
    assert tokens_until_a_loop(WORDS * 2 + [1] + WORDS * 2) is None
    assert tokens_until_a_loop([token for own in verse for token in (*own, *WORDS)]) is None  # a chorus after each verse
    assert tokens_until_a_loop([token for number in range(50) for token in (*WORDS[:-1], number)]) is None  # a list


# --- reasoning ---------------------------------------------------------------------------------------------------------

CLOSING = [8, 9]
PIECES = {1: b"<think>", 2: b"so ", 3: b"</think>", 4: b"<answer>", 5: b"yes", 6: b"no ", 8: b"</think> ", 9: b"<answer>", END: b""}


def spoken(tokens: list[int], options: GenerateOptions) -> tuple[str, str | None, str | None]:
    """What an answer says when the model would say these tokens: its text, its end, why its reasoning was cut."""
    answer = Answer(GROUP, 0, options, {END}, 1000, CLOSING)
    wanted, text = iter(tokens), ""
    while not answer.ended:
        logits = np.zeros(10, np.float32)
        if not answer.sampler._forced:
            logits[next(wanted)] = 9.0
        token = answer.sampler.pick(logits)
        for _, _, chunk in answer.add(token, PIECES[token]):
            text += chunk.text
    return text, chunk.finish, chunk.cut_thinking


@pytest.mark.parametrize(("budget", "text", "cut"), [
    (None, "<think>so so so </think><answer>yes", None),
    (4, "<think>so so so </think><answer>yes", None),
    (2, "<think>so so </think> <answer>yes", "budget"),
    (0, "<think></think> <answer>yes", "budget"),
])  # fmt: skip
def test_reasoning_is_closed_when_its_budget_is_used_up(budget: int | None, text: str, cut: str | None) -> None:
    thinks = [1, *[2] * (3 if cut is None else budget), *([3, 4] if cut is None else []), 5, END]
    assert spoken(thinks, GenerateOptions(thinking_budget=budget)) == (text, "stop", cut)


def test_an_answer_without_reasoning_has_no_budget() -> None:
    assert spoken([6, 6, 6, 5, END], GenerateOptions(thinking_budget=1)) == ("no no no yes", "stop", None)


def test_reasoning_that_goes_round_is_closed_and_an_answer_that_does_ends() -> None:
    round_and_round = [2] * LOOP_TIMES * LOOP_TOKENS
    text = "<think>" + "so " * len(round_and_round) + "</think> <answer>yes"
    assert spoken([1, *round_and_round, 5, END], GenerateOptions()) == (text, "stop", "loop")
    text, finish, cut = spoken([1, 2, 3, 4, *[6] * 999], GenerateOptions())
    assert (text, finish, cut) == ("<think>so </think><answer>" + "no " * LOOP_TIMES * LOOP_TOKENS, "loop", None)


def test_a_loop_gives_back_what_was_held_for_a_stop_string() -> None:
    text, finish, _ = spoken([6] * 999, GenerateOptions(stop=("no stop",)))
    assert (text, finish) == ("no " * LOOP_TIMES * LOOP_TOKENS, "loop")


def test_a_character_cut_by_tokens_comes_whole() -> None:
    texts, _ = streamed(["é".encode()[:1], "é".encode()[1:], b"!"], GenerateOptions(max_new_tokens=9))
    assert texts == ["", "é", "!"]


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    texts, finish = streamed(["é".encode()[:1], b""], GenerateOptions(), tokens=[7, END])
    assert (texts, finish) == (["", "\ufffd"], "stop")


def test_a_stop_string_never_appears_even_in_pieces() -> None:
    options = GenerateOptions(stop=("</answer>",))
    texts, finish = streamed([b"C major</", b"ans", b"wer> more", b"never"], options)
    assert ("".join(texts), finish) == ("C major", "stop")


def test_text_held_back_for_a_stop_string_is_given_when_it_was_none() -> None:
    texts, _ = streamed([b"a <", b"b", b""], GenerateOptions(stop=("<stop>",)), tokens=[1, 2, END])
    assert "".join(texts) == "a <b"


@pytest.mark.parametrize(("limit", "finish", "text"), [(2, "length", "ab"), (3, "stop", "ab")])
def test_the_limit_counts_tokens_and_the_end_token_is_not_text(limit: int, finish: str, text: str) -> None:
    texts, got = streamed([b"a", b"b", b"<end>"], GenerateOptions(max_new_tokens=limit), tokens=[1, 2, END])
    assert ("".join(texts), got) == (text, finish)


def test_usage_counts_both_sides() -> None:
    stream = TextStream(GenerateOptions(max_new_tokens=1), {END}, tokens_in=5)
    usage = stream.add(3, b"x").usage
    assert usage is not None
    assert (usage.tokens_in, usage.tokens_out) == (5, 1)


# --- prompts that share a prefix ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("context_length", "needed"), [(100, 6 + (1 + 10) + (3 + 10)), (15, 6 + 9 + 9)])
def test_a_group_needs_its_prefix_once_and_no_more_than_the_context_for_each_answer(context_length: int, needed: int) -> None:
    assert GROUP.n_shared == 6
    assert GROUP.n_needed(GenerateOptions(max_new_tokens=10), context_length) == needed


def test_a_prompt_that_leaves_no_position_for_an_answer_is_refused() -> None:
    GROUP.check(10)
    with pytest.raises(
        ModelError,
        match="the prompt has 9 tokens, but the model's context has 9; shorten the question, or choose a part with --start and --end",
    ) as caught:
        GROUP.check(9)
    assert caught.value.code == "too_long"


def test_an_answer_ends_where_the_context_is_full() -> None:
    answer = Answer(GROUP, 1, GenerateOptions(), {END}, context_length=11)
    [first] = answer.add(4, b"a")
    assert (first[:2], first[2].text, answer.ended) == ((3, 1), "a", False)
    [last] = answer.add(4, b"b")
    assert last[2].usage is not None
    assert (last[2].text, last[2].finish, last[2].usage.tokens_in, last[2].usage.tokens_out) == ("b", "length", 9, 2)


def test_batches_hold_as_many_as_fit_in_order_and_one_that_fits_nowhere() -> None:
    groups = [replace(GROUP, before=[0] * size) for size in (2, 2, 9, 1, 3)]
    found = batches(groups, lambda some: sum(len(group.before) for group in some) <= 4)
    assert [[len(group.before) for group in batch] for batch in found] == [[2, 2], [9], [1, 3]]
