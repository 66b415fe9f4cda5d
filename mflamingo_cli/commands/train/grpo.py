"""`mflamingo train grpo`: make a checkpoint better at what is rewarded."""

from __future__ import annotations

from typing import Annotated

import typer

from mflamingo_cli.commands.train import options
from mflamingo_cli.commands.train.options import LENGTH, checkpoint_of, launch
from mflamingo_cli.commands.train.sft import follow
from mflamingo_cli.commands.train.work import require_extra
from mflamingo_cli.commands.values import comma_separated

REWARDED = "Sampling and rewards"
Rewards = Annotated[
    str,
    typer.Option(
        "--reward",
        metavar="NAME,…",
        help="Rewards whose sum is maximised: format, accuracy, structured, facts, FILE.py:FUNCTION.",
        rich_help_panel=REWARDED,
    ),
]
Group = Annotated[int, typer.Option("--group", min=2, help="Answers sampled for each prompt.", rich_help_panel=REWARDED)]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer in tokens.", rich_help_panel=REWARDED)]
Temperature = Annotated[float, typer.Option("--temperature", min=0.01, help="Sampling temperature.", rich_help_panel=REWARDED)]
Beta = Annotated[
    float, typer.Option("--beta", min=0.0, help="Weight of the KL penalty against the model before training.", rich_help_panel=REWARDED)
]
Updates = Annotated[int, typer.Option("--updates", min=1, help="Optimizer steps per batch of sampled answers.", rich_help_panel=LENGTH)]
Epsilon = Annotated[
    float,
    typer.Option("--epsilon", min=0.0, help="With --updates above 1: clip the probability ratio to 1 ± epsilon.", rich_help_panel=REWARDED),
]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Number of optimizer steps.", rich_help_panel=LENGTH)]
Prompts = Annotated[int, typer.Option("--batch", min=1, help="Prompts per step, over all processes.", rich_help_panel=LENGTH)]


def grpo(
    model: options.Model, data: options.Data, output: options.Output, launcher: options.Launcher = None, config: options.Config = None,
    audio: options.Audio = None, rewards: Rewards = "format,accuracy", group: Group = 5, max_tokens: MaxTokens = 512,
    temperature: Temperature = 1.0, beta: Beta = 0.04, epsilon: Epsilon = 0.2, tune: options.Tune = "lora",
    parts: options.Parts = "language,projector", rank: options.Rank = 16, alpha: options.Alpha = 32, steps: Steps = 100,
    batch: Prompts = 8, updates: Updates = 1, lr: options.Lr = None, seed: options.Seed = 0, save_every: options.SaveEvery = 10,
    bf16: options.Bf16 = None, parallel: options.Parallel = "none", device: options.Device = "auto",
    report_to: options.ReportTo = "none", dry_run: options.DryRun = False,
) -> None:  # fmt: skip
    """Train with GRPO: sample groups of answers and reinforce those with higher rewards. Run the same command again to resume.

    Rewards: format and accuracy (for rows with "answer", "choices"), structured (with "tags"), and facts: claims about tempo, key, meter
    and singing that agree with the row's "facts". RUN/texts.jsonl keeps ten answers of each step with their rewards.
    """
    require_extra()
    launch(launcher, parallel)
    from mflamingo_cli.backends.pytorch_loading import choose_device
    from mflamingo_cli.train import reporters
    from mflamingo_cli.train.adapters import TuneConfig
    from mflamingo_cli.train.data.rowset import Rows
    from mflamingo_cli.train.grpo import GRPO_LR, GrpoConfig, prepare
    from mflamingo_cli.train.loop import fine_tuning
    from mflamingo_cli.train.parallel import processes
    from mflamingo_cli.train.rewards import find

    reporters.require(report_to)
    tuned = TuneConfig(tune, comma_separated(parts), rank, alpha, dropout=0.0)
    settings = GrpoConfig(group, batch, max_tokens, updates, temperature, epsilon, beta)
    rate = GRPO_LR[tune == "full"] if lr is None else lr
    loop = fine_tuning(steps, rate, seed=seed, bf16=bf16, save_every=save_every)
    directory, rows, wanted = checkpoint_of(model), Rows(data, audio or (), to_train=True), find(comma_separated(rewards))
    with processes(parallel, choose_device(device)[0]) as (processes_of, where):
        run = prepare(directory, rows, output, tuned, settings, loop, wanted, where, processes_of, keeps=not dry_run)
        follow(run, rows, report_to, dry_run)
