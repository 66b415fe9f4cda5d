"""Given answers: the likeliest tokens along them and how likely they are, the same in both back ends, and what matrices read meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mflamingo_cli.backends.base import Backend, GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.importance import Collector
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.core.chat import END_OF_TURN
from mflamingo_cli.core.model import load
from mflamingo_cli.errors import UsageError
from quant.convert import convert
from tests import checkpoints
from tests.clips import audio

PROMPTS = [Prompt("What is the key of this song?"), Prompt("Bright or dark?"), Prompt("Tempo?", system="Answer in one word.")]
ANSWERS = ["a minor key at 120 BPM, warm strings", "", "bright " * 40]  # none, and more than one batch of the gguf back end
LOG_TOLERANCE = 5e-5  # of a log-probability, float32 in both back ends; 2.3e-5 measured
SUM_TOLERANCE = 1e-5  # float32 sums in another order; 4e-7 measured
EMBEDDED = Path(checkpoints.__file__).parents[1] / "mflamingo_cli" / "mini"
MODULES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


@dataclass
class Both:
    """One model in both back ends."""

    directory: Path
    torch: TorchBackend
    gguf: GgufBackend


@pytest.fixture(scope="module", params=["random", "mini"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    random = request.param == "random"
    directory = checkpoints.write(tmp_path_factory.mktemp("hf") / "tiny", "musicflamingo", seed=5) if random else EMBEDDED / "hf"
    pair = convert(directory, tmp_path_factory.mktemp("gguf"), "F32")
    torch.set_num_threads(1)
    exact = OpenOptions(device="cpu", dtype="fp32", kv_type="f32", threads=1)
    with GgufBackend(*pair, exact) as gguf, TorchBackend(directory, exact) as ours:
        yield Both(directory, ours, gguf)


def lengths(backend: TorchBackend) -> list[int]:
    return [len(backend.tokenize(answer)) for answer in ANSWERS]


def test_both_back_ends_find_the_same_tokens_likeliest(both: Both) -> None:
    clip = audio(3.0)
    mine = both.torch.teacher_force(both.torch.encode([clip])[0], PROMPTS, ANSWERS)
    theirs = both.gguf.teacher_force(both.gguf.encode([clip])[0], PROMPTS, ANSWERS)
    assert [choices.shape for choices in mine] == [(n + 1,) for n in lengths(both.torch)]  # every place, and the one after the last
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def log_probs_of_transformers(both: Both, prompt: Prompt, answer: str) -> np.ndarray:
    """The same from transformers' model in one pass over the whole text."""
    model, (before, audio_part, after) = load(both.directory), parts(both, prompt)
    given = both.torch.tokenize(answer) + both.torch.tokenize(END_OF_TURN)
    embed = model.get_input_embeddings()
    with torch.no_grad():
        whole = torch.cat([embed(before), audio_part, embed(after), embed(torch.tensor(given))])
        logits = model(inputs_embeds=whole[None]).logits[0, -len(given) - 1 : -1].double()
    return logits.log_softmax(-1)[torch.arange(len(given)), given].numpy()


def parts(both: Both, prompt: Prompt) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids of a prompt in front of the audio, the audio's embeddings, ids behind it."""
    rendered = both.torch._chat.render_prompt(prompt.messages(audio=True))
    before, after = (torch.tensor(both.torch.tokenize(text)) for text in (rendered.before, rendered.after))
    return before, both.torch.encode([audio(3.0)])[0].payload, after


