"""Man pages and shell completions, written from the Typer app: `python -m tests.docs` renews `man/` and `completions/`.

Uses only what Typer's command tree shows in every version: commands, params, opts, help, and the choices of a parameter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from mflamingo_cli import __version__
from mflamingo_cli.cli import EXAMPLES, app
from mflamingo_cli.errors import ExitCode

ROOT = Path(__file__).parent.parent
DATE = "2026-11-28"  # of the man pages: when the interface last changed
HELP = "Show a help message and exit."
ENVIRONMENT = {
    "MFLAMINGO_MODEL, MFLAMINGO_MAX_TOKENS, …": "defaults of --model, --max-tokens and other options: `mflamingo config show` lists them",
    "XDG_CONFIG_HOME": "where mflamingo/config.toml is, default ~/.config; ./mflamingo.toml overrides looks and formats",
    "NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE": "turn colours off or on where --color is auto",
    "MFLAMINGO_CACHE, XDG_CACHE_HOME": "where decoded, measured and encoded songs are cached; default ~/.cache/mflamingo",
    "MFLAMINGO_LIBRARIES": "which package provides ggml and llama.cpp where both are installed: llama-cpp-python (preferred) or xllamacpp",
    "MFLAMINGO_STATE, XDG_STATE_HOME": "where runs.db (finished songs) and errors.log are; default ~/.local/state/mflamingo",
    "HF_HOME, HF_HUB_CACHE": "where downloaded models are",
    "HF_HUB_OFFLINE": "like --offline, for every command",
    "HF_TOKEN, HF_ENDPOINT": "for downloads: your token, and which hub",
}


@dataclass(frozen=True)
class Option:
    """One option, or one argument (then `names` is its metavar)."""

    names: tuple[str, ...]  # longest first
    help: str
    value: str  # "" for a flag
    choices: tuple[str, ...]
    default: str
    argument: bool = False

    @property
    def word(self) -> str:
        """The value that is a word of its own; none where it is only taken after `=`."""
        return "" if self.value.startswith("[=") else self.value

    @property
    def takes_files(self) -> bool:
        return any(word in self.value for word in ("FILE", "DIR", "PATH", "SRC"))


@dataclass(frozen=True)
class Page:
    """One command: `mflamingo models convert` has path ("models", "convert")."""

    path: tuple[str, ...]
    help: str
    params: tuple[Option, ...]
    children: tuple[Page, ...]

    @property
    def options(self) -> tuple[Option, ...]:
        return tuple(p for p in self.params if not p.argument)

    @property
    def name(self) -> str:
        return "-".join(("mflamingo", *self.path))

    @property
    def summary(self) -> str:
        return self.help.split("\n\n")[0].replace("\n", " ").strip()

    def walk(self) -> list[Page]:
        return [self, *(page for child in self.children for page in child.walk())]


def tree() -> Page:
    """The whole app."""
    return _page(typer.main.get_command(app), ())


def _page(command: Any, path: tuple[str, ...]) -> Page:
    params = [_param(p) for p in command.params if not getattr(p, "hidden", False)]
    params.append(Option(("--help", "-h"), HELP, "", (), ""))
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    children = [_page(command.get_command(None, name), (*path, name)) for name in names]
    return Page(path, command.help or "", tuple(params), tuple(children))


def _param(param: Any) -> Option:
    choices = tuple(str(choice) for choice in param.type_descriptor.choices or ())
    if param.param_type_name == "argument":
        value = param.metavar or param.name.upper()
        return Option((value + ("..." if param.nargs == -1 else ""),), param.help or "", value, choices, "", argument=True)
    flag = param.is_flag or getattr(param, "count", False)
    value = "" if flag else param.metavar or "|".join(choices) or param.name.upper()
    default = "" if flag or param.default is None or callable(param.default) else str(param.default)
    names = tuple(sorted((*param.opts, *param.secondary_opts), key=lambda name: (-len(name), name)))
    return Option(names, " ".join((param.help or "").split()), value, choices, default)


# --- man pages ------------------------------------------------------------------------------------------------------------


def roff(text: str) -> str:
    """Text as roff: backslashes, hyphens and leading dots escaped, runs of `code` bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.split("\n"))


