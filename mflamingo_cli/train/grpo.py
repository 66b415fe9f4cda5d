"""Group relative policy optimisation (Shao 2024; arXiv 2511.10289, section 3.4): answers of a group are rewarded and told apart.

They are sampled by the decoder of inference, on the network that is trained; their probabilities under the policy and under the reference
come from the forward pass of training, which hears the song each time, once for all answers of a group. Where processes share out the
weights, each of them gathers all of them to sample.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from mflamingo_cli.backends.base import GenerateOptions
from mflamingo_cli.backends.batch_decoder import BatchDecoder
from mflamingo_cli.backends.generation import PrefixGroup, Sampler
from mflamingo_cli.core.chat import END_TOKENS
from mflamingo_cli.errors import UsageError
from mflamingo_cli.files import append_lines
from mflamingo_cli.train.adapters import TuneConfig
from mflamingo_cli.train.checkpoints import require_settings
from mflamingo_cli.train.data.check import RowChecker
from mflamingo_cli.train.data.row import TrainingRow
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.loop import LoopConfig, autocast
from mflamingo_cli.train.network import CHUNK, Features, RowSequence, TrainingNetwork, branches_of, n_tokens
from mflamingo_cli.train.objectives import Place
from mflamingo_cli.train.parallel import Processes
from mflamingo_cli.train.rewards import Reward, claims_judged, total, with_hash
from mflamingo_cli.train.rows import ChatEncoder
from mflamingo_cli.train.sft import TrainingRun, checked_sizes, network_of, settings_of
from mflamingo_cli.train.songs import ENCODED, SongReader
from quant.config import read_geometry

GRPO_LR = {True: 1e-6, False: 1e-5}  # of all weights: the paper's table 3; of LoRA, which moves less for a rate
TEXTS = "texts.jsonl"
SHOWN = 10  # texts of a step that are kept


@dataclass(frozen=True)
class GrpoConfig:
    """How answers are sampled and weighed. The paper states group 5, the other numbers are those of Shao 2024 and common practice."""

    group: int = 5
    prompts: int = 8  # of a step, over all processes
    max_tokens: int = 512
    updates: int = 1  # steps that learn from the same answers (the μ of Shao 2024); from the second on the ratio is clipped
    temperature: float = 1.0
    epsilon: float = 0.2  # the ratio of probabilities is clipped to 1 ± this
    beta: float = 0.04  # weight of the KL divergence from the reference


@dataclass(frozen=True)
class Sample:
    """One answer: its tokens, whether it came to an end, its advantage in its group."""

    tokens: list[int]
    ended: bool
    advantage: float = 0.0


@dataclass(frozen=True)
class SampledGroup:
    """A prompt with the answers to it, and what is logged of them; log-probabilities are of all tokens of the answers, (n,)."""

    rows: RowSequence
    advantages: torch.Tensor  # (answers,)
    numbers: Mapping[str, float]
    texts: Sequence[Mapping[str, Any]]
    old: torch.Tensor | None = None  # log-probabilities when they were sampled; None where the policy has not moved since
    reference: torch.Tensor | None = None


class GroupObjective:
    """Samples groups of answers, rewards them, and makes the better ones of a group likelier."""

    def __init__(
        self, network: TrainingNetwork, rows: Rows, chat: ChatEncoder, songs: SongReader, rewards: Mapping[str, Reward], config: GrpoConfig,
        processes: Processes, *, bf16: bool | None, folder: Path | None = None, reference: TrainingNetwork | None = None,
    ) -> None:  # fmt: skip
        self.module, self._rows, self._chat, self._songs = network, rows, chat, songs
        self._rewards, self._config, self._processes, self._bf16 = rewards, config, processes, bf16
        self._folder, self._reference = folder, reference
        self._groups: list[SampledGroup] = []
        self._end_ids = {chat.tokenizer.token_to_id(name) for name in END_TOKENS} - {None}

    def draw(self, place: Place) -> list[SampledGroup]:
        """Return the groups that a step of one process learns from, sampled anew every `updates` steps."""
        if place.step % self._config.updates == 0:
            self.module.eval()
            with torch.no_grad():
                self._groups = self._sampled(place)
            self.module.train()
        return self._groups

    def _sampled(self, place: Place) -> list[SampledGroup]:
        """Sample and reward the groups of a process, and judge them by the policy that sampled them and by the reference."""
        share = self._config.prompts // place.world
        with self._processes.gathered(self.module):
            groups = [self._group(place, place.rank * share + number) for number in range(share)]
        if self._folder is not None and place.rank == 0:
            texts = [text for group in groups for text in group.texts][:SHOWN]
            append_lines(self._folder / TEXTS, [json.dumps(text, ensure_ascii=False) for text in texts])
        with autocast(self._bf16, self.module.core.device.type):  # as in the pass that learns
            return [
                replace(
                    group,
                    old=self.policy_probabilities(group.rows) if self._config.updates > 1 else None,
                    reference=self.reference_probabilities(group.rows),
                )
                for group in groups
            ]

    def weight(self, batch: SampledGroup) -> float:
        """How many answers a group has."""
        return len(batch.advantages)

    def loss(self, batch: SampledGroup) -> tuple[torch.Tensor, dict[str, float]]:
        """The summed loss of the answers of a group, each the mean over its tokens, and numbers to log."""
        new, lengths = self.policy_probabilities(batch.rows), answer_lengths(batch.rows)
        assert batch.reference is not None
        ratio = torch.exp(new - (new.detach() if batch.old is None else batch.old))
        advantage = torch.repeat_interleave(batch.advantages, lengths).to(new)
        clipped = ratio.clamp(1 - self._config.epsilon, 1 + self._config.epsilon)
        share_clipped = float((clipped != ratio).float().mean())
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        apart = batch.reference - new
        kl = torch.exp(apart) - apart - 1  # unbiased and never negative (Schulman 2020)
        loss = torch.stack([part.mean() for part in (self._config.beta * kl - gain).split(lengths.tolist())]).sum()
        return loss, {**batch.numbers, "kl": float(kl.detach().mean()), "clipped": share_clipped}

    def _group(self, place: Place, number: int) -> SampledGroup:
        config = self._config
        rng = np.random.default_rng([place.seed, place.step, number, 1])
        row = self._rows[int(np.random.default_rng([place.seed, place.step * config.prompts + number]).integers(len(self._rows)))]
        song = None if row.audio is None else self._heard(row)
        prompt = self.prompt(row, 0 if song is None else n_tokens(song))
        samples = self.sample(prompt, song, [int(seed) for seed in rng.integers(2**31, size=config.group)])
        texts = [self._text(sample) for sample in samples]
        rewards, parts = total(self._rewards, texts, row)
        answers = branches_of(prompt, [sample.tokens for sample in samples], song)
        kept = [{"step": place.step, "row": row.place, "reward": reward, "text": text} for text, reward in zip(texts, rewards, strict=True)]
        return SampledGroup(answers, torch.tensor(advantages(rewards)), self._numbers(samples, texts, rewards, parts), kept)

    def _heard(self, row: TrainingRow) -> Features:
        """Return what every pass over a song begins with: its windows, or what a frozen encoder makes of them."""
        assert row.audio is not None
        features = self._songs.read(row.audio)
        return features if self.module.trains_encoder else self.module.encode(self._songs.encoded(row.audio, features, self.module.encode))

    def prompt(self, row: TrainingRow, n_audio: int) -> list[int]:
        """Return the ids of a row's last question with what stands before it, ready for an answer."""
        messages = row.messages() if row.exchanges[-1].answer is None else row.messages()[:-1]
        text = self._chat.chat.text(messages, add_generation_prompt=True)
        return self._chat.encode(self._chat.chat.expand(text, n_audio))

    def sample(self, prompt: Sequence[int], song: Features | None, seeds: Sequence[int]) -> list[Sample]:
        """Sample an answer for each seed, all from one prefilled prompt."""
        before, after, embeddings = [], list(prompt), None
        if song is not None:
            places = [at for at, number in enumerate(prompt) if number == self._chat.sound_id]
            before, after, embeddings = list(prompt[: places[0]]), list(prompt[places[-1] + 1 :]), self.module.embed_song(song)
        options = GenerateOptions(max_new_tokens=self._config.max_tokens, temperature=self._config.temperature, top_p=1.0)
        group = PrefixGroup([(0, number) for number in range(len(seeds))], before, embeddings, [after] * len(seeds))
        samplers = [Sampler(replace(options, seed=seed), prompt) for seed in seeds]
        decoder = BatchDecoder(self.module.core, [group], self._config.max_tokens)
        logits, found, open_ = decoder.prefill(), [Sample([], ended=False) for _ in seeds], list(range(len(seeds)))
        for _ in range(self._config.max_tokens):
            chosen = [samplers[number].pick(row) for number, row in zip(open_, logits.float().cpu().numpy(), strict=True)]
            for number, token in zip(open_, chosen, strict=True):
                found[number] = Sample([*found[number].tokens, token], ended=token in self._end_ids)
            open_ = [number for number in open_ if not found[number].ended]
            if not open_ or len(found[open_[0]].tokens) == self._config.max_tokens:
                break
            logits = decoder.step([(number, found[number].tokens[-1]) for number in open_])
        return found

    def _text(self, sample: Sample) -> str:
        return str(self._chat.tokenizer.decode(sample.tokens[: len(sample.tokens) - sample.ended], skip_special_tokens=False))

    def policy_probabilities(self, rows: RowSequence) -> torch.Tensor:
        """Return the log-probabilities of answer tokens, (n,), under the model that learns."""
        return log_probabilities(self.module, rows, self._config.temperature)

    def reference_probabilities(self, rows: RowSequence) -> torch.Tensor:
        """Return those under the model that training began with: a second one, or the base of an adapter."""
        if self._reference is not None:
            return log_probabilities(self._reference, rows, self._config.temperature)
        with self.module.model.disable_adapter():
            return self.policy_probabilities(rows)

    @staticmethod
    def _numbers(
        samples: Sequence[Sample], texts: Sequence[str], rewards: list[float], parts: Mapping[str, list[float]]
    ) -> dict[str, float]:
        return {
            "reward": fmean(rewards),
            **{f"reward_{name}": fmean(values) for name, values in parts.items()},
            "length": fmean(len(sample.tokens) for sample in samples),
            "truncated": fmean(not sample.ended for sample in samples),
            "no_variance": float(pstdev(rewards) == 0.0),
            "distinct_2": distinct(texts, 2),
        }


