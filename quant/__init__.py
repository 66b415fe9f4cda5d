"""Checkpoints of transformers -> GGUF, for `mflamingo models convert` and `verify`; stands alone.

NumPy is imported by the functions that use it: `mflamingo --help` reads the table of types.
"""

from quant.convert import Plan, Progress, convert, plan
from quant.layout import QuantError
from quant.types import TYPES
from quant.verify import TensorReport, TypeReport, by_type, verify, verifying

__all__ = ["TYPES", "Plan", "Progress", "QuantError", "TensorReport", "TypeReport", "by_type", "convert", "plan", "verify", "verifying"]