def man(page: Page) -> str:
    """One page of section 1."""
    usage = [p.names[0] if p.help.startswith("Your") or len(p.names) > 1 else f"[{p.names[0]}]" for p in page.params if p.argument]
    words = ["[OPTIONS]", *(["COMMAND", "..."] if page.children else usage)]
    out = [
        f'.TH "{page.name.upper()}" "1" "{DATE}" "mflamingo {__version__}" "User Commands"',
        ".SH NAME",
        f"{roff(page.name)} \\- {roff(page.summary.rstrip('.'))}",
    ]
    out += [".SH SYNOPSIS", f"\\fB{roff(' '.join(('mflamingo', *page.path)))}\\fR {roff(' '.join(words))}"]
    out += [".SH DESCRIPTION", "\n.PP\n".join(roff(" ".join(part.split())) for part in page.help.split("\n\n"))]
    if page.children:
        out += [".SH COMMANDS", *(f".TP\n\\fB{roff(' '.join(child.path))}\\fR\n{roff(child.summary)}" for child in page.children)]
    for heading, params in (("ARGUMENTS", [p for p in page.params if p.argument]), ("OPTIONS", page.options)):
        out += [f".SH {heading}", *map(_entry, params)] if params else []
    if not page.path:
        out += [".SH EXIT STATUS", *(f".TP\n\\fB{code:d}\\fR\n{roff(code.meaning)}" for code in ExitCode)]
        out += [".SH ENVIRONMENT", *(f".TP\n\\fB{name}\\fR\n{roff(text)}" for name, text in ENVIRONMENT.items())]
        out += [".SH EXAMPLES", "\n.PP\n".join(f".nf\n{roff(example)}\n.fi" for example in EXAMPLES)]
    related = [*page.children] or [tree()]
    out += [".SH SEE ALSO", ",\n".join(f"\\fB{roff(other.name)}\\fR(1)" for other in related)]
    return "\n".join(out) + "\n"


def _entry(param: Option) -> str:
    names = ", ".join(f"\\fB{roff(name)}\\fR" for name in param.names)
    value = f"{' ' if param.word else ''}\\fI{roff(param.value)}\\fR" if param.value and not param.argument else ""
    default = roff(f" [default: {param.default}]") if param.default else ""
    return f".TP\n{names}{value}\n{roff(param.help)}{default}"


# --- completions ------------------------------------------------------------------------------------------------------------


def bash(root: Page) -> str:
    """A completion function: the longest known command path wins, then its options, choices, or files."""
    cases, values = [], []
    for page in root.walk():
        words = [name for option in page.options for name in option.names] + [child.path[-1] for child in page.children]
        cases.append(f'        "{" ".join(page.path)}") words="{" ".join(words)}" ;;')
        for option in page.options:
            keys = "|".join(f'"{" ".join(page.path)}:{name}"' for name in option.names)
            if option.choices:
                values.append(f'        {keys}) COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$current")); return ;;')
            elif option.word:
                values.append(f"        {keys}) {'compopt -o default; ' if option.takes_files else ''}return ;;")
    groups = " ".join(f'"{" ".join(page.path)}"' for page in root.walk() if page.path)
    return BASH.format(groups=groups, cases="\n".join(cases), values="\n".join(values))


BASH = """# bash completion of mflamingo; written by tests/docs.py
_mflamingo() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" path="" words="" word known
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        for known in {groups}; do
            [[ "$known" == "${{path:+$path }}$word" ]] && path="$known"
        done
    done
    COMPREPLY=()
    case "$path:$previous" in
{values}
    esac
    case "$path" in
{cases}
    esac
    if [[ "$current" == -* || "$path" == "" || "$path" == "models" || "$path" == "train" ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    else
        compopt -o default
    fi
}}
complete -F _mflamingo mflamingo
"""


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text).replace("'", "'\\''")


