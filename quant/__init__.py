"""Checkpoints of transformers -> GGUF, for `mflamingo models convert` and `verify`; imports nothing from mflamingo_cli."""
