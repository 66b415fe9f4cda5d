"""`mflamingo models`: which models there are, what is in one, conversion to GGUF and its verification. Sizes are bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from mflamingo_cli.backends import DEFAULT_MODEL, ModelFiles, embedded_directory, find_model
from mflamingo_cli.commands.options import HELP_OPTIONS
from mflamingo_cli.errors import MFlamingoError, ModelError
from quant import TYPES, QuantError

if TYPE_CHECKING:
    from rich.table import Table

    TypeName: TypeAlias = str
else:
    TypeName = Literal[tuple(TYPES)]

NVIDIA = "research only"  # NVIDIA OneWay Noncommercial License


@dataclass(frozen=True)
class Published:
    """A checkpoint that these commands can open."""

    name: str
    about: str
    licence: str


PUBLISHED = (
    Published("nvidia/music-flamingo-2601-hf", "8 B, bf16, 20 minutes", NVIDIA),
    Published("nvidia/music-flamingo-think-2601-hf", "8 B, bf16, reasons", NVIDIA),
    Published("nvidia/music-flamingo-hf", "8 B, bf16, preview, 10 minutes", NVIDIA),
    Published("henry1477/music-flamingo-gguf", "8 B, GGUF of the preview", NVIDIA),
    Published("henry1477/music-flamingo-2601-hf-fp8", "8 B, fp8", NVIDIA),
)

app = typer.Typer(name="models", no_args_is_help=True, context_settings=HELP_OPTIONS, help="List, show, convert and verify models.")

Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command("list", context_settings=HELP_OPTIONS)
def list_models(as_json: Json = False) -> None:
    """Show the models that can be used, and whether they are here. Asks no network."""
    rows = [_listed(DEFAULT_MODEL, "embedded, works offline", "Apache-2.0")]
    rows += [_listed(model.name, model.about, model.licence) for model in PUBLISHED]
    if as_json:
        print(json.dumps(rows))
        return
    table = _table("model", "state", "about", "licence")
    for row in rows:
        table.add_row(row["name"], row["state"], row["about"], row["licence"])
    _show(table)
    if any(row["state"] == "absent" for row in rows):
        _show("Download one with the Hugging Face tools, `hf download NAME`, then use it with --model NAME.")


def _listed(name: str, about: str, licence: str) -> dict[str, str]:
    try:
        find_model(name)
        state = "embedded" if name == DEFAULT_MODEL else "downloaded"
    except ModelError:
        state = "missing" if name == DEFAULT_MODEL else "absent"
    return {"name": name, "state": state, "about": about, "licence": licence}


@app.command(context_settings=HELP_OPTIONS)
def info(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR|FILE", help="A model as --model takes it.")] = DEFAULT_MODEL,
    as_json: Json = False,
) -> None:
    """Show what a model is: sizes, abilities, limits, files, licence. Reads headers only."""
    try:
        facts = describe(find_model(name))
    except QuantError as error:
        raise ModelError(str(error)) from error
    if as_json:
        print(json.dumps(facts))
        return
    table = _table(None, None)
    for label, value in facts.items():
        if isinstance(value, list):
            value = "\n".join(_file_line(item) if isinstance(item, dict) else str(item) for item in value) or "none"
        table.add_row(label.replace("_", " "), "unknown" if value is None else str(value))
    _show(table)
    for card in sorted(embedded_directory().glob("*.md")) if name == DEFAULT_MODEL else ():
        _show(f"Its card: {card}")


def _file_line(item: dict[str, Any]) -> str:
    return f"{item['path']}  {item['bytes'] / 1e6:.1f} MB"


def describe(files: ModelFiles) -> dict[str, Any]:
    """What the headers of a model's files say."""
    published = next((model for model in PUBLISHED if model.name == files.name), None)
    licence = published.licence if published else "Apache-2.0" if files.name == DEFAULT_MODEL else None
    facts: dict[str, Any] = {"name": files.name, "licence": licence}
    if files.pairs:
        facts |= _gguf_facts(*files.pairs[0])
    if files.directory is not None:
        facts |= _directory_facts(files.directory)
    paths = [path for pair in files.pairs for path in pair]
    paths += sorted(files.directory.glob("*.safetensors")) if files.directory else []
    return facts | {"files": [{"path": str(path), "bytes": path.stat().st_size} for path in paths]}


