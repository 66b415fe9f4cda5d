"""The embedded model `small`: light, GGUF only, and what it says of itself is what it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.backends import embedded_directory, find_model, open_backend
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.core.audio import load
from mflamingo_cli.errors import ModelError
from mflamingo_cli.tasks import TASKS

SONG = Path(__file__).parents[1] / "data" / "ocean.opus"
LARGEST_BYTES = 60_000_000
WORDS = ("caption", "ask", "think")  # abilities that are no field of the record


def test_it_is_light_and_has_no_checkpoint() -> None:
    folder = embedded_directory("small")
    assert find_model("small").directory is None
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= LARGEST_BYTES
    assert "Copyright (c) 2022 OpenAI" in (folder / "NOTICE").read_text()


def test_training_it_names_what_is_missing() -> None:
    with pytest.raises(ModelError, match="small: contains only GGUF files, but --backend torch needs a checkpoint directory"):
        open_backend("small", OpenOptions("torch", "cpu"))


def test_it_answers_what_it_claims_in_words_that_are_read() -> None:
    with open_backend("small", OpenOptions("gguf", "cpu", threads=1)) as backend:
        info = backend.info
        assert (info.model, info.grounded) == ("small", True)
        asked = sorted((info.abilities or frozenset()) - set(WORDS))
        assert asked
        encoded = backend.encode([load(SONG, end_s=30.0)])[0]
        answers = complete(backend, encoded, [Prompt(TASKS[name].prompt) for name in asked], GenerateOptions(max_new_tokens=48))
        assert all(TASKS[name].parse(answer.text) for name, answer in zip(asked, answers, strict=True))


def test_it_hears_who_plays() -> None:
    """Its ears are used: of noise and of a song it says different things."""
    prompt = [Prompt(TASKS["instruments"].prompt)]
    song = load(SONG, end_s=30.0)
    noise = type(song)(np.random.default_rng(0).normal(0, 0.1, len(song.samples)).astype(np.float32), song.source)
    with open_backend("small", OpenOptions("gguf", "cpu", threads=1)) as backend:
        said = [complete(backend, backend.encode([one])[0], prompt, GenerateOptions(max_new_tokens=48))[0].text for one in (song, noise)]
    assert said[0] != said[1]