def zsh(root: Page) -> str:
    """One function per command; groups dispatch to their children."""
    functions = []
    for page in root.walk():
        specs = [_zsh_option(option) for option in page.options]
        if page.children:
            names = " ".join(f"'{child.path[-1]}:{_zsh_text(child.summary)}'" for child in page.children)
            cases = "\n".join(f"            {child.path[-1]}) {_zsh_name(child)} ;;" for child in page.children)
            functions.append(ZSH_GROUP.format(name=_zsh_name(page), specs=" \\\n        ".join(specs), names=names, cases=cases))
        else:
            files = "'*:file:_files'" if any(p.argument and p.takes_files for p in page.params) else ""
            lines = " \\\n        ".join([*specs, *([files] if files else [])])
            functions.append(f"{_zsh_name(page)}() {{\n    _arguments -s -S \\\n        {lines}\n}}\n")
    return "#compdef mflamingo\n# zsh completion of mflamingo; written by tests/docs.py\n\n" + "\n".join(functions) + '\n_mflamingo "$@"\n'


ZSH_GROUP = """{name}() {{
    local context state line
    local -a names=({names})
    _arguments -C \\
        {specs} \\
        '1:command:->command' '*::argument:->argument'
    case $state in
        command) _describe command names ;;
        argument) case $line[1] in
{cases}
        esac ;;
    esac
}}
"""


def _zsh_name(page: Page) -> str:
    return "_" + page.name.replace("-", "_")


def _zsh_option(option: Option) -> str:
    action = f"({' '.join(option.choices)})" if option.choices else "_files" if option.takes_files else " "
    value = f":value:{action}" if option.word else ""
    names = "{" + ",".join(option.names) + "}" if len(option.names) > 1 else option.names[0]
    exclusive = f"'({' '.join(option.names)})'" if len(option.names) > 1 else ""
    return f"{exclusive}{names}'[{_zsh_text(option.help)}]{value}'"


def fish(root: Page) -> str:
    """One line per option and subcommand."""
    lines = ["# fish completion of mflamingo; written by tests/docs.py", "complete -c mflamingo -f"]
    for page in root.walk():
        seen = " ".join(f"__fish_seen_subcommand_from {word};" + " and" for word in page.path[:-1])
        here = f"{seen} __fish_seen_subcommand_from {page.path[-1]}".strip() if page.path else "__fish_use_subcommand"
        for child in page.children:
            others = " ".join(other.path[-1] for other in page.children)
            condition = "__fish_use_subcommand" if not page.path else f"{here}; and not __fish_seen_subcommand_from {others}"
            lines.append(f"complete -c mflamingo -n '{condition}' -a {child.path[-1]} -d {_quoted(child.summary)}")
        if any(p.argument and p.takes_files for p in page.params):
            lines.append(f"complete -c mflamingo -n '{here}' -F")
        for option in page.options:
            flags = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = (
                f" -x -a '{' '.join(option.choices)}'"
                if option.choices
                else " -r -F"
                if option.takes_files
                else " -x"
                if option.word
                else ""
            )
            lines.append(f"complete -c mflamingo -n '{here}' {flags}{value} -d {_quoted(option.help)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def render() -> dict[Path, str]:
    """Every file of `man/` and `completions/` with its text."""
    root = tree()
    files = {ROOT / "man" / f"{page.name}.1": man(page) for page in root.walk()}
    shells = {"mflamingo": bash(root), "_mflamingo": zsh(root), "mflamingo.fish": fish(root)}
    return files | {ROOT / "completions" / name: text for name, text in shells.items()}


def main() -> None:
    wanted = render()
    for folder in ("man", "completions"):
        (ROOT / folder).mkdir(exist_ok=True)
        for old in (ROOT / folder).iterdir():
            if old not in wanted:
                old.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
