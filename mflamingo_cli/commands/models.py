"""`mflamingo models`: which there are, download and removal, what is in one, conversion to GGUF and its verification. Sizes are bytes."""

from __future__ import annotations

import sys
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from mflamingo_cli.backends import DEFAULT_MODEL, ModelFiles, embedded_directory, find_model
from mflamingo_cli.commands.help import HELP_OPTIONS
from mflamingo_cli.commands.imatrix import imatrix
from mflamingo_cli.commands.reference import Json
from mflamingo_cli.commands.tables import show, show_json, table
from mflamingo_cli.commands.verify import verify
from mflamingo_cli.core import remote
from mflamingo_cli.errors import ModelError, UsageError, as_failed_work
from mflamingo_cli.models import registry
from mflamingo_cli.models.registry import APACHE, NVIDIA, RESEARCH
from mflamingo_cli.store import hub
from quant.types import TYPES

if TYPE_CHECKING:
    from mflamingo_cli.commands.terminal import Reporter
    from quant.convert import Conversion

    TypeName: TypeAlias = str
else:
    TypeName = Literal[tuple(TYPES)]

LABELS = {"hears": "audio", "is_told_facts": "uses facts"}  # of rows whose key in --json says less
app = typer.Typer(
    name="models", no_args_is_help=True, context_settings=HELP_OPTIONS, help="List, download, show, convert and verify models."
)


@app.command("list", context_settings=HELP_OPTIONS)
def list_models(as_json: Json = False) -> None:
    """List the models that can be used, and which of them are downloaded. Uses no network."""
    rows = registry.listed()
    if as_json:
        show_json(rows)
        return
    lines = table("model", "state", "about", "licence")
    for row in rows:
        lines.add_row(row["name"], _state(row), row["about"], RESEARCH if row["licence"] == NVIDIA else row["licence"])
    show(lines)
    if any(row["state"] == "absent" for row in rows):
        show("Download one with `mflamingo models pull NAME`, then use it with --model NAME.")


def _state(row: dict[str, Any]) -> str:
    """In one column, because a table has 80."""
    if row["bytes"] is None:
        return str(row["state"])
    return "\n".join([row["state"], hub.size(row["bytes"]), *([f"at {row['revision'][: hub.SHORT]}"] if row["revision"] else [])])


