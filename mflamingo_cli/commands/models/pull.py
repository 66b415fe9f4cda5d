"""`mflamingo models pull`: a download into the Hugging Face cache, and its conversion. Sizes are bytes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mflamingo_cli.commands.models import convert
from mflamingo_cli.core import remote
from mflamingo_cli.errors import ModelError, UsageError, as_failed_work
from mflamingo_cli.models import registry
from mflamingo_cli.models.registry import NVIDIA, RESEARCH
from mflamingo_cli.store import hub

if TYPE_CHECKING:
    from mflamingo_cli.commands.terminal import Reporter

Id = Annotated[str, typer.Argument(metavar="ID", help="OWNER/NAME on the Hugging Face hub.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def pull(
    name: Id,
    revision: Annotated[str, typer.Option("--revision", metavar="REV", help="Branch, tag or commit to download.")] = hub.MAIN,
    type_name: Annotated[
        str | None,
        typer.Option(
            "--quantize", metavar="TYPE", help="Convert the model to GGUF of this type, or download only the GGUF file of this type."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for the files of --quantize; default: beside the download.")
    ] = None,
    yes: Yes = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network, only the cache.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Download a model into the Hugging Face cache, after showing its size and licence. Run the same command again to resume."""
    from mflamingo_cli.commands.terminal import Reporter

    if output is not None and type_name is None:
        raise UsageError("--output is the folder for --quantize; add --quantize TYPE")
    reporter = Reporter(progress="none" if quiet else "auto")
    if offline or remote.is_offline():
        remote.forbid_network()
        directory = _in_cache(name, revision, "leave out --offline" if offline else "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE")
        convert_to = type_name if (directory / "config.json").exists() else None
    else:
        directory, convert_to = _download(name, revision, type_name, output, yes, reporter)
    if convert_to:
        for path in _converted(directory, output, convert_to, reporter):
            print(path)
    else:
        print(directory)


def _in_cache(name: str, revision: str, cure: str) -> Path:
    """The directory of a model that was downloaded before. Raises ModelError that says how to allow the network."""
    is_main = revision == hub.MAIN
    try:
        return hub.hub_snapshot(name if is_main else f"{name}@{revision}")
    except ModelError as error:
        pull = f"mflamingo models pull {name}{'' if is_main else f' --revision {revision}'}"
        raise ModelError(f"{name}: not completely downloaded; {cure} to download it with `{pull}`") from error


def _download(
    name: str, revision: str, type_name: str | None, output: Path | None, yes: bool, reporter: Reporter
) -> tuple[Path, str | None]:
    from mflamingo_cli.models.download import check_space, fetch, look_up

    download = look_up(name, revision, type_name)
    missing = download.missing()
    check_space(download, output or hub.hub_cache())
    known = registry.licence((download.name, *download.bases))  # what is made of NVIDIA's weights stays under NVIDIA's terms
    licence = f"{known}, {RESEARCH}" if known == NVIDIA else known or download.licence or "not named in its model card"
    if missing:
        here = f", {hub.size(download.n_bytes - missing)} already here" if missing < download.n_bytes else ""
        what = f"{name} at {download.revision[: hub.SHORT]} ({revision}): {hub.size(download.n_bytes)} in {len(download.files)} files{here}"
        confirm(f"download {hub.size(missing)}", yes, reporter, [what, f"licence: {licence}"])
    try:
        directory = fetch(download, reporter.working)
    except KeyboardInterrupt:
        reporter.idle()
        reporter.warn("stopped; run the same command again to resume")
        raise
    finally:
        reporter.idle()
    return directory, download.convert_to


def confirm(action: str, yes: bool, reporter: Reporter, facts: list[str]) -> None:
    """Show `facts` and ask before `action`. Raises UsageError that tells them where nobody can be asked."""
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{'; '.join(facts)}; add --yes to {action} without confirmation")
    for fact in facts:
        reporter.say(fact)
    if not yes and not typer.confirm(f"{action[0].upper()}{action[1:]}?", err=True):
        raise typer.Exit(1)


def _converted(directory: Path, output: Path | None, type_name: str, reporter: Reporter) -> tuple[Path, Path]:
    """The pair in the download itself, where --model finds it and which never changes, or anew in `output`."""
    from quant.convert import plan

    with as_failed_work():
        made = plan(directory, output or directory, type_name)
    if output is None and all(path.exists() for path in made.paths):
        return made.paths
    return convert.run(made, reporter)
