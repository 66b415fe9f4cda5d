"""Checkpoints -> GGUF, quantised and verified; imports nothing from mflamingo_cli."""
