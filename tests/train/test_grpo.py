"""GRPO hears the song in every pass, samples what inference would, and makes rewarded answers likelier."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train import grpo, network
from mflamingo_cli.train.adapters import TuneConfig
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.loop import LoopConfig
from mflamingo_cli.train.network import branches_of, n_tokens, sequence_of
from mflamingo_cli.train.objectives import Place
from mflamingo_cli.train.parallel import Processes
from mflamingo_cli.train.rows import Branch
from mflamingo_cli.train.sft import TrainingRun
from mflamingo_cli.train.songs import SongReader
from quant.config import read_geometry
from tests import checkpoints
from tests.train.test_sft import write_song

CPU = torch.device("cpu")
LOOP = LoopConfig(steps=24, lr=3e-2, warmup=1, weight_decay=0.0, bf16=False, save_every=100, log_every=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return checkpoints.write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("rows")
    songs = [write_song(folder / f"{number}.wav", 4.0, number) for number in range(2)]
    lines = [{"audio": song, "messages": [{"role": "user", "content": "Which key?"}], "answer": "A minor"} for song in songs]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"format": "mflamingo-rows/1"} | line) for line in lines), encoding="utf-8")
    return Rows([folder / "rows.jsonl"])


def vowels(texts: list[str], row: object) -> list[float | None]:
    """A reward that a random model earns now and then."""
    return [sum(text.count(letter) for letter in "aeiou") / max(1, len(text)) for text in texts]


def prepared(base: Path, rows: Rows, output: Path, tune: TuneConfig, loop: LoopConfig = LOOP, **settings: object) -> TrainingRun:
    config = grpo.GrpoConfig(**({"group": 5, "prompts": 2, "max_tokens": 8, "beta": 0.0} | settings))
    return grpo.prepare(base, rows, output, tune, config, loop, {"vowels": vowels}, CPU, Processes())


LORA = TuneConfig("lora", ("language", "projector"), dropout=0.0)
FULL = TuneConfig("full", ("language", "projector", "encoder"))


@pytest.mark.parametrize("tune", [LORA, FULL], ids=["lora", "full"])
def test_another_song_changes_policy_reference_and_gradient(base: Path, rows: Rows, tmp_path: Path, tune: TuneConfig) -> None:
    run = prepared(base, rows, tmp_path, tune)
    objective, reader, found = run.objective, SongReader(read_geometry(base)), []
    for number in range(2):
        song = reader.read(rows[number].audio)
        prompt, answer = objective.prompt(rows[0], n_tokens(song)), run.checker.encoder.encode("A minor")
        packed = sequence_of([Branch([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))], [song])
        policy = objective.policy_probabilities(packed)
        with torch.no_grad():
            judged = objective.reference_probabilities(packed)
        policy.sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in run.network.parameters() if p.grad is not None])
        run.network.zero_grad()
        found.append((policy.detach(), judged, gradients))
    for first, second in zip(*found, strict=True):
        assert float((first - second).abs().max()) > 1e-4
    torch.testing.assert_close(found[0][0], found[0][1], rtol=1e-4, atol=1e-4)  # nothing was learned yet: the reference is the policy


@pytest.mark.parametrize(("tune", "passes"), [(LORA, 1), (FULL, 3)], ids=["lora", "full"])
def test_a_song_is_encoded_once_for_all_answers_of_a_group(
    base: Path, rows: Rows, tmp_path: Path, tune: TuneConfig, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all passes where the encoder is frozen; else once to sample, once for the policy, and once for the reference."""
    run, windows = prepared(base, rows, tmp_path, tune, prompts=1), []
    encode = network.encode_audio
    monkeypatch.setattr(network, "encode_audio", lambda *given: windows.append(len(given[2])) or encode(*given))
    [group] = run.objective.draw(Place(0, 0))
    run.objective.loss(group)[0].backward()
    assert windows == [1] * passes


def test_gradients_of_a_shared_prompt_are_those_of_its_copies(base: Path, rows: Rows, tmp_path: Path) -> None:
    run = prepared(base, rows, tmp_path, FULL, prompts=1)
    song = SongReader(read_geometry(base)).read(rows[0].audio)
    prompt, found = run.objective.prompt(rows[0], n_tokens(song)), []
    answers = [run.checker.encoder.encode(text) for text in ("A minor", "C major", "I cannot tell", "E")]
    copies = [Branch([*prompt, *answer], [False] * len(prompt) + [True] * len(answer)) for answer in answers]
    for packed in (branches_of(prompt, answers, song), sequence_of(copies, [song] * len(copies))):
        run.network.zero_grad()
        probabilities = run.objective.policy_probabilities(packed)
        probabilities.sum().backward()
        found.append((probabilities.detach(), *(p.grad.clone() for p in run.network.parameters() if p.grad is not None)))
    for shared, copied in zip(*found, strict=True):
        torch.testing.assert_close(shared, copied, rtol=1e-4, atol=1e-4 * float(copied.abs().max()))