def test_log_likelihoods_are_those_of_transformers(both: Both) -> None:
    expected = [log_probs_of_transformers(both, prompt, answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    assert [values.shape for values in expected] == [(n + 1,) for n in lengths(both.torch)]
    for backend in (both.torch, both.gguf):
        found = backend.log_likelihood(backend.encode([audio(3.0)])[0], PROMPTS, ANSWERS)
        for values, reference in zip(found, expected, strict=True):
            assert values.dtype == np.float32
            np.testing.assert_allclose(values, reference, atol=LOG_TOLERANCE, err_msg=backend.info.backend)


@pytest.mark.slow
def test_probabilities_of_one_token_answers_agree_without_a_song_and_sum_to_at_most_one(both: Both) -> None:
    texts = [both.torch._tokenizer.decode([token], skip_special_tokens=False) for token in range(200)]
    answers = [text for text in texts if len(both.torch.tokenize(text)) == 1]
    assert len(answers) > 50
    sums = []
    for backend in (both.torch, both.gguf):
        log_probs = backend.log_likelihood(None, PROMPTS[:1] * len(answers), answers)
        sums.append(np.exp([values[0] for values in log_probs]).sum())
    assert 0 < sums[0] <= 1 + LOG_TOLERANCE
    assert sums[1] == pytest.approx(sums[0], abs=LOG_TOLERANCE)


@pytest.mark.parametrize("name", ["torch", "gguf"])
def test_answers_forced_together_are_forced_as_alone(name: str, both: Both) -> None:
    backend: Backend = getattr(both, name)
    encoded = backend.encode([audio(3.0)])[0]
    together = zip(backend.teacher_force(encoded, PROMPTS, ANSWERS), backend.log_likelihood(encoded, PROMPTS, ANSWERS), strict=True)
    for prompt, answer, (choices, log_probs) in zip(PROMPTS, ANSWERS, together, strict=True):
        np.testing.assert_array_equal(backend.teacher_force(encoded, [prompt], [answer])[0], choices)
        np.testing.assert_allclose(backend.log_likelihood(encoded, [prompt], [answer])[0], log_probs, atol=LOG_TOLERANCE)


@pytest.mark.parametrize("name", ["torch", "gguf"])
def test_a_model_forced_to_its_own_answer_would_generate_it(name: str) -> None:
    """Its greedy answer, where reading the text gives the tokens that wrote it: a trained model's does."""
    pair = (EMBEDDED / "mini-F16.gguf", EMBEDDED / "mmproj-mini-F16.gguf")
    options = OpenOptions(device="cpu", threads=1)
    with GgufBackend(*pair, options) if name == "gguf" else TorchBackend(EMBEDDED / "hf", options) as backend:
        for clip in (audio(8.0), None):  # with a song and without
            encoded = backend.encode([clip])[0] if clip else None
            answers = [done.text for done in complete(backend, encoded, PROMPTS, GenerateOptions())]
            for answer, choices in zip(answers, backend.teacher_force(encoded, PROMPTS, answers), strict=True):
                assert choices.tolist() == backend.tokenize(answer + END_OF_TURN)


def summed_by_hooks(both: Both, prompt: Prompt, answer: str) -> tuple[dict[str, torch.Tensor], int]:
    """The same sums from transformers' model in one pass over the whole text, by forward hooks of this test's own."""
    model = load(both.directory)
    sums: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            sums[name] = (inputs[0][0].double() ** 2).sum(0)

        return hook

    for layer, block in enumerate(model.model.language_model.layers):
        for gguf_name, path in MODULES.items():
            block.get_submodule(path).register_forward_hook(keep(f"blk.{layer}.{gguf_name}.weight"))
    embed, (before, audio_part, after) = model.get_input_embeddings(), parts(both, prompt)
    with torch.no_grad():
        given = torch.tensor(both.torch.tokenize(answer), dtype=torch.long)
        whole = torch.cat([embed(before), audio_part, embed(after), embed(given)])
        model.model.language_model(inputs_embeds=whole[None], use_cache=False)
    return sums, len(whole)


def test_collected_sums_are_those_of_forward_hooks(both: Both) -> None:
    encoded = both.torch.encode([audio(3.0)])[0]
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        expected, n_tokens = summed_by_hooks(both, prompt, answer)
        collector = Collector(both.torch.network)
        with collector:
            both.torch.teacher_force(encoded, [prompt], [answer])
        assert collector.sums.keys() == expected.keys()
        for name, sums in collector.sums.items():
            assert sums.count == n_tokens, name
            np.testing.assert_allclose(sums.squares, expected[name].numpy(), rtol=SUM_TOLERANCE, atol=1e-9, err_msg=name)


def test_a_shared_song_is_collected_once(both: Both) -> None:
    encoded = both.torch.encode([audio(3.0)])[0]
    collector = Collector(both.torch.network)
    with collector:
        both.torch.teacher_force(encoded, PROMPTS, ANSWERS)
    rendered = [both.torch._chat.render_prompt(prompt.messages(audio=True)) for prompt in PROMPTS]
    prefixes = {prompt.before for prompt in rendered}  # two: the third question has a system turn of its own
    assert len(prefixes) == 2
    n_tokens = sum(len(both.torch.tokenize(prefix)) + encoded.n_tokens for prefix in prefixes)
    n_tokens += sum(len(both.torch.tokenize(prompt.after)) for prompt in rendered) + sum(lengths(both.torch))
    assert collector.n_tokens == n_tokens


def test_nothing_is_collected_outside(both: Both) -> None:
    encoded = both.torch.encode([audio(3.0)])[0]
    collector = Collector(both.torch.network)
    with collector:
        pass
    both.torch.teacher_force(encoded, PROMPTS, ANSWERS)
    assert collector.n_tokens == 0


def test_a_song_that_fails_midway_leaves_nothing(both: Both) -> None:
    encoded = both.torch.encode([audio(3.0)])[0]
    collector = Collector(both.torch.network)
    with collector:
        both.torch.teacher_force(encoded, PROMPTS[:1], ANSWERS[:1])
    kept = {name: sums.squares.copy() for name, sums in collector.sums.items()}

    def fail() -> None:
        with collector:
            both.torch.teacher_force(encoded, PROMPTS, ANSWERS)
            raise UsageError("no memory")

    assert kept
    with pytest.raises(UsageError, match="no memory"):
        fail()
    assert {name: sums.squares.tolist() for name, sums in collector.sums.items()} == {name: kept[name].tolist() for name in kept}
