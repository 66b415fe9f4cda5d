"""`mflamingo doctor`: what is installed and what works, to read or to paste into an issue."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Annotated

import typer

from mflamingo_cli import __version__
from mflamingo_cli.commands.tables import show, show_json, table
from mflamingo_cli.errors import ModelError

REQUIRED = ("numpy", "soundfile", "soxr", "ffmpeg-python", "gguf", "jinja2", "typer", "rich")
EXTRAS = {
    "torch": ("torch", "transformers", "tokenizers", "safetensors"),
    "hub": ("huggingface_hub",),
    "tags": ("mutagen",),
    "ray": ("ray",),
}
MARKS = {True: ("ok", "green"), False: ("missing", "red"), None: ("", "dim")}


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `ok` is None where the embedded model does not need it."""

    name: str
    value: str
    ok: bool | None = None


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, libraries, devices and models. Exit code 69 when the embedded model cannot run here."""
    findings = [finding for probe in (_system, _libraries, _models) for finding in probe()]
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        from rich.text import Text

        from mflamingo_cli.render.text import safe

        rows = table(None, None, None)
        for finding in findings:
            rows.add_row(finding.name, Text(*MARKS[finding.ok]), Text(safe(finding.value), overflow="fold"))
        show(rows)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(69)


def _system() -> list[Finding]:
    return [
        Finding("mflamingo", __version__),
        Finding("python", f"{platform.python_version()} ({sys.executable})"),
        Finding("system", f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} logical cores"),
    ]


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _libraries() -> list[Finding]:
    found = [Finding(name, version or "not installed", version is not None) for name in REQUIRED for version in [_version(name)]]
    for extra, names in EXTRAS.items():
        versions = {name: _version(name) for name in names}
        text = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        found.append(Finding(f"[{extra}]", text or f"not installed: pip install 'mflamingo-cli[{extra}]'"))
    ffmpeg = shutil.which("ffmpeg")
    return [
        *found,
        _attempt("ggml, llama.cpp", _provider),
        _attempt("libsndfile", lambda: str(import_module("soundfile").__libsndfile_version__)),
        Finding("ffmpeg", ffmpeg or "not found: m4a, aac, wma and video cannot be read (wav, flac, ogg, opus and mp3 can)"),
    ]


def _provider() -> str:
    """The package that brings the C libraries, and what its kernels use of this processor."""
    from mflamingo_cli.backends.ggml.binding import library

    loaded = library()
    features = " ".join(loaded.llama_print_system_info().decode().split())
    return f"{loaded.provider.name} {loaded.provider.version()}, ggml {loaded.ggml_version().decode()} ({features.rstrip(' |')})"


def _attempt(name: str, probe: Callable[[], str]) -> Finding:
    """A probe of a library that may be broken in any way: the reason is the finding."""
    try:
        return Finding(name, probe(), True)
    except Exception as error:  # of any broken library: the reason is the finding
        return Finding(name, f"{type(error).__name__}: {error}", False)


def _models() -> list[Finding]:
    from mflamingo_cli.backends.options import DEFAULT_MODEL
    from mflamingo_cli.models.registry import listed

    found = [_attempt(f"model {DEFAULT_MODEL}", _open_embedded)]
    here = [row["name"] for row in listed() if row["state"] == "downloaded"]
    return [*found, Finding("downloaded", ", ".join(here) or "none"), Finding("hub cache", _hub_cache())]


def _hub_cache() -> str:
    from mflamingo_cli.store.hub import hub_cache

    try:
        cache = hub_cache()
    except ModelError as error:
        return str(error)
    try:
        os.listdir(cache)
    except FileNotFoundError:
        return f"{cache} (not made yet)"
    except OSError as error:
        return f"{cache} (cannot be read: {error.strerror or error})"
    return str(cache)


def _open_embedded() -> str:
    """Opens the embedded model for real, as `analyze` does."""
    from mflamingo_cli.backends import open_backend
    from mflamingo_cli.commands.terminal import reserve_stdout

    with reserve_stdout(), open_backend() as backend:
        info = backend.info
        return f"{info.backend} on {info.device}, {info.dtype} ({info.reason})"
