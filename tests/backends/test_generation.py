"""Choosing tokens and cutting text: the same laws for both back ends."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mflamingo_cli.backends.base import GenerateOptions
from mflamingo_cli.backends.generation import Sampler, TextStream

END = 0
LOGITS = np.array([0.0, 2.0, 1.0, -1.0], np.float32)


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
