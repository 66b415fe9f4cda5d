"""The tokenizer: chord names are spelled alike whatever their root; every byte can be written; llama.cpp's converter takes it."""

import json

import numpy as np
import pytest

from mflamingo_cli.train.mini import tokens
from mflamingo_cli.train.mini.dialogue import exchanges
from mflamingo_cli.train.mini.dialogue.prompt_facts import COMMON_QUALITIES, RARE_QUALITIES
from quant import vocabulary
from quant.geometry import MelConfig


@pytest.fixture(scope="module")
def tokenizer():
    rng, texts = np.random.default_rng(1), []
    for _ in range(1500):
        turns = [exchanges.text_turn(rng), *exchanges.audio_turns(rng, exchanges.random_labels(rng), 2)]
        texts += [text for turn in turns for text in (turn.question, turn.answer)]
    return tokens.train_tokenizer(texts, 700)


@pytest.mark.parametrize("before", ["chords ", ", ", "(", ""])
def test_a_chord_is_its_root_its_accidental_and_its_quality(tokenizer, before):
    spelled = {}
    for quality in COMMON_QUALITIES + RARE_QUALITIES:
        for root in "ABCDEFG":
            for accidental in ("", "#", "b"):
                pieces = tokenizer.encode(before + root + accidental + quality).tokens
                at = next(i for i, piece in enumerate(pieces) if piece.lstrip("Ġ(") == root)
                rest = pieces[at + 1 :]
                assert rest[: len(accidental)] == list(accidental)
                spelled.setdefault(quality, set()).add(tuple(rest[len(accidental) :]))
    assert all(len(found) == 1 for found in spelled.values()), spelled
    assert spelled["m7b5"] == {("m", "7", "b", "5")}
    assert spelled["maj7"] == {("maj", "7")}


def test_any_text_is_written_and_read_back(tokenizer):
    for text in ("At 1:32.", "Üñí ♭ 漢字 \U0001f3b5\n\ttabs", "C#m7b5 D#maj9 Bbsus4", "123.4 BPM"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_words_that_begin_like_chords_are_still_words(tokenizer):
    assert len(tokenizer.encode("Describe this track. Are there drums?").ids) < 16


def test_the_converter_reads_it(tokenizer, tmp_path):
    tokens.write_processor(tmp_path, tokenizer, MelConfig(), 60, 512)
    read = vocabulary.read(tmp_path, {})
    source = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    assert read.pre == "qwen2"
    assert len(read.tokens) == tokenizer.get_vocab_size()
    made = {"".join(merge) for merge in source["merges"]}
    assert made <= set(source["vocab"])
    assert {token for token in source["vocab"] if len(token) > 1} == made


def test_a_grown_tokenizer_says_new_words_shorter_and_everything_else_as_before(tokenizer):
    texts = ["Submediants wander through bewildering cathedrals."] * 30
    grown = tokens.grow(tokenizer, texts, tokenizer.get_vocab_size() + 40)
    assert tokenizer.get_vocab_size() < grown.get_vocab_size() <= tokenizer.get_vocab_size() + 40
    assert len(grown.encode(texts[0]).ids) < 0.7 * len(tokenizer.encode(texts[0]).ids)
    for text in (texts[0], "At 1:32.", "C#m7b5 D#maj9 Bbsus4", "123.4 BPM", "Üñí ♭ 漢字"):
        assert grown.decode(grown.encode(text).ids) == text
    spelled, old = tokens.pieces_of(grown, tokenizer), tokenizer.get_vocab()
    assert len(spelled) == tokens.padded_vocab(grown)
    for token, index in grown.get_vocab().items():
        assert spelled[index] == [old[token]] if token in old else "".join(map(tokenizer.id_to_token, spelled[index])) == token


def test_a_grown_tokenizer_still_spells_chords_letter_by_letter(tokenizer):
    grown = tokens.grow(tokenizer, ["chords C#m7 F#m7 Bbm7 C#m7"] * 200, tokenizer.get_vocab_size() + 60)
    assert grown.encode("chords C#m7").tokens[-3:] == ["#", "m", "7"]
