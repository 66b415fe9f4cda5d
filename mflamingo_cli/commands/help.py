"""How help is drawn, in plain text: Typer's rich pages cost more to import than all of this program's own help.

`LazyGroup` knows its commands by name and summary only; a command's module is imported when it is run or its own help is asked for.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mflamingo_cli.commands.values import use_own_values

HELP_OPTIONS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _write_sections(rows: list[tuple[str, tuple[str, str]]], formatter: Any) -> None:
    """Definition lists under the headings they name, in the order the headings first appear."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for heading, row in rows:
        sections.setdefault(heading, []).append(row)
    for heading, members in sections.items():
        with formatter.section(heading):
            formatter.write_dl(members, col_max=32)


RANGE = re.compile(r"(?:(-?[\d.]+)<=)?x(?:(<=|>=)(-?[\d.]+))")  # as Typer writes limits


def _range(match: re.Match[str]) -> str:
    low, sign, high = match.groups()
    return f"{low} to {high}" if low else f"{'at most' if sign == '<=' else 'at least'} {high}"


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Parameters under the heading of their `rich_help_panel`, arguments first, those without one under Options."""
    rows = []
    for param in sorted(command.get_params(ctx), key=lambda param: param.param_type_name != "argument"):
        record = param.get_help_record(ctx)
        if record is not None:
            argument = param.param_type_name == "argument"
            name = (param.metavar or param.name.upper()) + ("..." if param.nargs == -1 else "") if argument else record[0]
            heading = getattr(param, "rich_help_panel", None) or ("Arguments" if argument else "Options")
            rows.append((heading, (name, RANGE.sub(_range, record[1]))))
    rows.sort(key=lambda row: row[0] == "Options")  # --help and its like last
    _write_sections(rows, formatter)


class SectionCommand(TyperCommand):
    """A command whose options are listed by subject."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return options and arguments, which convert their values here."""
        return use_own_values(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments; --json is a format that is given, so a format that was only set (`config`) gives way.

        `--write-tags` alone is `=true`, as in a configuration: only what follows `=` is its own, so that a song may come next.
        """
        if "--json" in args and ctx.default_map:
            ctx.default_map = {key: value for key, value in ctx.default_map.items() if key != "format"}
        end = args.index("--") if "--" in args else len(args)
        args = ["--write-tags=true" if arg == "--write-tags" else arg for arg in args[:end]] + args[end:]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options of the help page."""
        _write_options(self, ctx, formatter)


class SectionGroup(TyperGroup):
    """A group that suggests its commands, and whose own options convert their values here."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return its options."""
        return use_own_values(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; a misspelt one is suggested from all names, not only from those already imported."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], names)
            cure = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}"
            ctx.fail(f"{args[0]!r} is not a command; {cure}")
        return super().resolve_command(ctx, args)


class LazyGroup(SectionGroup):
    """A group whose commands are imported one by one, when needed: `<package>.<name>` holds the function of that name, or an `app`."""

    package = "mflamingo_cli.commands"
    entries: dict[str, tuple[str, str]]  # name -> section of the help page, summary
    moved: dict[str, str] = {}  # noqa: RUF012  (name of a command that was -> what it is now)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; one that was says what it is now."""
        if args and args[0] in self.moved:
            ctx.fail(f"{args[0]!r} is now {self.moved[args[0]]}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the help page."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command, once."""
        if cmd_name in self.entries and cmd_name not in self.commands:
            module = import_module(f"{self.package}.{cmd_name}")
            app = getattr(module, "app", None)
            if app is None:
                app = typer.Typer()
                app.command()(getattr(module, cmd_name))
            command = typer.main.get_command(plain(app))
            self.commands[cmd_name], command.name = command, cmd_name
        return self.commands.get(cmd_name)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the subcommands by subject, then the options."""
        _write_sections([(section, (name, summary)) for name, (section, summary) in self.entries.items()], formatter)
        _write_options(self, ctx, formatter)


def plain(app: typer.Typer) -> typer.Typer:
    """Let an app and its groups draw help without rich and convert values without pydantic."""
    app.rich_markup_mode, app._add_completion = None, False
    if not (app.info.cls and issubclass(app.info.cls, SectionGroup)):
        app.info.cls = SectionGroup
    for command in app.registered_commands:
        command.cls = SectionCommand
        command.context_settings = HELP_OPTIONS
    for group in app.registered_groups:
        if group.typer_instance is not None:
            plain(group.typer_instance)
    return app