Id = Annotated[str, typer.Argument(metavar="ID", help="OWNER/NAME on the Hugging Face hub.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@app.command(context_settings=HELP_OPTIONS)
def pull(
    name: Id,
    revision: Annotated[str, typer.Option("--revision", metavar="REV", help="A branch, tag or commit.")] = hub.MAIN,
    type_name: Annotated[
        str | None, typer.Option("--quantize", metavar="TYPE", help="Convert to GGUF of this type, or take the GGUF file of this type.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where --quantize writes; default: beside the download.")
    ] = None,
    yes: Yes = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network, only what is in the cache.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Download a model into the Hugging Face cache: only the files needed, after showing size and licence. Resumes where it stopped."""
    from mflamingo_cli.commands.terminal import Reporter

    if output is not None and type_name is None:
        raise UsageError("--output is where --quantize writes; add --quantize TYPE")
    reporter = Reporter(progress="none" if quiet else "auto")
    if offline or remote.is_offline():
        remote.forbid_network()
        directory = hub.hub_snapshot(name if revision == hub.MAIN else f"{name}@{revision}")
        convert_to = type_name if (directory / "config.json").exists() else None
    else:
        directory, convert_to = _download(name, revision, type_name, output, yes, reporter)
    if convert_to:
        for path in _converted(directory, output, convert_to, reporter):
            print(path)
    else:
        print(directory)


def _download(
    name: str, revision: str, type_name: str | None, output: Path | None, yes: bool, reporter: Reporter
) -> tuple[Path, str | None]:
    from mflamingo_cli.models.download import check_space, fetch, look_up

    download = look_up(name, revision, type_name)
    missing = download.missing()
    check_space(download, output or hub.hub_cache())
    known = registry.licence((download.name, *download.bases))  # what is made of NVIDIA's weights stays under NVIDIA's terms
    licence = f"{known}, {RESEARCH}" if known == NVIDIA else known or download.licence or "its model card names none"
    if missing:
        here = f", {hub.size(download.n_bytes - missing)} already here" if missing < download.n_bytes else ""
        what = f"{name} at {download.revision[: hub.SHORT]} ({revision}): {hub.size(download.n_bytes)} in {len(download.files)} files{here}"
        _confirm(f"download {hub.size(missing)}", yes, reporter, [what, f"licence: {licence}"])
    try:
        directory = fetch(download, reporter.working)
    except KeyboardInterrupt:
        reporter.idle()
        reporter.warn("stopped; run the same command again to resume")
        raise
    finally:
        reporter.idle()
    return directory, download.convert_to


def _confirm(action: str, yes: bool, reporter: Reporter, facts: list[str]) -> None:
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
    return _run(made, reporter)


@app.command(context_settings=HELP_OPTIONS)
def rm(name: Annotated[str, typer.Argument(metavar="ID[@REV]", help="A hub id; with @REV only that revision.")], yes: Yes = False) -> None:
    """Remove a model from the Hugging Face cache: all revisions, unfinished downloads and converted files."""
    from mflamingo_cli.commands.terminal import Reporter

    if name == DEFAULT_MODEL:
        raise UsageError(f"{name} is part of the program and cannot be removed")
    base, _, revision = name.partition("@")
    paths = hub.removal(base, revision)
    if not paths:
        raise ModelError(f"{name} is not in the Hugging Face cache, {hub.hub_cache()}")
    freed = hub.size(hub.disk_bytes(*paths))
    _confirm(f"remove {freed}", yes, Reporter(), [f"{name}: {freed} in {hub.repository(base)}"])
    hub.remove(paths)
    print(f"freed {freed}")


@app.command(context_settings=HELP_OPTIONS)
def info(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR|FILE", help="Any model that --model accepts.")] = DEFAULT_MODEL,
    as_json: Json = False,
) -> None:
    """Show what a model is: sizes, abilities, limits, files, licence. Reads headers only."""
    facts = describe(find_model(name))
    if as_json:
        show_json(facts)
        return
    rows = table(None, None)
    for label, value in facts.items():
        if isinstance(value, list):
            files = (f"{item['path']}  {item['bytes'] / 1e6:.1f} MB" for item in value)
            value = "\n".join(files) or "none"
        shown = "unknown" if value is None else ("no", "yes")[value] if isinstance(value, bool) else value
        rows.add_row(LABELS.get(label, label.replace("_", " ")), str(shown))
    show(rows)
    for card in sorted(embedded_directory().glob("*.md")) if name == DEFAULT_MODEL else ():
        show(f"Its card: {card}")


def describe(files: ModelFiles) -> dict[str, Any]:
    """What the headers of a model's files say."""
    from quant.layout import hub_identity

    identity = hub_identity(files.directory or files.pairs[0][0].parent)  # whatever name it was found by
    known = registry.licence(identity[:1]) if identity else None
    facts: dict[str, Any] = {"name": files.name, "licence": known or (APACHE if files.name == DEFAULT_MODEL else None)}
    if files.pairs:
        facts |= _gguf_facts(*files.pairs[0])
    if files.directory is not None:
        facts |= _directory_facts(files.directory)
    if files.adapter is not None:
        facts |= {"adapter": f"LoRA in {files.adapter}, merged into {files.directory} when it is opened or converted"}
    paths = [path for pair in files.pairs for path in pair]
    paths += [path for folder in (files.directory, files.adapter) if folder for path in sorted(folder.glob("*.safetensors"))]
    if identity is not None:
        facts["revision"] = facts["revision"] or identity[1]
    return facts | {"files": [{"path": str(path), "bytes": path.stat().st_size} for path in paths]}


def _gguf_facts(text: Path, audio: Path) -> dict[str, Any]:
    from quant.keys import geometry_of_keys
    from quant.reader import read

    heads = [read(path) for path in (text, audio)]
    geometry = geometry_of_keys(heads[1].keys, heads[0].keys, text)
    count = sum(prod(tensor.shape) for head in heads for tensor in head.tensors.values())
    own = {name: heads[1].keys.get(f"mflamingo.{name}") for name in ("revision", "abilities", "grounded")}
    return _common(geometry, own) | {"parameters": count}


def _directory_facts(directory: Path) -> dict[str, Any]:
    from quant.checkpoint import Checkpoint, read_json
    from quant.config import read_geometry
    from quant.fp8 import DTYPE

    own = read_json(directory / "mflamingo.json") if (directory / "mflamingo.json").exists() else {}
    facts = _common(read_geometry(directory), own)
    if not any(directory.glob("*.safetensors")):
        return facts
    checkpoint = Checkpoint(directory)
    stored: Counter[str] = Counter()
    for entry in checkpoint.entries.values():
        stored[entry.dtype] += prod(entry.shape)
    names = {DTYPE: f"{checkpoint.scheme} (quant_method {checkpoint.scheme.method})"} if checkpoint.scheme else {}
    formats = [f"{100 * count / stored.total():.0f} % {names.get(dtype, dtype)}" for dtype, count in stored.most_common()]
    return facts | {"parameters": stored.total(), "checkpoint": ", ".join(formats)}


def _common(geometry: Any, own: dict[str, Any]) -> dict[str, Any]:
    mel = geometry.mel
    return {
        "revision": own.get("revision"),
        "architecture": geometry.architecture + (" with rotary time embedding" if geometry.rote else ""),
        "hears": f"{geometry.max_audio_s:.0f} s at most, in windows of {mel.window_s} s",
        "spectrum": f"{mel.n_mels} mel bands, windows of {mel.n_fft} samples every {mel.hop_length}",
        "encoder": f"{geometry.encoder.n_layers} layers of {geometry.encoder.d_model}",
        "language_model": f"{geometry.text.n_layers} layers of {geometry.text.d_model}",
        "abilities": "all" if own.get("abilities") is None else ", ".join(own["abilities"]) or "none",
        "is_told_facts": bool(own.get("grounded")),
    }


@app.command(context_settings=HELP_OPTIONS)
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A checkpoint directory, or a downloaded hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the two files.")],
    type_name: Annotated[
        TypeName, typer.Option("--type", "-t", metavar="TYPE", help=f"Number format of the weights: {', '.join(TYPES)}.")
    ] = "Q8_0",
    audio_type: Annotated[
        TypeName | None, typer.Option("--audio-type", metavar="TYPE", help="Type of the audio part; default: as --type, at least Q8_0.")
    ] = None,
    importance: Annotated[
        Path | None, typer.Option("--imatrix", metavar="FILE", help="Importance matrix: which weights need the most precision.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Convert a checkpoint into a pair of GGUF files: language model and audio part. Each file appears only when it is complete."""
    from mflamingo_cli.commands.terminal import Reporter
    from quant.convert import plan

    found = find_model(str(source))
    if found.directory is None:
        raise ModelError(f"{source}: contains only GGUF, no checkpoint")
    reporter = Reporter(progress="none" if quiet else "auto", quiet=quiet)
    with as_failed_work():
        made = plan(found.directory, output, type_name, audio_type, imatrix=importance, adapter=found.adapter)
    for path in _run(made, reporter):
        print(path)


def _run(made: Conversion, reporter: Reporter) -> tuple[Path, Path]:
    try:
        with as_failed_work():
            for step in made.run():
                reporter.working(f"{100 * step.done / max(step.total, 1):.0f} %  {step.tensor}")
    finally:
        reporter.idle()
    return made.paths


for command in (imatrix, verify):
    app.command(context_settings=HELP_OPTIONS)(command)
