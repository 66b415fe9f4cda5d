"""The command line: assembles the Typer app, turns errors into one sentence and an exit code, and nothing else."""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from mflamingo_cli import __version__
from mflamingo_cli.commands import analyze, ask, caption, doctor, models, schema, think
from mflamingo_cli.commands.options import HELP_OPTIONS
from mflamingo_cli.errors import MFlamingoError

SONGS, MODELS, ABOUT = "Songs", "Models", "About"
EPILOG = """Examples:

mflamingo analyze song.flac

mflamingo analyze --json ~/Music/album | jq -r '[.path, .result.tempo.bpm, .result.key.name] | @tsv'

mflamingo ask "Which instruments play the solo?" --start 2:10 --end 2:40 song.mp3

Exit codes: 0 all done, 1 all failed, 2 usage, 3 some failed, 66 no input, 69 model or back end unavailable, 130 interrupted,
141 closed pipe."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mflamingo {__version__}")
        raise typer.Exit


def _build() -> typer.Typer:
    app = typer.Typer(
        name="mflamingo",
        no_args_is_help=True,
        context_settings=HELP_OPTIONS,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        epilog=EPILOG,
    )

    @app.callback()
    def root(
        version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
    ) -> None:
        """Music Flamingo at the command line: what a song is, measured and described, on your own computer."""

    for command in (analyze.analyze, caption.caption, ask.ask, think.think):
        app.command(rich_help_panel=SONGS, context_settings=HELP_OPTIONS)(command)
    app.add_typer(models.app, rich_help_panel=MODELS)
    with contextlib.suppress(ModuleNotFoundError):
        app.add_typer(import_module("mflamingo_cli.commands.train").app, rich_help_panel=MODELS)
    app.command(rich_help_panel=ABOUT, context_settings=HELP_OPTIONS)(doctor.doctor)
    app.command(rich_help_panel=ABOUT, context_settings=HELP_OPTIONS)(schema.schema)
    return app


app = _build()


def main() -> None:
    """Run the command line; the process ends with the exit code."""
    try:
        app()
    except MFlamingoError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:  # of stdout or of an --output file: the disk is full, the terminal is gone
        _fail(f"cannot write: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as stop:
        if stop.code == 1 and type(sys.stdout).__name__ == "PacifyFlushWrapper":  # Typer met a closed pipe
            stop.code = 141
        raise


def _fail(message: str, code: int) -> NoReturn:
    from mflamingo_cli.commands.terminal import Voice

    Voice().error(message)
    sys.exit(code)
