"""The public Python API, imported on first use, and the version.

from mflamingo_cli import load
with load("mini") as model:
    print(model.analyze("song.mp3").tempo.bpm)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_API = {
    "Analysis": "schema",
    "AudioError": "errors",
    "MFlamingoError": "errors",
    "Model": "api",
    "ModelError": "errors",
    "Piece": "requests",
    "Step": "requests",
    "UsageError": "errors",
    "load": "api",
}

if TYPE_CHECKING:  # the same names for type checkers, who then also know which names there are not
    from mflamingo_cli.api import Model as Model
    from mflamingo_cli.api import load as load
    from mflamingo_cli.errors import AudioError as AudioError
    from mflamingo_cli.errors import MFlamingoError as MFlamingoError
    from mflamingo_cli.errors import ModelError as ModelError
    from mflamingo_cli.errors import UsageError as UsageError
    from mflamingo_cli.requests import Piece as Piece
    from mflamingo_cli.requests import Step as Step
    from mflamingo_cli.schema import Analysis as Analysis
else:

    def __getattr__(name: str) -> Any:
        if name not in _API:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_API[name]}"), name)


__all__ = ["__version__", *_API]


def __dir__() -> list[str]:
    return sorted(__all__)
