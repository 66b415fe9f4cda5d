"""Settings: TOML files and MFLAMINGO_* variables as defaults of options.

A key is an option's long name without its leading hyphens (`max-tokens`), at the top of a file for all of these commands or in a table
named after one of them. The most specific setting wins: an option on the command line, MFLAMINGO_MAX_TOKENS, ./mflamingo.toml,
~/.config/mflamingo/config.toml, the default; within a file, a command's own table.

Whoever enters a folder has not chosen the mflamingo.toml that lies there: until the user trusts it (trust.py) it sets only what
`FOLDER_MAY_SET` names. A new option is not in that table, so it is on the safe side. Nor does it stop a command: one that is broken is
left out with a sentence, while what the user has chosen, and is wrong, ends with exit code 78.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer

from mflamingo_cli import trust
from mflamingo_cli.errors import ConfigError
from mflamingo_cli.files import user_folder

COMMANDS = ("analyze", "caption", "ask", "think")
NEVER_SET = frozenset(  # options of a single call: a default of these would be an accident
    {
        "help", "files-from", "null", "start", "end", "json", "output", "sidecar", "where", "dry-run", "force", "retry-failed", "shard",
        "chat", "no-song",
    }
)  # fmt: skip
MOST_BYTES = 1 << 20  # of a settings file; nobody writes so much by hand


def _always(value: Any) -> bool:
    return True


def _is_no_path(value: Any) -> bool:
    return not os.path.lexists(str(value))


# What a folder's file may set: looks and formats; nothing that is written, loaded, connected or hidden
FOLDER_MAY_SET: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("color", "fields", "format", "hide-thinking", "progress", "sort", "verbose"), _always),
    **dict.fromkeys(("claims", "style"), _always),  # how an answer reads
    **dict.fromkeys(("no-model", "only", "tempo-range"), _always),  # which facts
    **dict.fromkeys(("max-tokens", "repetition-penalty", "seed", "temperature", "thinking-budget", "top-p"), _always),
    "model": _is_no_path,  # one of the user's own, by name
}
PREFIX = "MFLAMINGO_"
OTHERS = {"MFLAMINGO_CACHE", "MFLAMINGO_STATE", "MFLAMINGO_LIBRARIES"}  # variables that set no option
HERE = Path("mflamingo.toml")
DEFAULT = "default"
NOTES = "mflamingo_cli.config.notes"  # where a command finds `SettingFiles.notes` in its context


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


@dataclass(frozen=True)
class Entry:
    """A setting as a file or variable has it, perhaps for one command only; `is_left_out` where a folder's file may not set it."""

    origin: str
    command: str | None
    key: str
    value: Any
    is_left_out: bool = False


@dataclass(frozen=True)
class SettingFiles:
    """What files and variables hold, the least specific first, and in sentences what of it is not used."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()


Options = Mapping[str, Settable]  # by key
Settings = dict[str, dict[str, Setting]]  # command -> key -> value and origin


def settable(group: Any) -> dict[str, Options]:
    """Return the options that files and variables may set, by command of the program's group."""
    return {name: _options(group.get_command(None, name)) for name in COMMANDS}


def _options(command: Any) -> Options:
    ctx = command.context_class(command, info_name=command.name, help_option_names=[])  # click would keep its own, without -h
    options = {param.name.replace("_", "-"): param for param in command.get_params(ctx) if param.param_type_name == "option"}
    return {key: Settable(param.default, partial(param.process_value, ctx)) for key, param in options.items() if key not in NEVER_SET}


def load(commands: Mapping[str, Options], found: SettingFiles | None = None) -> Settings:
    """Return the value of every option of every command. Raises ConfigError that names the file or variable."""
    settings = {
        command: {key: Setting(option.default, DEFAULT) for key, option in options.items()} for command, options in commands.items()
    }
    for entry in (found or find(lambda: commands)).entries:
        for command in _commands_with(commands, entry.key, entry.command, entry.origin):
            if isinstance(entry.value, dict | list):
                raise ConfigError(f"{entry.origin}: {entry.key}: takes a single value")
            if entry.is_left_out:
                continue
            try:
                settings[command][entry.key] = Setting(commands[command][entry.key].convert(entry.value), entry.origin)
            except typer.BadParameter as error:
                raise ConfigError(f"{entry.origin}: {entry.key}: {error.message}") from error
    return settings


def default_map(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what was set as click takes it: command -> parameter -> value."""
    return {
        command: {key.replace("-", "_"): setting.value for key, setting in own.items() if setting.origin != DEFAULT}
        for command, own in settings.items()
    }


def find(commands: Callable[[], Mapping[str, Options]]) -> SettingFiles:
    """Read all files and variables; the options of all `commands` are asked for only where a folder's file must be held against them.

    Raises ConfigError for a file of the user, or one that the user trusts, that is not TOML.
    """
    held: list[Entry] = []
    notes: list[str] = []
    home = user_folder("XDG_CONFIG_HOME", ".config")
    for path in ([home / "config.toml"] if home else []) + [HERE]:
        content = None
        try:
            content = read_file(path)
            own = [] if content is None else list(entries(path, content, _is_trusted(path, content)))
            if own and not _is_trusted(path, content):
                load(commands(), SettingFiles(tuple(own)))
        except OSError as error:
            notes.append(f"{path}: cannot be read: {error.strerror or error}; its settings are not used")
            continue
        except ConfigError as error:
            if _is_trusted(path, content):
                raise
            notes.append(f"{error} (this file is not used)")
            continue
        held += own
        if keys := list(dict.fromkeys(entry.key for entry in own if entry.is_left_out)):
            notes.append(_left_out(path, keys))
    held += [Entry(variable, None, variable.removeprefix(PREFIX).lower().replace("_", "-"), value) for variable, value in _variables()]
    return SettingFiles(tuple(held), tuple(notes))


def _is_trusted(path: Path, content: bytes | None) -> bool:
    """Whether the user has chosen what a file holds; a folder's file that was not read is nobody's choice."""
    return path != HERE or (content is not None and trust.is_trusted(path, content))


def read_file(path: Path) -> bytes | None:
    """Return the content of a settings file, None where there is none. Raises OSError, and ConfigError for one that is too large."""
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(state.st_mode):
        return None
    if state.st_size > MOST_BYTES:
        raise ConfigError(f"{path}: too large for a settings file; at most {MOST_BYTES >> 20} MiB are read")
    return path.read_bytes()


def entries(path: Path, content: bytes, is_trusted: bool) -> Iterator[Entry]:
    """Yield what a settings file holds. Raises ConfigError where it is not TOML."""
    table = _parsed(path, content)
    own = {name: table.pop(name) for name in COMMANDS if isinstance(table.get(name), dict)}
    for name, settings in ({None: table} | own).items():
        for key, value in settings.items():
            is_allowed = is_trusted or (key in FOLDER_MAY_SET and FOLDER_MAY_SET[key](value))
            yield Entry(str(path), name, key, value, is_left_out=not is_allowed)


def _left_out(path: Path, keys: list[str]) -> str:
    changed = "the file has changed since you trusted it; " if trust.is_known(path) else ""
    only = "a folder's settings file may only set looks and formats"
    return f"{path}: {', '.join(keys)}: not used, because {only}; {changed}read it, then allow it with `mflamingo config trust`"


def _variables() -> list[tuple[str, str]]:
    return sorted(item for item in os.environ.items() if item[0].startswith(PREFIX) and item[0] not in OTHERS)


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error


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
