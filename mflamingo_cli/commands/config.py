"""`mflamingo config`: the settings of files and variables."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from mflamingo_cli.commands.help import HELP_OPTIONS, SectionCommand

app = typer.Typer(name="config", no_args_is_help=True, context_settings=HELP_OPTIONS)


@app.callback()
def config() -> None:
    """Show the settings of ~/.config/mflamingo/config.toml, ./mflamingo.toml and MFLAMINGO_* variables."""


@app.command(cls=SectionCommand, context_settings=HELP_OPTIONS)
def show(ctx: typer.Context, origin: Annotated[bool, typer.Option("--origin", help="Show where each value comes from.")] = False) -> None:
    """Print the values that apply when no option is given, as a configuration file."""
    from mflamingo_cli.config import load, settable

    settings = load(settable(ctx.find_root().command))
    first, *others = settings.values()
    shared = {key: setting for key, setting in first.items() if all(other.get(key) == setting for other in others)}
    _print_table(None, shared, origin)
    for command, held in settings.items():
        _print_table(command, {key: setting for key, setting in held.items() if key not in shared}, origin)


def _print_table(name: str | None, settings: dict[str, Any], origin: bool) -> None:
    if name and settings:
        print(f"\n[{name}]")
    for key, setting in settings.items():
        line = f"# {key} is not set" if setting.value is None else f"{key} = {json.dumps(setting.value, ensure_ascii=False)}"
        print(f"{line:<32}# {setting.origin}" if origin else line)
