"""Batches of the dense stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.frames import Clip
from mflamingo_cli.train.objectives import draw_crops


def test_crops_longer_than_every_clip_are_one_error_not_an_endless_search(tmp_path: Path) -> None:
    clips = [Clip({"index": index, "duration": 22.0}, tmp_path) for index in range(3)]
    with pytest.raises(UsageError, match="no clip is as long as the stage's crops of 30 s"):
        draw_crops(np.random.default_rng(0), clips, 750, 2)
