"""How good a small model is: what it says of music it never heard, beside truth, constant answers, chance, and other estimators."""

from mflamingo_cli.train.evaluate.caption_metrics import copied, invented
from mflamingo_cli.train.evaluate.music import mirex, parsed_key
from mflamingo_cli.train.evaluate.report import EvalConfig, report

__all__ = ["EvalConfig", "copied", "invented", "mirex", "parsed_key", "report"]
