"""Batches and losses of the encoder's stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mflamingo_cli.errors import ModelError, UsageError
from mflamingo_cli.train.mini import build, objectives, probes
from mflamingo_cli.train.mini.frames import LABELS_PER_TOKEN, TOKEN_S, Clip

LENGTH = 6


def test_crops_longer_than_every_clip_are_one_error_not_an_endless_search(tmp_path: Path) -> None:
    clips = [Clip({"index": index, "duration": 22.0}, tmp_path) for index in range(3)]
    with pytest.raises(UsageError, match="no clip is as long as the stage's crops of 30 s"):
        objectives.draw_crops(np.random.default_rng(0), [(clips, 1.0)], 375, 2)


def clip_with(folder: Path, labels: dict[str, np.ndarray], row: dict) -> Clip:
    (folder / "cache").mkdir(parents=True)
    clip = Clip({"index": 0, "duration": LENGTH * TOKEN_S, **row}, folder)
    np.savez(f"{clip.stem}.labels.npz", **{name: values.repeat(LABELS_PER_TOKEN, axis=0) for name, values in labels.items()})
    return clip


def some_logits(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn(1, LENGTH, size) for name, size in probes.HEAD_SIZES.items()}


def batch_of(labels: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value)[None] for name, value in labels.items()}


def test_labels_that_a_clip_has_not_cost_nothing(tmp_path: Path) -> None:
    nothing = batch_of(probes.labels_of(clip_with(tmp_path / "a", {}, {}), 0, LENGTH))
    terms = probes.probe_losses(some_logits(), nothing)
    assert set(terms) == set(probes.PROBE_WEIGHTS)
    assert all(float(term) == 0 for term in terms.values())
    assert "key_acc" not in probes.probe_accuracies(some_logits(), nothing)


def test_unknown_tokens_and_flags_are_left_out_of_the_mean(tmp_path: Path) -> None:
    root, vocals = np.array([3, -1, 3, 12, 3, -1], np.int8), np.array([1, 255, 0, 1, 255, 255], np.uint8)
    known = clip_with(tmp_path / "a", {"root": root, "vocals": vocals}, {"tonic": 9, "mode": "minor", "meter": "3/4", "style": "jazz"})
    labels, logits = batch_of(probes.labels_of(known, 0, LENGTH)), some_logits()
    terms = probes.probe_losses(logits, labels)
    kept = root >= 0
    expected = torch.nn.functional.cross_entropy(logits["root"][0][kept], torch.from_numpy(root[kept].astype(np.int64)))
    assert float(terms["root"]) == pytest.approx(float(expected), rel=1e-5)
    heard = vocals < 255
    sung = torch.from_numpy(vocals[heard]).float() * 254 / 255
    voice = torch.nn.functional.binary_cross_entropy_with_logits(logits["vocals"][0, heard, 0], sung)
    assert float(terms["vocals"]) == pytest.approx(float(voice), rel=1e-5)
    assert int(labels["key"][0, 0]) == 21
    assert float(terms["clip_meter"]) > 0


def test_a_crop_with_two_keys_has_no_key_of_its_own(tmp_path: Path) -> None:
    moving = clip_with(tmp_path / "a", {"key": np.array([0, 0, 0, 7, 7, 7], np.int8)}, {"tonic": 0, "mode": "major"})
    terms = probes.probe_losses(some_logits(), batch_of(probes.labels_of(moving, 0, LENGTH)))
    assert float(terms["key"]) > 0
    assert float(terms["clip_key"]) == 0


def test_teacher_tags_are_probabilities(tmp_path: Path) -> None:
    tags = np.full((LENGTH, probes.HEAD_SIZES["tags"]), 51, np.uint8)  # 0.2
    labels = batch_of(probes.labels_of(clip_with(tmp_path / "a", {"tags": tags}, {}), 0, LENGTH))
    logits = {name: torch.zeros(1, LENGTH, size) for name, size in probes.HEAD_SIZES.items()}
    best = {**logits, "tags": torch.full_like(logits["tags"], float(np.log(0.2 / 0.8)))}
    assert float(probes.probe_losses(best, labels)["tags"]) < float(probes.probe_losses(logits, labels)["tags"])
    assert float(probes.probe_losses(best, labels)["tags"]) == pytest.approx(0.5004, abs=1e-3)  # the entropy of 0.2


def test_a_teachers_singing_goes_before_what_is_sure_of_it(tmp_path: Path) -> None:
    singing, vocals = np.array([0, 51, 102, 153, 204, 254], np.uint8), np.array([0, 255, 255, 1, 1, 1], np.uint8)
    taught = probes.labels_of(clip_with(tmp_path / "a", {"singing": singing, "vocals": vocals}, {}), 0, LENGTH)
    known = probes.labels_of(clip_with(tmp_path / "b", {"vocals": vocals}, {}), 0, LENGTH)
    assert taught["vocals"][:, 0].tolist() == singing.tolist()
    assert known["vocals"][:, 0].tolist() == [0, 255, 255, 254, 254, 254]


def test_a_stretched_crop_has_its_labels_where_its_sound_is(tmp_path):
    (tmp_path / "cache").mkdir()
    clip = Clip({"index": 0, "duration": 16.0}, tmp_path)
    beat = np.zeros(400, np.uint8)
    beat[200] = 1  # at 8 s
    mel = np.zeros((800, 256), np.float16)
    mel[400] = 1.0
    np.save(f"{clip.stem}.mel.npy", mel)
    np.savez(f"{clip.stem}.labels.npz", beat=beat)
    for rate in (0.8, 1.0, 1.25):
        heard, labels = objectives.crop(clip, 50, 80, rate)  # from 4 s
        assert heard.shape == (320, 256)
        (at,) = np.flatnonzero(labels["beat"])
        assert abs(at - 50 / rate) <= 1
        assert abs(int(heard[:, 0].argmax()) / 4 - at) <= 1


def test_heads_of_another_version_are_refused_in_one_sentence(tmp_path: Path) -> None:
    sizes = build.ModelSizes(
        d_audio=64, audio_layers=1, audio_heads=1, audio_ffn=64, n_mels=16, d_text=64, text_layers=1, text_heads=1, text_kv_heads=1
    )
    ids = {name: i for i, name in enumerate(("<|endoftext|>", "<|im_end|>", "<sound>", "<|sound_bos|>", "<|sound_eos|>"))}
    model = build.build(sizes, ids, 64, seed=0)
    heads = probes.LinearProbes(model)
    probes.save_probes(heads, tmp_path)
    assert probes.load_probes(tmp_path, model).heads.keys() == heads.heads.keys()
    del heads.heads["onsets"]
    probes.save_probes(heads, tmp_path)
    with pytest.raises(ModelError, match="export the checkpoint again"):
        probes.load_probes(tmp_path, model)
