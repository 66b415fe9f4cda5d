"""mflamingo: what a song is, in words and numbers, on your own computer. The public Python API, bound lazily."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_API = {
    "Analysis": "schema",
    "Audio": "core.audio",
    "GenerateOptions": "backends.base",
    "MFlamingoError": "errors",
    "Prompt": "backends.base",
    "analyze": "pipeline",
    "ask": "pipeline",
    "caption": "pipeline",
    "load": "core.audio",
    "measure": "measure",
    "open_backend": "backends",
    "think": "pipeline",
}
__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_API[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
