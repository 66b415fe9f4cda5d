"""What several test modules share: a small random model as a GGUF pair, and a short song."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import soundfile

NUMBERS = count()


@pytest.fixture(autouse=True)
def own_cache_and_settings(tmp_path_factory, monkeypatch) -> None:
    """A cache and a run store that no other test has filled and settings that nobody has made, never the user's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "nobody"))
    number = next(NUMBERS)
    monkeypatch.setenv("MFLAMINGO_CACHE", str(tmp_path_factory.getbasetemp() / f"cache-{number}"))
    monkeypatch.setenv("MFLAMINGO_STATE", str(tmp_path_factory.getbasetemp() / f"state-{number}"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A GGUF pair of random weights with the embedded model's front end: its answers are noise, its plumbing is real."""
    from quant.convert import convert
    from tests import checkpoints

    folder = tmp_path_factory.mktemp("tiny")
    source = checkpoints.write(folder / "tiny", "musicflamingo", "mini")
    convert(source, folder / "gguf", "F16")
    return folder / "gguf"


@pytest.fixture(scope="session")
def tmp_song(tmp_path_factory) -> Path:
    """Four seconds of a chord that beats twice a second."""
    rate_hz = 22_050
    t = np.arange(4 * rate_hz) / rate_hz
    sound = sum(np.sin(2 * np.pi * hz * t) for hz in (220.0, 261.6, 329.6)) * np.exp(-6.0 * (t % 0.5)) * 0.2
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    soundfile.write(path, sound, rate_hz)
    return path
