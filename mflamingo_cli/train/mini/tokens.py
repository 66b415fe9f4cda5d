"""The small model's tokenizer: byte-level BPE with Qwen2's pre-tokenizer, trained on the text it will speak; and its directory files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mflamingo_cli.files import write_text
from quant.geometry import AudioTokens, MelConfig

# Qwen2's splitting rule (llama.cpp knows it as `qwen2`): words, single digits, punctuation, white space
QWEN2_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
AUDIO = AudioTokens("<sound>", "<|sound_bos|>", "<|sound_eos|>")
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>", "<|sound_bos|>", "<|sound_eos|>")
LEAST_PAIRS = 20  # two tokens stand side by side so often before they become one
ROW_MULTIPLE = 64  # the embedding has whole blocks of rows

# Chord names are spelled from the same few tokens whatever their root: " A","m","7","b","5"; " Bb" is " B","b"; "#maj" is "#","maj"
_ACROSS_CHORD = re.compile(r"Ġ?[A-G][abdms]|b[admsM]|#.")  # products of merges that join a root or an accidental to what follows
_CHORD = re.compile(r"(?<![A-Za-z])([A-G])([#b]?)(maj|mmaj|m|dim|sus|aug|add)?(?=[0-9]|[^A-Za-z0-9]|$)")

# The published template without its default system turn: 80 tokens that a small model would read on every question
CHAT_TEMPLATE = (
    "{% for m in messages if m['content'] is not none %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% set a = namespace(found=False) %}{% set t = namespace(text='') %}"
    "{% for c in m['content'] %}{% if c.get('type') == 'audio' or 'audio' in c %}{% set a.found = True %}"
    "{% elif c.get('type') == 'text' or 'text' in c %}{% set t.text = t.text + c['text'] %}{% endif %}{% endfor %}"
    "{% if a.found %}{{ '<sound>' }}{% endif %}{{ t.text }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens for `texts` that can still write every byte."""
    tokenizer = _untrained(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=LEAST_PAIRS,
        show_progress=False,
    )
    cut = (_CHORD.sub(r"\g<1>0\g<2>0\3", text) for text in texts)  # merges inside chord names are not learned
    tokenizer.train_from_iterator(cut, trainer)
    return _special(_untrained(_without_chord_merges(json.loads(tokenizer.to_str())["model"])))


def grow(tokenizer: Tokenizer, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """The tokenizer with further merges that `texts` need most, up to `vocab_size` tokens: BPE training (arXiv 1508.07909) gone on with.

    What it splits in another way afterwards is only made of longer tokens; ids are given anew.
    """
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    known = dict.fromkeys(sorted(model["vocab"], key=model["vocab"].__getitem__))
    counts = Counter(
        piece for text in texts for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(_CHORD.sub(r"\g<1>0\g<2>0\3", text))
    )  # merges inside chord names are not learned
    words = [([token.value for token in tokenizer.model.tokenize(piece)], count) for piece, count in counts.items()]
    while len(known) < vocab_size - len(SPECIALS):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words:
            for pair in pairwise(word):
                pairs[pair] += count
        allowed = [pair for pair in pairs if not _ACROSS_CHORD.match("".join(pair))]
        best = max(allowed, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < LEAST_PAIRS:
            break
        known["".join(best)] = None
        merges.append(best)
        words = [(_merged(word, best), count) for word, count in words]
    return _special(_untrained(models.BPE({token: index for index, token in enumerate(known)}, merges)))


def _merged(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for token in word:
        if joined and (joined[-1], token) == pair:
            joined[-1] += token
        else:
            joined.append(token)
    return joined


def pieces_of(new: Tokenizer, old: Tokenizer) -> list[list[int]]:
    """For each row of a grown tokenizer the rows of the old one that spell it; empty for padding."""
    names = {index: token for token, index in new.get_vocab().items()}
    known = old.get_vocab()
    rows = [names.get(index) for index in range(padded_vocab(new))]
    return [[] if name is None else [known[name]] if name in known else [token.id for token in old.model.tokenize(name)] for name in rows]


def _special(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    return tokenizer


def _untrained(model: models.BPE) -> Tokenizer:
    """A tokenizer with Qwen2's rules around a model."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _without_chord_merges(trained: dict[str, Any]) -> models.BPE:
    """The model without merges across a chord's root or accidental, nor those that need one of them; ids are given anew."""
    letters = [token for token in sorted(trained["vocab"], key=trained["vocab"].__getitem__) if len(token) == 1]
    known, merges = dict.fromkeys(letters), []
    for left, right in trained["merges"]:
        if left in known and right in known and not _ACROSS_CHORD.match(left + right):
            known[left + right] = None
            merges.append((left, right))
    return models.BPE({token: index for index, token in enumerate(known)}, merges)


def padded_vocab(tokenizer: Tokenizer) -> int:
    """Rows of the embedding."""
    return -(-tokenizer.get_vocab_size() // ROW_MULTIPLE) * ROW_MULTIPLE


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids by name."""
    return {name: tokenizer.token_to_id(name) for name in SPECIALS}


# model_type of the text model -> the class of its tokenizer; that of Qwen2 has rules of its own, whatever tokenizer.json says
TOKENIZER_CLASSES = {"qwen2": "Qwen2Tokenizer", "llama": "PreTrainedTokenizerFast"}


def write_processor(folder: Path, tokenizer: Tokenizer, mel: MelConfig, max_audio_s: int, context: int, model_type: str = "qwen2") -> None:
    """Everything of a checkpoint directory but weights and config: tokenizer, template, processor and generation settings."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": mel.n_mels,
        "sampling_rate": mel.sample_rate,
        "n_fft": mel.n_fft,
        "hop_length": mel.hop_length,
        "chunk_length": mel.window_s,
        "n_samples": mel.window_samples,
        "nb_max_frames": mel.n_frames,
        "dither": 0.0,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
    ids = special_ids(tokenizer)
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": TOKENIZER_CLASSES[model_type],
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "bos_token": None,
            "unk_token": None,
            "add_bos_token": False,
            "add_prefix_space": False,
            "errors": "replace",
            "clean_up_tokenization_spaces": False,
            "model_max_length": context,
            "padding_side": "left",
        },
        "processor_config.json": {
            "processor_class": "MusicFlamingoProcessor",
            "audio_token": "<sound>",
            "audio_bos_token": "<|sound_bos|>",
            "audio_eos_token": "<|sound_eos|>",
            "feature_extractor": extractor,
            "max_audio_len": max_audio_s,
        },
        "generation_config.json": {"max_new_tokens": 512, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]},
    }
    for name, value in files.items():
        write_text(folder / name, json.dumps(value, indent=2) + "\n")
    write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)
