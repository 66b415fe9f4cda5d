"""Settings: TOML files and MFLAMINGO_* variables as defaults of options.

A key is an option's long name without its leading hyphens (`max-tokens`), at the top of a file for all of these commands or in a table
named after one of them. The most specific setting wins: an option on the command line, MFLAMINGO_MAX_TOKENS, ./mflamingo.toml,
~/.config/mflamingo/config.toml, the default; within a file, a command's own table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer

from mflamingo_cli.errors import ConfigError
from mflamingo_cli.files import user_folder

COMMANDS = ("analyze", "caption", "ask", "think")
NEVER_SET = frozenset(  # options of a single call: a default of these would be an accident
    {
        "help", "files-from", "null", "start", "end", "json", "output", "sidecar", "where", "dry-run", "force", "retry-failed", "shard",
        "chat",
    }
)  # fmt: skip
PREFIX = "MFLAMINGO_"
OTHERS = {"MFLAMINGO_CACHE", "MFLAMINGO_STATE", "MFLAMINGO_LIBRARIES"}  # variables that set no option
HERE = Path("mflamingo.toml")
DEFAULT = "default"


@dataclass(frozen=True)
class Setting:
    """An option's value, and where it comes from."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Settable:
    """An option's default, and the conversion of a value from a file or variable, which raises typer.BadParameter."""

    default: Any
    convert: Callable[[Any], Any]


Options = Mapping[str, Settable]  # by key
Settings = dict[str, dict[str, Setting]]  # command -> key -> value and origin


def settable(group: Any) -> dict[str, Options]:
    """Return the options that files and variables may set, by command of the program's group."""
    return {name: _options(group.get_command(None, name)) for name in COMMANDS}


def _options(command: Any) -> Options:
    ctx = command.context_class(command, info_name=command.name, help_option_names=[])  # click would keep its own, without -h
    options = {param.name.replace("_", "-"): param for param in command.get_params(ctx) if param.param_type_name == "option"}
    return {key: Settable(param.default, partial(param.process_value, ctx)) for key, param in options.items() if key not in NEVER_SET}


def load(commands: Mapping[str, Options]) -> Settings:
    """Return the value of every option of every command. Raises ConfigError that names the file or variable."""
    settings = {
        command: {key: Setting(option.default, DEFAULT) for key, option in options.items()} for command, options in commands.items()
    }
    for origin, name, key, value in _entries():
        for command in _commands_with(commands, key, name, origin):
            if isinstance(value, dict | list):
                raise ConfigError(f"{origin}: {key}: takes a single value")
            try:
                settings[command][key] = Setting(commands[command][key].convert(value), origin)
            except typer.BadParameter as error:
                raise ConfigError(f"{origin}: {key}: {error.message}") from error
    return settings


def default_map(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what was set as click takes it: command -> parameter -> value."""
    return {
        command: {key.replace("-", "_"): setting.value for key, setting in own.items() if setting.origin != DEFAULT}
        for command, own in settings.items()
    }


def sources() -> bool:
    """Say whether a file or a variable sets anything: only then the options of all commands must be known."""
    return bool(_files() or _variables())


def _entries() -> Iterator[tuple[str, str | None, str, Any]]:
    """Yield (origin, command of a table of its own, key, value), the least specific first."""
    for path in _files():
        table = _read(path)
        own = {name: table.pop(name) for name in COMMANDS if isinstance(table.get(name), dict)}
        for name, entries in ({None: table} | own).items():
            yield from ((str(path), name, key, value) for key, value in entries.items())
    for variable, value in _variables():
        yield variable, None, variable.removeprefix(PREFIX).lower().replace("_", "-"), value


def _variables() -> list[tuple[str, str]]:
    return sorted(item for item in os.environ.items() if item[0].startswith(PREFIX) and item[0] not in OTHERS)


def _files() -> list[Path]:
    home = user_folder("XDG_CONFIG_HOME", ".config")
    return [path for path in ([home / "config.toml"] if home else []) + [HERE] if path.is_file()]


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({getattr(error, 'strerror', None) or error})") from error


def _commands_with(commands: Mapping[str, Options], key: str, name: str | None, origin: str) -> list[str]:
    """Return the commands that a key is for: the named one, or all that have such an option. Raises ConfigError where there is none."""
    asked = {command: options for command, options in commands.items() if name in (None, command)}
    if found := [command for command, options in asked.items() if key in options]:
        return found
    from difflib import get_close_matches

    known = {option for options in asked.values() for option in options}
    if origin.startswith(PREFIX):
        known = {PREFIX + option.upper().replace("-", "_") for option in known} | OTHERS
        key, where = origin, "the environment"
    else:
        where = f"{origin}{f', table {name}' if name else ''}"
        known |= set() if name else set(COMMANDS)
    near = get_close_matches(key, sorted(known), 1, 0.5)
    cure = f"did you mean {near[0]}?" if near else f"choose from {', '.join(sorted(known))}"
    raise ConfigError(f"{where}: there is no setting {key}; {cure}")
