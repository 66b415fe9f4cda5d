"""The embedded model: its GGUF pair answers like the checkpoint beside it, on a real song and on trained weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mflamingo_cli.api import Model
from mflamingo_cli.backends import embedded_directory, open_backend
from mflamingo_cli.backends.base import Backend, GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.core.audio import Audio, load
from mflamingo_cli.grounding import grounded_prompt
from mflamingo_cli.tasks import ANALYZE
from mflamingo_cli.thinking import CLOSE_THINKING, think_prompt
from mflamingo_cli.train.evaluate.caption_metrics import parse_caption

SONG = Path(__file__).parents[1] / "data" / "ocean.opus"
KNOWN = "Measured facts: tempo 97.3 BPM; key G# minor."
LARGEST_BYTES = 25_000_000  # what a package on an index may reasonably carry


@pytest.fixture(scope="module", params=[(0.0, 20.0), (0.0, 60.0)], ids=["20 s", "60 s"])
def excerpt(request: pytest.FixtureRequest) -> Audio:
    start, end = request.param
    return load(SONG, start_s=start, end_s=end)


def answers(backend: Backend, audio: Audio) -> list[str]:
    asked = [task for task in ANALYZE if backend.info.abilities is None or task.name in backend.info.abilities]
    prompts = [Prompt(task.prompt) for task in asked] + [Prompt(grounded_prompt(asked[-1].prompt, KNOWN))]
    return [completion.text for completion in complete(backend, backend.encode([audio])[0], prompts, GenerateOptions(max_new_tokens=60))]


@pytest.mark.slow
def test_gguf_and_checkpoint_say_the_same_words(excerpt: Audio) -> None:
    with (
        open_backend("mini", OpenOptions("gguf", "cpu", threads=1)) as gguf,
        open_backend("mini", OpenOptions("torch", "cpu", "fp32", threads=1)) as torch,
    ):
        assert gguf.info.abilities == torch.info.abilities
        assert gguf.info.revision == torch.info.revision
        assert gguf.info.geometry == torch.info.geometry
        assert answers(gguf, excerpt) == answers(torch, excerpt)


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "reasoning"), [(2, "<think>The notes and"), (6, "<think>The notes and chords were held against")])
def test_reasoning_is_closed_at_the_same_token_by_both_back_ends(budget: int, reasoning: str) -> None:
    audio, prompt = load(SONG, end_s=20.0), Prompt(grounded_prompt(think_prompt("What key is this in?"), KNOWN))
    said = []
    for options in (OpenOptions("gguf", "cpu", threads=1), OpenOptions("torch", "cpu", "fp32", threads=1)):
        with open_backend("mini", options) as backend:
            said += complete(backend, backend.encode([audio])[0], [prompt], GenerateOptions(max_new_tokens=60, thinking_budget=budget))
    assert said[0] == said[1]
    assert said[0].text.startswith(reasoning + CLOSE_THINKING)
    assert said[0].cut_thinking == "budget"


def test_both_forms_together_stay_small() -> None:
    files = [path for path in embedded_directory().rglob("*") if path.suffix in (".gguf", ".safetensors", ".json", ".jinja")]
    assert len(files) >= 3
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES


def test_a_sound_without_harmony_gets_no_key_and_no_chords_nor_a_caption_that_names_some(tmp_path: Path) -> None:
    t = np.arange(16_000 * 12) / 16_000
    soundfile.write(tmp_path / "sine.wav", 0.3 * np.sin(2 * np.pi * 440 * t), 16_000)
    with open_backend("mini", OpenOptions("gguf", "cpu", threads=1)) as backend:
        record = Model(backend).analyze(str(tmp_path / "sine.wav"))
    assert record.result is not None
    assert (record.result.key.name, record.result.chords) == (None, ())
    caption = record.result.caption
    assert caption is None or not {"key", "chords"} & parse_caption(caption).keys()
