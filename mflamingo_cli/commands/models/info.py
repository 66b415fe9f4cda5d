"""`mflamingo models info`: what the headers of a model's files say. Sizes are bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Annotated, Any

import typer

from mflamingo_cli.backends import ModelFiles, embedded_directory, find_model
from mflamingo_cli.backends.options import DEFAULT_MODEL, EMBEDDED
from mflamingo_cli.commands.reference import Json
from mflamingo_cli.commands.tables import show, show_json, table
from mflamingo_cli.models import registry
from mflamingo_cli.text import clock

LABELS = {  # of rows whose key in --json says less, or has a unit
    "hears": "audio",
    "is_told_facts": "uses facts",
    "longest_audio_s": "longest audio",
    "context_tokens": "context",
}
SHOWN: dict[str, Callable[[Any], str]] = {"context_tokens": lambda count: f"{count:,} tokens", "longest_audio_s": clock}


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
            value = "\n".join(map(_file, value)) or "none"
        known = SHOWN.get(label, str)(value) if value is not None else "unknown"
        shown = ("no", "yes")[value] if isinstance(value, bool) else known
        rows.add_row(LABELS.get(label, label.replace("_", " ")), str(shown))
    show(rows)
    for card in sorted(embedded_directory(name).glob("*.md")) if name in EMBEDDED else ():
        show(f"Its card: {card}")


def _file(item: dict[str, Any]) -> str:
    size = "missing" if item["bytes"] is None else f"{item['bytes'] / 1e6:.1f} MB"
    return f"{item['path']}  {size}"


def describe(files: ModelFiles) -> dict[str, Any]:
    """What the headers of a model's files say."""
    from quant.layout import hub_identity

    identity = hub_identity(files.directory or files.pairs[0][0].parent)  # whatever name it was found by
    known = registry.licence(identity[:1]) if identity else None
    facts: dict[str, Any] = {"name": files.name, "licence": known or registry.EMBEDDED_LICENCES.get(files.name)}
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
    return facts | {"files": [{"path": str(path), "bytes": path.stat().st_size if path.is_file() else None} for path in paths]}


def _gguf_facts(text: Path, audio: Path) -> dict[str, Any]:
    from quant.pair import open_pair

    pair = open_pair(text, audio)
    count = sum(prod(tensor.shape) for head in (pair.text, pair.audio) for tensor in head.tensors.values())
    own = {name: pair.audio.keys.get(f"mflamingo.{name}") for name in ("revision", "abilities", "grounded")}
    return _common(pair.geometry, own) | {"parameters": count}


def _directory_facts(directory: Path) -> dict[str, Any]:
    from quant.checkpoint import Checkpoint
    from quant.config import read_card, read_geometry
    from quant.fp8 import DTYPE

    facts = _common(read_geometry(directory), read_card(directory))
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
        "context_tokens": geometry.text.context_length,
        "longest_audio_s": geometry.longest_audio_s,
        "abilities": "all" if own.get("abilities") is None else ", ".join(own["abilities"]) or "none",
        "is_told_facts": bool(own.get("grounded")),
    }
