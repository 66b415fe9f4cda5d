"""The front end's numbers are those of transformers' WhisperFeatureExtractor."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mflamingo_cli.core.mel import LogMel, mel_filters, n_audio_tokens, valid_frames
from quant.geometry import MelConfig

CONFIGS = [
    MelConfig(),  # Music Flamingo 8 B
    MelConfig(n_mels=80, window_s=10),  # Whisper, small sizes
    MelConfig(n_fft=2048, n_mels=256, window_s=5),  # mini, shorter
    MelConfig(n_fft=1024, window_s=5),
    MelConfig(n_fft=512, hop_length=128, n_mels=64, window_s=4),
    MelConfig(hop_length=150, n_mels=40, window_s=7),  # a hop that does not divide the window
    MelConfig(n_fft=401, hop_length=441, n_mels=80, window_s=5),  # odd, and frames with gaps between them
]
EXACT = 1e-6  # of features around 1: a few float32 steps from the same sums in double precision (seen: 2.4e-7)
EQUAL = 1e-5  # the extractor's torch road works in float32 and promises no more itself (seen: 1.0e-5 less a third, on broadband sound)
TORCH_ON_TONES = 2e-4  # its float32 transform of pure tones is this far from double precision (seen: 9.7e-5); ours is not


def signals(config: MelConfig) -> dict[str, NDArray[np.float32]]:
    """Windows that are loud, faint, broad, narrow, sudden and silent."""
    n = config.window_samples
    t = np.arange(n) / config.sample_rate
    noise = np.random.default_rng(0).standard_normal(n)
    return {
        "noise": (0.1 * noise).astype(np.float32),
        "faint": (1e-4 * noise).astype(np.float32),
        "tone": (0.5 * np.sin(2 * np.pi * 440.0 * t)).astype(np.float32),
        "chord": sum(0.2 * np.sin(2 * np.pi * hz * t) * np.exp(-3 * (t % 1)) for hz in (261.6, 329.6, 392.0, 2093.0)).astype(np.float32),
        "clicks": (np.arange(n) % 16_000 == 0).astype(np.float32),
        "silence": np.zeros(n, np.float32),
    }


def lengths(config: MelConfig) -> list[int]:
    """Whole and partial windows: cut inside the mirrored edge, beside it, in the middle, inside the first frame."""
    n, half = config.window_samples, config.n_fft // 2
    return [n, n - half + 1, n - half, n // 2 + 3, half, 3]


@pytest.fixture(params=CONFIGS, ids=lambda c: f"{c.n_fft}-{c.hop_length}-{c.n_mels}-{c.window_s}s")
def config(request: pytest.FixtureRequest) -> MelConfig:
    """Every size under test."""
    assert isinstance(request.param, MelConfig)
    return request.param


def extractor(config: MelConfig):  # type: ignore[no-untyped-def]
    """Transformers' own front end for a configuration."""
    transformers = pytest.importorskip("transformers")
    return transformers.WhisperFeatureExtractor(
        feature_size=config.n_mels, hop_length=config.hop_length, n_fft=config.n_fft, chunk_length=config.window_s
    )


def padded(samples: NDArray[np.float32], config: MelConfig) -> NDArray[np.float32]:
    """A full window."""
    return np.pad(samples, (0, config.window_samples - samples.size))


@pytest.mark.slow
def test_features_equal_the_extractors_double_precision_road(config: MelConfig) -> None:
    theirs, ours = extractor(config), LogMel(config)
    for name, signal in signals(config).items():
        for n in lengths(config):
            want = theirs._np_extract_fbank_features([padded(signal[:n], config)], "cpu")[0]
            got = ours(signal[:n])
            assert got.dtype == np.float32
            assert got.shape == want.shape == (config.n_mels, config.n_frames)
            assert np.abs(got - want).max() <= EXACT, (name, n)


def test_features_equal_the_extractor_as_transformers_runs_it(config: MelConfig) -> None:
    pytest.importorskip("torch")
    theirs, ours = extractor(config), LogMel(config)
    for name, signal in signals(config).items():
        for n in lengths(config):
            want = theirs(signal[:n], sampling_rate=16_000, return_tensors="np")["input_features"][0]
            tolerance = TORCH_ON_TONES if name in ("tone", "chord") else EQUAL
            assert np.abs(ours(signal[:n]) - want).max() <= tolerance, (name, n)


def test_filters_equal_the_extractors(config: MelConfig) -> None:
    assert np.abs(mel_filters(config) - extractor(config).mel_filters).max() < 1e-14  # double precision rounding of weights below 1


def test_valid_frames_count_the_attention_mask(config: MelConfig) -> None:
    theirs, hop, full = extractor(config), config.hop_length, config.window_samples
    edges = {n + d for n in (hop, 2 * hop, 3 * hop, full // 2 // hop * hop, full) for d in (-2, -1, 0, 1, 2)}
    for n in sorted(n for n in edges if n <= full):
        mask = theirs(np.zeros(n, np.float32), sampling_rate=16_000, return_tensors="np", return_attention_mask=True)["attention_mask"]
        assert min(valid_frames(n, hop), config.n_frames) == mask.sum(), n


def test_token_counts_are_the_encoders() -> None:
    module = pytest.importorskip("transformers.models.audioflamingo3.modeling_audioflamingo3")
    frames = range(3001)
    _, want = module.AudioFlamingo3Encoder._get_feat_extract_output_lengths(None, np.arange(3001))
    assert [n_audio_tokens(f) for f in frames] == want.tolist()


def test_token_counts_of_a_song_are_the_sum_over_its_windows() -> None:
    for tail in range(1, 3001):
        assert n_audio_tokens(6000 + tail) == 1500 + n_audio_tokens(tail)


@pytest.mark.parametrize(("frames", "tokens"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (6, 1), (7, 2), (3000, 750)])
def test_a_token_needs_three_frames(frames: int, tokens: int) -> None:
    assert n_audio_tokens(frames) == tokens


def test_silence_and_no_samples_are_the_floor(config: MelConfig) -> None:
    for n in (0, 1, 1000):
        assert (abs(LogMel(config)(np.zeros(n, np.float32)) + 1.5) <= EXACT).all()  # (log10(1e-10) + 4) / 4


def test_quiet_parts_are_lifted_to_two_below_the_loudest_of_their_own_window() -> None:
    signal = signals(MelConfig())["clicks"]
    mel = LogMel(MelConfig())(signal)
    assert mel.min() == pytest.approx(mel.max() - 2.0, abs=EXACT)  # 8 decades / 4


def test_a_window_does_not_know_its_neighbours_and_a_front_end_has_no_state() -> None:
    ours, all_signals = LogMel(MelConfig()), signals(MelConfig())
    alone = {name: ours(x) for name, x in all_signals.items()}
    for name in reversed(all_signals):
        assert (ours(all_signals[name]) == alone[name]).all()
