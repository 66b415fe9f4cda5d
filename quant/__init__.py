"""Checkpoints -> GGUF, quantised and verified; imports nothing of mflamingo_cli."""
