"""`mflamingo train`: make data, train, evaluate any model, export a checkpoint."""

import typer

from mflamingo_cli.commands.help import HELP_OPTIONS, LazyGroup

SECTION = "Commands"
SUMMARY = "Train a model; evaluate any model."


class Train(LazyGroup):
    """The commands about training."""

    package = __name__
    moved = {"export": "a step of a recipe: mflamingo train run mini --step export"}  # noqa: RUF012
    entries = {  # noqa: RUF012  (a table, never changed)
        "data": (SECTION, "Make and check training rows."),
        "sft": (SECTION, "Fine-tune a checkpoint on rows."),
        "grpo": (SECTION, "Train with GRPO on rewards for sampled answers."),
        "merge": (SECTION, "Merge an adapter into its base model."),
        "eval": (SECTION, "Evaluate a model on music it was not trained on."),
        "run": (SECTION, "Make a model from scratch, following a recipe."),
    }


app = typer.Typer(name="train", cls=Train, no_args_is_help=True, context_settings=HELP_OPTIONS, help=SUMMARY)


@app.callback()
def train() -> None:
    """Train a model; evaluate any model."""
