"""The generator: rendering where its tools are installed, levels, mixes, what a clip does not bear, and going on after a stop."""

from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.errors import ModelError
from mflamingo_cli.train.mini.synth import arrange, compose, grooves, parts, player
from mflamingo_cli.train.mini.synth import render as synth
from mflamingo_cli.train.mini.synth.parts import DRUMS, SUNG, Note, Part

FONT = Path(synth.SOUNDFONTS["TimGM6mb"][0])
RATE = synth.SAMPLE_RATE


def needs_player():
    try:
        player.library()
    except ModelError:
        pytest.skip("libfluidsynth is not installed")
    if not FONT.exists():
        pytest.skip("the soundfont TimGM6mb is not installed")


def own_plan(seed=0, seconds=12.0):
    return compose.plan_song(np.random.default_rng(seed), grooves.own("4/4"), seconds)


def test_stems_are_deterministic_and_apart():
    needs_player()
    song = own_plan()
    played = [
        (0, Part("chords", 0, (Note(0, 2, 60, 90),))),
        (DRUMS, Part("drums", 0, (Note(2, 1, 36, 100),))),
        (SUNG, Part("melody", SUNG, (Note(1, 2, 57, 90),))),
    ]
    window, midi = synth.ClipWindow(0.0, 1.0, 2.0), synth.midi_bytes(played, song.mma_tempo)
    first, second = (synth.stems(np.random.default_rng(1), song, played, midi, "TimGM6mb", window) for _ in range(2))
    assert first.shape == (3, 2 * RATE)
    assert np.array_equal(first, second)
    assert np.abs(first[0]).max() > 0.01
    assert np.abs(first[0, : RATE // 4]).max() > 0.01
    silent = int(1.9 * 60 / song.mma_tempo * RATE)
    assert np.abs(first[1, : min(silent, RATE)]).max() < 1e-3  # the drum comes on beat 2


@pytest.mark.parametrize("kind", ["own", "solo", "duo", "trio", "drums"])
def test_every_ensemble_plays(kind, tmp_path):
    song = own_plan(3)
    played, styled = arrange.assemble(np.random.default_rng(2), kind, song, tmp_path)
    channels = [channel for channel, _ in played]
    assert len(set(channels)) == len(channels)
    assert not styled  # nobody plays a groove
    assert all(part.notes for _, part in played)
    assert all((channel == DRUMS) == (part.role == "drums") for channel, part in played)


def test_facts_that_the_parts_do_not_support_are_left_out():
    facts = synth.exact_facts(own_plan(), synth.ClipWindow(0.0, 1.0, 10.0))
    drums, tune = Part("drums", 0, (Note(0, 1, 36, 90),)), Part("melody", 73, (Note(0, 1, 72, 90),))
    assert not {"tonic", "mode", "keys", "style"} & set(synth.supported_facts(facts, [drums], True))
    assert synth.supported_facts(facts, [drums], True)["chords"] == []
    assert "chords" not in synth.supported_facts(facts, [tune], True)
    assert "tonic" in synth.supported_facts(facts, [tune], True)


def test_levels_are_relative_to_the_mix():
    t = np.arange(RATE) / RATE
    loud, quiet = np.sin(440 * t), 0.01 * np.sin(660 * t)
    rows = np.stack([loud, quiet]).astype(np.float32)
    db = synth.relative_levels(rows, rows.sum(0))
    assert db.shape == (2, 25)
    assert np.abs(db[0]).max() <= 1
    assert (np.abs(db[1] + 40) <= 1).all()
    assert synth.family_levels(["piano", "bass"], rows) == {"piano": 0.0, "bass": pytest.approx(-40, abs=0.1)}


def test_a_mix_keeps_a_lead_near_the_others():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, RATE)).astype(np.float32) * np.array([[0.1], [0.0001]], np.float32)
    played = [(0, Part("chords", 0, (Note(0, 1, 60, 90),))), (SUNG, Part("melody", SUNG, (Note(0, 1, 60, 90),)))]
    samples, row = synth.mix(rng, played, rows)
    assert row["vocals"]
    assert -18.5 < row["vocals_db"] < 5.5
    assert row["instruments"] == {"piano": 0.0}
    assert len(samples) == RATE


@pytest.mark.parametrize("seed", range(12))
def test_no_music_bears_nothing(seed):
    samples, row = synth.no_music(np.random.default_rng(seed), 2.0)
    assert len(samples) == 2 * RATE
    assert np.abs(samples).max() <= 1
    assert not {"tonic", "tempo", "meter"} & set(row)
    assert row["chords"] == []
    assert row["music"] is False


def test_a_clip_without_mma_is_a_function_of_its_seed(tmp_path, monkeypatch):
    needs_player()
    monkeypatch.setattr(synth, "KINDS", {"duo": 1.0})
    monkeypatch.setattr(synth, "LENGTHS", ((1.0, 3.0, 3.0),))
    monkeypatch.setattr(synth, "TRAIN_FONTS", (("TimGM6mb", 1.0),))
    configs = [synth.SynthConfig(tmp_path / name, tmp_path, 1) for name in "ab"]
    rows = [synth.render_clip(np.random.default_rng(4), 0, config) for config in configs]
    assert rows[0] == rows[1]
    audio = [(config.out / "train" / "audio" / "000000.flac").read_bytes() for config in configs]
    assert audio[0] == audio[1]


def test_families_have_names_for_what_is_played():
    assert Part("chords", 71, ()).family == "woodwind"  # a clarinet is no saxophone
    assert Part("chords", 52, ()).family == "choir"
    assert Part("drums", 8, ()).family == "drums"
    assert Part("melody", SUNG, ()).family == "vocals"
    assert Part("chords", 127, ()).family is None
    assert set(parts.FAMILY_PROGRAMS) == set(parts.FAMILIES)