def answer_lengths(rows: RowSequence) -> torch.Tensor:
    """Return the tokens of each answer, (answers,)."""
    return torch.stack([rows.learned[start:end].sum() for start, end in pairwise(rows.bounds[1:])])


def advantages(rewards: Sequence[float]) -> list[float]:
    """Return each reward against those of its group, in standard deviations; all 0 where they are alike."""
    mean, deviation = fmean(rewards), pstdev(rewards)
    return [(reward - mean) / deviation if deviation > 0 else 0.0 for reward in rewards]


def distinct(texts: Sequence[str], n: int) -> float:
    """Return the share of different runs of n words among all (Li 2016), 1 where there is none."""
    runs = [tuple(words[at : at + n]) for words in map(str.split, texts) for at in range(len(words) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def log_probabilities(network: TrainingNetwork, rows: RowSequence, temperature: float) -> torch.Tensor:
    """Return the log-probability of every answer token of packed rows, (n,), as sampled at a temperature; with gradients where enabled."""
    return network(rows, scores=partial(token_log_probabilities, temperature=temperature))


def token_log_probabilities(states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities of targets (n,) by states (n, d) and an output layer (words, d), whose scores are not kept."""

    def of(part: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        scores = F.linear(part, weight.to(part.dtype)).float() / temperature
        return scores.log_softmax(-1).gather(1, wanted[:, None])[:, 0]

    chunks = zip(states.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat([checkpoint(of, part, wanted, use_reentrant=False) for part, wanted in chunks])


def prepare(
    directory: Path, rows: Rows, output: Path, tune: TuneConfig, config: GrpoConfig, loop: LoopConfig, rewards: Mapping[str, Reward],
    device: torch.device, processes: Processes, *, keeps: bool = True,
) -> TrainingRun:  # fmt: skip
    """Check rows and load the model, and for `--tune full` a second one as the reference. Raises UsageError that names what is wrong."""
    named = {"batch" if name == "prompts" else name.replace("_", "-"): value for name, value in asdict(config).items()}
    settings = {
        **settings_of(directory, rows, tune), "reward": sorted(map(with_hash, rewards)), **named, "lr": loop.lr, "seed": loop.seed,
        "bf16": loop.bf16,
    }  # fmt: skip
    if keeps:
        require_settings(output, settings)
    geometry, chat = read_geometry(directory), ChatEncoder.of(directory)
    checker = RowChecker(chat, geometry, geometry.text.context_length - config.max_tokens)
    sizes = checked_sizes(rows, checker, processes, states_a_fact if "facts" in rewards else lambda row: None)
    prompts = [size.n_tokens for size in sizes]
    if config.prompts % processes.world:
        raise UsageError(f"--batch {config.prompts} is not a multiple of the {processes.world} processes")
    if loop.save_every % config.updates or loop.steps % config.updates:
        raise UsageError(f"--steps {loop.steps} and --save-every {loop.save_every} must be multiples of --updates {config.updates}")
    network = network_of(directory, tune, device, processes, loop.seed)
    reference = network_of(directory, TuneConfig("full", ()), device, processes, loop.seed) if tune.tune == "full" else None
    songs = SongReader(geometry, output / ENCODED if keeps and not network.trains_encoder else None)
    objective = GroupObjective(
        network, rows, chat, songs, rewards, config, processes, bf16=loop.bf16, folder=output if keeps else None, reference=reference
    )
    longest = max(prompts) + config.group * (config.max_tokens + 1)
    note = (
        f"{len(rows)} prompts, {config.prompts} per step with {config.group} answers each, rewarded for {', '.join(rewards)}: "
        f"{loop.steps} steps"
    )
    return TrainingRun(
        directory, output, tune, network, objective, loop, processes, checker, longest, config.prompts // processes.world, note,
        settings, reference=reference, sampled=max(prompts) + config.group * config.max_tokens,
    )  # fmt: skip


def states_a_fact(row: TrainingRow) -> str | None:
    """Say that a prompt states a fact that answers are rewarded for, if it does."""
    said = [row.system or "", *(text for exchange in row.exchanges for text in (exchange.question, exchange.answer or ""))]
    if row.exchanges[-1].answer is not None:
        said.pop()  # what the answers that are sampled stand in for
    if any(map(claims_judged, said)):
        return "the prompt states a fact that the reward pays for, so the answer could copy it"
    return None
