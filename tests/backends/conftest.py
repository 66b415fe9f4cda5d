"""What tests of the back ends share: every choice of a token, seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mflamingo_cli.backends import generation, pytorch


@pytest.fixture
def picked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, np.ndarray]]:
    """Every token that a back end chose, with its logits, in order."""
    record: list[tuple[int, np.ndarray]] = []
    pick, choose = generation.Sampler.pick, pytorch.choose

    def recording_pick(self: generation.Sampler, logits: np.ndarray) -> int:
        record.append((pick(self, logits), logits))
        return record[-1][0]

    def recording_choose(logits: torch.Tensor, samplers: list[generation.Sampler]) -> list[int]:
        tokens = choose(logits, samplers)
        record.extend(zip(tokens, logits.numpy(), strict=True))
        return tokens

    monkeypatch.setattr(generation.Sampler, "pick", recording_pick)
    monkeypatch.setattr(pytorch, "choose", recording_choose)
    return record
