"""`mflamingo train grpo`: make a checkpoint better at what is rewarded."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mflamingo_cli.commands.train.sft import (
    LENGTH,
    PLACE,
    Alpha,
    Audio,
    Bf16,
    Config,
    Data,
    Device,
    Lr,
    Model,
    Output,
    Parts,
    Rank,
    ReportTo,
    SaveEvery,
    Seed,
    Tune,
    checkpoint_of,
    show_plan,
    show_step,
)  # fmt: skip
from mflamingo_cli.commands.train.work import require_extra, resumable

REWARDED = "What is rewarded"
Rewards = Annotated[
    str,
    typer.Option("--reward", metavar="NAME,…", help="Of format, accuracy, structured, facts, FILE.py:FUNCTION.", rich_help_panel=REWARDED),
]
Group = Annotated[int, typer.Option("--group", min=2, help="Answers to each prompt.", rich_help_panel=REWARDED)]
Beta = Annotated[float, typer.Option("--beta", min=0.0, help="Weight of the KL divergence from the start.", rich_help_panel=REWARDED)]
Epsilon = Annotated[float, typer.Option("--epsilon", min=0.0, help="How far a ratio of probabilities counts.", rich_help_panel=REWARDED)]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer in tokens.", rich_help_panel=REWARDED)]
Temperature = Annotated[float, typer.Option("--temperature", min=0.01, help="Of sampling.", rich_help_panel=REWARDED)]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Number of steps.", rich_help_panel=LENGTH)]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Prompts a step.", rich_help_panel=LENGTH)]
Parallel = Annotated[
    Literal["none", "ddp"], typer.Option("--parallel", help="How torchrun's processes share the work.", rich_help_panel=PLACE)
]


def grpo(
    model: Model, data: Data, output: Output, config: Config = None, audio: Audio = None, rewards: Rewards = "format,accuracy",
    group: Group = 5, beta: Beta = 0.04, epsilon: Epsilon = 0.2, max_tokens: MaxTokens = 512, temperature: Temperature = 1.0,
    tune: Tune = "lora", parts: Parts = "language,projector", rank: Rank = 16, alpha: Alpha = 32, steps: Steps = 100, batch: Batch = 8,
    lr: Lr = None, seed: Seed = 0, save_every: SaveEvery = 10, bf16: Bf16 = True, parallel: Parallel = "none", device: Device = "auto",
    report_to: ReportTo = "none",
) -> None:  # fmt: skip
    """Sample groups of answers, reward them, and make the better ones likelier (GRPO); resumes when run again.

    Rewards: the paper's format and accuracy (row: answer, choices) and structured (row: tags), and facts: right claims about tempo, key,
    meter and singing, as the row's facts measure them. RUN/texts.jsonl keeps answers with their rewards.
    """
    require_extra()
    from mflamingo_cli.backends.pytorch_loading import choose_device
    from mflamingo_cli.train.adapters import TuneConfig
    from mflamingo_cli.train.data.rowset import Rows
    from mflamingo_cli.train.grpo import GRPO_LR, GrpoConfig, prepare
    from mflamingo_cli.train.loop import LoopConfig
    from mflamingo_cli.train.parallel import processes
    from mflamingo_cli.train.reporters import reporter
    from mflamingo_cli.train.rewards import find

    tuned = TuneConfig(tune, tuple(part.strip() for part in parts.split(",") if part.strip()), rank, alpha, dropout=0.0)
    settings = GrpoConfig(group, batch, max_tokens, temperature, epsilon, beta)
    loop = LoopConfig(
        steps, lr or GRPO_LR[tune == "full"], warmup=max(1, round(0.03 * steps)), final_lr=0.0, weight_decay=0.0, seed=seed, bf16=bf16,
        save_every=save_every, log_every=1, betas=(0.9, 0.999),
    )  # fmt: skip
    rows, wanted = Rows(data, audio or ()), find([name.strip() for name in rewards.split(",") if name.strip()])
    with (
        processes(parallel, choose_device(device)[0]) as (group_of, where),
        resumable(f"from the last checkpoint in {output}"),
        reporter(report_to if group_of.rank == 0 else "none", output) as tell,
    ):
        run = prepare(checkpoint_of(model), rows, output, tuned, settings, loop, wanted, where, group_of)
        if group_of.rank == 0:
            show_plan(run)
        for report in run.train():
            show_step(run, report)
            tell(report)
        if group_of.rank == 0:
            print(run.result)