def test_probabilities_are_those_that_answers_were_sampled_with(base: Path, rows: Rows, tmp_path: Path) -> None:
    """The likeliest token of each place, by the decoder of inference, is the likeliest by the pass of training."""
    run = prepared(base, rows, tmp_path, LORA, temperature=1e-6)
    song = SongReader(read_geometry(base)).read(rows[0].audio)
    prompt = run.objective.prompt(rows[0], n_tokens(song))
    with torch.no_grad():
        run.network.eval()
        [sample] = run.objective.sample(prompt, song, [0])
        packed = sequence_of([Branch([*prompt, *sample.tokens], [False] * len(prompt) + [True] * len(sample.tokens))], [song])
        likeliest = run.network(packed, scores=lambda states, weight, targets: (states @ weight.T).argmax(-1))
    assert likeliest.tolist() == sample.tokens


def test_groups_are_the_same_for_a_seed_and_are_logged(base: Path, rows: Rows, tmp_path: Path) -> None:
    run = prepared(base, rows, tmp_path, LORA)
    first, again, other = (run.objective.draw(Place(0, step)) for step in (0, 0, 1))
    assert torch.equal(first[0].rows.ids, again[0].rows.ids)
    assert not torch.equal(first[0].rows.ids, other[0].rows.ids)
    assert len(first) == 2
    assert {"reward", "reward_vowels", "length", "truncated", "no_variance", "distinct_2"} == set(first[0].numbers)
    lines = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3 * 2 * 5
    assert lines[0].keys() == {"step", "row", "reward", "text"}
    assert torch.equal(run.objective.policy_probabilities(first[0].rows).detach(), first[0].reference)  # nothing was learned yet


def test_the_ratio_is_clipped_once_the_policy_has_moved(base: Path, rows: Rows, tmp_path: Path) -> None:
    run = prepared(base, rows, tmp_path, LORA, replace(LOOP, save_every=12), updates=3, epsilon=1e-6)
    reports = [report.numbers for report in run.train()]
    assert [numbers["clipped"] > 0.0 for numbers in reports] == [step % 3 > 0 for step in range(len(reports))]
    for first in range(0, len(reports), 3):
        assert len({numbers["reward"] for numbers in reports[first : first + 3]}) == 1  # of the same answers
    lines = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [step for step in range(0, LOOP.steps, 3) for _ in range(10)]


def test_what_is_sampled_in_float32_is_learned_in_bfloat16(base: Path, rows: Rows, tmp_path: Path) -> None:
    run = prepared(base, rows, tmp_path, LORA, replace(LOOP, steps=2, bf16=True))
    [first, _] = [report.numbers for report in run.train()]
    assert first["kl"] < 1e-6  # both passes round alike: nothing was learned yet


def test_a_checkpoint_stands_where_answers_are_sampled_anew(base: Path, rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--steps 24 and --save-every 100 must be multiples of --updates 3"):
        prepared(base, rows, tmp_path, LORA, updates=3)


def test_probabilities_are_of_the_temperature_that_answers_are_sampled_at(base: Path, rows: Rows, tmp_path: Path) -> None:
    states, weight, targets = torch.randn(5, 8), torch.randn(50, 8), torch.randint(50, (5,))
    expected = torch.log_softmax(states @ weight.T / 0.5, -1)[torch.arange(5), targets]
    torch.testing.assert_close(grpo.token_log_probabilities(states, weight, targets, 0.5), expected)


def test_advantages_are_told_within_a_group() -> None:
    assert grpo.advantages([1.0, 1.0, 1.0]) == [0.0, 0.0, 0.0]
    assert grpo.advantages([0.0, 2.0]) == [-1.0, 1.0]
    assert grpo.distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)


@pytest.mark.slow
def test_what_is_rewarded_becomes_likelier(base: Path, rows: Rows, tmp_path: Path) -> None:
    run = prepared(base, rows, tmp_path, LORA, group=8)
    numbers = [report.numbers for report in run.train()]
    rewards = [entry["reward"] for entry in numbers]
    assert sum(rewards[-3:]) / 3 > 2 * sum(rewards[:3]) / 3
    assert numbers[-1]["kl"] > 0.0
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_a_prompt_that_states_what_is_rewarded_is_refused(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"format": "mflamingo-rows/1", "messages": [{"role": "user", "content": "It is in A minor. Which key?"}]}))
    with pytest.raises(UsageError, match=r"rows\.jsonl:1: the prompt states a fact"):
        grpo.prepare(base, Rows([path]), tmp_path / "run", LORA, grpo.GrpoConfig(), LOOP, {"facts": vowels}, CPU, Processes())


def test_a_run_in_bfloat16_samples_too(base: Path, rows: Rows, tmp_path: Path) -> None:
    """The default where it is faster: weights and KV cache are float32, what autocast computes is not."""
    run = prepared(base, rows, tmp_path, LORA, replace(LOOP, steps=2, bf16=True))
    assert [report.numbers["length"] > 0 for report in run.train()] == [True, True]
