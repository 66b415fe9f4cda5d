"""`mflamingo train data`: rows to train and test on."""

import typer

from mflamingo_cli.commands.help import HELP_OPTIONS, LazyGroup

SECTION = "Commands"


class TrainData(LazyGroup):
    """The commands about data."""

    package = __name__
    moved = {name: f"a step of a recipe: mflamingo train run mini --step {name}" for name in ("synth", "scores", "recordings")}  # noqa: RUF012
    entries = {  # noqa: RUF012  (a table, never changed)
        "label": (SECTION, "Make training rows from your own music."),
        "check": (SECTION, "Check training rows in any supported format."),
    }


app = typer.Typer(name="data", cls=TrainData, no_args_is_help=True, context_settings=HELP_OPTIONS, help="Make and check training rows.")


@app.callback()
def data() -> None:
    """Make and check training rows."""
