"""The command line: the Typer app; every error becomes one sentence and an exit code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError

from mflamingo_cli import __version__, config
from mflamingo_cli.commands import streams
from mflamingo_cli.commands.help import HELP_OPTIONS, LazyGroup
from mflamingo_cli.commands.values import usage_sentence
from mflamingo_cli.errors import ExitCode, InternalError, MFlamingoError

SONGS, MODELS, ABOUT = "Songs", "Models", "About"
EXAMPLES = (
    "mflamingo analyze song.flac",
    "mflamingo analyze --json ~/Music/album | jq -r '[.path, .result.tempo.bpm, .result.key.name] | @tsv'",
    "mflamingo analyze --json ~/Music -o music.jsonl",
    'mflamingo ask "What are the chords?" --start 2:10 --end 2:40 song.mp3',
)


class Commands(LazyGroup):
    """All subcommands."""

    entries = {  # noqa: RUF012  (a table, never changed)
        "analyze": (SONGS, "Analyse a song: tempo, key, chords, structure, loudness, words."),
        "caption": (SONGS, "Describe a song in words."),
        "ask": (SONGS, "Answer a question about a song."),
        "think": (SONGS, "Reason about a song, then answer."),
        "next": (SONGS, "Find the songs in a library that mix well with a song."),
        "models": (MODELS, "List, download, show, convert and verify models."),
        "train": (MODELS, "Train a model; evaluate any model."),
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
    if ctx.invoked_subcommand not in config.COMMANDS:
        return
    found = config.find(lambda: config.settable(ctx.command))
    ctx.meta[config.NOTES] = found.notes
    if found.entries:  # only then the options of all commands must be known
        ctx.default_map = config.default_map(config.load(config.settable(ctx.command), found))


def main() -> None:
    """Run the command line; the process ends with the exit code."""
    streams.guard()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # the border of what libraries warn of: that is for whoever writes programs
    code = _exit_code(lambda: app(prog_name="mflamingo", standalone_mode=False))
    sys.exit(_exit_code(sys.stdout.flush) or code)  # what is still in a buffer must arrive, too


def _exit_code(work: Callable[[], Any]) -> int:
    """Do some work; every error of a user's becomes one sentence and an exit code."""
    try:
        return int(work() or ExitCode.OK)
    except InternalError as error:  # with --fail-fast: a mistake of ours stays loud
        if error.__cause__ is None:  # it comes from another process
            error.add_note(error.trace)
        raise
    except NoArgsIsHelpError as error:
        error.show()
        return int(error.exit_code)
    except ClickException as error:
        return _failed(usage_sentence(error), error.exit_code)
    except MFlamingoError as error:
        return _failed(str(error), error.exit_code)
    except BrokenPipeError:  # only stdout raises one: the reader has seen enough
        streams.discard_stdout()
        return ExitCode.CLOSED_PIPE
    except OSError as error:  # of stdout or of an --output file: the disk is full, the terminal is gone
        streams.discard_stdout()
        return _failed(streams.sentence(error), ExitCode.ALL_FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except SystemExit as stop:
        if stop.code == 1 and type(sys.stdout).__name__ == "PacifyFlushWrapper":  # Typer met a closed pipe
            streams.discard_stdout()
            return ExitCode.CLOSED_PIPE
        raise


def _failed(message: str, code: int) -> int:
    from mflamingo_cli.commands.terminal import Reporter

    Reporter().error(message)
    return code
