"""Checkpoints of transformers -> GGUF, for `mflamingo models convert` and `verify`; stands alone. Names are bound lazily.

The base of all errors stands in here, and `mflamingo --help` must not wait for the rest. Two functions have the names of their modules,
which nobody imports by that name: the function takes the module's place.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "convert": ("BlockWritten", "Conversion", "convert", "plan"),
    "errors": ("QuantError",),
    "types": ("TYPES",),
    "verify": ("TensorReport", "TypeReport", "by_type", "verify", "verifying"),
}

if TYPE_CHECKING:
    from quant.convert import BlockWritten as BlockWritten
    from quant.convert import Conversion as Conversion
    from quant.convert import convert as convert
    from quant.convert import plan as plan
    from quant.errors import QuantError as QuantError
    from quant.types import TYPES as TYPES
    from quant.verify import TensorReport as TensorReport
    from quant.verify import TypeReport as TypeReport
    from quant.verify import by_type as by_type
    from quant.verify import verify as verify
    from quant.verify import verifying as verifying
else:

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                module = import_module(f"{__name__}.{home}")
                globals().update({each: getattr(module, each) for each in names})
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [name for names in _HOMES.values() for name in names]