def _gguf_facts(text: Path, audio: Path) -> dict[str, Any]:
    from math import prod

    from mflamingo_cli.backends.gguf import geometry_of
    from quant.reader import read

    heads = [read(path) for path in (text, audio)]
    geometry = geometry_of(heads[1].keys, heads[0].keys)
    count = sum(prod(tensor.shape) for head in heads for tensor in head.tensors.values())
    own = {name: heads[1].keys.get(f"mflamingo.{name}") for name in ("revision", "abilities", "grounded")}
    return _common(geometry, own) | {"parameters": count}


def _directory_facts(directory: Path) -> dict[str, Any]:
    from mflamingo_cli.core.geometry import Geometry, read_json

    own = read_json(directory / "mflamingo.json") if (directory / "mflamingo.json").exists() else {}
    return _common(Geometry.from_directory(directory), own)


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
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A checkpoint directory, or a downloaded hub id.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the two files go.", show_default=False)],
    type_name: Annotated[TypeName, typer.Option("--type", "-t", help="Number format of the weights.")] = "Q8_0",
    audio_type: Annotated[TypeName | None, typer.Option("--audio-type", help="Of the audio part; at least Q8_0 if not given.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
) -> None:
    """Convert a checkpoint into a pair of GGUF files: language model and audio part, each ready only when complete."""
    from mflamingo_cli.commands.terminal import Voice
    from quant import plan

    found = find_model(str(source))
    if found.directory is None:
        raise ModelError(f"{source}: holds no checkpoint, only GGUF")
    voice = Voice(progress="none" if quiet else "auto", quiet=quiet)
    try:
        made = plan(found.directory, output, type_name, audio_type)
        for step in made.run():
            voice.working(f"{100 * step.done / max(step.total, 1):.0f} %  {step.tensor}")
    except QuantError as error:
        raise MFlamingoError(str(error)) from error
    finally:
        voice.idle()
    for path in made.paths:
        print(path)


@app.command(context_settings=HELP_OPTIONS)
def verify(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A directory with GGUF pairs, or one text part.", show_default=False)],
    against: Annotated[
        Path | None, typer.Option("--against", metavar="SRC", help="The checkpoint they were made from.", show_default=False)
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every tensor, not only the bad ones.")] = False,
    as_json: Json = False,
) -> None:
    """Read a GGUF pair back: names, shapes, types, and with --against the error of every tensor. Exit code 1 if anything is wrong."""
    from mflamingo_cli.commands.terminal import Voice
    from quant import verifying

    source = find_model(str(against)).directory if against else None
    if against and source is None:
        raise ModelError(f"{against}: holds no checkpoint to compare with")
    voice, reports = Voice(), []
    try:
        for report in verifying(path, source):
            voice.working(report.name)
            reports.append(report)
    except QuantError as error:
        raise MFlamingoError(str(error)) from error
    finally:
        voice.idle()
    bad = [report for report in reports if report.problem]
    if as_json:
        print(json.dumps([{**vars(report), "file": str(report.file)} for report in reports]))
    else:
        if shown := reports if verbose else bad:
            _show(_report_table(shown, bool(against)))
        _show(f"{len(reports)} tensors, {len(bad)} with problems{_worst(reports)}")
    if bad:
        raise typer.Exit(1)


def _worst(reports: list[Any]) -> str:
    known = [report.error for report in reports if report.error is not None]
    return f", largest relative error {max(known):.4f}" if known else ""


def _report_table(reports: list[Any], compared: bool) -> Table:
    table = _table("tensor", "type", "shape", "error", "problem") if compared else _table("tensor", "type", "shape", "problem")
    for report in reports:
        error = [] if not compared else ["" if report.error is None else f"{report.error:.5f}"]
        table.add_row(report.name, report.type, "x".join(map(str, report.shape)), *error, report.problem or "")
    return table


def _table(*headings: str | None) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=any(headings), padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading or "", overflow="fold", no_wrap=heading in ("model", "state"))
    return table


def _show(item: Table | str) -> None:
    import sys

    from mflamingo_cli.commands.terminal import wants_color
    from mflamingo_cli.render import console

    console(sys.stdout, wants_color("auto", sys.stdout)).print(item, soft_wrap=isinstance(item, str))
