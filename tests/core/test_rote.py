"""RoTE tables equal transformers' own and the golden values computed from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import MusicFlamingoConfig
from transformers.models.musicflamingo.modeling_musicflamingo import MusicFlamingoRotaryEmbedding

from mflamingo_cli.core.rote import tables
from quant.geometry import Rote

ROTE_8B = Rote(theta=1200.0, dim=256, n_positions=1200, frame_step_s=0.01)
TOKENS = 750
CHANNELS = (0, 2, 255, 256, 258, 511)
GOLDEN = {  # (window, token) -> cosines, sines at CHANNELS; computed with transformers 5.23.0 on the 8 B geometry
    (0, 1): ((1, 1, 1, 0.999999, 0.999999, 1), (0, 0, 0, -0.001316, -0.001245, -0.000001)),
    (0, 749): ((1, 1, 1, -0.999648, 0.511682, 0.795936), (0, 0, 0, -0.026529, -0.859175, -0.605381)),
    (1, 0): ((0.987688, 0.988977, 1, 1, 1, 1), (-0.156434, -0.148069, -0.000138, 0, 0, 0)),
    (1, 749): ((0.951121, 0.956209, 1, 0.595704, -0.989982, 0.26619), (-0.308818, -0.292684, -0.000277, -0.803204, -0.141192, -0.963921)),
    (39, 0): ((0.987688, 0.988672, 0.97794, 1, 1, 1), (-0.156434, 0.150095, -0.208888, 0, 0, 0)),
    (39, 749): (
        (0.999967, 0.798741, 0.9768, 0.948478, -0.677867, 0.613024),
        (0.008186, 0.601675, -0.214155, 0.316843, -0.735185, -0.790064),
    ),
}
GOLDEN_TOLERANCE = 2e-3  # one float32 rounding of an angle of 3e4 rad; machines differ by that much
SAME_MACHINE_TOLERANCE = 2e-3


@pytest.mark.parametrize(("place", "values"), GOLDEN.items(), ids=str)
def test_tables_hold_the_golden_values(place: tuple[int, int], values: tuple[tuple[float, ...], ...]) -> None:
    window, token = place
    got = [table[token, list(CHANNELS)] for table in tables(ROTE_8B, window, TOKENS, TOKENS)]
    np.testing.assert_allclose(got, values, atol=GOLDEN_TOLERANCE)


@pytest.mark.parametrize("d_audio", [1280, 192, 128, 96, 64])
def test_tables_equal_transformers_in_every_window(d_audio: int) -> None:
    config = MusicFlamingoConfig(audio_config={"hidden_size": d_audio, "model_type": "audioflamingo3_encoder"}, rope_parameters=None)
    rotary = MusicFlamingoRotaryEmbedding(config)
    rote = Rote(theta=1200.0, dim=int(d_audio * 0.2), n_positions=1200, frame_step_s=0.01)
    for window in (0, 1, 7, 39):
        step = 0.01 * 4
        timestamps = torch.tensor([[window]]) * TOKENS * step + torch.arange(TOKENS, dtype=torch.float32) * step
        cos, sin = (table[0].numpy() for table in rotary(timestamps, seq_len=TOKENS))
        ours = tables(rote, window, TOKENS, TOKENS)
        np.testing.assert_allclose(ours[0], cos, atol=SAME_MACHINE_TOLERANCE)
        np.testing.assert_allclose(ours[1], sin, atol=SAME_MACHINE_TOLERANCE)


def test_first_window_is_turned_too() -> None:
    cos, _ = tables(ROTE_8B, 0, TOKENS, TOKENS)
    assert np.all(cos[:, :256] == 1), "the window axis rests in window 0"
    assert cos[:, 256:].min() < 0, "the time axis does not"


def test_a_short_table_is_the_beginning_of_the_whole() -> None:
    whole, part = tables(ROTE_8B, 3, TOKENS, TOKENS), tables(ROTE_8B, 3, 11, TOKENS)
    np.testing.assert_array_equal(whole[0][:11], part[0])
    np.testing.assert_array_equal(whole[1][:11], part[1])
