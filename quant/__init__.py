"""Checkpoints of transformers -> GGUF, for `mflamingo models convert` and `verify`; stands alone.

NumPy is imported by the functions that use it: `mflamingo --help` reads the table of types.
"""

from quant.convert import BlockWritten, Conversion, convert, plan
from quant.errors import QuantError
from quant.types import TYPES
from quant.verify import TensorReport, TypeReport, by_type, verify, verifying

__all__ = [
    "TYPES",
    "BlockWritten",
    "Conversion",
    "QuantError",
    "TensorReport",
    "TypeReport",
    "by_type",
    "convert",
    "plan",
    "verify",
    "verifying",
]
