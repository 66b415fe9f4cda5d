"""`mflamingo config`: the settings of files and variables."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from mflamingo_cli.commands.help import HELP_OPTIONS, SectionCommand
from mflamingo_cli.errors import ConfigError
from mflamingo_cli.render.text import safe

app = typer.Typer(name="config", no_args_is_help=True, context_settings=HELP_OPTIONS)


@app.callback()
def config() -> None:
    """Show the settings of ~/.config/mflamingo/config.toml, ./mflamingo.toml and MFLAMINGO_* variables."""


@app.command(cls=SectionCommand, context_settings=HELP_OPTIONS)
def show(ctx: typer.Context, origin: Annotated[bool, typer.Option("--origin", help="Show where each value comes from.")] = False) -> None:
    """Print the values that apply when no option is given, as a configuration file."""
    from mflamingo_cli.config import find, load, settable

    commands = settable(ctx.find_root().command)
    found = find(lambda: commands)
    settings = load(commands, found)
    first, *others = settings.values()
    shared = {key: setting for key, setting in first.items() if all(other.get(key) == setting for other in others)}
    _print_table(None, shared, origin)
    for command, held in settings.items():
        _print_table(command, {key: setting for key, setting in held.items() if key not in shared}, origin)
    for note in found.notes:
        print(f"\n# {safe(note)}")


@app.command("trust", cls=SectionCommand, context_settings=HELP_OPTIONS)
def trust_here(ctx: typer.Context, revoke: Annotated[bool, typer.Option("--revoke", help="Stop trusting the file.")] = False) -> None:
    """Trust ./mflamingo.toml until it changes: it may then set every option, not only looks and formats."""
    from mflamingo_cli import trust
    from mflamingo_cli.config import HERE, SettingFiles, entries, load, read_file, settable

    path = HERE.absolute()
    if revoke:
        trust.revoke(path)
        print(f"{safe(str(path))} is no longer trusted")
        return
    try:
        content = read_file(HERE)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if content is None:
        raise ConfigError(f"{path}: there is no such file; go to the folder whose settings you want to trust")
    held = list(entries(HERE, content, is_trusted=True))
    load(settable(ctx.find_root().command), SettingFiles(tuple(held)))
    trust.trust(path, content)
    print(f"{safe(str(path))} is trusted until it changes; it sets {', '.join(dict.fromkeys(entry.key for entry in held)) or 'nothing'}")


def _print_table(name: str | None, settings: dict[str, Any], origin: bool) -> None:
    if name and settings:
        print(f"\n[{name}]")
    for key, setting in settings.items():
        line = f"# {key} is not set" if setting.value is None else f"{key} = {json.dumps(setting.value, ensure_ascii=False)}"
        print(f"{line:<32}# {setting.origin}" if origin else line)
