"""The command line: the Typer app; every error becomes one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError

from mflamingo_cli import __version__, config
from mflamingo_cli.commands.help import HELP_OPTIONS, LazyGroup
from mflamingo_cli.commands.values import usage_sentence
from mflamingo_cli.errors import ExitCode, MFlamingoError

SONGS, MODELS, ABOUT = "Songs", "Models", "About"
EXAMPLES = (
    "mflamingo analyze song.flac",
    "mflamingo analyze --json ~/Music/album | jq -r '[.path, .result.tempo.bpm, .result.key.name] | @tsv'",
    "mflamingo analyze --json ~/Music -o music.jsonl",
    'mflamingo ask "Which key is the solo in?" --start 2:10 --end 2:40 song.mp3',
)


class Commands(LazyGroup):
    """All subcommands."""

    entries = {  # noqa: RUF012  (a table, never changed)
        "analyze": (SONGS, "Analyse a song: tempo, key, chords, structure, loudness, words."),
        "caption": (SONGS, "Describe a song in words."),
        "ask": (SONGS, "Answer a question about a song."),
        "think": (SONGS, "Reason about a song, then answer."),
        "models": (MODELS, "List, download, show, convert and verify models."),
        "train": (MODELS, "Train a small model; evaluate any model."),
        "config": (ABOUT, "Show the settings from files and environment variables."),
        "doctor": (ABOUT, "Show versions, devices and models."),
        "schema": (ABOUT, "Print the JSON Schema of the records."),
    }


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mflamingo {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="mflamingo",
    cls=Commands,
    no_args_is_help=True,
    context_settings=HELP_OPTIONS,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="\b\nExamples:\n  " + "\n  ".join(EXAMPLES) + f"\n\nExit codes: {', '.join(f'{code:d} {code.meaning}' for code in ExitCode)}.",
)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Measure and describe songs on your own computer: Music Flamingo at the command line."""
    if ctx.invoked_subcommand in config.COMMANDS and config.sources():
        ctx.default_map = config.default_map(config.load(config.settable(ctx.command)))


def main() -> None:
    """Run the command line; the process ends with the exit code."""
    _open_closed_streams()
    try:
        sys.exit(app(prog_name="mflamingo", standalone_mode=False))
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except ClickException as error:
        _fail(usage_sentence(error), error.exit_code)
    except MFlamingoError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:  # of stdout or of an --output file: the disk is full, the terminal is gone
        _fail(f"cannot write: {error.strerror or error}", ExitCode.ALL_FAILED)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(ExitCode.INTERRUPTED)
    except SystemExit as stop:
        if stop.code == 1 and type(sys.stdout).__name__ == "PacifyFlushWrapper":  # Typer met a closed pipe
            stop.code = ExitCode.CLOSED_PIPE
        raise


def _open_closed_streams() -> None:
    """Where the shell has closed a standard stream (`>&-`) put an empty one, so that no other file takes its descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115  (for the whole process)


def _fail(message: str, code: int) -> NoReturn:
    from mflamingo_cli.commands.terminal import Reporter

    Reporter().error(message)
    sys.exit(code)
