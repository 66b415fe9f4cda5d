"""`mflamingo models`: which there are, download and removal, what is in one, conversion to GGUF and its verification."""

import typer

from mflamingo_cli.commands.help import HELP_OPTIONS, LazyGroup

SECTION = "Commands"


class Models(LazyGroup):
    """The commands about models as files."""

    package = __name__
    entries = {  # noqa: RUF012  (a table, never changed)
        "list": (SECTION, "List the models that can be used, and which are downloaded."),
        "pull": (SECTION, "Download a model into the Hugging Face cache."),
        "rm": (SECTION, "Remove a model from the Hugging Face cache."),
        "info": (SECTION, "Show what a model is: sizes, abilities, limits, files, licence."),
        "convert": (SECTION, "Convert a checkpoint into a pair of GGUF files."),
        "imatrix": (SECTION, "Compute an importance matrix for `convert --imatrix`."),
        "verify": (SECTION, "Check a GGUF pair, alone or against its checkpoint."),
    }


app = typer.Typer(
    name="models",
    cls=Models,
    no_args_is_help=True,
    context_settings=HELP_OPTIONS,
    help="List, download, show, convert and verify models.",
)


@app.callback()
def models() -> None:
    """List, download, show, convert and verify models."""
